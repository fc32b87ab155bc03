"""The order of the library's folders, and the sizes that keep them readable."""

import ast
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
LIBRARY = SCRIPTS / "lesionmap"
FLOORS = (  # from the top: a folder imports only folders below it
    *(
        "experiments",
        "run",
        "report",
        "review",
        "training",
        "inference",
        "evaluation",
        "tiles",
        "viewer",
        "stain",
        "lesions",
        "metrics",
        "annotations",
    ),
    *("tissue", "slides", "servers", "network", "maps", "jobs", "demo", "geometry", "files"),
)
FOR_ALL = {"errors", "formatting", "plotting", "version"}
WITH_TORCH = {"network", "training", "inference"}
MOST_MODULES, MOST_LINES = 13, 400
LONG_FUNCTION, MOST_LONG = 25, 0.02

modules = pytest.mark.parametrize(
    "path", sorted(LIBRARY.rglob("*.py")), ids=lambda path: str(path.relative_to(LIBRARY))
)


def imported(path: Path) -> Iterator[str]:
    """Dotted names of the modules that a file imports, wherever it does."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports from .: say from lesionmap"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(path: Path) -> str:
    """The folder of a module, or the name of one that lies in none."""
    return path.relative_to(LIBRARY).with_suffix("").parts[0]


def points_up(importer: str, target: str) -> bool:
    """Whether an import goes to a folder above; modules outside folders use each other alone."""
    if target in FOR_ALL or target == importer:
        return False
    return importer in FOR_ALL or FLOORS.index(target) <= FLOORS.index(importer)


def test_the_folders_are_those_of_the_floors():
    folders = {path.name for path in LIBRARY.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == set(FLOORS)
    assert {path.stem for path in LIBRARY.glob("*.py")} == FOR_ALL | {"__init__"}


@modules
def test_imports_point_down(path):
    if path == LIBRARY / "__init__.py":
        return
    used = {name.split(".")[1] for name in imported(path) if name.startswith("lesionmap.")}
    assert [target for target in sorted(used) if points_up(room(path), target)] == []


@pytest.mark.parametrize(
    ("importer", "target", "up"),
    [
        ("stain", "run", True),
        ("training", "inference", False),
        ("inference", "training", True),
        ("files", "errors", False),
        ("errors", "files", True),
        ("maps", "maps", False),
    ],
)
def test_an_import_that_points_up_is_noticed(importer, target, up):
    assert points_up(importer, target) is up


@pytest.mark.parametrize("path", sorted((SCRIPTS.parent / "workflow/rules").glob("*.smk")), ids=lambda path: path.stem)
def test_what_a_rule_file_imports_is_there(path):
    """Also where it does so late, in a function that few runs call."""
    found = re.findall(r"^ *from (lesionmap[.\w]*) import ([\w, ]+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    for module, names in found:
        for name in names.strip().split(", "):
            importer = importlib.import_module(module)
            assert hasattr(importer, name) or importlib.util.find_spec(f"{module}.{name}")


@pytest.mark.parametrize("path", sorted((SCRIPTS.parent / "benchmarks").glob("*.py")), ids=lambda path: path.stem)
def test_what_a_benchmark_imports_is_there(path):
    """No other test runs them."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lesionmap"):
            module = importlib.import_module(node.module)
            names = [name.name for name in node.names]
            missing = [name for name in names if not hasattr(module, name)]
            assert not [name for name in missing if not importlib.util.find_spec(f"{node.module}.{name}")]


def test_inference_rests_on_nothing_of_training():
    used = {name for path in (LIBRARY / "inference").glob("*.py") for name in imported(path)}
    assert not [name for name in used if name.startswith("lesionmap.training")]


@modules
def test_torch_is_where_the_network_is(path):
    if any(name.split(".")[0] in ("torch", "torchvision") for name in imported(path)):
        assert room(path) in WITH_TORCH


@pytest.mark.parametrize("path", sorted(LIBRARY.rglob("__init__.py")), ids=lambda path: path.parent.name)
def test_a_folder_says_what_it_is_for_and_loads_nothing(path):
    (docstring,) = ast.parse(path.read_text(encoding="utf-8")).body
    assert isinstance(docstring, ast.Expr)
    assert isinstance(docstring.value, ast.Constant)
    assert isinstance(docstring.value.value, str)


@pytest.mark.parametrize("folder", FLOORS)
def test_a_folder_has_few_modules(folder):
    assert 2 <= len([path for path in (LIBRARY / folder).glob("*.py") if path.stem != "__init__"]) <= MOST_MODULES


@pytest.mark.parametrize("folder", FLOORS)
def test_a_folder_lists_the_modules_that_others_import(folder):
    names = {path.stem for path in (LIBRARY / folder).glob("*.py")} - {"__init__"}
    outside = [path for path in SCRIPTS.rglob("*.py") if path.parent != LIBRARY / folder]
    dotted = {name for path in outside for name in imported(path)}
    wanted = {name for name in names if any(use.startswith(f"lesionmap.{folder}.{name}.") for use in dotted)}
    said = re.findall("^- ``(.+?)``: ", (LIBRARY / folder / "__init__.py").read_text(encoding="utf-8"), re.MULTILINE)
    assert wanted <= set(said) <= names


@modules
def test_a_module_is_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


def test_few_functions_are_long():
    """Lines without the docstring."""
    functions = [
        node
        for path in LIBRARY.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    ]
    said = [
        (ast.get_docstring(node, clean=False) or "").count("\n") + bool(ast.get_docstring(node)) for node in functions
    ]
    lengths = [node.end_lineno - node.lineno + 1 - lines for node, lines in zip(functions, said, strict=True)]
    assert sum(length > LONG_FUNCTION for length in lengths) <= MOST_LONG * len(lengths)


@pytest.mark.parametrize("folder", sorted(set(FLOORS) - WITH_TORCH - {"run", "report"}))
def test_a_job_without_the_network_loads_no_torch(folder):
    names = [f"lesionmap.{folder}.{path.stem}" for path in sorted((LIBRARY / folder).glob("*.py"))]
    check = f"import {', '.join(names)}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], env={"PYTHONPATH": str(SCRIPTS)}).returncode == 0
