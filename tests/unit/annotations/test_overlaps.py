"""Polygons cut out of others: areas are counted on a raster of their own."""

import numpy as np
import pytest
import shapely
from annotation_writers import info_at, settings
from lesionmap.annotations.canonical import canonical
from lesionmap.annotations.content import AnnotatedOutline, AnnotationFile
from lesionmap.annotations.overlaps import MANY_RINGS, PolygonSet, overlapping, union_area, without
from shapely.geometry import Polygon, box

CELL, ACROSS, DOWN = 12, 30, 20  # px; cells of a grid, each with one rectangle on whole pixels
SIZE = (CELL * ACROSS + 9, CELL * DOWN + 7)
pytestmark = pytest.mark.annotations


def rectangles(seed, most=9):
    """One rectangle a cell as (left, top, right, bottom), (N, 4); none touch another if `most` is below CELL."""
    rng = np.random.default_rng(seed)
    corner = np.stack(np.meshgrid(np.arange(ACROSS), np.arange(DOWN)), axis=2).reshape(-1, 2) * CELL + 3
    start = corner + rng.integers(0, 3, corner.shape)
    return np.concatenate([start, start + rng.integers(3, most, corner.shape)], axis=1)


def raster(*groups):
    """Pixels that any rectangle of each group covers."""
    masks = np.zeros((len(groups), SIZE[1], SIZE[0]), dtype=bool)
    for mask, group in zip(masks, groups, strict=True):
        for left, top, right, bottom in group:
            mask[top:bottom, left:right] = True
    return masks


def boxes(places):
    return [box(*place) for place in places]


def areas_of(outlines):
    content = canonical(AnnotationFile("GeoJSON", outlines), info_at(1000.0, size=SIZE), settings())  # 1 px is 1 mm²
    return [content["classes"][label]["area_mm2"] for label in ("lesion", "vessel", "fat")]


WIDE = box(1, 2, SIZE[0] - 3, SIZE[1] - 1)
N_WIDE = (SIZE[0] - 4) * (SIZE[1] - 3)


@pytest.mark.parametrize("most", [8, 20])
@pytest.mark.parametrize("kind", ["cuts", "hole", "inner"])
def test_many_holes_in_one_outline(kind, most):
    places = rectangles(0, most)
    (holes,) = raster(places) & raster([(1, 2, SIZE[0] - 3, SIZE[1] - 1)])
    outlines = [AnnotatedOutline("Lesion", WIDE)]
    if kind == "inner":
        outlines = [AnnotatedOutline("Lesion", WIDE.difference(shapely.union_all(boxes(places))))]
    elif kind == "cuts":
        outlines += [AnnotatedOutline("Lesion", hole, cuts=True) for hole in boxes(places)]
    else:
        outlines += [AnnotatedOutline("Exclusion", hole) for hole in boxes(places)]
    assert areas_of(outlines) == [N_WIDE - holes.sum(), 0, 0]


@pytest.mark.parametrize("most", [8, 20])
def test_many_outlines_of_three_classes_over_each_other(most):
    places = [rectangles(seed, most) for seed in (1, 2, 3)]
    names = ("Lesion", "Vessel", "Fat")
    outlines = [AnnotatedOutline(name, one) for name, group in zip(names, places, strict=True) for one in boxes(group)]
    inside = raster([(0, 0, *SIZE)])[0]
    lesion, vessel, fat = raster(*places) & inside
    assert areas_of(outlines[::-1]) == [lesion.sum(), (vessel & ~lesion).sum(), (fat & ~vessel & ~lesion).sum()]


def test_outlines_over_those_of_many_rings():
    holes, vessels, fat = (rectangles(seed) for seed in (4, 5, 6))
    holed = WIDE.difference(shapely.union_all(boxes(holes)))
    assert len(holed.interiors) > 10 * MANY_RINGS
    outlines = [AnnotatedOutline("Lesion", holed), AnnotatedOutline("Fat", WIDE)]
    outlines += [AnnotatedOutline("Vessel", one) for one in boxes(vessels)]
    outlines += [AnnotatedOutline("Fat", one) for one in boxes(fat)]
    empty, vessel = raster(holes, vessels)
    assert areas_of(outlines) == [N_WIDE - empty.sum(), (empty & vessel).sum(), (empty & ~vessel).sum()]


def test_many_nests_in_an_outline():
    places = rectangles(7)
    grown = places + np.array([-1, -1, 1, 1])
    outlines = [AnnotatedOutline("Lesion", WIDE)]
    outlines += [AnnotatedOutline("Lesion", one, cuts=True) for one in boxes(grown)]
    outlines += [AnnotatedOutline("Lesion", one) for one in boxes(places)]
    inner, outer = raster(places, grown)
    assert areas_of(outlines) == [N_WIDE - outer.sum() + inner.sum(), 0, 0]


def test_touching_polygons_do_not_overlap():
    comb = WIDE.difference(shapely.union_all(boxes(rectangles(8, 8))))
    fillings = PolygonSet(boxes(rectangles(8, 8)))
    assert [pairs.tolist() for pairs in overlapping(PolygonSet([comb, comb]), fillings)] == [[], []]
    assert [pairs.tolist() for pairs in overlapping(fillings, PolygonSet([comb]))] == [[], []]


def test_pairs_are_found_in_order_and_of_one_set_once():
    polygons = PolygonSet([box(0, 0, 9, 7), box(8, 6, 12, 9), box(1, 1, 3, 4), box(9, 0, 11, 6), box(0, 0, 9, 7)])
    i, j = overlapping(polygons, polygons)
    assert list(zip(i.tolist(), j.tolist(), strict=True)) == [(1, 0), (2, 0), (4, 0), (4, 1), (4, 2)]
    i, j = overlapping(PolygonSet([box(8, 0, 10, 8)]), polygons)
    assert (i.tolist(), j.tolist()) == ([0, 0, 0, 0], [0, 1, 3, 4])


def test_near_a_place_a_polygon_is_the_same():
    comb = WIDE.difference(shapely.union_all(boxes(rectangles(9, 8))))
    place = (101, 63, 190, 88)
    part = PolygonSet([box(0, 0, 1, 1), comb]).near(1, place)
    assert len(part.interiors) < len(comb.interiors) / 4
    assert part.intersection(box(*place)).equals(comb.intersection(box(*place)))


def test_only_the_paired_holes_are_cut():
    areas, holes = PolygonSet([box(0, 0, 10, 10), box(20, 0, 30, 10)]), PolygonSet([box(5, 2, 25, 5), box(1, 1, 2, 3)])
    rest = without(areas, holes, (np.array([1]), np.array([0])))
    assert [one.area for one in rest] == [100, 100 - 15]


def test_the_area_of_a_union_counts_once():
    assert union_area([]) == 0
    assert union_area([box(0, 0, 10, 7), box(9, 6, 12, 9), box(1, 1, 3, 4), box(0, 0, 10, 7), Polygon()]) == 70 + 9 - 1
