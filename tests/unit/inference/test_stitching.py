import numpy as np
import pytest
from lesionmap.inference.stitching import RowBand, window


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

    def take(top, total, weight):
        assert top + len(total) <= shape[0]
        for result, rows in zip(found, (total, weight), strict=True):
            result[top : top + len(rows)] += rows

    band = RowBand(shape, 10, take)
    for x, y in corners:
        height = rng.integers(6, 11)
        parts = rng.random((2, height, 8), dtype=np.float32)
        band.add((x, y), *parts)
        expected[0][:, y : y + height, x : x + 8] += parts
    band.finish()
    np.testing.assert_allclose(found, expected[0][:, : shape[0], : shape[1]], rtol=1e-6)
