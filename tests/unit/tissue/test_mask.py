from dataclasses import replace

import numpy as np
import pytest
import tifffile
from lesionmap.maps.on_disk import strips
from lesionmap.tissue.detection import TissueSettings, find_tissue
from lesionmap.tissue.mask import FOLD, GAP, INK, TISSUE, TissueMask, tiles_with_tissue
from pyramids import info_of, write_tiff

SETTINGS = TissueSettings(mpp=2.0, min_area_um2=400, min_hole_um2=400)  # 100 px of 2 µm
PINK, WHITE = (200, 120, 180), (245, 243, 246)


def test_the_mask_is_looked_up_at_its_place(tmp_path):
    image = np.rint(np.random.default_rng(0).normal(WHITE, 1, (333, 517, 3))).astype(np.uint8)
    image[80:240, 160:400] = PINK
    image[80:240:3, 160:400:3] = (120, 40, 110)
    info = info_of(write_tiff(tmp_path / "s.tif", image))
    find_tissue(info, str(tmp_path / "t.tif"), SETTINGS)
    assert tifffile.imread(tmp_path / "t.tif").shape == (42, 65)  # ceil(333 / 8), ceil(517 / 8)
    mask = TissueMask(tmp_path / "t.tif", info)
    found = mask.at((0, 0), (517, 333), 1.0)
    assert (found[90:230, 170:390]).all()
    assert not found[:70].any()
    assert not found[:, 410:].any()
    np.testing.assert_array_equal(mask.at((150, 70), (100, 50), 1.0), found[70:120, 150:250])
    assert not mask.at((517, 0), (20, 333), 1.0).any()
    assert not mask.at((-30, 0), (30, 333), 1.0).any()
    for x, y in [(0, 0), (100, 0), (140, 60), (300, 200), (390, 230), (500, 320)]:
        assert mask.any_at((x, y), (13, 17), 1.3) == mask.at((x, y), (13, 17), 1.3).any()


@pytest.fixture
def mask(tmp_path):
    """A map of 8 µm a pixel, 32 level-0 pixels: a column of tissue, a gap in it, ink beside it."""
    codes = np.zeros((20, 30), dtype=np.uint8)
    codes[:, 10:14], codes[5, 12], codes[8:12, 14:16], codes[15, 10] = TISSUE, GAP, INK, FOLD
    tifffile.imwrite(tmp_path / "t.tif", codes)
    info = info_of(write_tiff(tmp_path / "s.tif", np.zeros((16, 16, 3), np.uint8)))
    return TissueMask(tmp_path / "t.tif", replace(info, size_lv0=(960, 640), mpp=0.25))


SHOWN = [(TISSUE, 4, True), (TISSUE, 3, False), (FOLD, 4, True), (GAP, 400, False), (INK, 400, False)]


@pytest.mark.parametrize(("code", "n_px", "expected"), SHOWN)
def test_a_tile_shows_tissue_if_a_hundredth_of_it_is_stained(code, n_px, expected):
    codes = np.zeros((60, 60), dtype=np.uint8)
    codes[20:40, 40:] = np.where(np.arange(400) < n_px, code, 0).reshape(20, 20)
    found = tiles_with_tissue(codes, 3)
    assert found.sum() == found[1, 2] == expected


@pytest.mark.parametrize("rows", [512, 7])
def test_a_map_is_cleared_beyond_tissue_and_on_ink(mask, monkeypatch, rows):
    monkeypatch.setattr("lesionmap.tissue.mask.strips", lambda height: strips(height, rows))
    image = np.arange(80 * 120).reshape(80, 120) % 250 + 1  # 2 µm/px: four pixels to one of the map
    before = image.copy()
    mask.clear_background(image, scale=8.0)
    kept = image > 0
    np.testing.assert_array_equal(image[kept], before[kept])
    columns = np.flatnonzero(kept[0])
    assert (columns[0], columns[-1]) == (40, 56 - 1)
    assert not kept[32:48, 56:64].any()  # ink
    assert kept[20:24, 48:52].all()  # a gap


def test_an_empty_map_stays_as_it_is(mask):
    image = np.zeros((80, 120), np.uint8)
    mask.clear_background(image, scale=8.0)
    assert not image.any()


def test_a_map_from_elsewhere_says_nothing_of_glass(mask):
    assert mask.glass is None
