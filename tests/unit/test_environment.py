import ast
import importlib.util
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path

import pytest


def test_the_conda_environment_mirrors_the_lock(request):
    envs = request.config.rootpath / "envs"
    spec = importlib.util.spec_from_file_location("mirror", envs / "mirror.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (envs / "lesionmap.yaml").read_text() == module.mirror()


def test_the_lock_names_no_address(request):
    lock = (request.config.rootpath / "envs/requirements.lock").read_text()
    assert "://" not in lock
    assert not re.search(r"^\s*-", lock.replace("    --hash", ""), flags=re.MULTILINE)


def test_the_opencv_installed_is_the_one_without_libgl(request):
    lock = (request.config.rootpath / "envs/requirements.lock").read_text()
    assert re.findall(r"^opencv[a-z-]*", lock, flags=re.MULTILINE) == ["opencv-python-headless"]
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        importlib.metadata.distribution("opencv-python")
    (build,) = Path(importlib.util.find_spec("cv2").origin).parent.glob("cv2*.so")
    linked = subprocess.run(["ldd", build], capture_output=True, text=True, check=True).stdout
    assert "libc.so" in linked
    assert "libGL" not in linked


def test_both_images_hold_the_same(request):
    root = request.config.rootpath
    docker = (root / "envs/Dockerfile").read_text().replace("\\\n", "")
    apptainer = (root / "envs/apptainer.def").read_text()
    copied = set(re.findall(r"^COPY (\S+) \1$", docker, flags=re.MULTILINE)) - {"envs/requirements.lock"}
    assert copied == set(re.findall(r"^    (\S+) /opt/lesionmap/\1$", apptainer, flags=re.MULTILINE))
    assert copied == set(re.findall(r"^!(.+)", (root / ".dockerignore").read_text(), flags=re.MULTILINE))
    assert all((root / name).exists() for name in copied)
    assert re.search(r"^FROM \S+/(\S+)", docker, flags=re.MULTILINE)[1] == re.search(r"From: (\S+)", apptainer)[1]
    steps = re.findall(r"(?:apt-get|python3 -m venv|\.venv/bin/pip) [^&\n]*[^&\s]", docker)
    assert len(steps) == 5
    assert [step for step in steps if step not in apptainer] == []


def test_the_wheels_for_a_gpu_have_versions(request):
    """They are downloaded without what they depend on, so nothing may be without a version, or unknown."""
    envs = request.config.rootpath / "envs"
    locked = set(re.findall(r"^([^ =]+)==", (envs / "requirements.lock").read_text(), flags=re.MULTILINE))
    asked = [line for line in (envs / "gpu_check.txt").read_text().splitlines() if not line.startswith("#")]
    assert len(asked) > 30
    assert set(asked) <= locked
    assert not {"torch", "torchvision", "numpy", "numba", "h5py"} & set(asked)  # the machine's own


def imported(path):
    """Names of the modules that a file imports, without what follows their first dot."""
    if path.suffix == ".smk":  # Python with other words in it
        found = re.findall(r"^ *(?:from (\w+)\S* import|import (\w+))", path.read_text(), flags=re.MULTILINE)
        return {one or other for one, other in found}
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = [name.name for node in nodes if isinstance(node, ast.Import) for name in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.partition(".")[0] for name in names}


def requirements(lines):
    return {re.split(r"[>=\[ ]", line)[0] for line in lines if line and not line.startswith("#")}


@pytest.mark.parametrize("folder", ["tests", "docs", "envs", "workflow", "benchmarks"])
def test_what_the_linter_does_not_look_at_imports_nothing_undeclared(request, folder):
    """Deptry looks at scripts/."""
    root = request.config.rootpath
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    declared = requirements(chain(project["dependencies"], *project["optional-dependencies"].values()))
    if folder == "benchmarks":
        declared |= requirements((root / "envs/bench.txt").read_text().splitlines())
    ours = {path.stem for place in ("scripts", "tests", "benchmarks") for path in (root / place).rglob("*")}
    files = [path for path in (root / folder).rglob("*") if path.suffix in (".py", ".smk")]
    names = set().union(*map(imported, files)) - sys.stdlib_module_names
    sources = packages_distributions()
    packages = {name: {re.sub(r"[_.]", "-", one.lower()) for one in sources.get(name, [name])} for name in names - ours}
    assert len(files) > 0
    assert {name for name, one_of in packages.items() if not one_of & declared} == set()


def test_the_licence_for_machines_is_that_for_readers(request):
    root = request.config.rootpath
    assert (root / "LICENSES/MIT.txt").read_text() == (root / "LICENSE").read_text()
