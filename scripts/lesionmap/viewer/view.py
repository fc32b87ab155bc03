"""Write a slide's deep-zoom view: tiles of its picture and of its lesion probability, and data for the viewer."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from shapely.geometry import mapping, shape
from shapely.geometry.base import BaseGeometry

from lesionmap.annotations.classes import OUTLINED
from lesionmap.files.atomic import folder_written_whole
from lesionmap.files.records import read_json, write_text
from lesionmap.jobs.quarantine import quarantined
from lesionmap.maps.map_file import MapFile
from lesionmap.maps.probability import as_u8, first_positive
from lesionmap.slides.slide import Slide, SlideInfo
from lesionmap.tissue.mask import TissueMask
from lesionmap.viewer.overlay import draw_overlay
from lesionmap.viewer.probability_tiles import cut_probability, value_counts
from lesionmap.viewer.pyramid import Tile, ZoomLadder, detail_tiles, runs, with_ancestors
from lesionmap.viewer.slide_tiles import Content, SlideCutter, glass_colour

ZOOM_TILE_PX = 512
OVERVIEW_MPP = 2.5  # the whole slide is shown at this resolution or a finer one
LESIONS, ALL = "lesions", "all"  # what is shown at full resolution
MARGIN_UM = 100.0  # around a lesion
MOST_DETAIL_TILES = 1000  # of the native zoom; with the coarser tiles, about 90 MB
MOST_OUTLINES, MOST_POINTS = 5000, 500_000  # per class; with more, the browser is busy for half a second per zoom
LESION = "lesion"
DATA = "view.js"


@dataclass(frozen=True)
class ViewedFiles:
    """Paths of a slide's tissue mask, probability map, lesion map, outlines and annotation."""

    tissue: str
    probability: str
    lesions: str
    outlines: str
    annotation: str | None


@dataclass(frozen=True)
class ViewOutline:
    """A polygon in level-0 pixels; `name` is a lesion's name, or the class of an annotation as its file names it."""

    name: str
    polygon: BaseGeometry
    area: float

    @property
    def rings(self) -> list[list[int]]:
        """Edge and holes, each as x, y, x, y, …; the first point is not repeated at the end."""
        rings = mapping(self.polygon)["coordinates"]
        return [np.rint(ring[:-1]).astype(int).ravel().tolist() for ring in rings]


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
        Gets ``slide/<zoom>/<column>_<row>.jpg``, ``probability/<zoom>/<column>_<row>.png`` and ``view.js``.
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
    predicted = _predicted(content["features"], info)
    annotated = _annotated(files.annotation)
    view = {
        "slide": info.slide,
        "size": info.size_lv0,
        "mpp": info.mpp,
        "native": ladder.native,
        "tile_px": ZOOM_TILE_PX,
        "predicted": {"n": len(predicted), "outlines": _shown(predicted)},
        "annotated": [_class_view(name, outlines, info) for name, outlines in annotated.items()],
        "provenance": provenance,
    }
    lesions = sorted([*predicted, *annotated.get(LESION, [])], key=lambda outline: outline.area, reverse=True)
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
    """JSON on one line that cannot end a script element, whatever texts it holds."""
    text = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _predicted(features: Sequence[dict[str, Any]], info: SlideInfo) -> list[ViewOutline]:
    """A map's lesions, largest first, as in the report; the file's coordinates are relative to the bounds' corner."""
    corner = np.array(info.bounds_xy_lv0)
    ordered = sorted(features, key=lambda feature: feature["properties"]["measurements"]["Area mm^2"], reverse=True)
    polygons = [shapely.transform(shape(feature["geometry"]), lambda xy: xy + corner) for feature in ordered]
    return [
        ViewOutline(feature["properties"]["name"], polygon, polygon.area)
        for feature, polygon in zip(ordered, polygons, strict=True)
    ]


def _annotated(path: str | None) -> dict[str, list[ViewOutline]]:
    """The annotation's outlines by class, largest first."""
    if path is None or quarantined(path):
        return {}
    found: dict[str, list[ViewOutline]] = {name: [] for name in reversed(OUTLINED)}
    for feature in read_json(path)["features"]:
        polygon = shape(feature["geometry"])
        found[feature["properties"]["class"]].append(ViewOutline(feature["properties"]["name"], polygon, polygon.area))
    return {name: sorted(some, key=lambda outline: outline.area, reverse=True) for name, some in found.items() if some}


def _shown(outlines: Sequence[ViewOutline]) -> list[dict[str, Any]]:
    """The first outlines, at least one and not too many, as the viewer shows them."""
    points = np.cumsum([shapely.get_num_coordinates(outline.polygon) for outline in outlines])
    most = min(MOST_OUTLINES, max(1, int(np.searchsorted(points, MOST_POINTS, side="right"))))
    return [{"name": outline.name, "rings": outline.rings} for outline in outlines[:most]]


def _class_view(name: str, outlines: list[ViewOutline], info: SlideInfo) -> dict[str, Any]:
    return {
        "class": name,
        "names": sorted({outline.name for outline in outlines}),
        "n": len(outlines),
        "area_mm2": round(shapely.union_all([outline.polygon for outline in outlines]).area * info.mpp**2 / 1e6, 6),
        "outlines": _shown(outlines),
    }


def _cut_slide(
    slide: Slide, tissue: TissueMask, lesions: Sequence[ViewOutline], folder: Path, detail: str, *, threads: int
) -> dict[str, Any]:
    info, ladder = slide.info, ZoomLadder(slide.info.size_lv0, ZOOM_TILE_PX)
    base = ladder.zoom_of(OVERVIEW_MPP / info.mpp)
    glass = glass_colour(slide, tissue)
    cutter = SlideCutter(slide, ladder, glass, folder, threads)
    content = cutter.whole(base)
    wanted, without = _wanted(detail if base < ladder.native else ALL, content, lesions, info)
    cutter.details(tile for tile in with_ancestors(wanted, base + 1) if tile[0] > base and tile in content)
    return {
        "background": "#{:02x}{:02x}{:02x}".format(*glass),
        "home": _home(content, ladder),
        "picture": {"base": base, "tiles": runs(cutter.cut.tiles), "damaged": cutter.cut.damaged},
        "detail": {"mode": detail, "lesions": len(lesions), "without": without},
    }


def _wanted(detail: str, content: Content, lesions: Sequence[ViewOutline], info: SlideInfo) -> tuple[set[Tile], int]:
    """The tiles of the native zoom to show, and the number of lesions that they do not show in full."""
    ladder = ZoomLadder(info.size_lv0, ZOOM_TILE_PX)
    if detail == LESIONS:
        polygons = [outline.polygon for outline in lesions]
        chosen, whole = detail_tiles(polygons, ladder, MARGIN_UM / info.mpp, MOST_DETAIL_TILES)
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
