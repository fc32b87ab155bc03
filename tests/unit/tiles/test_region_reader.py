import numpy as np
import pytest
from lesionmap.geometry.resampling import block_mean
from lesionmap.geometry.tiling import TileSpec
from lesionmap.slides.slide import Slide
from lesionmap.stain.table import StainMatch, apply_table
from lesionmap.tiles.region_reader import RegionReader
from pyramids import info_of, write_tiff
from stained import HE, OTHER_HE, profile, stained_pixels

SPEC = TileSpec(region_px=256, tile_px=64, mpp=0.25)  # the low view at 1 µm/px
STAIN = StainMatch(profile(OTHER_HE), profile(HE), (1.4, 0.8))
TABLE = STAIN.table()


@pytest.fixture(scope="module")
def image():
    """Nuclei of 3 px: an average of them is not normalised as they are."""
    pixels = stained_pixels(OTHER_HE, 140 * 190).reshape(140, 190, 3)
    return pixels.repeat(3, axis=0).repeat(3, axis=1)[:397, :551]


def low_view(info, xy_lv0=(256.0, 0.0)):
    with RegionReader(info, SPEC, STAIN, "test") as reader:
        return reader.region(xy_lv0, np.zeros((4, 4), dtype=bool))[1]


def as_inference_reads(info, xy_lv0=(256.0, 0.0)):
    with Slide(info, "test") as slide:
        return apply_table(TABLE, slide.read(xy_lv0, (64, 64), SPEC.low_mpp))


@pytest.mark.parametrize("factors", [(1,), (1, 2), (1, 4), (1, 4, 16)])
@pytest.mark.parametrize("mpp", [0.25, 0.2431])
def test_the_low_view_is_what_inference_reads(tmp_path, image, factors, mpp):
    info = info_of(write_tiff(tmp_path / "s.tif", image, mpp=mpp, factors=factors))
    found, expected = low_view(info).astype(int), as_inference_reads(info).astype(int)
    assert np.abs(found - expected).mean() < 0.3
    if len(factors) > 1:
        np.testing.assert_array_equal(found, expected)


def test_pixels_are_averaged_and_then_normalised(tmp_path, image):
    info = info_of(write_tiff(tmp_path / "s.tif", image))
    raw = image[:256, 256:512]
    np.testing.assert_array_equal(low_view(info), apply_table(TABLE, block_mean(raw, 4)))
    other_order = block_mean(apply_table(TABLE, raw), 4).astype(int)
    assert np.abs(low_view(info) - other_order).mean() > 0.5


def test_a_pyramid_that_is_no_average_is_seen_in_training_too(tmp_path, image):
    path = write_tiff(tmp_path / "s.tif", image, factors=(1, 4))
    info = info_of(path)
    with Slide(info, "test") as slide:
        assert slide.info.level_for(SPEC.low_mpp) == 1
    np.testing.assert_array_equal(low_view(info), as_inference_reads(info))


def test_tiles_are_those_asked_for_in_their_order(tmp_path, image):
    info = info_of(write_tiff(tmp_path / "s.tif", image, factors=(1, 4)))
    kept = np.zeros((4, 4), dtype=bool)
    kept[0, 2] = kept[3, 1] = True
    with RegionReader(info, SPEC, STAIN, "test") as reader:
        tiles, low = reader.region((0.0, 0.0), kept)
    assert (tiles.shape, low.shape) == ((2, 64, 64, 3), (64, 64, 3))
    np.testing.assert_array_equal(tiles[0], apply_table(TABLE, np.ascontiguousarray(image[:64, 128:192])))
    np.testing.assert_array_equal(tiles[1], apply_table(TABLE, np.ascontiguousarray(image[192:256, 64:128])))
