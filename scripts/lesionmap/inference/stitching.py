"""Stitch tiles to a map, as weighted sums; only a band of rows of the map is in memory."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Take = Callable[[int, NDArray[np.float32], NDArray[np.float32]], None]


def window(tile_px: int, overlap_px: int) -> NDArray[np.float32]:
    """Weights of a tile, (tile_px, tile_px); those of tiles that overlap by `overlap_px` on each side add up to one.

    Along each axis they rise as sin² over the overlap, so a tile's edge counts almost nothing. Without overlap, they
    are one.
    """
    rise = np.sin(np.pi / 2 * (np.arange(overlap_px) + 0.5) / max(1, overlap_px)) ** 2
    along = np.ones(tile_px)
    along[:overlap_px] = rise
    along[tile_px - overlap_px :] = rise[::-1]
    return np.outer(along, along).astype(np.float32)


class RowBand:
    """A band of rows of a map in which tiles are added up; complete rows are passed on.

    Parameters
    ----------
    shape : (int, int)
        Height and width of the map.
    rows : int
        Height of the tallest tile.
    take : callable
        Called with the number of the first of n rows, and their sums and weights, (n, width) float32 each.
        Both arrays are overwritten after the call.
    """

    def __init__(self, shape: tuple[int, int], rows: int, take: Take) -> None:
        self._height, width = shape
        self._take, self._top = take, 0
        self._total, self._weight = np.zeros((2, rows, width), dtype=np.float32)

    def add(self, xy_px: tuple[int, int], weighted: NDArray[np.float32], weights: NDArray[np.float32]) -> None:
        """Add a tile times its weights, (h, w), at its corner (x, y) on the map; corners come from top to bottom."""
        left, top = xy_px
        if top > self._top:
            self._give(top)
        place = (slice(top - self._top, None), slice(left, None))
        total, weight = self._total[place], self._weight[place]
        rows, columns = (min(lengths) for lengths in zip(weighted.shape, total.shape, strict=True))
        total[:rows, :columns] += weighted[:rows, :columns]
        weight[:rows, :columns] += weights[:rows, :columns]

    def finish(self) -> None:
        """Pass on the remaining rows."""
        self._give(self._top + len(self._total))

    def _give(self, top: int) -> None:
        """Pass on the rows above `top`, which becomes the first row of the band."""
        n, inside = min(top - self._top, len(self._total)), max(0, self._height - self._top)
        if self._weight[: min(n, inside)].any():
            self._take(self._top, self._total[: min(n, inside)], self._weight[: min(n, inside)])
        for band in (self._total, self._weight):
            band[: len(band) - n] = band[n:]
            band[len(band) - n :] = 0
        self._top = top
