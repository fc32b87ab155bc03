import numpy as np
import pytest
from lesionmap.tissue.glass import find_glass, white_balanced


def glass(colour, shape=(100, 120), sigma=1.0, seed=0):
    return np.rint(np.random.default_rng(seed).normal(colour, sigma, (*shape, 3))).astype(np.uint8)


def textured(shape, colour=(170, 90, 150)):
    """Dense tissue, nowhere smooth."""
    return np.rint(np.random.default_rng(1).normal(colour, 25, (*shape, 3))).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    "colour", [(187, 187, 183), (227, 222, 228), (240, 232, 215), (250, 251, 249), (150, 148, 149)]
)
@pytest.mark.parametrize("share", [0.05, 0.5])
def test_the_colour_of_glass_is_its_median(colour, share):
    image = textured((100, 120))
    image[: int(100 * share)] = glass(colour, (int(100 * share), 120))
    found = find_glass(image)
    assert np.abs(found.colour - colour).max() <= 0.5
    assert not found.pixels[int(100 * share) + 1 :].any()
    assert found.pixels[: int(100 * share) - 1].mean() > 0.9


@pytest.mark.parametrize("filler", [(255, 255, 255), (243, 243, 243), (0, 0, 0), (230, 231, 240)])
def test_a_filler_is_no_glass_however_much_there_is(filler):
    image = glass((215, 210, 216))
    image[:80] = filler
    found = find_glass(image)
    assert found.colour.tolist() == [215, 210, 216]
    np.testing.assert_array_equal(found.filler, np.arange(100)[:, None].repeat(120, axis=1) < 80)


def test_a_slide_of_tissue_and_filler_shows_no_glass():
    image = textured((100, 120))
    image[:50] = 243
    found = find_glass(image)
    assert found.colour is None
    assert not found.pixels.any()
    assert found.light(image).tolist() == np.percentile(image[50:].reshape(-1, 3), 99.5, axis=0).tolist()


def test_without_any_scanned_pixel_the_light_is_white():
    image = np.full((20, 30, 3), 243, np.uint8)
    assert find_glass(image).light(image).tolist() == [255, 255, 255]


def test_smooth_pale_tissue_is_no_glass():
    image = textured((100, 120))
    image[:20] = glass((240, 239, 241), (20, 120))
    image[40:] = glass((222, 190, 212), (60, 120))
    assert find_glass(image).colour.tolist() == [240, 239, 241]
    image[:20] = textured((20, 120))
    assert find_glass(image).colour is None


def test_of_glass_beside_and_under_the_cover_slip_the_commoner_counts():
    image = glass((245, 245, 246))
    image[30:] = glass((230, 229, 231), (70, 120))
    assert np.abs(find_glass(image).colour - (230, 229, 231)).max() <= 1
    image[70:] = image[:30]
    image[30:70] = glass((245, 245, 246), (40, 120))
    assert np.abs(find_glass(image).colour - (245, 245, 246)).max() <= 1


def test_uneven_light_is_averaged():
    image = glass((240, 238, 241), sigma=0.7) * np.linspace(0.98, 1.0, 120)[:, None]
    assert np.abs(find_glass(image.astype(np.uint8)).colour - np.multiply((240, 238, 241), 0.99)).max() <= 2


def test_white_balance_scales_each_channel_and_stops_at_white():
    image = np.array([[[187, 94, 61], [200, 188, 0]]], dtype=np.uint8)
    assert white_balanced(image, (187, 188, 183)).tolist() == [[[255, 128, 85], [255, 255, 0]]]
