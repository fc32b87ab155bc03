"""The end of a run: headline metrics, quarantined and flagged slides, and the exit status."""

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lesionmap.errors import LesionMapError
from lesionmap.files.records import read_table, write_text


@dataclass(frozen=True)
class RunTables:
    """Paths of what the conclusion reports: the headline metrics (text) and three tables (TSV)."""

    headline: str
    manifest: str
    quarantine: str
    unreadable: str


def conclude(tables: RunTables, output: str, *, fail: bool) -> None:
    """Print and write headline metrics, flagged slides and quarantine at the end of a run.

    Raises
    ------
    LesionMapError
        If slides are in quarantine and `fail` is set.
    """
    lines = [*_flagged(tables), *quarantine_lines(tables.quarantine)]
    text = Path(tables.headline).read_text(encoding="utf-8") + "\n".join(lines) + "\n"
    sys.stderr.write(text)
    count = len(_refused(tables.quarantine))
    if count and fail:
        raise LesionMapError(
            stage="conclude",
            finding=f"everything else is done, but {count} slides are in quarantine (listed above)",
            remedy="fix or remove those slides, or set on_quarantine: warn",
        )
    write_text(output, text)


def quarantine_lines(quarantine: str) -> Iterator[str]:
    """The quarantine table as lines of text."""
    yield f"{len(_refused(quarantine))} of the sheet's slides in quarantine"
    for row in read_table(quarantine):
        yield "  {slide} ({stage}): {finding}. Remedy: {remedy}.".format(**row)


def _refused(quarantine: str) -> set[str]:
    """Slides in quarantine, each once even if several stages refused it."""
    return {row["slide"] for row in read_table(quarantine)}


def _flagged(tables: RunTables) -> Iterator[str]:
    refused = _refused(tables.quarantine)
    used = (row for row in read_table(tables.manifest) if row["slide"] not in refused)
    odd = [f"  {row['slide']}: {row['flags']}" for row in used if row["flags"]]
    parts = Counter((row["slide"], row["stage"]) for row in read_table(tables.unreadable))
    for (slide, stage), n in parts.items():
        odd.append(f"  {slide}, {stage}: {n} parts cannot be read and are left out (results/unreadable.tsv)")
    if odd:
        yield from ["used, but flagged:", *odd]
