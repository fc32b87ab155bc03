"""The end of a run in words: findings, slides in quarantine, flags, agreement; and the exit status."""

import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lesionmap.annotations.classes import CORRECTIONS
from lesionmap.errors import LesionMapError
from lesionmap.evaluation.findings_in_words import findings_lines
from lesionmap.files.records import read_json, read_table, write_text
from lesionmap.formatting import counted
from lesionmap.jobs.quarantine import usable


@dataclass(frozen=True)
class RunTables:
    """Paths of what the conclusion reports.

    Parameters
    ----------
    slides : str
        Table of slides of :func:`lesionmap.evaluation.findings.list_findings`.
    headline : str
        Headline metrics, text.
    quarantine, failed_exports : str
        Tables of :func:`lesionmap.run.quarantine_tables.list_quarantine`.
    checks : sequence of str
        Files of :func:`lesionmap.annotations.placement.check_annotation`.
    """

    slides: str
    headline: str
    quarantine: str
    failed_exports: str
    checks: Sequence[str] = ()


def conclude(tables: RunTables, output: str, *, fail: bool, model_notes: Sequence[str] = ()) -> None:
    """Print and write the end of a run: what was found, what to do, the agreement with pathologists, the model.

    Parameters
    ----------
    model_notes : sequence of str
        What the model of ``model.path`` has set in the config, and how maps differ from training.

    Raises
    ------
    LesionMapError
        If slides are in quarantine, or exports have failed, and `fail` is set.
    """
    rows = read_table(tables.slides)
    lines = [*findings_lines(rows), *quarantine_lines(tables.quarantine), *_failed_exports(tables.failed_exports)]
    lines += _flagged(rows, _refused(tables.quarantine))
    lines += _reviewed(tables.checks)
    lines += Path(tables.headline).read_text(encoding="utf-8").splitlines()
    text = "\n".join([*lines, *(f"model: {note}" for note in model_notes)]) + "\n"
    sys.stderr.write(text)
    slides, exports = len(_refused(tables.quarantine)), len(read_table(tables.failed_exports))
    lost = [f"{counted(slides, 'slide')} in quarantine"] if slides else []
    lost += [counted(exports, "failed export")] if exports else []
    if lost and fail:
        raise LesionMapError(
            stage="conclude",
            finding=f"everything else is done, except for {' and '.join(lost)} (listed above)",
            remedy="follow their remedies, or set on_quarantine: warn",
        )
    write_text(output, text)


def quarantine_lines(quarantine: str) -> Iterator[str]:
    """The quarantine table as lines of text."""
    yield f"{len(_refused(quarantine))} of the sheet's slides in quarantine"
    yield from _problems(read_table(quarantine))


def _failed_exports(table: str) -> Iterator[str]:
    if rows := read_table(table):
        yield f"{counted(len(rows), 'failed export')}; the results of their slides are complete"
        yield from _problems(rows)


def _problems(rows: list[dict[str, str]]) -> Iterator[str]:
    for row in rows:
        yield "  {slide} ({stage}): {finding}. Remedy: {remedy}.".format(**row)


def _refused(quarantine: str) -> set[str]:
    """Slides in quarantine, each once even if several stages refused it."""
    return {row["slide"] for row in read_table(quarantine)}


def _reviewed(checks: Sequence[str]) -> Iterator[str]:
    """What reviews of predicted lesions have corrected, on all slides together."""
    reviews = [check["review"] for check in map(read_json, usable(checks)) if check["review"]]
    if reviews:
        counts = ", ".join(f"{sum(review[kind] for review in reviews)} {kind}" for kind in CORRECTIONS)
        yield f"annotations of {counted(len(reviews), 'slide')} are reviews of predicted lesions: {counts}"


def _flagged(rows: Sequence[Mapping[str, str]], refused: Collection[str]) -> list[str]:
    flagged = [row for row in rows if row["flags"] and row["slide"] not in refused]
    return ["used, but flagged:", *(f"  {row['slide']}: {row['flags']}" for row in flagged)] if flagged else []
