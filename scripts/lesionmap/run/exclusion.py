"""Remember slides that were taken off the sheet, so that no script adds them again."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from lesionmap.files.records import read_json, read_table, write_table

RECORDS = "results/slides"
COLUMNS = ["slide", "path", "sha256"]


def excluded_table(sheet: str | Path) -> Path:
    """Where the excluded slides of a sheet are listed: ``slides.excluded.tsv`` beside ``slides.tsv``."""
    return Path(sheet).with_suffix(".excluded.tsv")


def excluded_slides(sheet: str | Path) -> list[dict[str, str]]:
    """The excluded slides of a sheet: id, path, and SHA-256 of the content, of which any may be empty."""
    table = excluded_table(sheet)
    rows = read_table(table) if table.exists() else []
    return [{column: (row.get(column) or "").strip() for column in COLUMNS} for row in rows]


def exclude(sheet: str | Path, slides: Iterable[str], records: str | Path = RECORDS) -> None:
    """Add slides to the excluded ones, with the path and content that their inspection recorded."""
    rows = excluded_slides(sheet)
    new = [recorded(Path(records, f"{slide}.json")) for slide in slides]
    listed = {row["slide"] for row in rows}
    rows += [row for row in new if row not in rows and (row["path"] or row["slide"] not in listed)]
    write_table(excluded_table(sheet), rows, COLUMNS)


def taken_off(ids: Mapping[str, str], records: str | Path = RECORDS) -> list[dict[str, str]]:
    """Slides that were inspected and are not in the sheet, neither by their id nor by their path.

    Parameters
    ----------
    ids : mapping of str to str
        Path of each slide of the sheet, by its id.
    """
    known = {os.path.realpath(path) for path in ids.values()}
    others = [recorded(path) for path in sorted(Path(records).glob("*.json")) if path.stem not in ids]
    return [row for row in others if os.path.realpath(row["path"]) not in known]


def recorded(record: Path) -> dict[str, str]:
    """A slide's row in the table of excluded slides; a slide in quarantine has no digest."""
    found, location = (
        read_json(path) if path.exists() else {} for path in (record, record.parent / "location" / record.name)
    )
    sha256 = (found.get("info") or {}).get("identity", "")
    return {"slide": record.stem, "path": location.get("path", ""), "sha256": sha256}
