"""The end of a run: headline metrics, quarantined and flagged slides, failed exports, and the exit status."""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lesionmap.annotations.classes import CORRECTIONS
from lesionmap.errors import LesionMapError
from lesionmap.files.records import read_json, read_table, write_text
from lesionmap.formatting import counted
from lesionmap.jobs.quarantine import usable


@dataclass(frozen=True)
class RunTables:
    """Paths of what the conclusion reports: the headline metrics (text) and four tables (TSV).

    Parameters
    ----------
    checks : sequence of str
        Files of :func:`lesionmap.annotations.placement.check_annotation`.
    """

    headline: str
    manifest: str
    quarantine: str
    unreadable: str
    failed_exports: str
    checks: Sequence[str] = ()


def conclude(tables: RunTables, output: str, *, fail: bool, model_notes: Sequence[str] = ()) -> None:
    """Print and write headline metrics, flagged slides, quarantine and failed exports at the end of a run.

    Parameters
    ----------
    model_notes : sequence of str
        What the model of ``model.path`` has set in the config, and how maps differ from training.

    Raises
    ------
    LesionMapError
        If slides are in quarantine, or exports have failed, and `fail` is set.
    """
    lines = [f"model: {note}" for note in model_notes]
    lines += [
        *_reviewed(tables),
        *_flagged(tables),
        *quarantine_lines(tables.quarantine),
        *_failed_exports(tables.failed_exports),
    ]
    text = Path(tables.headline).read_text(encoding="utf-8") + "\n".join(lines) + "\n"
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


def _reviewed(tables: RunTables) -> Iterator[str]:
    """What reviews of predicted lesions have corrected, on all slides together."""
    reviews = [check["review"] for check in map(read_json, usable(tables.checks)) if check["review"]]
    if reviews:
        counts = ", ".join(f"{sum(review[kind] for review in reviews)} {kind}" for kind in CORRECTIONS)
        yield f"annotations of {counted(len(reviews), 'slide')} are reviews of predicted lesions: {counts}"


def _flagged(tables: RunTables) -> Iterator[str]:
    refused = _refused(tables.quarantine)
    used = (row for row in read_table(tables.manifest) if row["slide"] not in refused)
    flagged = [f"  {row['slide']}: {row['flags']}" for row in used if row["flags"]]
    checks = (check for check in map(read_json, usable(tables.checks)) if check["slide"] not in refused)
    flagged += [f"  {check['slide']}, annotation: {flag}" for check in checks for flag in check["flags"]]
    parts = Counter((row["slide"], row["stage"]) for row in read_table(tables.unreadable))
    for (slide, stage), n in parts.items():
        flagged.append(f"  {slide}, {stage}: {n} parts cannot be read and are left out (results/unreadable.tsv)")
    if flagged:
        yield from ["used, but flagged:", *flagged]
