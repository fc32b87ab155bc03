"""Recognise errors of full and read-only disks, and report them all as StorageError with a remedy."""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lesionmap.errors import LesionMapError, StorageError

REMEDIES = {
    errno.ENOSPC: "free space on that disk and run again; what is finished is kept",
    errno.EDQUOT: "free space or have the quota raised and run again; what is finished is kept",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f) and run again; what is finished is kept",
    errno.EROFS: "run in a folder that can be written to (snakemake --directory)",
    errno.EACCES: "have the permissions of that file or folder changed, or use another (snakemake --directory)",
    errno.EPERM: "have the permissions of that file or folder changed, or use another (snakemake --directory)",
}
# What else the system raises, it raises for paths and arguments that do not fit.
OF_PATHS = {errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY, errno.EINVAL}
# HDF5, safetensors and torch give the error number only in the message text.
NUMBER_IN_TEXT = re.compile(r"(?:errno = |os error |Errno )(\d+)")


@contextmanager
def naming_disk_errors(path: str | Path) -> Iterator[None]:
    """Raise disk errors met while writing `path` as StorageError; :mod:`lesionmap.jobs.log` adds the job's name."""
    try:
        yield
    except Exception as error:
        if disk_error := storage_error(error, path, stage="writing"):
            raise disk_error from error
        raise


def storage_error(
    error: BaseException, path: str | Path | None = None, *, stage: str, slide: str | None = None
) -> StorageError | None:
    """The StorageError for an error that the disk caused; None if it has another cause.

    Parameters
    ----------
    error : BaseException
        Its causes are checked too, because libraries wrap the system's errors in their own.
    path : str or Path, optional
        The file being written, through a draft beside it. If the error names a file in another folder, the
        StorageError names that one instead.
    stage, slide : str
        As in :class:`lesionmap.errors.LesionMapError`.
    """
    for cause in _causes(error):
        number = _number(cause)
        if number in REMEDIES:
            place = _place(cause, path)
            room = _room(place) if place and number == errno.ENOSPC else ""
            finding = f"{place or 'a file'} could not be read or written: {os.strerror(number)}{room}"
            return StorageError(stage=stage, slide=slide, finding=finding, remedy=REMEDIES[number])
    return None


def from_the_machine(error: BaseException) -> bool:
    """Whether the machine caused an error: its memory, disk or network, not the program or a slide."""
    numbers = {_number(cause) for cause in _causes(error)} - OF_PATHS - {None}  # libraries' own OSErrors have none
    return bool(numbers) or any(isinstance(cause, MemoryError) for cause in _causes(error))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and its causes, up to a LesionMapError: that one already has its own explanation."""
    cause: BaseException | None = error
    while cause and not isinstance(cause, LesionMapError):
        yield cause
        cause = cause.__context__


def _number(cause: BaseException) -> int | None:
    number = NUMBER_IN_TEXT.search(str(cause))
    return int(number[1]) if number else cause.errno if isinstance(cause, OSError) else None


def _place(cause: BaseException, path: str | Path | None) -> Path | None:
    named = cause.filename if isinstance(cause, OSError) else None
    if not isinstance(named, str | bytes):
        return Path(path) if path else None
    other = Path(os.fsdecode(named))
    return Path(path) if path and other.absolute().is_relative_to(Path(path).absolute().parent) else other


def _room(place: Path) -> str:
    """Free space on the disk of a path that may not exist yet."""
    folder = existing_folder(place)
    disk = shutil.disk_usage(folder)
    return f"; {disk.free / 1e6:,.3f} of {disk.total / 1e6:,.1f} MB are free on the disk of {folder}"


def existing_folder(path: Path) -> Path:
    """The folder itself, or the nearest folder above it that exists."""
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.is_dir())
