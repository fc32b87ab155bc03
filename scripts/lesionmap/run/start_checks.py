"""Checks before the first job: no result is dated in the future, and folders can be written to.

The clock of a machine may be wrong. Snakemake refuses results that are older than their inputs.
"""

import errno
import os
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from lesionmap.errors import StorageError
from lesionmap.files.disk_errors import REMEDIES, existing_folder

TOLERATED_S = 60  # clocks of a cluster and its file server differ by less


def check_results(folder: str | Path, leave_out: Collection[str] = ()) -> None:
    """Check that no result is dated in the future.

    Parameters
    ----------
    leave_out : collection of str
        Names of folders inside `folder`, at any depth, that are not checked.

    Raises
    ------
    StorageError
        If there are such results.
    """
    until = time.time() + TOLERATED_S
    if later := [(date, path) for date, path in _dated(folder, leave_out) if date > until]:
        raise StorageError(
            stage="start",
            finding=f"results dated in the future: {_latest(later)}; a job that reads one would fail after its work",
            remedy="set the clock right, of this machine or of the one that wrote them; if they are what they should "
            "be, snakemake --touch --forceall then gives them new dates",
        )


def _latest(later: Collection[tuple[float, str]]) -> str:
    date, path = max(later)
    return f"{len(later)}, of which {path} by {(date - time.time()) / 60:,.0f} minutes"


def _dated(folder: str | Path, leave_out: Collection[str]) -> Iterator[tuple[float, str]]:
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in leave_out]
        for name in files:
            with suppress(FileNotFoundError):  # a draft that has been moved or deleted
                yield os.lstat(f"{place}/{name}").st_mtime, f"{place}/{name}"


def check_writable(folder: str | Path) -> None:
    """Raise a StorageError if a folder cannot be written to; it need not exist yet."""
    place = existing_folder(Path(folder))
    if not os.access(place, os.W_OK | os.X_OK):
        read_only = os.statvfs(place).f_flag & os.ST_RDONLY
        number = errno.EROFS if read_only else errno.EACCES
        finding = f"{folder} cannot be written to: {os.strerror(number)}"
        raise StorageError(stage="start", finding=finding, remedy=REMEDIES[number])
