"""Rasterise the canonical annotation of a slide: class masks of any box.

Coordinates are continuous level-0 pixels: pixel i covers [i, i + 1), so its centre is i + 0.5.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio.features
import shapely
from affine import Affine
from numpy.typing import NDArray
from shapely import clip_by_rect
from shapely.geometry import box, shape
from shapely.geometry.base import BaseGeometry

from lesionmap.annotations.classes import LESION, OUTLINED
from lesionmap.files.records import read_json


class Outlines:
    """Polygons to rasterise, each with its pixel value; where they overlap, the first wins.

    Parameters
    ----------
    polygons : sequence of Polygon or MultiPolygon
        In level-0 pixels.
    values : sequence of int
        Pixel value of each polygon.
    """

    def __init__(self, polygons: Sequence[BaseGeometry], values: Sequence[int]) -> None:
        self._polygons, self._values = polygons, values
        self._tree = shapely.STRtree(polygons)

    def rasterised(
        self, xy_lv0: tuple[float, float], size_px: tuple[int, int], scale: float, dtype: str = "uint8"
    ) -> NDArray[Any]:
        """Rasterise one box, 0 where there is no polygon; a pixel belongs to the polygon that its centre lies in.

        Parameters
        ----------
        xy_lv0 : (float, float)
            Top-left corner of the box in level-0 pixels.
        size_px : (int, int)
            Width and height of the result.
        scale : float
            Level-0 pixels per pixel of the result.
        dtype : str
            Type of the result; it must hold all values.

        Returns
        -------
        (height, width) array
        """
        area = box(*xy_lv0, xy_lv0[0] + size_px[0] * scale, xy_lv0[1] + size_px[1] * scale)
        hits = sorted(self._tree.query(area, predicate="intersects"), reverse=True)  # the first is drawn last
        left, top, right, bottom = area.buffer(scale).bounds
        # Clip first: rasterising visits every vertex for every row of pixels.
        parts = [(clip_by_rect(self._polygons[hit], left, top, right, bottom), self._values[hit]) for hit in hits]
        shapes = [(part, value) for part, value in parts if not part.is_empty]
        if not shapes:
            return np.zeros((size_px[1], size_px[0]), dtype=dtype)
        raster: NDArray[Any] = rasterio.features.rasterize(
            shapes,
            out_shape=(size_px[1], size_px[0]),
            transform=Affine.translation(*xy_lv0) @ Affine.scale(scale),
            dtype=dtype,
        )
        return raster


class Annotation:
    """The canonical annotation of a slide, ready to rasterise.

    Parameters
    ----------
    source : str, Path, mapping or None
        GeoJSON of :func:`lesionmap.annotations.canonical.import_annotation`, or its content; None if the slide has no
        annotation.
    """

    def __init__(self, source: str | Path | Mapping[str, Any] | None) -> None:
        content = read_json(source) if isinstance(source, str | Path) else source or {}
        features: list[dict[str, Any]] = content.get("features", [])
        self._classes = [OUTLINED[feature["properties"]["class"]] for feature in features]
        self._polygons = [shape(feature["geometry"]) for feature in features]
        self._outlines = Outlines(self._polygons, self._classes)

    @property
    def lesions(self) -> list[BaseGeometry]:
        """Polygons of the class lesion, in level-0 pixels."""
        return [polygon for polygon, label in zip(self._polygons, self._classes, strict=True) if label == LESION]

    def mask(self, xy_lv0: tuple[float, float], size_px: tuple[int, int], scale: float) -> NDArray[np.uint8]:
        """Class mask of one box, as :meth:`Outlines.rasterised`; (height, width) uint8.

        1 lesion, 2 vessel, 3 fat, 255 not to be judged; 0 elsewhere.
        """
        return self._outlines.rasterised(xy_lv0, size_px, scale)
