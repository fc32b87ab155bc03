"""What a job says: to its log file, how far it is, and in one line to the terminal when it fails."""

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lesionmap.errors import LesionMapError, StorageError
from lesionmap.files.disk_errors import storage_error

LINE = "%(asctime)s %(levelname)s %(message)s"
SECONDS_BETWEEN_LINES = 60
PROGRESS_LINE = "{desc}: {n_fmt} of {total_fmt} {unit}s, {rate_fmt}, {elapsed} passed, {remaining} left{postfix}"


@contextmanager
def job_log(path: str, slide: str | None = None) -> Iterator[None]:
    """Send log records to `path`; turn a :class:`LesionMapError` into one clear line and exit status 1.

    So it does with a disk that is full or cannot be written to, of which the log may be the first to notice. Any other
    exception keeps its traceback, in the log and on the terminal: it is our fault, not the user's.

    Parameters
    ----------
    path : str
        ``logs/<rule>.log`` or ``logs/<rule>/<slide>.log``.
    slide : str, optional
        The slide that the job is about, if it is about one.
    """
    logging.raiseExceptions = False  # a line for which there is no room must not become a traceback
    try:
        logging.basicConfig(filename=path, filemode="w", level=logging.INFO, format=LINE)
        logging.captureWarnings(True)
        # rasterio's, of maps: slides have none
        warnings.filterwarnings("ignore", message="Dataset has no geotransform")
        yield
    except Exception as error:
        known = known_error(error, path, slide)
        if not known:
            logging.exception("unexpected error")
            raise
        if logging.root.hasHandlers():  # the terminal is told anyway
            logging.error("%s", known)
        sys.exit(f"LesionMap: {known}")


def log_beside(path: str, name: str, level: int) -> None:
    """Add this process's log records, from `level` on, to the log of the job that started it, under a name."""
    logging.basicConfig(filename=path, level=level, format=LINE.replace("%(message)s", f"{name}: %(message)s"))
    logging.captureWarnings(True)


def known_error(error: Exception, log: str, slide: str | None = None) -> LesionMapError | None:
    """The error, if it is the data's, the settings' or the disk's fault and not the program's; `log` names the job."""
    if isinstance(error, StorageError):
        return StorageError(stage=_rule(log), slide=slide, finding=error.finding, remedy=error.remedy)
    if isinstance(error, LesionMapError):
        return error
    return storage_error(error, stage=_rule(log), slide=slide)


def _rule(log: str) -> str:
    """``extract_tiles`` of logs/extract_tiles/slide_1.log."""
    parts = Path(log).with_suffix("").parts
    return parts[parts.index("logs") + 1] if "logs" in parts else parts[-1]


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
