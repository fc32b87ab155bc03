"""Lesions that hang together, whatever strips a map is read in."""

import numpy as np
import pytest
from lesionmap.maps import components
from lesionmap.maps.components import drop_small, find_components
from lesionmap.maps.on_disk import strips
from scipy import ndimage
from scipy.ndimage import gaussian_filter, label


@pytest.fixture(params=[512, 7, 1])
def lesions(request, monkeypatch):
    """Blobs and specks that cross strips of some height."""
    monkeypatch.setattr(components, "strips", lambda height: strips(height, request.param))
    noise = np.random.default_rng(0).random((61, 47))
    return gaussian_filter(noise, 1.5) > 0.51


def test_small_lesions_are_dropped_wherever_they_lie(lesions):
    labels, _ = label(lesions)
    sizes = np.bincount(labels.ravel())
    expected = lesions & (sizes[labels] >= 25)
    assert drop_small(lesions, 25) == (sizes[1:] < 25).sum() > 3
    np.testing.assert_array_equal(lesions, expected)
    assert expected.any()


@pytest.mark.parametrize(("least_px", "dropped"), [(5, 1), (5.5, 2), (6, 2), (6.5, 3)])
def test_a_lesion_of_exactly_the_least_area_is_kept(least_px, dropped):
    lesions = np.zeros((9, 20), dtype=bool)
    lesions[1, 1:7] = lesions[3, 1:6] = lesions[5, 1:5] = True
    assert drop_small(lesions, least_px) == dropped
    assert lesions.sum(axis=1)[[1, 3, 5]].tolist() == [*[6, 5, 4][: 3 - dropped], *[0] * dropped]


@pytest.mark.parametrize("rows", [1, 3, 7, 64])
def test_lesions_are_measured_alike_in_strips_of_any_height(rows):
    rng = np.random.default_rng(2)
    lesions, logits = rng.random((41, 53)) < 0.55, rng.normal(scale=6, size=(41, 53))
    scores = np.where(rng.random((41, 53)) < 0.05, 0, 32768 + 1024 * logits).astype(np.uint16)
    probabilities = np.where(scores, 1 / (1 + np.exp((32768.0 - scores) / 1024)), 0)  # 0 where there is no score
    spread = rng.integers(0, 256, (41, 53)).astype(np.uint8)
    found = find_components((lesions[part], scores[part], spread[part]) for part in strips(41, rows))
    labels, n = ndimage.label(lesions)
    at = labels.ravel()[found.first]
    assert sorted(at) == list(range(1, n + 1))
    assert found.first.tolist() == sorted(np.flatnonzero(labels.ravel() == k)[0] for k in range(1, n + 1))
    assert found.pixels.tolist() == np.bincount(labels.ravel())[at].tolist()
    assert found.total.tolist() == ndimage.sum(np.rint(1e6 * probabilities), labels, at).tolist()
    assert found.peak.tolist() == ndimage.maximum(scores, labels, at).tolist()
    assert found.spread.tolist() == ndimage.sum(spread.astype(int), labels, at).tolist()
    assert not find_components((lesions[part], scores[part]) for part in strips(41, rows)).spread.any()
