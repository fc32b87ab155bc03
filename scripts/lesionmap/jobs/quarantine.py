"""Quarantine: slides that a stage cannot use. A record of the reason takes the place of the stage's results.

Exports and pictures that could not be made are recorded in the same way; their slides are not in quarantine.
"""

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from lesionmap.errors import ExportError, LesionMapError, SlideError
from lesionmap.files.disk_errors import from_the_machine
from lesionmap.files.records import read_json, write_json, write_text
from lesionmap.jobs.log import job_log, rule_of

QUARANTINED, FAILED_EXPORT = "quarantined", "failed_export"
KINDS = {QUARANTINED: SlideError, FAILED_EXPORT: ExportError}
MARKS = {kind: f'{{\n "{kind}": '.encode() for kind in KINDS}
MOST_CHARACTERS = 300  # of an error's text
NO_PLOT = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 900 60" width="900" height="60">'
    '<text x="10" y="25" font-family="sans-serif" font-size="14">{}</text>'
    '<text x="10" y="47" font-family="sans-serif" font-size="14">{}</text></svg>\n'
)


def as_record(error: LesionMapError) -> dict[str, Any]:
    """An error as the columns of the quarantine table."""
    return {key: getattr(error, key) for key in ("stage", "finding", "remedy")}


def write_quarantined(outputs: Sequence[str], error: LesionMapError) -> None:
    """Write the reason in place of every result, so that no program mistakes it for a slide without lesions."""
    kind = FAILED_EXPORT if isinstance(error, ExportError) else QUARANTINED
    for path in outputs:
        write_json(path, {kind: {"slide": error.slide} | as_record(error)})


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
        start = stream.read(max(map(len, MARKS.values())))
    for kind, mark in MARKS.items():
        if start.startswith(mark):
            return KINDS[kind](**read_json(path)[kind])
    return None


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
        _hand_on(inputs, outputs)
        try:
            yield
        except LesionMapError as error:
            if error.slide != slide:
                raise
            logging.error("%s", error)
            sys.stderr.write(f"LesionMap: {error} The slide goes into quarantine.\n")
            write_quarantined(outputs, error)


@contextmanager
def export_job(
    slide: str, log: str, inputs: Sequence[str], outputs: Sequence[str], instead: str = "do without it"
) -> Iterator[None]:
    """Run a job whose outputs no result depends on; if it fails, this is recorded and everything else goes on.

    As :func:`slide_job`, but whatever goes wrong is written to all `outputs` as an :class:`ExportError`: also an error
    of the program or of a library. Only what the machine causes (disk, memory, network) still fails the job, so that
    it is tried again.

    Parameters
    ----------
    instead : str
        What a user can do about an error that nobody foresaw.
    """
    with job_log(log, slide):
        _hand_on(inputs, outputs)
        try:
            yield
        except Exception as error:
            failed = _as_failed_export(error, slide, log, outputs, instead)
            if not failed:
                raise
            logging.exception("%s", failed)
            sys.stderr.write(f"LesionMap: {failed} The slide's results are complete without it.\n")
            write_quarantined(outputs, failed)


@contextmanager
def plot_job(log: str, outputs: Sequence[str]) -> Iterator[None]:
    """Run a job that draws plots of the whole cohort; if it fails, each plot (SVG) says so in its place.

    As in :func:`export_job`, errors that the machine causes, and errors about inputs, still fail the job.
    """
    with job_log(log):
        try:
            yield
        except Exception as error:
            if isinstance(error, LesionMapError) or from_the_machine(error):
                raise
            finding = f"This plot could not be made ({_said(error)})."
            remedy = f"Report it with {log}; delete the plot's file to try again."
            logging.exception(finding)
            sys.stderr.write(f"LesionMap: {rule_of(log)}: {finding} {remedy} No result depends on it.\n")
            for path in outputs:
                write_text(path, NO_PLOT.format(escape(finding), escape(remedy)))


def _hand_on(inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """If an earlier stage left a record in place of an input, write it to all outputs and end the job."""
    for reason in filter(None, map(quarantined, inputs)):
        write_quarantined(outputs, reason)
        sys.exit(0)


def _as_failed_export(
    error: Exception, slide: str, log: str, outputs: Sequence[str], instead: str
) -> ExportError | None:
    """The record of a failed export; None if the job itself must fail."""
    if isinstance(error, LesionMapError):
        if error.slide != slide:
            return None
        return ExportError(slide=slide, stage=rule_of(log), finding=error.finding, remedy=error.remedy)
    if from_the_machine(error):
        return None
    return ExportError(
        slide=slide,
        stage=rule_of(log),
        finding=f"it ended with an error that nobody foresaw ({_said(error)})",
        remedy=f"{instead}, and report it with {log} (delete {outputs[0]} to try again)",
    )


def _said(error: Exception) -> str:
    """Type and text of an error in one line; without semicolons, which separate flags."""
    return " ".join(f"{type(error).__name__}: {error}".split()).replace(";", ",")[:MOST_CHARACTERS]
