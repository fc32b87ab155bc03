"""Connected lesions of a map, found and measured a few rows at a time."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


@dataclass(frozen=True)
class Components:
    """4-connected lesions in the order of their first pixels, row by row.

    Parameters
    ----------
    first : (N,) int64
        Index of the first pixel in the flattened map, ascending.
    pixels, total, peak : (N,) int64
        How many pixels, and sum and maximum of their probability × 255.
    """

    first: NDArray[np.int64]
    pixels: NDArray[np.int64]
    total: NDArray[np.int64]
    peak: NDArray[np.int64]

    @classmethod
    def none(cls) -> "Components":
        """No lesion."""
        return cls(*(np.empty(0, dtype=np.int64) for _ in range(4)))

    def at(self, index: NDArray[np.int64]) -> "Components":
        """Those of some positions."""
        return Components(self.first[index], self.pixels[index], self.total[index], self.peak[index])

    def merged(self, groups: NDArray[np.int64]) -> "Components":
        """Those of equal group, numbered from 0, as one."""
        n = int(groups.max(initial=-1)) + 1
        first = np.full(n, np.iinfo(np.int64).max)
        pixels, total, peak = (np.zeros(n, dtype=np.int64) for _ in range(3))
        np.minimum.at(first, groups, self.first)
        np.add.at(pixels, groups, self.pixels)
        np.add.at(total, groups, self.total)
        np.maximum.at(peak, groups, self.peak)
        return Components(first, pixels, total, peak).at(np.argsort(first))


def find_components(strips: Iterable[tuple[NDArray[np.bool_], NDArray[np.uint8]]]) -> Components:
    """Find the lesions of a map and measure them, in linear time.

    Parameters
    ----------
    strips : iterable of (lesions, levels)
        The map from its top, some rows at a time: (rows, W) bool, and probability × 255, (rows, W) uint8. How it is
        divided does not change the result. Measuring takes 40 bytes for each pixel of a strip's lesions.
    """
    parts, links = [Components.none()], [np.empty((2, 0), dtype=np.int64)]
    known, pixels_above, above = 0, 0, None
    for lesions, levels in strips:
        labels, n = label(lesions)
        first_row, last_row = (np.where(row, row.astype(np.int64) + known, 0) for row in (labels[0], labels[-1]))
        parts.append(_measured(labels, levels, pixels_above))
        if above is not None:
            links.append(np.stack([above, first_row])[:, (above > 0) & (first_row > 0)] - 1)
        above = last_row
        known, pixels_above = known + n, pixels_above + labels.size
    pairs = np.concatenate(links, axis=1)
    graph = coo_array((np.ones(pairs.shape[1], dtype=np.int8), (pairs[0], pairs[1])), shape=(known, known))
    _, groups = connected_components(graph, directed=False)
    fields = zip(*((part.first, part.pixels, part.total, part.peak) for part in parts), strict=True)
    return Components(*map(np.concatenate, fields)).merged(groups.astype(np.int64))


def _measured(labels: NDArray[np.integer[Any]], levels: NDArray[np.uint8], offset: int) -> Components:
    """The components of one strip, whose first pixel has the index `offset` in the flattened map."""
    places = np.flatnonzero(labels)
    numbers = labels.ravel()[places] - 1
    values = np.asarray(levels).ravel()[places].astype(np.int64)
    return Components(places + offset, np.ones_like(places), values, values).merged(numbers.astype(np.int64))
