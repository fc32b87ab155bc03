import numpy as np
import pytest
from lesionmap.errors import SlideError
from lesionmap.tissue.detection import TissueSettings, find_tissue, tissue_map
from lesionmap.tissue.mask import FOLD, GAP, INK, TISSUE, TissueMask
from pyramids import info_of, write_tiff
from scipy import ndimage

SETTINGS = TissueSettings(mpp=8.0, min_area_um2=20_000, min_hole_um2=20_000)  # 312 px
GLASS, PINK, PALE = (245, 243, 246), (200, 120, 180), (235, 220, 232)
DEEP, VIOLET = (190, 105, 170), (110, 80, 160)


def noise(shape, sigma=1.0, seed=0):
    return np.random.default_rng(seed).normal(0, sigma, shape)


def picture(height=130, width=170, glass=GLASS):
    return glass + noise((height, width, 3))


def painted(image, rows, columns, colour, texture=8.0):
    """Tissue: a colour that is lighter and darker from pixel to pixel."""
    image[rows, columns] = colour + noise(image[rows, columns].shape[:2], texture)[..., None]


def codes_of(image, settings=SETTINGS):
    return tissue_map(np.clip(np.rint(image), 0, 255).astype(np.uint8), settings)


def found_in(image, settings=SETTINGS):
    return codes_of(image, settings) >= FOLD


def test_tissue_is_found_to_a_pixel_and_specks_and_holes_are_filtered():
    image = picture()
    painted(image, slice(20, 110), slice(15, 75), PINK)
    image[60:65, 30:35] = GLASS  # a hole of 25 px
    painted(image, slice(30, 40), slice(120, 130), PINK)  # a speck of 100 px
    found = found_in(image)
    expected = np.zeros(found.shape, dtype=bool)
    expected[20:110, 15:75] = True
    assert (found ^ expected).sum() <= 92 * 62 - 90 * 60  # smoothing moves the edge by a pixel at most
    assert found[62, 32]
    assert not found[25:45, 115:135].any()


def test_gaps_in_tissue_are_told_from_what_is_stained():
    image = picture()
    painted(image, slice(20, 110), slice(15, 75), PINK)
    image[60:65, 30:35] = GLASS
    codes = codes_of(image)
    assert (codes[61:64, 31:34] == GAP).all()
    assert (codes[25:55, 20:70] == TISSUE).all()


def test_a_large_lumen_stays_empty():
    image = picture()
    painted(image, slice(20, 110), slice(15, 125), PINK)
    image[45:85, 40:90] = GLASS + noise((40, 50, 3))
    assert not found_in(image)[50:80, 45:85].any()


@pytest.mark.parametrize("glass", [GLASS, (187, 187, 183), (227, 222, 228), (240, 232, 212), (205, 225, 215)])
@pytest.mark.parametrize("filler", [None, 255, 254, 243, 0])
def test_glass_of_any_tint_is_no_tissue_whatever_lies_beside_it(glass, filler):
    image = picture(glass=glass)
    if filler is not None:
        image[:, :30] = filler  # what the scanner left out
    painted(image, slice(20, 110), slice(55, 115), np.array(PINK) * glass / 255)
    painted(image, slice(20, 110), slice(115, 155), np.array(PALE) * glass / 245)
    found = found_in(image)
    assert found[22:108, 57:153].all()
    assert found.sum() <= 92 * 102


def test_a_smooth_halo_around_tissue_is_glass():
    image = picture()
    painted(image, slice(40, 90), slice(50, 110), PINK)
    near = np.zeros(image.shape[:2])
    near[40:90, 50:110] = 1
    halo = ndimage.gaussian_filter(near, 12)[..., None] * (near[..., None] == 0)
    image -= halo * (16, 30, 12)  # up to 15 levels of green at the edge
    found = found_in(image)
    assert found[42:88, 52:108].all()
    assert found.sum() <= 54 * 64


