"""Export the lesions of a slide for other programs: outlines as GeoJSON, and a table with a row for each."""

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, count, islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import rasterio.features
import shapely
from numpy.typing import NDArray
from scipy.spatial.distance import pdist

from lesionmap.files.atomic import written_whole
from lesionmap.files.records import table_writer
from lesionmap.geometry.identity import DECIMALS, lesion_id
from lesionmap.maps.components import Components, find_components
from lesionmap.maps.map_file import MapFile
from lesionmap.maps.ome_tiff import LESION_COLOUR
from lesionmap.maps.on_disk import Rows, strips
from lesionmap.maps.probability import MILLION, SPREAD_PER_SD, as_logits, as_probability
from lesionmap.metrics.verdicts import Verdicts
from lesionmap.slides.slide import SlideInfo

OUTLINES_AT_ONCE = 1000
MEASURED_ROWS = 128
COLUMNS = (
    *("name", "area_mm2", "centroid_x", "centroid_y", "mean_probability", "max_probability", "max_logit"),
    *("x", "y", "width", "height", "diameter_mm", "id", "verdict"),
)
UNCERTAINTY = "uncertainty_mean"  # the last column of an ensemble's lesions


def write_lesions(
    outlines: str | Path,
    table: str | Path,
    lesions_map: str | Path,
    scores: Rows,
    uncertainty: Rows | None = None,
    *,
    info: SlideInfo,
    metadata: dict[str, Any],
    origin: Mapping[str, str] = MappingProxyType({}),
    verdicts: Verdicts | None = None,
) -> tuple[int, float]:
    """Write lesion outlines as GeoJSON for QuPath (0.4 or later), and a table with a row for each, in the same order.

    Time and memory are linear in the map's pixels and the outlines' vertices. A few rows of the maps are in memory.

    Parameters
    ----------
    outlines, table : str or Path
        GeoJSON and TSV. Level-0 coordinates are relative to the corner of the slide's bounds, to which QuPath crops.
    lesions_map : str or Path
        File of :func:`lesionmap.maps.ome_tiff.write_map`.
    scores : (H, W) uint16
        Scores of the probability map, on the same grid.
    uncertainty : (H, W) uint8, optional
        Spread between the models of an ensemble (:class:`lesionmap.inference.ensemble.Ensemble`), on the same grid.
        With it, each lesion has its mean standard deviation as `UNCERTAINTY`.
    metadata : dict
        Written beside the features: ``unreadable`` (x, y, width, height in level-0 pixels) and ``provenance``.
    origin : mapping of str to str
        What each outline tells of where it comes from, in its ``metadata``, which QuPath keeps.
    verdicts : Verdicts, optional
        On the lesions of the map, if there is an annotation.

    Returns
    -------
    n : int
        Number of lesions.
    area_mm2 : float
        Their total area.
    """
    frame = {"unit": "level-0 pixels", "origin_xy_lv0": info.bounds_xy_lv0, "mpp": info.mpp}
    head = json.dumps({"type": "FeatureCollection", "slide": info.slide, "frame": frame, **metadata})
    n, area_mm2 = 0, 0.0
    with (
        written_whole(outlines) as geojson_draft,
        written_whole(table) as table_draft,
        open(geojson_draft, "w", encoding="utf-8") as geojson,
        open(table_draft, "w", encoding="utf-8", newline="") as stream,
    ):
        rows = table_writer(stream, COLUMNS if uncertainty is None else (*COLUMNS, UNCERTAINTY))
        geojson.write(f'{head[:-1]}, "features": [')
        for outline, row in _lesions(lesions_map, scores, uncertainty, info, verdicts):
            geojson.write(f"{',' if n else ''}\n{_feature(outline, row, origin)}")
            rows.writerow(row)
            n, area_mm2 = n + 1, area_mm2 + row["area_mm2"]
        geojson.write("\n]}\n")
    return n, area_mm2


