"""Provenance of a result: a digest of the code that made it, and the library versions."""

import ast
import hashlib
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from subprocess import SubprocessError, run
from typing import Any

from lesionmap.version import VERSION

PACKAGE = Path(__file__).parents[1]
SCRIPTS = PACKAGE.parent
NO_RESULTS = (  # slide access, whose outcome the slide's identity checks; logs and error messages
    *("lesionmap/servers/urls.py", "lesionmap/slides/cache.py", "lesionmap/servers/remote.py"),
    *("lesionmap/jobs/log.py", "lesionmap/jobs/quarantine.py", "lesionmap/files/disk_errors.py"),
    *("lesionmap/errors.py", "lesionmap/version.py"),
)
RECORDED_LIBRARIES = (
    *("openslide-python", "openslide-bin", "tifffile", "imagecodecs", "simplejpeg"),  # pixels
    *("numpy", "torch", "torchvision", "h5py", "hdf5plugin"),
)
IGNORED_FIELDS = ("ctx", "kind", "type_comment")  # fields of a syntax tree that do not change its meaning


def code_digest(script: str) -> str:
    """Digest of the logic that one rule runs: its adapter and every library module that its results depend on.

    Comments, docstrings, formatting, import lines and file names do not count: editing them or moving code reruns
    nothing. Every Python version from 3.11 on gives the same digest.

    Parameters
    ----------
    script : str
        Name of the rule; its adapter is ``scripts/<script>.py``.

    Returns
    -------
    str
        16 hexadecimal digits.

    Raises
    ------
    ModuleNotFoundError
        If the code imports a library module that does not exist.
    """
    return _digest(SCRIPTS / f"{script}.py", {})[:16]


def _digest(path: Path, known: dict[Path, str]) -> str:
    """Digest of a file's logic, of its templates, and of the library modules whose names it uses."""
    if path not in known:
        known[path] = ""  # modules in NO_RESULTS keep this; it also ends import cycles
        place = path.relative_to(SCRIPTS)
        if place.as_posix() not in NO_RESULTS:
            logic = _logic(path.read_text(encoding="utf-8"), ".".join(place.parent.parts))
            used = (f"{name}@{_digest(_file(found), known)}" for found, name in map(_located, logic.used))
            texts = sorted(_sha256(part.read_text(encoding="utf-8")) for part in _texts_of(path))
            known[path] = _sha256("\n".join([logic.text, *used, *texts]))
    return known[path]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _texts_of(path: Path) -> Iterator[Path]:
    """Files of the library that a module reads: those in ``templates/<module>/`` and ``<module>.*`` beside it."""
    yield from path.parent.glob(f"templates/{path.stem}/*")
    yield from (file for file in path.parent.glob(f"{path.stem}.*") if file.suffix != ".py")


def _file(module: str) -> Path:
    """The source file of a library module; ``__init__.py`` for a folder."""
    place = SCRIPTS.joinpath(*module.split("."))
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")


def _located(name: str) -> tuple[str, str]:
    """Split a dotted name into its module and the name inside that module, which is empty for a module itself."""
    module, _, inside = name.rpartition(".")
    for found, rest in ((name, ""), (module, inside)):
        if _file(found).is_file() and not (rest and _file(found).name == "__init__.py"):  # __init__.py has no code
            return found, rest
    raise ModuleNotFoundError(f"{name} is imported, but there is no such module in {PACKAGE}", name=name)


@dataclass
class _Logic:
    """The logic of a source file.

    Parameters
    ----------
    text : str
        The syntax tree as text. Imported names are replaced by what they refer to, so that an alias changes nothing.
    used : list of str
        Dotted names from the library, in order of first use.
    """

    text: str = ""
    used: list[str] = field(default_factory=list)


@cache
def _logic(source: str, package: str) -> _Logic:
    """The logic of a source text in `package`; cached, because many rules share most sources."""
    tree, logic = ast.parse(source), _Logic()
    origins = dict(_imported(tree, package))
    logic.used += [name for local, name in sorted(origins.items()) if not local.isidentifier()]
    logic.text = _as_text(tree, origins, logic.used)
    return logic


def _imported(tree: ast.AST, package: str) -> Iterator[tuple[str, str]]:
    """Each imported name in a tree, with the dotted name that it refers to.

    A library module that is imported whole, by its dotted name or with ``*``, refers to itself.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                local = name.asname or name.name.partition(".")[0]
                yield local, name.name if name.asname else local
                if _is_ours(name.name) and not name.asname:
                    yield f"{name.name}.", name.name
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            module = ".".join([*above, *filter(None, [node.module])])
            for name in node.names:
                whole, one = (f"{module}.", module), (name.asname or name.name, f"{module}.{name.name}")
                yield whole if name.name == "*" else one


def _is_ours(name: str) -> bool:
    return name.partition(".")[0] == PACKAGE.name


def _as_text(node: Any, origins: Mapping[str, str], used: list[str]) -> str:
    """A part of a syntax tree as text. Empty and absent fields are left out, because Python versions differ in them."""
    if isinstance(node, list):
        return ",".join(_as_text(item, origins, used) or "-" for item in _relevant_nodes(node))
    if isinstance(node, ast.Name) and (origin := origins.get(node.id)):
        if not _is_ours(origin):
            return f"Name({origin})"
        if origin not in used:
            used.append(origin)
        return f"Name(#{used.index(origin)})"
    if isinstance(node, ast.AST):
        fields = (
            (name, _as_text(value, origins, used))
            for name, value in ast.iter_fields(node)
            if name not in IGNORED_FIELDS
        )
        return f"{type(node).__name__}({';'.join(f'{name}={text}' for name, text in fields if text)})"
    return "" if node is None else ascii(node)


def _relevant_nodes(nodes: list[Any]) -> Iterator[Any]:
    """The nodes of a list without imports and docstring; adjacent texts of an f-string are joined."""
    text = ""
    for number, node in enumerate(nodes):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if isinstance(node, ast.Import | ast.ImportFrom) or (number == 0 and _is_docstring(node)):
            continue
        if is_text and any(isinstance(other, ast.FormattedValue) for other in nodes):
            text += node.value
            continue
        if text:
            yield text
        text = ""
        yield node
    if text:
        yield text


def _is_docstring(node: Any) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def provenance(code: str, **basis: Any) -> dict[str, Any]:
    """The provenance record that is stored with every result.

    Parameters
    ----------
    code : str
        The rule's :func:`code_digest`.
    **basis
        The slide's identity, the settings and all else that determines the result; must be JSON-serialisable.
    """
    return {"software": f"LesionMap {VERSION}", "code": code, **basis, "versions": library_versions()}


def library_versions() -> dict[str, str]:
    """Versions of the libraries that a result may depend on, by name."""
    return {name: version(name) for name in RECORDED_LIBRARIES}


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that a result may depend on, by name, for the report."""
    return {"Python": platform.python_version()} | library_versions()


def commit(folder: Path = PACKAGE) -> str | None:
    """Commit of the git checkout that contains `folder`, with ``-dirty`` if files were changed; None without git."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()  # noqa: S603  # a fixed command
    except (OSError, SubprocessError):
        return None
