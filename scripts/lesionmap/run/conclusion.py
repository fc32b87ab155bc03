"""How a run ends: headline metrics, what is in quarantine, what is odd, and the exit status."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lesionmap.errors import LesionMapError
from lesionmap.files.records import _read_table, write_text


@dataclass(frozen=True)
class RunTables:
    """What the conclusion is drawn from: paths of the headline figures (text) and of three tables (TSV)."""

    headline: str
    manifest: str
    quarantine: str
    unreadable: str


def conclude(tables: RunTables, output: str, *, fail: bool) -> None:
    """Show headline figures, quarantine and oddities at the end of a run, and fail if the policy says so.

    Raises
    ------
    LesionMapError
        If slides are in quarantine and `fail` is set.
    """
    lines = [*_oddities(tables), *quarantine_lines(tables.quarantine)]
    text = Path(tables.headline).read_text(encoding="utf-8") + "\n".join(lines) + "\n"
    sys.stderr.write(text)
    count = _read_table(tables.quarantine)["slide"].nunique()
    if count and fail:
        raise LesionMapError(
            stage="conclude",
            finding=f"everything else is done, but {count} slides are in quarantine (listed above)",
            remedy="mend or remove those slides, or set on_quarantine: warn",
        )
    write_text(output, text)


def quarantine_lines(quarantine: str) -> Iterator[str]:
    """The quarantine table in words."""
    table = _read_table(quarantine)
    yield f"{table['slide'].nunique()} of the sheet's slides in quarantine"
    for row in table.itertuples():
        yield f"  {row.slide} ({row.stage}): {row.finding}. Remedy: {row.remedy}."


def _oddities(tables: RunTables) -> Iterator[str]:
    manifest, unreadable = _read_table(tables.manifest), _read_table(tables.unreadable)
    refused = set(_read_table(tables.quarantine)["slide"])
    flagged = manifest[(manifest["flags"] != "") & ~manifest["slide"].isin(refused)]
    odd = [f"  {row.slide}: {row.flags}" for row in flagged.itertuples()]
    for (slide, stage), boxes in unreadable.groupby(["slide", "stage"], sort=False):
        odd.append(f"  {slide}, {stage}: {len(boxes)} parts cannot be read and are left out (results/unreadable.tsv)")
    if odd:
        yield from ["used although something is odd:", *odd]
