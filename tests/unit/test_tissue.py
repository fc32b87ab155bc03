import numpy as np
import pytest
import tifffile
from lesionmap.errors import SlideError
from lesionmap.tissue import TissueMask, TissueSettings, find_tissue, tissue_mask
from pyramids import info_of, write_tiff

SETTINGS = TissueSettings(mpp=2.0, min_area_um2=400, min_hole_um2=400)  # 100 px of 2 µm
PINK, WHITE = (200, 120, 180), (245, 243, 246)


def picture(height=90, width=120):
    image = np.empty((height, width, 3), dtype=np.uint8)
    image[:] = WHITE
    return image


def test_tissue_is_found_to_a_pixel_and_specks_and_holes_are_filtered():
    image = picture()
    image[20:70, 10:50] = PINK
    image[40:45, 20:25] = WHITE  # a hole of 25 px
    image[5:9, 100:104] = PINK  # a speck of 16 px
    found = tissue_mask(image, SETTINGS)
    expected = np.zeros(found.shape, dtype=bool)
    expected[20:70, 10:50] = True
    assert (found ^ expected).sum() <= 2 * (50 + 40)  # smoothing moves the edge by a pixel at most
    assert found[42, 22]
    assert not found[5:9, 100:104].any()


def test_a_large_lumen_stays_empty():
    image = picture()
    image[20:70, 10:50] = PINK
    image[30:50, 20:40] = WHITE
    assert not tissue_mask(image, SETTINGS)[35:45, 25:35].any()


def test_pale_tissue_is_found():
    image = picture()
    image[20:70, 10:50] = (235, 220, 232)
    assert tissue_mask(image, SETTINGS)[25:65, 15:45].all()


@pytest.mark.parametrize("colour", [(255, 255, 255), (245, 243, 246), (0, 0, 0), (128, 128, 128)])
def test_blank_slides_have_no_tissue_and_say_so(tmp_path, colour):
    image = np.empty((400, 400, 3), dtype=np.uint8)
    image[:] = colour
    info = info_of(write_tiff(tmp_path / "s.tif", image))
    with pytest.raises(SlideError, match=r"slide s1, find_tissue: no tissue was found\. Remedy: look at the slide"):
        find_tissue(info, str(tmp_path / "t.tif"), SETTINGS)
    assert not (tmp_path / "t.tif").exists()


def test_the_mask_is_looked_up_at_its_place(tmp_path):
    image = np.empty((333, 517, 3), dtype=np.uint8)
    image[:] = WHITE
    image[80:240, 160:400] = PINK
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