def _lesions(
    lesions_map: str | Path, scores: Rows, uncertainty: Rows | None, info: SlideInfo, verdicts: Verdicts | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Outline (GeoJSON) and table row of each lesion, in the order in which GDAL completes them from the top down."""
    names = (f"Lesion {number}" for number in count(1))
    values = [scores] if uncertainty is None else [scores, uncertainty]
    with MapFile(lesions_map) as mapped:
        height, width = mapped.shape
        parts = strips(height, MEASURED_ROWS)
        measured = find_components((mapped[part] > 0, *(one[part] for one in values)) for part in parts)
        scale = mapped.mpp / info.mpp
        for traced in _outlines(mapped):
            index = np.searchsorted(measured.first, _first_pixels(traced, width))
            outlines = shapely.transform(traced, lambda xy: _placed(xy * scale, info))
            found = measured.at(index)
            judged = np.full(len(index), "") if verdicts is None else verdicts.verdict[index]
            rows = _rows(names, outlines, found, judged, info)
            if uncertainty is not None:
                mean_sd = (found.spread / found.pixels / SPREAD_PER_SD).round(4).tolist()
                rows = (row | {UNCERTAINTY: mean} for row, mean in zip(rows, mean_sd, strict=True))
            yield from zip(shapely.to_geojson(_written(outlines)), rows, strict=True)


def _outlines(mapped: MapFile) -> Iterator[NDArray[Any]]:
    """Polygons around 4-connected lesions, in map pixels, many at a time: arrays (n,) of objects."""
    shapes = rasterio.features.shapes(mapped.band, mask=mapped.band, connectivity=4)
    while some := [geometry["coordinates"] for geometry, _ in islice(shapes, OUTLINES_AT_ONCE)]:
        rings = list(chain.from_iterable(some))
        offsets = np.cumsum([0, *map(len, rings)]), np.cumsum([0, *map(len, some)])
        vertices = np.array(list(chain.from_iterable(rings)))
        yield shapely.from_ragged_array(shapely.GeometryType.POLYGON, vertices, offsets)


def _first_pixels(outlines: NDArray[Any], width: int) -> NDArray[np.int64]:
    """Index of each lesion's first pixel in the flattened map: the pixel right of and below its first vertex."""
    xy, owner = shapely.get_coordinates(outlines, return_index=True)
    index = xy[:, 1].astype(np.int64) * width + xy[:, 0].astype(np.int64)
    return np.minimum.reduceat(index, np.searchsorted(owner, np.arange(len(outlines))))


def _placed(xy_lv0: NDArray[np.float64], info: SlideInfo) -> NDArray[np.float64]:
    """Clip to the slide's edge (the map's last pixels reach beyond it) and move to the frame of the slide's bounds."""
    return np.clip(xy_lv0, 0, info.size_lv0) - info.bounds_xy_lv0


def _written(outlines: NDArray[Any]) -> NDArray[Any]:
    """Outlines as they are written, wound as RFC 7946 asks (as if y pointed up); areas are measured before."""
    return shapely.orient_polygons(shapely.transform(outlines, lambda xy: np.round(xy, DECIMALS)))


def _rows(
    names: Iterable[str], outlines: NDArray[Any], measured: Components, verdicts: NDArray[np.str_], info: SlideInfo
) -> Iterator[dict[str, Any]]:
    """One row of the table for each lesion."""
    area_mm2 = shapely.area(outlines) * info.mpp**2 / 1e6
    centroid = shapely.get_coordinates(shapely.centroid(outlines))
    mean, peak = measured.total / measured.pixels / MILLION, as_probability(measured.peak)
    written = _written(outlines)
    left, top, right, bottom = shapely.bounds(written).T
    values = (
        *(area_mm2.round(8), *centroid.T.round(2), mean.round(4), peak.round(4), as_logits(measured.peak).round(3)),
        *(left, top, (right - left).round(DECIMALS), (bottom - top).round(DECIMALS)),
        (_diameters(outlines) * info.mpp / 1000).round(6),
        *(np.array([lesion_id(info.identity, outline) for outline in written], dtype=object), verdicts),
    )
    for name, *row in zip(islice(names, len(outlines)), *(column.tolist() for column in values), strict=True):
        yield dict(zip(COLUMNS, (name, *row), strict=True))


def _diameters(outlines: NDArray[Any]) -> NDArray[np.float64]:
    """Greatest distance between two points of each outline, (n,)."""
    hulls = (shapely.get_coordinates(hull) for hull in shapely.convex_hull(outlines))
    return np.array([pdist(hull).max() for hull in hulls])


def _feature(outline: str, row: dict[str, Any], origin: Mapping[str, str]) -> str:
    """One lesion as an annotation object of QuPath."""
    verdict = {"verdict": row["verdict"]} if row["verdict"] else {}
    spread = {"Mean uncertainty": row[UNCERTAINTY]} if UNCERTAINTY in row else {}
    properties = {
        "objectType": "annotation",
        "name": row["name"],
        "classification": {"name": "Lesion", "color": LESION_COLOUR},
        "measurements": {
            "Area mm^2": row["area_mm2"],
            "Mean probability": row["mean_probability"],
            "Max probability": row["max_probability"],
            "Max logit": row["max_logit"],
            "Diameter mm": row["diameter_mm"],
            **spread,
        },
        **verdict,
        "metadata": {**origin, **verdict},
    }
    return f'{{"type": "Feature", "id": "{row["id"]}", "geometry": {outline}, "properties": {json.dumps(properties)}}}'