@pytest.mark.parametrize("mpp", [6.0, 8.0, 12.0])
def test_fat_is_tissue_for_its_membranes(mpp):
    fine = np.full((720, 720, 3), GLASS, dtype=float)  # 2 µm/px
    rows, columns = np.indices((720, 720))
    net = (rows % 40 < 3) | ((columns + 20 * (rows // 40 % 2)) % 40 < 3)  # cells of 80 µm, walls of 6 µm
    fat = net & (rows > 120) & (rows < 480) & (columns > 120) & (columns < 600)
    fine[fat] = (205, 160, 195)
    scale = int(mpp / 2)
    image = fine.reshape(720 // scale, scale, 720 // scale, scale, 3).mean(axis=(1, 3))
    image += noise(image.shape, 0.7)
    found = found_in(image, TissueSettings(mpp, 20_000, 20_000))
    inner, outer = (slice(int(from_um / mpp), int(to_um / mpp)) for from_um, to_um in ((280, 920), (1040, 1400)))
    assert found[inner, inner].mean() > 0.99
    assert not found[outer].any()


def test_faint_lines_and_dust_are_no_tissue():
    image = picture()
    image[:, 20:22] -= 60  # the edge of a cover slip
    image[100:102] -= 60
    for y, x in np.random.default_rng(1).integers(5, 125, (20, 2)):
        image[y, x] -= 90
    assert not found_in(image).any()


def test_a_coloured_strand_is_tissue():
    image = picture()
    painted(image, slice(60, 64), slice(20, 150), PINK)
    assert found_in(image)[61:63, 22:148].all()


INKS = {
    "blue": (40, 60, 170),
    "green": (30, 140, 70),
    "red": (210, 40, 50),
    "black": (35, 36, 38),
    "grey": (90, 90, 92),
}


@pytest.mark.parametrize("colour", INKS.values(), ids=INKS)
def test_ink_is_no_tissue_and_leaves_pale_tissue_found(colour):
    image = picture()
    painted(image, slice(20, 110), slice(10, 80), PALE)
    painted(image, slice(40, 70), slice(50, 140), colour, texture=1)  # partly over the tissue
    codes = codes_of(image)
    assert (codes[40:70, 50:140] == INK).all()
    assert (codes[25:105, 15:45] >= FOLD).all()
    assert (codes >= FOLD).sum() < 92 * 74 - 30 * 30
    assert not (codes[:, 143:] > 0).any()


def test_small_pieces_of_black_ink_on_fat_are_ink():
    image = picture()
    image[20:110:10, 20:150] -= (12, 25, 15)
    image[20:110, 20:150:10] -= (12, 25, 15)
    painted(image, slice(42, 49), slice(62, 69), (60, 58, 60), texture=1)
    codes = codes_of(image)
    assert (codes[42:49, 62:69] == INK).all()
    assert (codes[22:38, 22:138] >= FOLD).all()


def test_the_margin_of_ink_is_two_pixels_wide():
    image = picture()
    painted(image, slice(10, 120), slice(10, 160), PINK)
    image[30:50, 40:80] = INKS["blue"]
    codes = codes_of(image)
    assert codes[35:45, 34:40].tolist() == [[TISSUE] * 4 + [INK] * 2] * 10
    assert codes[50:56, 50:60].T.tolist() == [[INK] * 2 + [TISSUE] * 4] * 10


@pytest.mark.parametrize("light", [1.0, 0.7])
def test_on_a_slide_without_glass_all_that_is_coloured_is_tissue(light):
    image = np.empty((90, 120, 3))
    painted(image, slice(None), slice(None), PINK, texture=20)
    image[:, 60:] -= 20
    assert found_in(image * light).all()


def test_dense_tissue_of_another_hue_is_no_fold():
    """Lymphoid tissue in stroma: twice as dense, but violet."""
    image = picture(200, 200)
    painted(image, slice(20, 180), slice(20, 180), PINK, texture=4)
    painted(image, slice(60, 120), slice(60, 120), VIOLET, texture=4)
    codes = codes_of(image)
    assert (codes[22:178, 22:178] == TISSUE).all()


def test_uniformly_dense_tissue_is_no_fold():
    image = picture(200, 200)
    painted(image, slice(20, 180), slice(20, 180), np.square(np.array(DEEP) / 255) * 255, texture=4)
    assert (codes_of(image)[22:178, 22:178] == TISSUE).all()


def test_a_fold_is_tissue_of_twice_the_density():
    image = picture(200, 200)
    painted(image, slice(20, 180), slice(20, 180), DEEP, texture=4)
    painted(image, slice(60, 160), slice(90, 105), np.square(np.array(DEEP) / 255) * 255, texture=4)
    codes = codes_of(image)
    assert (codes[62:158, 92:103] == FOLD).all()
    assert (codes == FOLD).sum() < 104 * 19
    assert (codes[22:58, 22:178] == TISSUE).all()


@pytest.mark.parametrize("colour", [(255, 255, 255), (245, 243, 246), (0, 0, 0), (128, 128, 128)])
def test_blank_slides_have_no_tissue_and_say_so(tmp_path, colour):
    image = np.empty((400, 400, 3), dtype=np.uint8)
    image[:] = colour
    info = info_of(write_tiff(tmp_path / "s.tif", image))
    with pytest.raises(SlideError, match=r"slide s1, find_tissue: no tissue was found\. Remedy: look at the slide"):
        find_tissue(info, str(tmp_path / "t.tif"), SETTINGS)
    assert not (tmp_path / "t.tif").exists()


@pytest.mark.parametrize("glass", [(230, 226, 232), None])
def test_the_map_holds_the_colour_of_the_glass(tmp_path, glass):
    image = picture(300, 400, glass=glass or GLASS)
    painted(image, slice(50, 250), slice(None) if glass is None else slice(100, 300), PINK)
    if glass is None:
        image[:50], image[250:] = GLASS, GLASS  # one exact colour
    info = info_of(write_tiff(tmp_path / "s.tif", np.rint(image).astype(np.uint8), mpp=2.0))
    find_tissue(info, str(tmp_path / "t.tif"), TissueSettings(2.0, 20_000, 20_000))
    found = TissueMask(tmp_path / "t.tif", info).glass
    assert found == glass if glass is None else np.abs(np.subtract(found, glass)).max() <= 1
