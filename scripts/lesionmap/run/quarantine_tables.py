"""Tables of what a run lost: slides that a stage could not use, unreadable parts of the others, failed exports."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lesionmap.errors import ExportError
from lesionmap.files.records import read_json, write_table
from lesionmap.jobs.quarantine import as_record, quarantined, usable
from lesionmap.run.conclusion import quarantine_lines

QUARANTINE = ["slide", "split", "stage", "finding", "remedy"]
UNREADABLE = ["slide", "stage", "x_lv0", "y_lv0", "width_lv0", "height_lv0"]


@dataclass(frozen=True)
class RunFiles:
    """The files of a run that tell what was lost. The reason of a quarantine is passed on to all later results.

    Parameters
    ----------
    records : sequence of str
        JSON files of :func:`lesionmap.slides.inspection.inspect_slide`, one per slide of the sheet.
    tiles, maps : sequence of str
        Records of tile stores and of maps (``inference.json``); they also list unreadable parts.
    others : sequence of str
        Any other results of slides.
    """

    records: Sequence[str]
    tiles: Sequence[str] = ()
    maps: Sequence[str] = ()
    others: Sequence[str] = ()


def list_quarantine(files: RunFiles, quarantine: str, unreadable: str, failed_exports: str) -> None:
    """Write a table of the slides that a stage could not use, and what the others lack.

    Parameters
    ----------
    quarantine, unreadable, failed_exports : str
        The tables to write, TSV: slides, unreadable parts, and exports and pictures that could not be made.
    """
    slides = {slide["slide"]: slide for slide in map(read_json, files.records)}
    rows = {(name, slide["stage"]): slide for name, slide in slides.items() if slide["verdict"] != "ok"}
    failed: dict[tuple[str | None, str], dict[str, Any]] = {}
    for reason in filter(None, map(quarantined, [*files.tiles, *files.maps, *files.others])):
        if reason.slide in slides:
            named = {key: slides[reason.slide][key] for key in ("slide", "split")}
            table = failed if isinstance(reason, ExportError) else rows
            table[reason.slide, reason.stage] = named | as_record(reason)
    write_table(quarantine, list(rows.values()), QUARANTINE)
    write_table(failed_exports, list(failed.values()), QUARANTINE)
    boxes = [*_unreadable(files.tiles, "extract_tiles"), *_unreadable(files.maps, "map_slide")]
    write_table(unreadable, boxes, UNREADABLE)


def show_quarantine(files: RunFiles, quarantine: str, *others: str) -> bool:
    """Write the tables of :func:`list_quarantine` for a run that stopped; print the first if it has changed.

    Returns
    -------
    bool
        Whether a table has changed.
    """
    before = _contents(quarantine, *others)
    list_quarantine(files, quarantine, *others)
    after = _contents(quarantine, *others)
    count, *listed = quarantine_lines(quarantine)
    if listed and after[0] != before[0]:
        sys.stderr.write("\n".join(["LesionMap, so far: " + count, *listed]) + "\n")
    return after != before


def _contents(*paths: str) -> list[bytes | None]:
    return [Path(path).read_bytes() if Path(path).exists() else None for path in paths]


def _unreadable(paths: Sequence[str], stage: str) -> Iterator[dict[str, Any]]:
    for content in map(read_json, usable(paths)):
        for box in content["unreadable"]:
            yield {"slide": content["slide"], "stage": stage} | dict(zip(UNREADABLE[2:], box, strict=True))
