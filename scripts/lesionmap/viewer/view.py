"""Write a slide's deep-zoom view: tiles of its picture and of its lesion probability, and data for the viewer."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from shapely.geometry.base import BaseGeometry

from lesionmap.files.atomic import folder_written_whole
from lesionmap.files.records import read_json, write_text
from lesionmap.maps.map_file import MapFile
from lesionmap.maps.probability import as_u8, first_positive
from lesionmap.slides.slide import Slide, SlideInfo
from lesionmap.stain.table import CONCENTRATION_SPARSITY, StainMatch
from lesionmap.tissue.mask import TissueMask
from lesionmap.viewer.negatives import negative_squares
from lesionmap.viewer.outlines import (
    LESION,
    ViewOutline,
    annotated_outlines,
    class_view,
    predicted_outlines,
    predicted_view,
)
from lesionmap.viewer.overlay import draw_overlay
from lesionmap.viewer.probability_tiles import cut_probability, value_counts
from lesionmap.viewer.pyramid import Tile, ZoomLadder, detail_tiles, runs, tiles_near, with_ancestors
from lesionmap.viewer.slide_tiles import Content, SlideCutter, glass_colour

ZOOM_TILE_PX = 512
OVERVIEW_MPP = 2.5  # the whole slide is shown at this resolution or a finer one
LESIONS, ALL = "lesions", "all"  # what is shown at full resolution
MARGIN_UM = 100.0  # around a lesion
MOST_DETAIL_TILES = 1000  # of the native zoom; with the coarser tiles, about 120 MB
DATA = "view.js"


@dataclass(frozen=True)
class ViewedFiles:
    """Paths of a slide's stain match, tissue mask, probability map, lesion map, outlines and annotation."""

    stain: str
    tissue: str
    probability: str
    lesions: str
    outlines: str
    annotation: str | None


def cut_view(
    info: SlideInfo,
    files: ViewedFiles,
    folder: str,
    overlay: str,
    *,
    detail: str,
    provenance: dict[str, Any],
    threads: int,
) -> None:
    """Write the folder of one slide's view, and its overlay, whole or not at all.

    Parameters
    ----------
    files : ViewedFiles
        An annotation that is in quarantine is left out.
    folder : str
        Gets ``slide/<zoom>/<column>_<row>.js``, ``probability/<zoom>/<column>_<row>.js`` and ``view.js``.
    overlay : str
        PNG of :func:`lesionmap.viewer.overlay.draw_overlay`.
    detail : str
        What is shown at full resolution: ``lesions``, ``all`` or ``none``. The whole slide is shown at `OVERVIEW_MPP`
        or finer.
    threads : int
        CPU cores to use; the files do not depend on it.

    Raises
    ------
    SlideError
        If the slide cannot be opened; parts that cannot be read are left empty.
    """
    ladder = ZoomLadder(info.size_lv0, ZOOM_TILE_PX)
    content = read_json(files.outlines)
    predicted = predicted_outlines(content["features"], info)
    annotated_lesions = content.get("annotated_lesions", [])
    annotated = annotated_outlines(files.annotation, annotated_lesions, info)
    view = {
        "slide": info.slide,
        "size": info.size_lv0,
        "mpp": info.mpp,
        "native": ladder.native,
        "tile_px": ZOOM_TILE_PX,
        "predicted": predicted_view(predicted, info),
        "annotated": [class_view(name, outlines, info) for name, outlines in annotated.items()],
        "annotated_lesions": annotated_lesions,
        "stain": _stain(files.stain),
        "provenance": provenance,
    }
    lesions = [*predicted, *annotated.get(LESION, [])]
    lesions.sort(key=lambda outline: (outline.is_error, outline.area), reverse=True)
    with (
        folder_written_whole(folder) as draft,
        Slide(info, "cut_view") as slide,
        MapFile(files.probability) as probability,
        MapFile(files.lesions) as lesion_map,
    ):
        view |= _cut_slide(slide, TissueMask(files.tissue, info), lesions, draft / "slide", detail, threads=threads)
        view["probability"] = _cut_probability(probability, content["threshold"], info, draft / "probability")
        draw_overlay(overlay, slide, probability, lesion_map, probability.mpp)
        write_text(draft / DATA, f"window.lesionmapView = {as_script(view)};\n")


