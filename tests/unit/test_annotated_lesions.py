"""What counts as one lesion: outlines, their margin, and boxes of them."""

import numpy as np
import pytest
from lesionmap.annotated_lesions import AnnotatedLesions
from lesionmap.masks import Outlines
from scipy.ndimage import binary_fill_holes, distance_transform_edt
from shapely.geometry import Point, Polygon, box
from skimage.measure import label

MPP = 0.5
UM = 1 / MPP  # level-0 pixels


def square(left_um, top_um, side_um=100):
    return box(left_um * UM, top_um * UM, (left_um + side_um) * UM, (top_um + side_um) * UM)


@pytest.mark.parametrize(("gap_um", "lesions"), [(70, 1), (80, 2)])
def test_outlines_nearer_than_75_um_are_one_lesion(gap_um, lesions):
    found = AnnotatedLesions.of([square(0, 0), square(100 + gap_um, 0)], MPP)
    assert len(found.area_mm2) == lesions
    assert found.area_mm2.sum() == pytest.approx(2 * 0.01)


def test_area_and_extent_are_without_the_margin():
    found = AnnotatedLesions.of([square(300, 200), square(300, 310)], MPP)
    assert found.area_mm2 == pytest.approx([0.02])
    assert found.extent_um == pytest.approx([np.hypot(100, 210)])


def test_a_spared_island_and_what_lies_in_it_belong_to_the_lesion():
    ring = Polygon(square(0, 0, 1000).exterior, [square(100, 100, 800).exterior])
    found = AnnotatedLesions.of([square(450, 450), ring], MPP)
    assert found.area_mm2 == pytest.approx([1 - 0.64 + 0.01])
    assert set(np.unique(found.reaches.drawn((0, 0), (200, 200), 10.0, "int32"))) == {1}


def test_lesions_reach_37_5_um_beyond_their_outlines():
    found = AnnotatedLesions.of([square(200, 200), square(800, 200)], MPP)
    drawn = found.reaches.drawn((0, 0), (1000, 500), UM, "int32")  # 1 µm/px
    assert drawn[250, 163:337].all()
    assert not drawn[250, [161, 338]].any()
    assert drawn[250, 250] != drawn[250, 850]


@pytest.mark.parametrize("seed", [0, 1, 4])  # of 3, two lesions are 75.5 µm apart: there a pixel decides
def test_against_the_challenges_own_way_on_a_mask(seed):
    """Distance to the mask, holes filled, 8-connected labels; it differs at the rim, by what a pixel is."""
    rng = np.random.default_rng(seed)
    rings = [Point(*rng.uniform(200, 1800, 2)).buffer(radius) for radius in rng.uniform(20, 220, 25)]
    outlines = [ring.difference(ring.buffer(-0.3 * np.sqrt(ring.area))) for ring in rings]
    found = AnnotatedLesions.of(outlines, MPP)
    place = (0, 0), (1000, 1000), UM  # 1 µm/px
    mask = Outlines(outlines, [1] * len(outlines)).drawn(*place)
    theirs = label(binary_fill_holes(distance_transform_edt(1 - mask) < 37.5), connectivity=2)
    ours = found.reaches.drawn(*place, "int32")
    assert theirs.max() == len(found.area_mm2) > 1
    assert ((ours > 0) != (theirs > 0)).sum() < 0.02 * (theirs > 0).sum()
    both = (ours > 0) & (theirs > 0)
    assert len(np.unique(np.stack([ours[both], theirs[both]]), axis=1).T) == theirs.max()  # one to one


def test_overlapping_outlines_count_once():
    disc = Point(1000, 1000).buffer(200)
    assert AnnotatedLesions.of([disc, disc], MPP).area_mm2 == pytest.approx([disc.area * MPP**2 / 1e6])


def test_without_outlines_there_is_no_lesion():
    found = AnnotatedLesions.of([], MPP)
    assert found.area_mm2.size == found.extent_um.size == 0
    assert not found.reaches.drawn((0, 0), (5, 4), 1.0).any()
