"""Which LesionMap this is, for people: its commit, and the versions that results depend on."""

import platform
from importlib.metadata import version
from pathlib import Path
from subprocess import SubprocessError, run

from lesionmap.provenance import PACKAGE, RECORDED_LIBRARIES


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that a result may depend on, by name."""
    return {"Python": platform.python_version()} | {name: version(name) for name in RECORDED_LIBRARIES}


def commit(folder: Path = PACKAGE) -> str | None:
    """Commit of the git checkout that `folder` lies in, ``-dirty`` if files were changed; None where there is none."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()  # noqa: S603  # a fixed command
    except (OSError, SubprocessError):
        return None
