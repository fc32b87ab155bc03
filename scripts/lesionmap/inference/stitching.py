"""Stitch tiles to a map, as weighted means of probabilities; only a band of rows of the map is in memory."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from lesionmap.maps.probability import UNMAPPED, Scores, Values, as_scores

Take = Callable[[int, Values, Values], None]


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


def scores_of(lesion: Values, other: Values) -> Scores:
    """Scores of sums of probabilities of lesion and of no lesion; 0 where both are 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = as_scores(np.log(lesion) - np.log(other))
    return np.where(lesion + other > 0, scores, np.uint16(UNMAPPED))


class RowBand:
    """A band of rows of a map in which tiles are added up; complete rows are passed on.

    Parameters
    ----------
    shape : (int, int)
        Height and width of the map.
    rows : int
        Height of the tallest tile.
    take : callable
        Called with the number of the first of n rows, and their weighted sums of the probabilities of lesion and of no
        lesion, (n, width) float32 each; together, they are the weights. Both arrays are overwritten after the call.
    """

    def __init__(self, shape: tuple[int, int], rows: int, take: Take) -> None:
        self._height, width = shape
        self._take, self._top = take, 0
        self._sums = np.zeros((2, rows, width), dtype=np.float32)

    def add(self, xy_px: tuple[int, int], lesion: Values, other: Values) -> None:
        """Add a tile at its corner (x, y) on the map, (h, w) each; corners come from top to bottom."""
        left, top = xy_px
        if top > self._top:
            self._give(top)
        for sums, part in zip(self._sums, (lesion, other), strict=True):
            place = sums[top - self._top :, left:]
            rows, columns = (min(lengths) for lengths in zip(part.shape, place.shape, strict=True))
            place[:rows, :columns] += part[:rows, :columns]

    def finish(self) -> None:
        """Pass on the remaining rows."""
        self._give(self._top + self._sums.shape[1])

    def _give(self, top: int) -> None:
        """Pass on the rows above `top`, which becomes the first row of the band."""
        length = self._sums.shape[1]
        n, inside = min(top - self._top, length), max(0, self._height - self._top)
        complete = self._sums[:, : min(n, inside)]
        if complete.any():
            self._take(self._top, *complete)
        self._sums[:, : length - n] = self._sums[:, n:]
        self._sums[:, length - n :] = 0
        self._top = top
