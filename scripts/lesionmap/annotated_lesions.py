"""What counts as one annotated lesion, by the rules of CAMELYON16."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from lesionmap.masks import Outlines

MARGIN_UM = 37.5  # half of the 75 µm, five tumour cells, within which CAMELYON16 takes two outlines for one lesion


@dataclass(frozen=True)
class AnnotatedLesions:
    """The lesions of a slide's annotation, numbered from 1.

    Outlines less than 75 µm apart are one lesion, and what is found within 37.5 µm of it or in a hole of it is found in
    it (Ehteshami Bejnordi et al., JAMA 2017, and the evaluation code of CAMELYON16).

    Parameters
    ----------
    area_mm2 : (N,) float64
        Of the outlines, without the margin.
    extent_um : (N,) float64
        Diameter of the smallest circle around them.
    reaches : Outlines
        The lesions with their margin and without holes; values are their numbers.
    """

    area_mm2: NDArray[np.float64]
    extent_um: NDArray[np.float64]
    reaches: Outlines

    @classmethod
    def of(cls, outlines: Sequence[BaseGeometry], mpp: float) -> "AnnotatedLesions":
        """Lesions of the outlines of that class, in level-0 pixels of `mpp` µm."""
        grown = shapely.buffer(np.array(outlines, dtype=object), MARGIN_UM / mpp)
        parts = shapely.get_parts(shapely.union_all(grown))
        filled = shapely.polygons(shapely.get_exterior_ring(parts))
        reaches = shapely.get_parts(shapely.union_all(filled))  # a lesion in the hole of another is part of that
        members = _by_reach(outlines, reaches)
        area = np.array([shapely.area(lesion) for lesion in members])
        extent = np.array([2 * shapely.minimum_bounding_radius(lesion) for lesion in members])
        numbers = range(1, len(reaches) + 1)
        return cls(area * mpp**2 / 1e6, extent * mpp, Outlines(list(reaches), list(numbers)))


def _by_reach(outlines: Sequence[BaseGeometry], reaches: NDArray[Any]) -> list[BaseGeometry]:
    """The outlines within each reach, as one geometry each."""
    inside = shapely.STRtree(outlines).query(reaches, predicate="intersects")
    return [shapely.union_all([outlines[index] for index in inside[1][inside[0] == n]]) for n in range(len(reaches))]
