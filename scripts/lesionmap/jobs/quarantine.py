"""Slides that some stage cannot use: the record of why, which takes the place of that stage's results."""

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lesionmap.errors import LesionMapError, SlideError
from lesionmap.files.records import read_json, write_json
from lesionmap.jobs.log import job_log

MARK = b'{\n "quarantined": '


def as_record(error: LesionMapError) -> dict[str, Any]:
    """An error as the columns of the quarantine table."""
    return {key: getattr(error, key) for key in ("stage", "finding", "remedy")}


def write_quarantined(outputs: Sequence[str], error: LesionMapError) -> None:
    """Put the reason in place of every result: no program can take it for a slide without lesion."""
    for path in outputs:
        write_json(path, {"quarantined": {"slide": error.slide} | as_record(error)})


def in_folder(folder: str) -> str:
    """Where the reason lies in place of what a result that is a folder would hold."""
    return f"{folder}/quarantined.json"


def quarantined(path: str) -> SlideError | None:
    """The reason that `path` holds in place of a result; None if it is a result."""
    if Path(path).is_dir():
        path = in_folder(path)
    if not Path(path).is_file():
        return None
    with open(path, "rb") as stream:
        if stream.read(len(MARK)) != MARK:
            return None
    return SlideError(**read_json(path)["quarantined"])


def usable(paths: Sequence[str]) -> list[str]:
    """Those of `paths` that are results."""
    return [path for path in paths if not quarantined(path)]


@contextmanager
def slide_job(slide: str, log: str, inputs: Sequence[str], outputs: Sequence[str]) -> Iterator[None]:
    """Run the job of one slide so that its failure spares the cohort.

    A :class:`LesionMapError` about the slide, or one that an earlier stage left in `inputs`, becomes its `outputs`,
    and the job ends well. Every other error ends it as in :func:`lesionmap.jobs.log.job_log`.
    """
    with job_log(log, slide):
        for reason in filter(None, map(quarantined, inputs)):
            write_quarantined(outputs, reason)
            sys.exit(0)
        try:
            yield
        except LesionMapError as error:
            if error.slide != slide:
                raise
            logging.error("%s", error)
            sys.stderr.write(f"LesionMap: {error} It goes into quarantine.\n")
            write_quarantined(outputs, error)
