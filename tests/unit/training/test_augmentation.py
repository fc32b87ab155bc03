"""Chance: what it does to a region, the same in both resolutions, and where it comes from."""

import numpy as np
import pytest
from lesionmap.stain.profile import optical_density
from lesionmap.stain.separation import concentrations
from lesionmap.stain.table import StainMatch
from lesionmap.tiles.store import Region
from lesionmap.training.augmentation import augmented, epoch_order, random_augmentation, turned
from stained import HE, PROFILE
from training_parts import STAIN, region, settings


@pytest.mark.parametrize("quarters", range(4))
@pytest.mark.parametrize("flip", [False, True])
def test_both_views_are_turned_alike(quarters, flip):
    big = np.random.default_rng(5).integers(0, 255, (128, 128, 3), dtype=np.uint8)
    places = np.array([[0, 0], [0, 3], [2, 1]], dtype=np.uint8)
    images = np.stack([big[r * 32 : r * 32 + 32, c * 32 : c * 32 + 32] for r, c in places])
    low = big[::4, ::4]
    part = Region((0, 0), low, low[..., 0], low[..., 1], places, images, images[..., 0])
    result = turned(part, 4, quarters, flip)
    whole = np.rot90(big, quarters)
    whole = whole[:, ::-1] if flip else whole
    for (row, column), image, mask in zip(result.row_col, result.images, result.masks, strict=True):
        expected = whole[row * 32 : row * 32 + 32, column * 32 : column * 32 + 32]
        np.testing.assert_array_equal(image, expected)
        np.testing.assert_array_equal(mask, expected[..., 0])
    low_expected = np.rot90(low, quarters)
    low_expected = low_expected[:, ::-1] if flip else low_expected
    np.testing.assert_array_equal(result.low_image, low_expected)
    np.testing.assert_array_equal(result.low_mask, low_expected[..., 0])
    np.testing.assert_array_equal(result.judged_mask, low_expected[..., 1])


def test_chance_follows_from_seed_epoch_and_position_alone():
    options = settings(stain_jitter=0.1)
    assert random_augmentation(options, 3, 7) == random_augmentation(options, 3, 7)
    assert epoch_order(options, 3, 50) == epoch_order(options, 3, 50) != epoch_order(options, 4, 50)
    assert sorted(epoch_order(options, 3, 50)) == list(range(50))
    places = list(np.ndindex(2, 2, 2))
    draws = [
        random_augmentation(settings(stain_jitter=0.1, seed=seed), epoch, position) for seed, epoch, position in places
    ]
    assert len({draw.stain_ratio for draw in draws}) == 8


def test_draws_cover_their_range_and_no_more():
    draws = [random_augmentation(settings(stain_jitter=0.2), 0, position) for position in range(400)]
    assert {(draw.quarters, draw.flip) for draw in draws} == {(q, f) for q in range(4) for f in (False, True)}
    logs = np.log([draw.stain_ratio for draw in draws])
    assert -0.2 <= logs.min() < -0.19
    assert 0.19 < logs.max() <= 0.2
    assert abs(np.corrcoef(logs.T)[0, 1]) < 0.15


def test_nothing_is_drawn_that_is_switched_off():
    draw = random_augmentation(settings(augment=False), 0, 0)
    assert (draw.quarters, draw.flip, draw.stain_ratio) == (0, False, None)
    part = region()
    np.testing.assert_array_equal(augmented(part, 4, {}, draw).images, part.images)


def test_stains_are_strengthened_alike_in_both_views():
    options = settings(stain_jitter=0.5, augment=False)
    draw = random_augmentation(options, 0, 0)
    rng = np.random.default_rng(0)
    colours = np.exp(-rng.uniform(0.2, 0.8, (32, 32, 2)) @ np.array(HE)) * 255
    image = np.rint(colours).astype(np.uint8)
    part = Region(
        (0, 0), image, image[..., 0], image[..., 0], np.zeros((1, 2), np.uint8), image[None], image[None, ..., 0]
    )
    changed = augmented(part, 4, STAIN, draw)
    np.testing.assert_array_equal(changed.low_image, changed.images[0])
    ods = [optical_density(pixels.reshape(-1, 3)) for pixels in (image, changed.low_image)]
    before, after = (concentrations(od, np.array(HE), 0.0) for od in ods)
    np.testing.assert_allclose(after.mean(axis=0) / before.mean(axis=0), draw.stain_ratio, rtol=0.05)
    assert not np.array_equal(changed.low_image, image)
    np.testing.assert_array_equal(changed.low_mask, part.low_mask)


def test_unchanged_strength_changes_no_colour_by_more_than_the_sparsity():
    table = StainMatch(PROFILE, PROFILE, (1.0, 1.0)).table()
    colour = np.rint(255 * np.exp(-np.array([0.5, 0.4]) @ np.array(HE))).astype(int)
    index = colour @ [65536, 256, 1]
    assert np.abs(table[index].astype(int) - colour).max() <= 3
