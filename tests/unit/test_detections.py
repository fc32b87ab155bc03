"""Where the lesions of small maps lie, by hand and against scikit-image."""

import numpy as np
import pytest
from lesionmap.detections import DetectionFinder, Detections
from skimage.measure import label


def detect(marked, levels, numbers, rows=100):
    finder = DetectionFinder()
    for top in range(0, len(marked), rows):
        part = slice(top, top + rows)
        finder.add(marked[part], levels[part], numbers[part])
    return finder.found()


def one_by_one(marked, levels, numbers):
    """Level and annotated lesion of each detection, sorted."""
    labels, found = label(marked, connectivity=1), []
    for number in range(1, labels.max() + 1):
        inside = labels == number
        peak = levels[inside].max()
        votes = np.bincount(numbers[inside & (levels == peak)])
        found.append((int(peak), int(votes.argmax())))
    return sorted(found)


@pytest.mark.parametrize("rows", [1, 7, 100])
@pytest.mark.parametrize("n_levels", [2, 255])
def test_against_scikit_image_however_the_map_is_divided(rows, n_levels):
    rng = np.random.default_rng(n_levels)
    marked = rng.random((60, 80)) < 0.55
    levels = rng.integers(0, n_levels, marked.shape).astype(np.uint8)
    numbers = np.kron(rng.integers(0, 4, (6, 8)), np.ones((10, 10), dtype=int)).astype(np.int32)
    found = detect(marked, levels, numbers, rows)
    assert sorted(zip(found.level.tolist(), found.lesion.tolist(), strict=True)) == one_by_one(marked, levels, numbers)


def test_a_detection_lies_where_its_probability_is_highest():
    levels = np.array([[150, 200, 210, 160]], np.uint8)
    for numbers, expected in (([0, 0, 5, 5], 5), ([5, 5, 0, 5], 0)):
        found = detect(levels > 0, levels, np.array([numbers], np.int32))
        assert (found.level.tolist(), found.lesion.tolist()) == ([210], [expected])


@pytest.mark.parametrize(("numbers", "expected"), [([0, 7, 7], 7), ([0, 0, 7], 0), ([3, 0, 0], 0), ([0, 2, 5], 0)])
def test_of_equal_pixels_most_decide_and_of_equally_many_the_outside(numbers, expected):
    levels = np.array([[255, 255, 255]], np.uint8)
    assert detect(levels > 0, levels, np.array([numbers], np.int32)).lesion.tolist() == [expected]


def test_a_map_that_is_lesion_everywhere_finds_one_lesion_at_most():
    levels = np.full((10, 10), 255, np.uint8)
    numbers = np.repeat(np.arange(10, dtype=np.int32), 10).reshape(10, 10)
    assert len(detect(levels > 0, levels, numbers, rows=3).level) == 1


def test_a_second_detection_in_a_lesion_counts_nothing():
    found = Detections(level=np.array([200, 180, 90, 130]), lesion=np.array([2, 2, 0, 1]))
    assert found.best_levels(3).tolist() == [130, 200, -1]
    assert np.flatnonzero(found.false_levels).tolist() == [90]


def test_an_empty_map_has_no_detection():
    empty = np.zeros((4, 5), np.uint8)
    found = detect(empty > 0, empty, empty.astype(np.int32), rows=2)
    assert found.level.size == 0
    assert found.best_levels(2).tolist() == [-1, -1]
    assert not found.false_levels.any()
