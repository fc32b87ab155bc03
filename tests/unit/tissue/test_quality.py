"""Blur, ink and folds of a region."""

import imagecodecs
import numpy as np
import pytest
from lesionmap.tissue.mask import FOLD, INK, TISSUE
from lesionmap.tissue.quality import RegionQuality, is_blurred
from scipy.ndimage import gaussian_filter

SIDE = 256


def tissue(mpp: float, seed: int = 0, strength: float = 1.0) -> np.ndarray:
    """Pink with texture of every scale from a fibre (0.25 µm) to a nucleus (4 µm), as a lens shows it in focus."""
    rng = np.random.default_rng(seed)
    texture = np.zeros((SIDE, SIDE))
    for scale_um in (0.25, 0.5, 1, 2, 4):
        layer = gaussian_filter(rng.normal(size=texture.shape), scale_um / mpp / 2)
        texture += layer / layer.std()
    shades = np.array([210, 150, 190]) - strength * texture[..., None] * np.array([12, 18, 8])
    return np.clip(shades, 0, 255).astype(np.uint8)


def out_of_focus(image: np.ndarray, sigma_um: float, mpp: float) -> np.ndarray:
    soft = gaussian_filter(image, (sigma_um / mpp, sigma_um / mpp, 0))
    return imagecodecs.jpeg8_decode(imagecodecs.jpeg8_encode(soft, level=80))


@pytest.mark.parametrize("mpp", [0.25, 0.5])
@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_tissue_out_of_focus_is_told_from_tissue_in_focus(mpp, strength):
    image = tissue(mpp, strength=strength)
    assert not is_blurred(image, mpp)
    assert is_blurred(out_of_focus(image, 1.5, mpp), mpp)


@pytest.mark.parametrize(("period", "blurred"), [(22, True), (24, True), (20, False), (18, False)])
def test_focus_is_judged_by_the_change_over_half_a_micrometre_against_two(period, blurred):
    """Stripes as soft as a triangle wave: the more slowly they rise, the smaller the ratio."""
    wave = np.abs((np.arange(SIDE) + 0.5) % period - period / 2)
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    image[..., 1] = 100 + 8 * wave[None]
    fine, coarse = (np.abs(image[:, step:, 1].astype(int) - image[:, :-step, 1]).mean() for step in (2, 8))
    assert (fine / coarse < 0.36) == blurred
    assert 0.33 < fine / coarse < 0.40
    assert is_blurred(image, 0.25) == blurred


def test_nothing_is_called_blurred_where_focus_cannot_be_seen():
    assert not is_blurred(out_of_focus(tissue(2.0), 8, 2.0), 2.0)


def test_shares_are_of_the_tissue():
    """A region of 2 × 2 tiles: the first glass, the others tissue, of which one blurred and one folded below ink."""
    sharp, soft = tissue(0.25), out_of_focus(tissue(0.25, 1), 1.5, 0.25)
    codes = np.zeros((8, 8), np.uint8)
    codes[:4, 4:] = codes[4:] = TISSUE
    codes[4:6, 4:] = INK
    codes[6:, 4:6] = FOLD
    kept = np.array([[False, True], [True, True]])
    quality = RegionQuality.of(codes, kept, [is_blurred(image, 0.25) for image in (soft, sharp, sharp)])
    assert quality == RegionQuality(blur=0.3333, pen=pytest.approx(8 / 48, abs=1e-4), fold=0.1)


def test_a_region_without_tissue_has_no_flaws():
    assert RegionQuality.of(np.zeros((8, 8), np.uint8), np.zeros((2, 2), bool), []) == RegionQuality()
