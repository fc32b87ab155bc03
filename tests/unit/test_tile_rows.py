import numpy as np
import pytest
from lesionmap.resampling import area_mean
from lesionmap.strips import block_max
from lesionmap.tile_rows import through_zooms

FILL = (240, 241, 242)


@pytest.mark.parametrize("tiles", [(1, 1), (2, 1), (3, 5), (4, 4), (1, 7)])
def test_each_zoom_is_made_of_the_one_before(tiles: tuple[int, int]) -> None:
    rows, columns = tiles
    whole = np.random.default_rng(0).integers(0, 256, (rows * 8, columns * 8, 3), dtype=np.uint8)
    seen: dict[int, list[np.ndarray]] = {}

    def write(zoom: int, row: int, pixels: np.ndarray) -> None:
        assert row == len(seen.setdefault(zoom, []))
        seen[zoom].append(pixels.copy())

    through_zooms(iter(np.split(whole, rows)), 3, 8, area_mean, FILL, write)
    assert list(seen) == [3, 2, 1, 0]
    for zoom in range(3, -1, -1):
        np.testing.assert_array_equal(np.concatenate(seen[zoom]), whole)
        padded = np.empty([length + length % 16 for length in whole.shape[:2]] + [3], dtype=np.uint16)
        padded[...] = FILL
        padded[: len(whole), : whole.shape[1]] = whole
        blocks = padded.reshape(len(padded) // 2, 2, -1, 2, 3).sum(axis=(1, 3))
        whole = ((blocks + 2) // 4).astype(np.uint8)


def test_the_largest_value_is_seen_from_afar() -> None:
    whole = np.zeros((24, 40), dtype=np.uint8)
    whole[23, 39] = 7
    written = {}
    through_zooms(np.split(whole, 3), 3, 8, block_max, 0, lambda zoom, row, pixels: written.update({zoom: pixels}))
    assert {zoom: pixels.max() for zoom, pixels in written.items()} == dict.fromkeys(range(4), 7)
    assert (written[0][2, 4], np.count_nonzero(written[0])) == (7, 1)
