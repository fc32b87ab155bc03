"""Verdicts on the lesions of small maps, by hand and against scikit-image."""

import numpy as np
import pytest
from lesionmap.metrics.verdicts import LesionMatcher, Verdicts
from skimage.measure import label


def matched(predicted, annotated, ignored=None, rows: int = 100, n_lesions: int = 3) -> Verdicts:
    matcher = LesionMatcher(n_lesions)
    ignored = np.zeros(predicted.shape, bool) if ignored is None else ignored
    for top in range(0, len(predicted), rows):
        part = slice(top, top + rows)
        matcher.add(predicted[part], annotated[part], ignored[part])
    return matcher.verdicts()


def one_by_one(predicted, annotated, ignored):
    """First pixel and verdict of each lesion in the order of the first pixels."""
    labels = label(predicted, connectivity=1)
    for number in range(1, labels.max() + 1):
        of_it = labels == number
        lesions = set(annotated[of_it].tolist()) - {0}
        mostly_ignored = (of_it & ignored).sum() > (of_it & ~ignored).sum()
        names = {0: "not judged" if mostly_ignored else "false", 1: "matched"}
        yield int(np.flatnonzero(of_it)[0]), names.get(len(lesions), "merged")


@pytest.mark.parametrize("rows", [1, 7, 100])
@pytest.mark.parametrize("density", [0.3, 0.55])
def test_against_scikit_image_however_the_map_is_divided(rows, density):
    rng = np.random.default_rng(3)
    predicted = rng.random((60, 81)) < density
    annotated = np.kron(rng.integers(0, 4, (12, 9)) * (rng.random((12, 9)) < 0.4), np.ones((5, 9))).astype(np.int32)
    ignored = (np.kron(rng.random((12, 27)) < 0.3, np.ones((5, 3))) > 0) & (annotated == 0)
    found = matched(predicted, annotated, ignored, rows)
    expected = sorted(one_by_one(predicted, annotated, ignored))
    assert list(zip(found.first.tolist(), found.verdict.tolist(), strict=True)) == expected
    assert set(found.verdict.tolist()) == {"matched", "merged", "false", "not judged"}
    assert found.counts() == {name: [one for _, one in expected].count(name) for name in found.counts()}
    assert found.found.tolist() == [bool((predicted & (annotated == number)).any()) for number in (1, 2, 3)]


@pytest.mark.parametrize(
    ("predicted", "annotated", "ignored", "verdicts", "found"),
    [
        ("1110011", "0022000", "0000000", ["matched", "false"], [None, True, None]),
        ("1111111", "1020300", "0000000", ["merged"], [True, True, True]),
        ("1100000", "0000033", "0000000", ["false"], [None, None, False]),
        ("1111000", "0000300", "1110000", ["not judged"], [None, None, False]),
        ("1111000", "0000000", "1100000", ["false"], [None, None, None]),  # half of it is judged
        ("1111000", "0001000", "1110000", ["matched"], [True, None, None]),  # however little of it
        ("0000000", "1000000", "0000000", [], [False, None, None]),
        ("0101010", "0100000", "0000000", ["matched", "false", "false"], [True, None, None]),
    ],
)
def test_verdicts_by_hand(predicted, annotated, ignored, verdicts, found):
    predicted, annotated, ignored = (np.array([list(map(int, row))]) for row in (predicted, annotated, ignored))
    of_map = matched(predicted > 0, annotated.astype(np.int32), ignored > 0)
    assert of_map.verdict.tolist() == verdicts
    told = [hit if judged else None for hit, judged in zip(of_map.found.tolist(), of_map.judged, strict=True)]
    assert told == found
