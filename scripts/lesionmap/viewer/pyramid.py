"""The zooms of a deep-zoom view, and which of their tiles are shown. No pixels are read here.

A tile is (zoom, column, row). Coordinates are (x, y) in level-0 pixels of the slide file.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import shapely
from numpy.typing import ArrayLike, NDArray

Tile = tuple[int, int, int]
WHOLE = 1e-9  # relative tolerance: rounding may make a power of two smaller by this share
Halve = Callable[[NDArray[np.uint8], int], NDArray[np.uint8]]
Write = Callable[[int, int, NDArray[np.uint8]], None]


@dataclass(frozen=True)
class ZoomLadder:
    """The zooms, each twice as fine as the one before; zoom 0 shows the whole slide in one tile.

    Parameters
    ----------
    size_lv0 : (int, int)
        Width and height of level 0.
    tile_px : int
        Side of a tile, a power of two.
    """

    size_lv0: tuple[int, int]
    tile_px: int

    @property
    def native(self) -> int:
        """The zoom that has one pixel for each level-0 pixel."""
        return ((max(self.size_lv0) - 1) // self.tile_px).bit_length()

    def scale(self, zoom: int) -> float:
        """Level-0 pixels per pixel of a zoom."""
        return 2.0 ** (self.native - zoom)

    def zoom_of(self, scale: float) -> int:
        """The coarsest zoom that is no coarser than `scale` level-0 pixels per pixel; it may be finer than level 0."""
        return max(0, self.native + 1 - math.frexp(scale * (1 + WHOLE))[1])

    def grid(self, zoom: int) -> tuple[int, int]:
        """Number of columns and rows of tiles that cover the slide."""
        side = self.tile_px * self.scale(zoom)
        columns, rows = (math.ceil(length / side) for length in self.size_lv0)
        return columns, rows

    def corner(self, tile: Tile) -> tuple[float, float]:
        """The top-left corner of a tile."""
        zoom, column, row = tile
        side = self.tile_px * self.scale(zoom)
        return column * side, row * side


def tiles_near(outline: Any, ladder: ZoomLadder, margin_lv0: float) -> list[Tile]:
    """The tiles of the native zoom within `margin_lv0` of a polygon, row by row."""
    side, (columns, rows) = ladder.tile_px, ladder.grid(ladder.native)
    left, top, right, bottom = shapely.bounds(outline)
    first = [max(0, math.floor((low - margin_lv0) / side)) for low in (left, top)]
    last = [
        min(n - 1, math.floor((high + margin_lv0) / side))
        for high, n in zip((right, bottom), (columns, rows), strict=True)
    ]
    y, x = (index.ravel() for index in np.mgrid[first[1] : last[1] + 1, first[0] : last[0] + 1])
    if len(x) > 1:
        near = shapely.dwithin(outline, shapely.box(x * side, y * side, (x + 1) * side, (y + 1) * side), margin_lv0)
        x, y = x[near], y[near]
    return [(ladder.native, int(column), int(row)) for column, row in zip(x, y, strict=True)]


def detail_tiles(
    outlines: Sequence[Any], ladder: ZoomLadder, margin_lv0: float, most: int
) -> tuple[set[Tile], list[bool]]:
    """The tiles of the native zoom around lesions, at most `most`; the first lesions get theirs first.

    Parameters
    ----------
    outlines : sequence of Polygon or MultiPolygon
        Lesions in level-0 pixels, in order of priority.
    margin_lv0 : float
        Width of the margin that is shown around a lesion, level-0 pixels.

    Returns
    -------
    chosen : set of Tile
    whole : list of bool
        For each lesion, whether `chosen` has all its tiles.
    """
    chosen: set[Tile] = set()
    whole = []
    for outline in outlines:
        tiles = tiles_near(outline, ladder, margin_lv0)
        missing = [tile for tile in tiles if tile not in chosen]
        room = most - len(chosen)
        chosen.update(missing[:room])
        whole.append(len(missing) <= room)
    return chosen, whole


def with_ancestors(tiles: Iterable[Tile], coarsest: int) -> set[Tile]:
    """Tiles of one zoom, and the tiles of coarser zooms that contain them, down to the zoom `coarsest`."""
    level = set(tiles)
    found = set(level)
    while level and next(iter(level))[0] > coarsest:
        level = {(zoom - 1, column // 2, row // 2) for zoom, column, row in level}
        found |= level
    return found


def runs(tiles: Iterable[Tile]) -> list[list[int]]:
    """Tiles as runs along rows: zoom, row, first column, last column."""
    found = []
    for (zoom, row), members in groupby(
        sorted((zoom, row, column) for zoom, column, row in tiles), lambda tile: tile[:2]
    ):
        columns = np.array([column for *_, column in members])
        breaks = np.flatnonzero(np.diff(columns) > 1)
        firsts, lasts = columns[[0, *breaks + 1]], columns[[*breaks, -1]]
        found += [[zoom, row, int(first), int(last)] for first, last in zip(firsts, lasts, strict=True)]
    return found


def nearest(n: int, first: int, step: float, source_px: float, n_source: int) -> NDArray[np.int64]:
    """For each of `n` pixels in a row, the source pixel that its centre lies in.

    Parameters
    ----------
    n, first : int
        Number of pixels, and the index of the first one.
    step, source_px : float
        Side of a pixel, and of a source pixel, in the same unit.
    n_source : int
        Number of source pixels; pixels beyond the last one are left out.

    Returns
    -------
    (up to n,) int64
        Ascending.
    """
    index: NDArray[np.int64] = np.floor((np.arange(first, first + n) + 0.5) * step / source_px).astype(np.int64)
    return index[: np.searchsorted(index, n_source)]


def through_zooms(
    rows: Iterable[NDArray[np.uint8]], zoom: int, tile_px: int, halve: Halve, *, fill: ArrayLike, write: Write
) -> None:
    """Write the rows of tiles of a zoom and of all coarser zooms, down to zoom 0.

    Parameters
    ----------
    rows : iterable of (tile_px, columns · tile_px, …) uint8
        Rows of tiles of the finest zoom, from the top.
    zoom : int
        Number of the finest zoom.
    halve : callable
        Makes a picture half as wide and high: ``halve(picture, 2)``.
    fill : uint8 or (3,) uint8
        Pixel value beyond the last row and column.
    write : callable
        Called with the zoom, the number and the pixels of each row of tiles.
    """
    for level in range(zoom, -1, -1):
        rows = _written(rows, level, write)
        if level:
            rows = _halved(rows, tile_px, halve, fill)
    for _ in rows:
        pass


def _written(rows: Iterable[NDArray[np.uint8]], zoom: int, write: Write) -> Iterator[NDArray[np.uint8]]:
    for number, row in enumerate(rows):
        write(zoom, number, row)
        yield row


def _halved(
    rows: Iterable[NDArray[np.uint8]], tile_px: int, halve: Halve, fill: ArrayLike
) -> Iterator[NDArray[np.uint8]]:
    remaining = iter(rows)
    for upper in remaining:
        both = _filled(upper, tile_px, fill)
        lower = next(remaining, None)
        if lower is not None:
            both[tile_px:, : lower.shape[1]] = lower
        yield halve(both, 2)


def _filled(upper: NDArray[np.uint8], tile_px: int, fill: ArrayLike) -> NDArray[Any]:
    """Two rows of tiles with an even number of columns; only the upper one has its pixels yet."""
    width = upper.shape[1] + upper.shape[1] % (2 * tile_px)
    both = np.empty((2 * tile_px, width, *upper.shape[2:]), dtype=np.uint8)
    both[...] = fill
    both[:tile_px, : upper.shape[1]] = upper
    return both
