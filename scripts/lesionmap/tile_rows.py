"""From rows of tiles of one zoom to those of all coarser ones, with few rows in memory at a time."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Halve = Callable[[NDArray[np.uint8], int], NDArray[np.uint8]]
Write = Callable[[int, int, NDArray[np.uint8]], None]


def through_zooms(
    rows: Iterable[NDArray[np.uint8]], zoom: int, tile_px: int, halve: Halve, fill: ArrayLike, write: Write
) -> None:
    """Write the rows of tiles of a zoom and of each coarser one, down to zoom 0.

    Parameters
    ----------
    rows : iterable of (tile_px, columns · tile_px, …) uint8
        Those of the finest zoom, from the top.
    zoom : int
        Its number.
    tile_px : int
    halve : callable
        What makes a picture half as wide and high: ``halve(picture, 2)``.
    fill : uint8 or (3,) uint8
        What lies beyond the last row and column.
    write : callable
        Is given zoom, row and pixels of each row.
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
    """Two rows of an even number of tiles, of which only the upper one is there yet."""
    width = upper.shape[1] + upper.shape[1] % (2 * tile_px)
    both = np.empty((2 * tile_px, width, *upper.shape[2:]), dtype=np.uint8)
    both[...] = fill
    both[:tile_px, : upper.shape[1]] = upper
    return both
