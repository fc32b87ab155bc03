"""Cut polygons out of others, in nearly linear time however many there are and however many rings they have."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import Polygon, box
from shapely.geometry.base import BaseGeometry

MANY_RINGS = 50  # of polygons with more inner rings, only those near the other polygon are looked at
Indices = NDArray[np.intp]


class PolygonSet:
    """Polygons, prepared for the question which of them overlap others."""

    def __init__(self, polygons: Sequence[Polygon]) -> None:
        self.polygons: NDArray[Any] = np.empty(len(polygons), dtype=object)
        self.polygons[:] = polygons
        self.extent = shapely.area(shapely.envelope(self.polygons))
        self.area = shapely.area(self.polygons)
        self._rings: dict[int, shapely.STRtree] = {}
        shapely.prepare(self.polygons)

    def near(self, index: int, bounds: tuple[float, float, float, float]) -> Polygon:
        """A polygon that equals polygon `index` within `bounds`, and may lack rings elsewhere."""
        polygon: Polygon = self.polygons[index]
        if shapely.get_num_interior_rings(polygon) <= MANY_RINGS:
            return polygon
        if index not in self._rings:
            self._rings[index] = shapely.STRtree(list(polygon.interiors))
        tree = self._rings[index]
        return Polygon(polygon.exterior, tree.geometries[np.sort(tree.query(box(*bounds)))])


def overlapping(first: PolygonSet, second: PolygonSet) -> tuple[Indices, Indices]:
    """Indices (i, j), sorted, of all pairs whose interiors overlap; those that only touch do not.

    Of a set and itself, only pairs with j < i.
    """
    i, j = shapely.STRtree(second.polygons).query(first.polygons)
    if first is second:
        i, j = i[j < i], j[j < i]
    order = np.lexsort((j, i))
    i, j = i[order], j[order]
    one, two = first.polygons[i], second.polygons[j]
    wider = first.extent[i] >= second.extent[j]  # a prepared polygon is quick to compare with a small one
    large, small = np.where(wider, one, two), np.where(wider, two, one)
    meet = shapely.contains_properly(large, small)
    for at in np.flatnonzero(~meet & shapely.intersects(large, small)):
        part, other = first.near(i[at], two[at].bounds), second.near(j[at], one[at].bounds)
        meet[at] = part.intersection(other).area > 0
    return i[meet], j[meet]


def without(areas: PolygonSet, holes: PolygonSet, pairs: tuple[Indices, Indices]) -> list[BaseGeometry]:
    """Each area minus its holes.

    Parameters
    ----------
    pairs : (indices, indices)
        Which holes are cut out of which areas: index of the area, ascending, and of the hole.
    """
    numbers = np.arange(len(areas.polygons))
    starts, stops = (np.searchsorted(pairs[0], numbers, side) for side in ("left", "right"))
    return [_cut(areas.polygons[n], holes, pairs[1][starts[n] : stops[n]]) for n in numbers]


def _cut(area: BaseGeometry, holes: PolygonSet, cuts: Indices) -> BaseGeometry:
    """One area minus some holes; those with many rings one by one, as their union with others takes too long."""
    near = [holes.near(cut, area.bounds) for cut in cuts]
    for hole in near:
        if len(hole.interiors) > MANY_RINGS:
            area = area.difference(hole)
    others = [hole for hole in near if len(hole.interiors) <= MANY_RINGS]
    return area.difference(shapely.disjoint_subset_union_all(others)) if others else area


def union_area(polygons: Sequence[Polygon]) -> float:
    """Area that polygons cover together, in their own unit squared."""
    members = PolygonSet(polygons)
    return float(shapely.area(without(members, members, overlapping(members, members))).sum())
