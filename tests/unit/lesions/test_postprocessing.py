import numpy as np
import pytest
from lesionmap.lesions import postprocessing
from lesionmap.lesions.postprocessing import Postprocessing, postprocessed
from lesionmap.maps import components
from lesionmap.maps.on_disk import strips
from scipy.ndimage import gaussian_filter

MPP = 2.5


def nowhere(lesions):
    """There is tissue everywhere."""


@pytest.fixture(params=[512, 7, 1])
def lesions(request, monkeypatch):
    """Blobs and specks that cross strips of some height."""
    for module in (components, postprocessing):
        monkeypatch.setattr(module, "strips", lambda height: strips(height, request.param))
    noise = np.random.default_rng(0).random((61, 47))
    return gaussian_filter(noise, 1.5) > 0.51


def test_lesions_are_smoothed_as_a_whole(lesions, tmp_path):
    expected = gaussian_filter(lesions.astype(np.float32), 4 / MPP) >= 0.5
    found, changes = postprocessed(
        lesions, Postprocessing(smoothing_um=4.0, min_lesion_area_um2=0), MPP, tmp_path, nowhere
    )
    np.testing.assert_array_equal(found, expected)
    assert (found != lesions).any()
    areas = {"as_found_mm2": lesions.sum(), "smoothed_mm2": found.sum(), "kept_mm2": found.sum()}
    assert changes == {"dropped": 0} | {name: pytest.approx(n * MPP**2 / 1e6) for name, n in areas.items()}


def test_smoothing_does_not_reach_beyond_the_tissue(tmp_path):
    lesions = np.zeros((40, 40), dtype=bool)
    lesions[10:30, 10:20] = lesions[10:18, 20:30] = True  # smoothing fills the corner at (18, 20)
    smooth = Postprocessing(smoothing_um=10, min_lesion_area_um2=0)
    assert postprocessed(lesions, smooth, MPP, tmp_path, nowhere)[0][18, 20]

    def clear(found):
        found[18:, 20:] = False

    found, areas = postprocessed(lesions, smooth, MPP, tmp_path, clear)
    assert not found[18:, 20:].any()
    assert areas["smoothed_mm2"] == pytest.approx(found.sum() * MPP**2 / 1e6)


def test_by_default_nothing_changes(lesions, tmp_path):
    before = lesions.copy()
    found, changes = postprocessed(lesions, Postprocessing(0, 0), MPP, tmp_path, nowhere)
    np.testing.assert_array_equal(found, before)
    assert changes["as_found_mm2"] == changes["kept_mm2"]


def test_no_lesion_is_no_trouble(tmp_path):
    found, changes = postprocessed(np.zeros((9, 9), dtype=bool), Postprocessing(5.0, 100.0), MPP, tmp_path, nowhere)
    assert not found.any()
    assert changes == {"as_found_mm2": 0, "smoothed_mm2": 0, "dropped": 0, "kept_mm2": 0}
