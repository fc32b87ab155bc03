import numpy as np
import pytest
from lesionmap.errors import SlideError
from lesionmap.tissue.detection import TissueSettings, find_tissue, tissue_map
from lesionmap.tissue.mask import FOLD, INK, TISSUE
from pyramids import info_of, write_tiff

SETTINGS = TissueSettings(mpp=2.0, min_area_um2=400, min_hole_um2=400)  # 100 px of 2 µm
PINK, WHITE = (200, 120, 180), (245, 243, 246)


def tissue_mask(image, settings=SETTINGS):
    return tissue_map(image, settings) >= FOLD


def picture(height=90, width=120):
    image = np.empty((height, width, 3), dtype=np.uint8)
    image[:] = WHITE
    return image


def test_tissue_is_found_to_a_pixel_and_specks_and_holes_are_filtered():
    image = picture()
    image[20:70, 10:50] = PINK
    image[40:45, 20:25] = WHITE  # a hole of 25 px
    image[5:9, 100:104] = PINK  # a speck of 16 px
    found = tissue_mask(image)
    expected = np.zeros(found.shape, dtype=bool)
    expected[20:70, 10:50] = True
    assert (found ^ expected).sum() <= 52 * 42 - 50 * 40  # smoothing moves the edge by a pixel at most
    assert found[42, 22]
    assert not found[5:9, 100:104].any()


def test_a_large_lumen_stays_empty():
    image = picture()
    image[20:70, 10:50] = PINK
    image[30:50, 20:40] = WHITE
    assert not tissue_mask(image)[35:45, 25:35].any()


def test_pale_tissue_is_found():
    image = picture()
    image[20:70, 10:50] = (235, 220, 232)
    assert tissue_mask(image)[25:65, 15:45].all()


def test_pale_tissue_beside_dense_tissue_is_found():
    image = picture()
    image[20:70, 10:50] = (140, 40, 120)
    image[20:70, 70:110] = (240, 231, 238)
    found = tissue_mask(image)
    assert found[25:65, 15:45].all()
    assert found[25:65, 75:105].all()
    assert found.sum() < 2 * 60 * 50


@pytest.mark.parametrize("glass", [(240, 232, 212), (225, 238, 240)])
def test_tinted_noisy_glass_is_no_tissue(glass):
    image = np.random.default_rng(0).normal(glass, 1.5, (90, 120, 3)).round().astype(np.uint8)
    image[:, :20] = 255  # what the scanner left out
    image[20:70, 40:80] = PINK
    found = tissue_mask(image)
    assert found[22:68, 42:78].all()
    assert found.sum() < 44 * 54


def test_fat_is_tissue_for_its_membranes():
    image = np.random.default_rng(0).integers(244, 247, (200, 200, 3)).astype(np.uint8)
    net = np.zeros((100, 100), dtype=bool)
    net[::10] = net[:, ::10] = True  # cells of 80 µm, seen at 8 µm/px
    image[50:150, 50:150][net] = (238, 226, 235)
    image[150:180, 50:150] = PINK
    found = tissue_mask(image, TissueSettings(mpp=8.0, min_area_um2=20000, min_hole_um2=20000))
    assert found[55:145, 55:140].mean() > 0.99
    assert not found[:45].any()


INKS = {"blue": (40, 60, 170), "green": (30, 140, 70), "red": (210, 40, 50), "black": (35, 36, 38)}


@pytest.mark.parametrize("colour", INKS.values(), ids=INKS)
def test_ink_is_no_tissue_and_leaves_pale_tissue_found(colour):
    image = picture()
    image[20:70, 10:60] = (235, 220, 232)
    image[30:50, 40:110] = colour  # partly over the tissue
    codes = tissue_map(image, SETTINGS)
    assert (codes[30:50, 40:110] == INK).all()
    assert (codes[25:65, 15:35] == TISSUE).all()
    assert (codes >= FOLD).sum() < 52 * 54 - 20 * 20
    assert not (codes[:, 113:] > 0).any()


def test_the_margin_of_ink_is_two_pixels_wide():
    image = picture()
    image[10:80, 10:110] = (235, 220, 232)
    image[30:50, 40:80] = INKS["blue"]
    codes = tissue_map(image, SETTINGS)
    assert codes[35:45, 34:40].tolist() == [[TISSUE] * 4 + [INK] * 2] * 10
    assert codes[50:56, 50:60].T.tolist() == [[INK] * 2 + [TISSUE] * 4] * 10


def test_on_a_slide_without_glass_all_that_is_coloured_is_tissue():
    image = np.empty((90, 120, 3), dtype=np.uint8)
    image[:, :70] = (190, 130, 180)  # a colour spread of 60, as even as glass
    image[:, 70:] = (170, 50, 150)
    assert tissue_mask(image).all()
    image[:, :70] = (190, 155, 180)  # of 35: may be tinted glass
    assert not tissue_mask(image)[:, :66].any()


def test_dense_tissue_is_no_fold_unless_its_colour_is_deep():
    """Twice the density of the slide's usual; the first is as grey as a clot, the second is folded."""
    image = picture(200, 200)
    image[20:180, 20:180] = np.random.default_rng(0).normal(PINK, 4, (160, 160, 3))
    image[40:90, 40:160] = (120, 80, 110)
    image[110:160, 40:160] = (150, 50, 120)
    codes = tissue_map(image, SETTINGS)
    assert (codes[42:88, 42:158] == TISSUE).all()
    assert (codes[112:158, 42:158] == FOLD).all()


def test_a_fold_is_tissue_of_twice_the_density():
    image = picture(200, 200)
    image[20:180, 20:180] = np.random.default_rng(0).normal(PINK, 4, (160, 160, 3))
    image[60:160, 90:120] = np.square(np.array(PINK) / 255) * 255
    codes = tissue_map(image, SETTINGS)
    assert (codes[62:158, 92:118] == FOLD).all()
    assert (codes == FOLD).sum() < 104 * 34
    assert (codes[22:58, 22:178] == TISSUE).all()


@pytest.mark.parametrize("colour", [(255, 255, 255), (245, 243, 246), (0, 0, 0), (128, 128, 128)])
def test_blank_slides_have_no_tissue_and_say_so(tmp_path, colour):
    image = np.empty((400, 400, 3), dtype=np.uint8)
    image[:] = colour
    info = info_of(write_tiff(tmp_path / "s.tif", image))
    with pytest.raises(SlideError, match=r"slide s1, find_tissue: no tissue was found\. Remedy: look at the slide"):
        find_tissue(info, str(tmp_path / "t.tif"), SETTINGS)
    assert not (tmp_path / "t.tif").exists()
