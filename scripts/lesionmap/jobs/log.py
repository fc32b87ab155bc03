"""A job's log file, its progress, and the one line that the terminal shows when the job fails."""

import logging
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lesionmap.errors import ChangedSlideError, LesionMapError, StorageError
from lesionmap.files.disk_errors import storage_error

LINE = "%(asctime)s %(levelname)s %(message)s"
SECONDS_BETWEEN_LINES = 60
PROGRESS_LINE = "{desc}: {n:.0f} of {total:.0f} {unit}s, {rate_fmt}, {elapsed} so far, {remaining} left{postfix}"
PROGRESS_BAR = "{l_bar}{bar}| {n:.0f}/{total:.0f} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"


@contextmanager
def job_log(path: str, slide: str | None = None, *, resumes: bool = False) -> Iterator[None]:
    """Send log records to `path`; turn a :class:`LesionMapError` into one clear line and exit status 1.

    A full or unwritable disk is handled in the same way; writing the log may be the first step to fail. Any other
    exception is a bug and keeps its traceback, in the log and on the terminal.

    Parameters
    ----------
    path : str
        ``logs/<rule>.log`` or ``logs/<rule>/<slide>.log``.
    slide : str, optional
        The job's slide, if the job handles a single slide.
    resumes : bool
        Whether the job goes on where an earlier attempt stood; the log then begins with those of all earlier attempts.
    """
    logging.raiseExceptions = False  # a log line that does not fit on the disk must not cause a traceback
    try:
        _start_log(path, resumes)
        # rasterio expects a geotransform, but maps of slides have none
        warnings.filterwarnings("ignore", message="Dataset has no geotransform")
        yield
    except Exception as error:
        known = known_error(error, path, slide)
        if not known:
            logging.exception("unexpected error")
            raise
        if logging.root.hasHandlers():  # the terminal shows the error in any case
            logging.error("%s", known)
        sys.exit(f"LesionMap: {known}")


def _start_log(path: str, resumes: bool) -> None:
    kept = _kept_log(path)
    if resumes and kept.exists():
        shutil.copyfile(kept, path)
    logging.basicConfig(filename=path, filemode="a" if resumes else "w", level=logging.INFO, format=LINE)
    logging.captureWarnings(True)
    if resumes:
        _log_also_to(kept, LINE)
        logging.info("======== a new attempt begins ========")


def append_to_log(path: str, name: str, level: int) -> None:
    """Append this process's log records to the log of a job that resumes, `path`; each line starts with `name`.

    Records below `level`, a logging level, are dropped.
    """
    line = LINE.replace("%(message)s", f"{name}: %(message)s")
    logging.basicConfig(filename=path, level=level, format=line)
    logging.captureWarnings(True)
    _log_also_to(_kept_log(path), line)


def _kept_log(path: str) -> Path:
    """A hidden log with the same lines, beside the job's: Snakemake deletes that before each attempt."""
    return Path(path).with_name(f".{Path(path).name}")


def _log_also_to(path: Path, line: str) -> None:
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter(line))
    logging.root.addHandler(handler)


def known_error(error: Exception, log: str, slide: str | None = None) -> LesionMapError | None:
    """The error to report if data, settings or disk caused it; None for a bug.

    `log` is the path of the job's log: it contains the name of the rule.
    """
    if isinstance(error, StorageError | ChangedSlideError):
        return type(error)(stage=rule_of(log), slide=slide, finding=error.finding, remedy=error.remedy)
    if isinstance(error, LesionMapError):
        return error
    return storage_error(error, stage=rule_of(log), slide=slide)


def rule_of(log: str) -> str:
    """Rule name from a log path: ``extract_tiles`` from logs/extract_tiles/slide_1.log."""
    parts = Path(log).with_suffix("").parts
    return parts[parts.index("logs") + 1] if "logs" in parts else parts[-1]


class _LogLines:
    """A file object for tqdm; turns each of its lines into a log record."""

    def write(self, text: str) -> None:
        if line := text.strip():
            logging.info("%s", line)

    def flush(self) -> None:
        """Do nothing: lines are logged at once."""


def progress(total: float, desc: str, unit: str, initial: float = 0, *, shown: bool = True) -> "tqdm[Any]":
    """Show the progress of a job: a bar on a terminal, otherwise a line in the log, at most once a minute.

    Parameters
    ----------
    total, initial : float
        Number of units in all, and of units that are done already. Shown as whole numbers.
    desc, unit : str
        The activity (``train``) and what is counted (``region``).
    shown : bool
        False if another process shows the progress.
    """
    if not shown:
        return tqdm(disable=True)
    if sys.stderr.isatty():
        return tqdm(total=total, desc=desc, unit=unit, initial=initial, bar_format=PROGRESS_BAR)
    return tqdm(
        total=total,
        desc=desc,
        unit=unit,
        initial=initial,
        file=_LogLines(),
        mininterval=SECONDS_BETWEEN_LINES,
        maxinterval=SECONDS_BETWEEN_LINES,
        miniters=1,  # check the clock at every update: tqdm would otherwise guess an interval
        bar_format=PROGRESS_LINE,
    )
