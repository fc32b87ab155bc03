import numpy as np
import pytest
from lesionmap.inference.stitching import RowBand, scores_of, window
from lesionmap.maps.probability import of_logits


@pytest.mark.parametrize(("tile_px", "overlap_px"), [(8, 0), (8, 1), (8, 3), (8, 4), (64, 32)])
def test_weights_of_overlapping_tiles_add_up_to_one(tile_px, overlap_px):
    weights = window(tile_px, overlap_px)
    assert (weights > 0).all()
    stride = tile_px - overlap_px
    total = np.zeros((4 * stride + overlap_px,) * 2)
    for y, x in np.ndindex(4, 4):
        total[y * stride : y * stride + tile_px, x * stride : x * stride + tile_px] += weights
    inner = slice(overlap_px, len(total) - overlap_px)
    np.testing.assert_allclose(total[inner, inner], 1, atol=1e-6)


def test_a_band_gives_away_the_sums_of_all_tiles_however_they_lie():
    rng = np.random.default_rng(0)
    shape, corners = (45, 33), [(0, 0), (5, 0), (30, 3), (2, 7), (9, 7), (0, 40)]  # x, y; gaps, and beyond the map
    expected, found = np.zeros((2, 2, 60, 60)), np.zeros((2, *shape))

    def take(top, lesion, other):
        assert top + len(lesion) <= shape[0]
        for result, rows in zip(found, (lesion, other), strict=True):
            result[top : top + len(rows)] += rows

    band = RowBand(shape, 10, take)
    for x, y in corners:
        height = rng.integers(6, 11)
        parts = rng.random((2, height, 8), dtype=np.float32)
        band.add((x, y), *parts)
        expected[0][:, y : y + height, x : x + 8] += parts
    band.finish()
    np.testing.assert_allclose(found, expected[0][:, : shape[0], : shape[1]], rtol=1e-6)


def test_weighted_means_are_exact_where_probabilities_are_as_good_as_0_or_1():
    rng = np.random.default_rng(0)
    logits, weights = rng.uniform(-25, 25, (3, 500)), rng.random((3, 500))
    logits[:, ::2] = np.abs(logits[:, ::2])  # all sure, as float32 probabilities mostly equal to 1
    weights[2, ::5] = 0
    sums = [sum(weights * part) for part in (1 / (1 + np.exp(-logits)), 1 / (1 + np.exp(logits)))]
    lesion, other = (
        sum(weight * part for weight, part in zip(weights.astype(np.float32), parts, strict=True))
        for parts in zip(*(of_logits(row) for row in logits.astype(np.float32)), strict=True)
    )
    assert lesion.dtype == other.dtype == np.float32
    found, expected = scores_of(lesion, other), 32768 + 1024 * np.log(sums[0] / sums[1])
    assert np.abs(found - expected).max() <= 0.51
    sure = (lesion / (lesion + other) == 1).nonzero()[0]
    assert len(sure) > 20
    assert np.ptp(expected[sure]) > 3 * 1024


@pytest.mark.filterwarnings("error")
def test_the_surest_have_the_first_and_last_score_and_what_no_tile_covers_has_none():
    logits = np.array([[-1e30, -120, -40, 0, 40, 120, 1e30]], dtype=np.float32)
    assert scores_of(*of_logits(logits)).tolist() == [[1, 1, 1, 32768, 65535, 65535, 65535]]
    halves = [np.array([[half, 0, half]], dtype=np.float32) for half in (0.25, 0.75)]
    found = scores_of(*halves)
    assert (found.dtype, found.tolist()) == (np.uint16, [[31643, 0, 31643]])  # 32768 − 1024 · log 3
