"""What a job says: to its log file, how far it is, and in one line to the terminal when it fails."""

import errno
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lesionmap.errors import LesionMapError, StorageError

LINE = "%(asctime)s %(levelname)s %(message)s"
SECONDS_BETWEEN_LINES = 60
PROGRESS_LINE = "{desc}: {n_fmt} of {total_fmt} {unit}s, {rate_fmt}, {elapsed} passed, {remaining} left{postfix}"

STORAGE_REMEDIES = {
    errno.ENOSPC: "free space on that disk and run again; what is finished is kept",
    errno.EDQUOT: "free space or have the quota raised and run again; what is finished is kept",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f) and run again; what is finished is kept",
    errno.EROFS: "run in a folder that can be written to (snakemake --directory)",
    errno.EACCES: "have the permissions of that file or folder changed, or use another (snakemake --directory)",
    errno.EPERM: "have the permissions of that file or folder changed, or use another (snakemake --directory)",
}


@contextmanager
def job_log(path: str) -> Iterator[None]:
    """Send log records to `path`; turn a :class:`LesionMapError` into one clear line and exit status 1.

    So it does with a disk that is full or cannot be written to. Any other exception keeps its traceback, in the log and
    on the terminal: it is our fault, not the user's.
    """
    logging.basicConfig(filename=path, filemode="w", level=logging.INFO, format=LINE)
    logging.captureWarnings(True)
    warnings.filterwarnings("ignore", message="Dataset has no geotransform")  # rasterio's, of maps; slides have none
    try:
        yield
    except Exception as error:
        known = known_error(error, path)
        if not known:
            logging.exception("unexpected error")
            raise
        logging.error("%s", known)
        sys.exit(f"LesionMap: {known}")


def log_beside(path: str, name: str, level: int) -> None:
    """Add this process's log records, from `level` on, to the log of the job that started it, under a name."""
    logging.basicConfig(filename=path, level=level, format=LINE.replace("%(message)s", f"{name}: %(message)s"))
    logging.captureWarnings(True)


def known_error(error: Exception, log: str) -> LesionMapError | None:
    """The error, if it is the data's, the settings' or the disk's fault and not the program's; `log` names the job."""
    return error if isinstance(error, LesionMapError) else _storage_error(error, log)


def _storage_error(error: BaseException, log: str) -> StorageError | None:
    """The error as one of the disk; None if it is something else."""
    causes = [error]
    while before := causes[-1].__context__:
        causes.append(before)
    for cause in causes:
        # HDF5 and safetensors give the number in the text alone.
        told = re.search(r"(?:errno = |os error )(\d+)", str(cause))
        number = int(told[1]) if told else cause.errno if isinstance(cause, OSError) else None
        if number in STORAGE_REMEDIES:
            place = f" ({cause.filename})" if isinstance(cause, OSError) and cause.filename else ""
            return StorageError(
                stage=_job(log),
                finding=f"a file could not be read or written: {os.strerror(number)}{place}",
                remedy=STORAGE_REMEDIES[number],
            )
    return None


def _job(log: str) -> str:
    """``extract_tiles, slide_1`` of logs/extract_tiles/slide_1.log."""
    parts = Path(log).with_suffix("").parts
    return ", ".join(parts[parts.index("logs") + 1 :] if "logs" in parts else parts[-1:])


class _LogLines:
    """A file for tqdm that makes each of its lines a log record."""

    def write(self, text: str) -> None:
        if line := text.strip():
            logging.info("%s", line)

    def flush(self) -> None:
        """Nothing is held back."""


def progress(total: int, desc: str, unit: str, initial: int = 0, *, shown: bool = True) -> "tqdm[Any]":
    """How far a job is: a bar on a terminal; elsewhere a line in the log, at most once a minute.

    Parameters
    ----------
    total, initial : int
        What there is to do, and what of it is done already.
    desc, unit : str
        What is done, and with what.
    shown : bool
        False: nothing is said, as another process does.
    """
    if not shown:
        return tqdm(disable=True)
    if sys.stderr.isatty():
        return tqdm(total=total, desc=desc, unit=unit, initial=initial)
    return tqdm(
        total=total,
        desc=desc,
        unit=unit,
        initial=initial,
        file=_LogLines(),
        mininterval=SECONDS_BETWEEN_LINES,
        maxinterval=SECONDS_BETWEEN_LINES,
        miniters=1,  # tqdm would otherwise guess after how many updates to look at the clock
        bar_format=PROGRESS_LINE,
    )