def as_script(content: Any) -> str:
    """An expression on one line that cannot end a script element, whatever texts it holds.

    It parses JSON, which browsers do sooner than to read the same as JavaScript.
    """
    text = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for mark in "<>&'":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return "JSON.parse('{}')".format(text.replace("\\", "\\\\"))


def _stain(path: str) -> dict[str, Any]:
    """What the viewer normalises the slide's colours with, as :func:`lesionmap.stain.table.stain_table` does."""
    match = StainMatch.of(read_json(path))
    target = np.array(match.reference.basis) * np.array(match.ratio)[:, None]
    basis, white = match.profile.basis, match.profile.white_point
    return {"basis": basis, "target": target.tolist(), "white_point": white, "sparsity": CONCENTRATION_SPARSITY}


def _cut_slide(
    slide: Slide, tissue: TissueMask, lesions: Sequence[ViewOutline], folder: Path, detail: str, *, threads: int
) -> dict[str, Any]:
    info, ladder = slide.info, ZoomLadder(slide.info.size_lv0, ZOOM_TILE_PX)
    base = ladder.zoom_of(OVERVIEW_MPP / info.mpp)
    glass = glass_colour(slide, tissue)
    cutter = SlideCutter(slide, ladder, glass, folder, threads)
    content = cutter.whole(base)
    negatives = negative_squares(tissue, [lesion.polygon for lesion in lesions], info)
    wanted, without = _wanted(detail if base < ladder.native else ALL, content, lesions, negatives, info)
    cutter.details(tile for tile in with_ancestors(wanted, base + 1) if tile[0] > base and tile in content)
    return {
        "background": "#{:02x}{:02x}{:02x}".format(*glass),
        "home": _home(content, ladder),
        "picture": {"base": base, "tiles": runs(cutter.cut.tiles), "damaged": cutter.cut.damaged},
        "detail": {"mode": detail, "lesions": len(lesions), "without": without},
        "negatives": [np.rint(square.bounds).astype(int).tolist() for square in negatives],
    }


def _wanted(
    detail: str, content: Content, lesions: Sequence[ViewOutline], negatives: Sequence[BaseGeometry], info: SlideInfo
) -> tuple[set[Tile], int]:
    """The tiles of the native zoom to show, and the number of lesions that they do not show in full."""
    ladder = ZoomLadder(info.size_lv0, ZOOM_TILE_PX)
    if detail == LESIONS:
        polygons = [outline.polygon for outline in lesions]
        chosen, whole = detail_tiles(polygons, ladder, MARGIN_UM / info.mpp, MOST_DETAIL_TILES)
        chosen.update(tile for square in negatives for tile in tiles_near(square, ladder, 0))
        return chosen, whole.count(False)
    if detail == ALL:
        return {(content.native, int(column), int(row)) for row, column in np.argwhere(content.flags)}, 0
    return set(), len(lesions)


def _home(content: Content, ladder: ZoomLadder) -> list[int]:
    """Left, top, right and bottom of all that is not glass; of the whole slide if there is only glass."""
    width, height = ladder.size_lv0
    y, x = np.nonzero(content.flags)
    if not len(x):
        return [0, 0, width, height]
    side = ladder.tile_px
    right, bottom = min(width, int(x.max() + 1) * side), min(height, int(y.max() + 1) * side)
    return [int(x.min()) * side, int(y.min()) * side, right, bottom]


def _cut_probability(mapped: MapFile, threshold: float, info: SlideInfo, folder: Path) -> dict[str, Any]:
    zoom, tiles = cut_probability(mapped, info.mpp, ZoomLadder(info.size_lv0, ZOOM_TILE_PX), folder)
    return {
        "zoom": zoom,
        "tiles": runs(tiles),
        "threshold": threshold,
        "first_positive": max(1, int(as_u8(np.array(first_positive(threshold))))),
        "counts": value_counts(mapped).tolist(),
        "pixel_mm2": mapped.mpp**2 / 1e6,
    }
