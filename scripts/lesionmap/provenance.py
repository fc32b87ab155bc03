"""Where a result comes from: the code that made it, by digest, and the versions it ran with."""

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lesionmap

PACKAGE = Path(__file__).parent
SCRIPTS = PACKAGE.parent
NO_RESULTS = (  # how a slide comes to a job, which is checked by its identity; how a job ends and what it says
    *("lesionmap/addresses.py", "lesionmap/copies.py", "lesionmap/remote.py"),
    *("lesionmap/errors.py", "lesionmap/logs.py", "lesionmap/quarantine.py", "lesionmap/storage.py"),
)
RECORDED_LIBRARIES = (
    *("openslide-python", "openslide-bin", "tifffile", "imagecodecs", "simplejpeg"),  # pixels
    *("numpy", "torch", "torchvision", "h5py", "hdf5plugin"),
)


def code_digest(script: str) -> str:
    """Digest of the logic that one rule runs: its adapter and every library module that its results depend on.

    Comments, docstrings and formatting do not count, so that editing them reruns nothing.

    Parameters
    ----------
    script : str
        Name of the rule, whose adapter is ``scripts/<script>.py``.

    Returns
    -------
    str
        16 hexadecimal digits.
    """
    reached: dict[str, str] = {}
    waiting = [SCRIPTS / f"{script}.py"]
    while waiting:
        path = waiting.pop()
        name = path.relative_to(SCRIPTS).as_posix()
        if name not in (*reached, *NO_RESULTS):
            reached[name], imported = _logic(path.suffix, path.read_text(encoding="utf-8"))
            waiting.extend(PACKAGE / f"{module}.py" for module in imported)
            waiting.extend(PACKAGE.glob(f"templates/{path.stem}/*"))  # those of a module lie in a folder of its name
    listing = "".join(f"{name}:{logic}\n" for name, logic in sorted(reached.items()))
    return hashlib.sha256(listing.encode()).hexdigest()[:16]


@cache
def _logic(suffix: str, text: str) -> tuple[str, tuple[str, ...]]:
    """The logic of a file and the modules of the library that it imports; most files are of many rules."""
    if suffix != ".py":
        return ast.dump(ast.Constant(text)), ()
    tree = ast.parse(text)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and _is_docstring(body[0]):
            node.body = body[1:]  # type: ignore[attr-defined]  # every node with a list body can lose its head
    return ast.dump(tree), tuple(_imported_modules(tree))


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _imported_modules(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("lesionmap."):
            yield node.module.split(".")[1]


def provenance(code: str, **facts: Any) -> dict[str, Any]:
    """The record that every artefact carries.

    Parameters
    ----------
    code : str
        The rule's :func:`code_digest`.
    **facts
        The slide's identity, the settings and whatever else decided the result; must be JSON-able.
    """
    versions = {name: version(name) for name in RECORDED_LIBRARIES}
    return {"software": f"LesionMap {lesionmap.__version__}", "code": code, **facts, "versions": versions}
