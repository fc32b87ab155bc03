import io
from base64 import b64decode
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from lesionmap.geometry.resampling import block_mean
from lesionmap.geometry.tiling import map_size
from lesionmap.maps.map_file import MapFile
from lesionmap.maps.ome_tiff import MapNotes, write_map
from lesionmap.viewer.probability_tiles import cut_probability, value_counts
from lesionmap.viewer.pyramid import Tile, ZoomLadder
from PIL import Image

TILE_PX = 64
SIZE = (2003, 1501)


def write_levels(path: Path, mpp: Fraction, map_mpp: Fraction) -> np.ndarray:
    """A map of noise with an empty corner, of the size that a map of such a slide has."""
    width, height = map_size(SIZE, float(map_mpp / mpp))
    levels = np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8)
    levels[: height // 3, : width // 2] = 0
    write_map(path, levels, MapNotes("s1", "lesion probability", float(map_mpp), {}), block_mean)
    return levels


def naive(levels: np.ndarray, ladder: ZoomLadder, zoom: int, mpp: Fraction, map_mpp: Fraction) -> np.ndarray:
    """All tiles of a zoom side by side: each pixel by the map's pixel that its centre lies in, in exact arithmetic."""
    columns, rows = ladder.grid(zoom)
    seen = np.zeros((rows * TILE_PX, columns * TILE_PX), dtype=np.uint8)
    step = Fraction(ladder.scale(zoom)) * mpp / map_mpp
    index = [[int((number + Fraction(1, 2)) * step) for number in range(length)] for length in seen.shape]
    for y, row in enumerate(index[0]):
        for x, column in enumerate(index[1]):
            if row < levels.shape[0] and column < levels.shape[1]:
                seen[y, x] = levels[row, column]
    return seen


def shown(folder: Path, ladder: ZoomLadder, zoom: int) -> tuple[np.ndarray, set[Tile]]:
    """The tiles of a zoom side by side, 0 where there is none; and which there are."""
    columns, rows = ladder.grid(zoom)
    seen = np.zeros((rows * TILE_PX, columns * TILE_PX), dtype=np.uint8)
    tiles = set()
    for path in (folder / str(zoom)).glob("*.js"):
        column, row = map(int, path.stem.split("_"))
        with Image.open(io.BytesIO(b64decode(path.read_text().split('"')[3]))) as image:
            assert image.mode == "L"
            seen[row * TILE_PX : (row + 1) * TILE_PX, column * TILE_PX : (column + 1) * TILE_PX] = np.asarray(image)
        tiles.add((zoom, column, row))
    return seen, tiles


@pytest.mark.parametrize(
    ("mpp", "map_mpp", "zoom"),
    [
        (Fraction(1, 4), Fraction(5, 2), 2),  # 10 level-0 pixels each, shown at 8
        (Fraction(2527, 10000), Fraction(5, 2), 2),
        (Fraction(1, 4), Fraction(2), 2),  # exactly 8
        (Fraction(504, 1000), Fraction(5, 2), 3),
        (Fraction(3), Fraction(5, 2), 6),  # finer than the slide
        (Fraction(1, 50), Fraction(5, 2), 0),  # 125 level-0 pixels each, but zoom 0 has 32
    ],
)
def test_pixels_are_those_of_the_map_and_the_largest_of_four(
    tmp_path: Path, mpp: Fraction, map_mpp: Fraction, zoom: int
) -> None:
    levels = write_levels(tmp_path / "map.ome.tif", mpp, map_mpp)
    ladder = ZoomLadder(SIZE, TILE_PX)
    with MapFile(tmp_path / "map.ome.tif") as mapped:
        finest, tiles = cut_probability(mapped, float(mpp), ladder, tmp_path / "tiles")
    assert finest == zoom
    expected = naive(levels, ladder, zoom, mpp, map_mpp)
    found = set()
    for level in range(zoom, -1, -1):
        seen, there = shown(tmp_path / "tiles", ladder, level)
        np.testing.assert_array_equal(seen, expected[: seen.shape[0], : seen.shape[1]])
        found |= there
        height, width = (length + length % (2 * TILE_PX) for length in seen.shape)
        padded = np.zeros((height, width), dtype=np.uint8)
        padded[: seen.shape[0], : seen.shape[1]] = seen
        expected = padded.reshape(height // 2, 2, width // 2, 2).max(axis=(1, 3))
    assert len(tiles) == len(found)
    assert set(tiles) == found


def test_every_pixel_of_the_map_is_seen(tmp_path: Path) -> None:
    mpp, map_mpp = Fraction(2527, 10000), Fraction(5, 2)
    width, height = map_size(SIZE, float(map_mpp / mpp))
    every = np.arange(height * width).reshape(height, width)
    seen = naive(every % 255 + 1, ZoomLadder(SIZE, TILE_PX), 2, mpp, map_mpp)
    runs = [(np.diff(seen[row, seen[row] > 0].astype(int)) != 0).sum() + 1 for row in range(0, 64, 16)]
    assert runs == [width] * 4


def test_tiles_of_zeros_are_not_written(tmp_path: Path) -> None:
    levels = np.zeros((150, 200), dtype=np.uint8)
    levels[100, 120] = 1  # level-0 pixels x 1200 to 1210, y 1000 to 1010
    write_map(tmp_path / "map.ome.tif", levels, MapNotes("s1", "lesion probability", 2.5, {}), block_mean)
    with MapFile(tmp_path / "map.ome.tif") as mapped:
        found = cut_probability(mapped, 0.25, ZoomLadder(SIZE, TILE_PX), tmp_path / "tiles")
        counts = value_counts(mapped)
    assert found == (2, [(2, 2, 1), (1, 1, 0), (0, 0, 0)])
    written = {str(path.relative_to(tmp_path / "tiles")) for path in (tmp_path / "tiles").rglob("*.js")}
    assert written == {"2/2_1.js", "1/1_0.js", "0/0_0.js"}
    assert (counts[0], counts[1], counts.sum()) == (150 * 200 - 1, 1, 150 * 200)
