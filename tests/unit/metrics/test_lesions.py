"""Where the lesions of small maps lie, by hand and against scikit-image."""

import numpy as np
import pytest
from lesionmap.annotations.masks import Outlines
from lesionmap.metrics.lesions import AnnotatedLesions, DetectionFinder, Detections
from scipy.ndimage import binary_fill_holes, distance_transform_edt
from shapely.geometry import Point, Polygon, box
from skimage.measure import label


def detect(predicted, probability_u8, numbers, rows=100, ignored=None):
    finder = DetectionFinder()
    ignored = np.zeros(predicted.shape, bool) if ignored is None else ignored
    for top in range(0, len(predicted), rows):
        part = slice(top, top + rows)
        finder.add(predicted[part], probability_u8[part], numbers[part], ignored[part])
    return finder.found()


def one_by_one(predicted, probability_u8, numbers, ignored):
    """Level and annotated lesion of each detection that is true or false, sorted."""
    labels, found = label(predicted, connectivity=1), []
    for number in range(1, labels.max() + 1):
        of_it = labels == number
        inside = of_it & ~ignored
        if not inside.any():
            continue
        peak = probability_u8[inside].max()
        votes = np.bincount(numbers[inside & (probability_u8 == peak)])
        if votes.argmax() or (of_it & ignored).sum() <= inside.sum():
            found.append((int(peak), int(votes.argmax())))
    return sorted(found)


@pytest.mark.parametrize("rows", [1, 7, 100])
@pytest.mark.parametrize("n_values", [2, 255])
@pytest.mark.parametrize("share", [0, 0.4])
def test_against_scikit_image_however_the_map_is_divided(rows, n_values, share):
    rng = np.random.default_rng(n_values)
    predicted = rng.random((60, 80)) < 0.55
    probability_u8 = rng.integers(0, n_values, predicted.shape).astype(np.uint8)
    numbers = np.kron(rng.integers(0, 4, (6, 8)), np.ones((10, 10), dtype=int)).astype(np.int32)
    ignored = np.kron(rng.random((12, 16)) < share, np.ones((5, 5))) > 0
    found = detect(predicted, probability_u8, numbers, rows, ignored)
    pairs = sorted(zip(found.score.tolist(), found.lesion.tolist(), strict=True))
    assert pairs == one_by_one(predicted, probability_u8, numbers, ignored)
    assert (len(pairs) < label(predicted, connectivity=1).max()) == (share > 0)


def test_a_detection_lies_where_its_probability_is_highest():
    probability_u8 = np.array([[150, 200, 210, 160]], np.uint8)
    for numbers, expected in (([0, 0, 5, 5], 5), ([5, 5, 0, 5], 0)):
        found = detect(probability_u8 > 0, probability_u8, np.array([numbers], np.int32))
        assert (found.score.tolist(), found.lesion.tolist()) == ([210], [expected])


@pytest.mark.parametrize(("numbers", "expected"), [([0, 7, 7], 7), ([0, 0, 7], 0), ([3, 0, 0], 0), ([0, 2, 5], 0)])
def test_of_equal_pixels_most_decide_and_of_equally_many_the_outside(numbers, expected):
    probability_u8 = np.array([[255, 255, 255]], np.uint8)
    assert detect(probability_u8 > 0, probability_u8, np.array([numbers], np.int32)).lesion.tolist() == [expected]


def test_a_map_that_is_lesion_everywhere_finds_one_lesion_at_most():
    probability_u8 = np.full((10, 10), 255, np.uint8)
    numbers = np.repeat(np.arange(10, dtype=np.int32), 10).reshape(10, 10)
    assert len(detect(probability_u8 > 0, probability_u8, numbers, rows=3).score) == 1


def test_a_second_detection_in_a_lesion_counts_nothing():
    found = Detections(score=np.array([200, 180, 90, 130]), lesion=np.array([2, 2, 0, 1]))
    assert found.best_scores(3).tolist() == [130, 200, -1]
    assert found.false_positive_scores.tolist() == [90]


def test_an_empty_map_has_no_detection():
    empty = np.zeros((4, 5), np.uint8)
    found = detect(empty > 0, empty, empty.astype(np.int32), rows=2)
    assert found.score.size == 0
    assert found.best_scores(2).tolist() == [-1, -1]
    assert not found.false_positive_scores.size


@pytest.mark.parametrize(
    ("predicted", "number", "ignored", "expected"),
    [
        ("11111", "00000", "11100", []),  # most of it, its rim outside is not false either
        ("11110", "00000", "11000", [(230, 0)]),  # half of it: false, by what is judged of it
        ("11111", "00055", "11100", [(240, 5)]),  # in a lesion, it finds it, however small the part
        ("11111", "55500", "11100", []),  # only where it is ignored does it reach a lesion
        ("11111", "00000", "11111", []),  # all of it
        ("10101", "00000", "10100", [(240, 0)]),  # three detections
        ("01111", "00000", "10000", [(240, 0)]),  # beside it
    ],
)
def test_what_lies_mostly_in_an_ignored_area_is_neither_true_nor_false(predicted, number, ignored, expected):
    predicted, number, ignored = (np.array([list(map(int, part))]) for part in (predicted, number, ignored))
    probability_u8 = np.array([[250, 140, 220, 230, 240]], np.uint8)
    found = detect(predicted > 0, probability_u8, number.astype(np.int32), ignored=ignored > 0)
    assert list(zip(found.score.tolist(), found.lesion.tolist(), strict=True)) == expected


def test_an_ignored_area_between_two_parts_joins_them():
    predicted, ignored = np.ones((3, 1), bool), np.array([[0], [1], [0]], bool)
    probability_u8 = np.array([[150], [255], [180]], np.uint8)
    found = detect(predicted, probability_u8, np.zeros((3, 1), np.int32), rows=1, ignored=ignored)
    assert found.score.tolist() == [180]


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
    assert set(np.unique(found.reaches.rasterised((0, 0), (200, 200), 10.0, "int32"))) == {1}


def test_lesions_reach_37_5_um_beyond_their_outlines():
    found = AnnotatedLesions.of([square(200, 200), square(800, 200)], MPP)
    drawn = found.reaches.rasterised((0, 0), (1000, 500), UM, "int32")  # 1 µm/px
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
    mask = Outlines(outlines, [1] * len(outlines)).rasterised(*place)
    theirs = label(binary_fill_holes(distance_transform_edt(1 - mask) < 37.5), connectivity=2)
    ours = found.reaches.rasterised(*place, "int32")
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
    assert not found.reaches.rasterised((0, 0), (5, 4), 1.0).any()
