"""Distances between boundaries, by hand: sides of pixels have a length of 1, and their middles lie at half pixels."""

import numpy as np
import pytest
from lesionmap.metrics.boundaries import Boundary, BoundaryTracer, boundary_metrics

SHAPE = (9, 14)


def mask_of(*boxes, shape=SHAPE):
    """A mask of boxes (top, bottom, left, right), the ends left out."""
    mask = np.zeros(shape, bool)
    for top, bottom, left, right in boxes:
        mask[top:bottom, left:right] = True
    return mask


def traced(lesion, cut=None, rows=100):
    cut = np.zeros(lesion.shape, bool) if cut is None else cut
    tracer = BoundaryTracer(lesion.shape[1])
    for top in range(0, len(lesion), rows):
        tracer.add(lesion[top : top + rows] & ~cut[top : top + rows], cut[top : top + rows])
    return tracer.found()


def compared(one, other, tolerance_um, mpp=1.0, cut=None):
    found = boundary_metrics([traced(one, cut), traced(other, cut)], mpp, tolerance_um)
    assert boundary_metrics([traced(other, cut), traced(one, cut)], mpp, tolerance_um) == found
    return found


def listed(boundary: Boundary, *, drawn=True):
    return sorted(tuple(side) for side in boundary.sides[boundary.drawn == drawn].tolist())


def test_the_sides_of_a_mask_are_at_their_places():
    boundary = traced(mask_of((1, 2, 3, 5)))
    assert listed(boundary) == [(2, 7), (2, 9), (3, 6), (3, 10), (4, 7), (4, 9)]
    assert listed(boundary, drawn=False) == []


def test_where_the_map_ends_or_pixels_are_ignored_nothing_is_drawn():
    ignored = mask_of((1, 2, 3, 4), shape=(2, 5))
    boundary = traced(mask_of((0, 2, 0, 5), shape=(2, 5)), ignored)
    assert listed(boundary) == []
    at_the_end = [*((0, 2 * x + 1) for x in range(5)), *((4, 2 * x + 1) for x in (0, 1, 2, 4))]
    at_the_end += [(y, x) for x in (0, 10) for y in (1, 3)]
    assert listed(boundary, drawn=False) == sorted([*at_the_end, (3, 6), (3, 8), (2, 7)])


def test_strips_of_any_height_give_the_same():
    rng = np.random.default_rng(3)
    lesion, cut = rng.random((31, 17)) < 0.5, rng.random((31, 17)) < 0.2
    whole = traced(lesion, cut)
    for rows in (1, 4, 30):
        parts = traced(lesion, cut, rows)
        assert [listed(parts, drawn=kind) for kind in (True, False)] == [
            listed(whole, drawn=kind) for kind in (True, False)
        ]


@pytest.mark.parametrize(("tolerance_um", "nsd"), [(0.0, 0.4), (1.7, 0.4), (2.5, 0.6), (4.0, 0.8), (4.9, 0.8), (5, 1)])
def test_a_box_two_pixels_beside_another(tolerance_um, nsd):
    """Of 20 sides, 8 are shared, 4 are 0.71 px away, 4 are 1.58 px, 4 are 2 px; so for both."""
    found = compared(mask_of((2, 6, 2, 8)), mask_of((2, 6, 4, 10)), tolerance_um, mpp=2.5)
    assert found == {"nsd": pytest.approx(nsd), "hd95_um": 5.0, "undefined": {}}


def test_the_farther_of_both_ways_decides():
    """A second lesion that only one of them has: its sides are 9 to 10 px from the other's, which are all near."""
    one, two = (0, 1, 0, 1), (0, 1, 10, 11)
    cut = np.zeros((4, 14), bool)
    cut[3] = True
    masks = [np.roll(mask_of(*boxes, shape=(4, 14)), (1, 1), (0, 1)) for boxes in ([one], [one, two])]
    found = compared(*masks, tolerance_um=9.0, cut=cut)
    assert found == {"nsd": pytest.approx((4 + 4 + 1) / 12), "hd95_um": 10.0, "undefined": {}}


def test_a_twentieth_of_the_sides_may_lie_anywhere():
    """A line of 1 × 37 px has 76 sides; a pixel that is missing at its end moves one of them, and takes two away."""
    shape = (5, 40)
    line, shorter = mask_of((2, 3, 1, 38), shape=shape), mask_of((2, 3, 1, 37), shape=shape)
    found = compared(line, shorter, tolerance_um=0.0)
    assert found == {"nsd": pytest.approx((73 + 73) / (76 + 74)), "hd95_um": 0.0, "undefined": {}}


def test_cut_sides_are_not_counted_but_may_be_near():
    """Both reach from the left end to column 5 or 7, over the whole height: only their right sides are drawn."""
    found = compared(mask_of((0, 4, 0, 5), shape=(4, 10)), mask_of((0, 4, 0, 7), shape=(4, 10)), 1.6)
    assert found == {"nsd": 4 / 8, "hd95_um": 2.0, "undefined": {}}


def test_what_is_missing_decides_what_is_undefined():
    lesion, nothing = mask_of((2, 4, 3, 6)), mask_of()
    assert compared(lesion, nothing, 1e6) == {
        "nsd": 0.0,
        "hd95_um": None,
        "undefined": {"hd95_um": "only one of the two has lesion"},
    }
    neither = "neither has lesion"
    assert compared(nothing, nothing, 1e6) == {
        "nsd": None,
        "hd95_um": None,
        "undefined": {"nsd": neither, "hd95_um": neither},
    }
    unknown = "no boundary lies in judged pixels"
    assert compared(~nothing, ~nothing, 1e6)["undefined"] == {"nsd": unknown, "hd95_um": unknown}


def test_only_one_has_a_drawn_boundary():
    """One covers the whole map; the other's right sides, at column 4, are 1 px from its end."""
    found = compared(~mask_of(shape=(3, 5)), mask_of((0, 3, 0, 4), shape=(3, 5)), 0.9)
    assert found == {"nsd": pytest.approx(2 / 3), "hd95_um": 1.0, "undefined": {}}
