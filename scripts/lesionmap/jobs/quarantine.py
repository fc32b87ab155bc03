"""Quarantine: slides that a stage cannot use. A record of the reason takes the place of the stage's results."""

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
    """Write the reason in place of every result, so that no program mistakes it for a slide without lesions."""
    for path in outputs:
        write_json(path, {"quarantined": {"slide": error.slide} | as_record(error)})


def in_folder(folder: str) -> str:
    """Path of the record in a result that is a folder."""
    return f"{folder}/quarantined.json"


def quarantined(path: str) -> SlideError | None:
    """The error recorded at `path` in place of a result; None if `path` is a result or absent."""
    if Path(path).is_dir():
        path = in_folder(path)
    if not Path(path).is_file():
        return None
    with open(path, "rb") as stream:
        if stream.read(len(MARK)) != MARK:
            return None
    return SlideError(**read_json(path)["quarantined"])


def usable(paths: Sequence[str]) -> list[str]:
    """The `paths` that are not in quarantine."""
    return [path for path in paths if not quarantined(path)]


@contextmanager
def slide_job(slide: str, log: str, inputs: Sequence[str], outputs: Sequence[str]) -> Iterator[None]:
    """Run the job of one slide; if the slide is unusable, the other slides go on.

    The reason is a :class:`LesionMapError` about this slide, or a record that an earlier stage left in `inputs`. It is
    written to all `outputs`, and the job succeeds. Other errors end it as in :func:`lesionmap.jobs.log.job_log`.
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
            sys.stderr.write(f"LesionMap: {error} The slide goes into quarantine.\n")
            write_quarantined(outputs, error)
