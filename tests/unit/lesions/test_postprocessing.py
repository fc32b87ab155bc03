import numpy as np
import pytest
from lesionmap.lesions import postprocessing
from lesionmap.lesions.postprocessing import Postprocessing, postprocessed
from lesionmap.maps import components
from lesionmap.maps.components import drop_small
from lesionmap.maps.on_disk import strips
from scipy.ndimage import gaussian_filter, label

MPP = 2.5


@pytest.fixture(params=[512, 7, 1])
def lesions(request, monkeypatch):
    """Blobs and specks that cross strips of some height."""
    for module in (components, postprocessing):
        monkeypatch.setattr(module, "strips", lambda height: strips(height, request.param))
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


def test_lesions_are_smoothed_as_a_whole(lesions, tmp_path):
    expected = gaussian_filter(lesions.astype(np.float32), 4 / MPP) >= 0.5
    found, changes = postprocessed(lesions, Postprocessing(smoothing_um=4.0, min_lesion_area_um2=0), MPP, tmp_path)
    np.testing.assert_array_equal(found, expected)
    assert (found != lesions).any()
    areas = {"as_found_mm2": lesions.sum(), "smoothed_mm2": found.sum(), "kept_mm2": found.sum()}
    assert changes == {"dropped": 0} | {name: pytest.approx(n * MPP**2 / 1e6) for name, n in areas.items()}


def test_by_default_nothing_changes(lesions, tmp_path):
    before = lesions.copy()
    found, changes = postprocessed(lesions, Postprocessing(0, 0), MPP, tmp_path)
    np.testing.assert_array_equal(found, before)
    assert changes["as_found_mm2"] == changes["kept_mm2"]


def test_no_lesion_is_no_trouble(tmp_path):
    found, changes = postprocessed(np.zeros((9, 9), dtype=bool), Postprocessing(5.0, 100.0), MPP, tmp_path)
    assert not found.any()
    assert changes == {"as_found_mm2": 0, "smoothed_mm2": 0, "dropped": 0, "kept_mm2": 0}
