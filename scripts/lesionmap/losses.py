"""What a run lost: the slides that some stage could not use, and the parts of the others that could not be read."""

from collections.abc import Iterator, Sequence
from typing import Any

from lesionmap.files import read_json, write_table
from lesionmap.quarantine import as_record, quarantined, usable
from lesionmap.store import TileStore

QUARANTINE = ["slide", "split", "stage", "finding", "remedy"]
UNREADABLE = ["slide", "stage", "x_lv0", "y_lv0", "width_lv0", "height_lv0"]


def list_quarantine(
    records: Sequence[str], stores: Sequence[str], results: Sequence[str], quarantine: str, unreadable: str
) -> None:
    """Write the tables of all slides that some stage could not use, and of the parts that were left out of the others.

    Parameters
    ----------
    records : sequence of str
        JSON files of :func:`lesionmap.inspection.inspect_slide`, of the whole sheet.
    stores : sequence of str
        Tile stores.
    results : sequence of str
        Files of later stages: lesion outlines and metrics. An earlier stage's reason is handed on to all of them.
    quarantine, unreadable : str
        TSV files.
    """
    slides = {slide["slide"]: slide for slide in map(read_json, records)}
    rows = {(name, slide["stage"]): slide for name, slide in slides.items() if slide["verdict"] != "ok"}
    for reason in filter(None, map(quarantined, [*stores, *results])):
        if reason.slide:
            named = {key: slides[reason.slide][key] for key in ("slide", "split")}
            rows[reason.slide, reason.stage] = named | as_record(reason)
    write_table(quarantine, list(rows.values()), QUARANTINE)
    write_table(unreadable, [*_unreadable_regions(usable(stores)), *_unreadable_tiles(usable(results))], UNREADABLE)


def _unreadable_regions(stores: Sequence[str]) -> Iterator[dict[str, Any]]:
    for path in stores:
        with TileStore(path) as store:
            for box in store.unreadable:
                yield _box_row(store.slide, "extract_tiles", box)


def _unreadable_tiles(results: Sequence[str]) -> Iterator[dict[str, Any]]:
    for content in map(read_json, results):
        for box in content.get("unreadable", []):
            yield _box_row(content["slide"], "infer_slide", box)


def _box_row(slide: str, stage: str, box: Sequence[float]) -> dict[str, Any]:
    return {"slide": slide, "stage": stage} | dict(zip(UNREADABLE[2:], box, strict=True))
