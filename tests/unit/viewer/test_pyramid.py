"""Zooms and tiles: plain geometry, worked by hand."""

from fractions import Fraction

import numpy as np
import pytest
from lesionmap.geometry.resampling import block_max, block_mean
from lesionmap.viewer.pyramid import ZoomLadder, detail_tiles, nearest, runs, through_zooms, tiles_near, with_ancestors
from shapely.geometry import Polygon, box

FILL = (240, 241, 242)


@pytest.mark.parametrize("tiles", [(1, 1), (2, 1), (3, 5), (4, 4), (1, 7)])
def test_each_zoom_is_made_of_the_one_before(tiles: tuple[int, int]) -> None:
    rows, columns = tiles
    whole = np.random.default_rng(0).integers(0, 256, (rows * 8, columns * 8, 3), dtype=np.uint8)
    seen: dict[int, list[np.ndarray]] = {}

    def write(zoom: int, row: int, pixels: np.ndarray) -> None:
        assert row == len(seen.setdefault(zoom, []))
        seen[zoom].append(pixels.copy())

    through_zooms(iter(np.split(whole, rows)), 3, 8, block_mean, fill=FILL, write=write)
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
    through_zooms(
        np.split(whole, 3), 3, 8, block_max, fill=0, write=lambda zoom, row, pixels: written.update({zoom: pixels})
    )
    assert {zoom: pixels.max() for zoom, pixels in written.items()} == dict.fromkeys(range(4), 7)
    assert (written[0][2, 4], np.count_nonzero(written[0])) == (7, 1)


LADDER = ZoomLadder((1000, 700), 64)  # 16 × 11 tiles of the native zoom, 4


@pytest.mark.parametrize(
    ("size", "native"), [((1, 1), 0), ((512, 3), 0), ((513, 3), 1), ((3, 1024), 1), ((1025, 1), 2), ((100_000, 1), 8)]
)
def test_the_coarsest_zoom_shows_the_slide_in_one_tile(size: tuple[int, int], native: int) -> None:
    ladder = ZoomLadder(size, 512)
    assert ladder.native == native
    assert ladder.scale(native) == 1
    assert ladder.grid(0) == (1, 1)
    assert max(ladder.grid(min(native, 1))) == min(native, 1) + 1


@pytest.mark.parametrize(
    ("scale", "zoom"),
    [(1, 4), (1.99, 4), (2, 3), (8, 1), (8 - 1e-12, 1), (9.9, 1), (0.6, 5), (0.5, 5), (16, 0), (99, 0)],
)
def test_a_zoom_is_no_coarser_than_asked_for(scale: float, zoom: int) -> None:
    assert LADDER.zoom_of(scale) == zoom


def test_tiles_cover_the_slide() -> None:
    assert [LADDER.grid(zoom) for zoom in range(6)] == [(1, 1), (2, 2), (4, 3), (8, 6), (16, 11), (32, 22)]
    assert LADDER.corner((4, 15, 10)) == (960, 640)
    assert LADDER.corner((2, 3, 2)) == (768, 512)
    assert LADDER.corner((5, 1, 2)) == (32, 64)


def test_tiles_near_an_outline_are_those_within_the_margin() -> None:
    assert tiles_near(box(130, 70, 140, 80), LADDER, 0) == [(4, 2, 1)]
    assert tiles_near(box(130, 70, 140, 80), LADDER, 3) == [(4, 1, 1), (4, 2, 1)]  # 2 px from the tile on the left
    assert tiles_near(box(990, 690, 1000, 700), LADDER, 500)[-1] == (4, 15, 10)  # none beyond the slide
    corner = tiles_near(box(131, 131, 140, 140), LADDER, 4)  # 3 px from two tiles, 4.2 px from the one at the corner
    assert corner == [(4, 2, 1), (4, 1, 2), (4, 2, 2)]


def test_tiles_in_the_arms_of_an_outline_are_left_out() -> None:
    bracket = Polygon([(10, 10), (20, 10), (20, 300), (300, 300), (300, 310), (10, 310)])
    tiles = {tile[1:] for tile in tiles_near(bracket, LADDER, 0)}
    assert tiles == {(0, row) for row in range(5)} | {(column, 4) for column in range(5)}


def test_the_largest_lesions_get_the_tiles_that_there_are() -> None:
    wide, beside, far = (
        box(0, 0, 250, 10),
        box(10, 20, 20, 30),
        box(640, 640, 650, 650),
    )  # 4 tiles, one of them, another
    everything = {(4, 0, 0), (4, 1, 0), (4, 2, 0), (4, 3, 0), (4, 10, 10)}
    lesions = [wide, beside, far]
    assert detail_tiles(lesions, LADDER, 0, 5) == (everything, [True, True, True])
    assert detail_tiles(lesions, LADDER, 0, 4) == (everything - {(4, 10, 10)}, [True, True, False])
    assert detail_tiles(lesions, LADDER, 0, 2) == ({(4, 0, 0), (4, 1, 0)}, [False, True, False])
    assert detail_tiles(lesions, LADDER, 0, 0) == (set(), [False, False, False])
    assert detail_tiles([], LADDER, 0, 5) == (set(), [])


def test_coarser_tiles_come_with_finer_ones() -> None:
    tiles = {(4, 5, 6), (4, 4, 6)}
    assert with_ancestors(tiles, 2) == tiles | {(3, 2, 3), (2, 1, 1)}
    assert with_ancestors(tiles, 4) == with_ancestors(tiles, 5) == tiles
    assert with_ancestors([], 0) == set()


def test_runs_are_along_rows() -> None:
    tiles = [(2, 3, 1), (1, 0, 0), (2, 1, 1), (2, 2, 1), (2, 6, 1), (2, 3, 0)]
    assert runs(tiles) == [[1, 0, 0, 0], [2, 0, 3, 3], [2, 1, 1, 3], [2, 1, 6, 6]]
    assert runs([]) == []


@pytest.mark.parametrize("source_px", [Fraction(10), Fraction(989, 100), Fraction(8), Fraction(496, 100)])
def test_nearest_is_the_source_pixel_that_the_centre_lies_in(source_px: Fraction) -> None:
    first, step, n_source = 70, 8, 90
    centres = [(number + Fraction(1, 2)) * step for number in range(first, first + 64)]
    expected = [index for centre in centres if (index := centre // source_px) < n_source]
    found = nearest(64, first, float(step), float(source_px), n_source)
    np.testing.assert_array_equal(found, expected)
