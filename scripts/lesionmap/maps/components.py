"""Find and measure the connected lesions of a map, a few rows at a time."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lesionmap.maps.on_disk import strips
from lesionmap.maps.probability import MILLION, Scores, as_probability


@dataclass(frozen=True)
class Components:
    """4-connected lesions in the order of their first pixels, row by row.

    Parameters
    ----------
    first : (N,) int64
        Index of the first pixel in the flattened map, ascending.
    pixels, total, peak : (N,) int64
        Number of pixels, the sum of their probabilities in millionths, and their highest score.
    spread : (N,) int64
        The sum of their spread between models, in steps of :data:`lesionmap.maps.probability.SPREAD_PER_SD`.
    """

    first: NDArray[np.int64]
    pixels: NDArray[np.int64]
    total: NDArray[np.int64]
    peak: NDArray[np.int64]
    spread: NDArray[np.int64]

    @classmethod
    def none(cls) -> "Components":
        """No lesion."""
        return cls(*(np.empty(0, dtype=np.int64) for _ in fields(cls)))

    def at(self, index: NDArray[np.int64]) -> "Components":
        """The lesions at the given positions."""
        return Components(*(getattr(self, field.name)[index] for field in fields(self)))

    def merged(self, groups: NDArray[np.int64]) -> "Components":
        """Merge the lesions of each group; groups are numbered from 0."""
        n = int(groups.max(initial=-1)) + 1
        first = np.full(n, np.iinfo(np.int64).max)
        pixels, total, peak, spread = (np.zeros(n, dtype=np.int64) for _ in range(4))
        np.minimum.at(first, groups, self.first)
        np.add.at(pixels, groups, self.pixels)
        np.add.at(total, groups, self.total)
        np.maximum.at(peak, groups, self.peak)
        np.add.at(spread, groups, self.spread)
        return Components(first, pixels, total, peak, spread).at(np.argsort(first))


def find_components(parts_of_map: Iterable[tuple[NDArray[Any], ...]]) -> Components:
    """Find the lesions of a map and measure them, in linear time.

    Parameters
    ----------
    parts_of_map : iterable of (lesions, scores) or (lesions, scores, spread)
        The map from its top, some rows at a time: (rows, W) bool; scores, (rows, W) uint16; and the spread between
        models, (rows, W) uint8. The size of the strips does not change the result. Measuring takes 48 bytes for each
        lesion pixel of a strip.
    """
    parts, linker, pixels_above = [Components.none()], Linker(), 0
    for lesions, scores, *spread in parts_of_map:
        labels = linker.labelled(lesions)
        parts.append(_measured(labels, scores, *spread, offset=pixels_above))
        pixels_above += labels.size
    measures = ([getattr(part, field.name) for part in parts] for field in fields(Components))
    return Components(*map(np.concatenate, measures)).merged(linker.groups())


def drop_small(lesions: NDArray[np.bool_], least_px: float) -> int:
    """Unset the 4-connected lesions of a map, (H, W), that have fewer than `least_px` pixels; it may lie on disk.

    Returns
    -------
    int
        Number of lesions that were unset.
    """
    linker, pixels = Linker(), [np.empty(0, dtype=np.int64)]
    for part in strips(lesions.shape[0]):
        pixels.append(np.bincount(linker.labelled(lesions[part]).ravel())[1:])
    groups = linker.groups()
    sizes = np.bincount(groups, weights=np.concatenate(pixels))
    kept, known = sizes[groups] >= least_px, 0
    for part in strips(lesions.shape[0]):
        labels, n = label(lesions[part])
        lesions[part] = np.concatenate([[False], kept[known : known + n]])[labels]
        known += n
    return int((sizes < least_px).sum())


class Linker:
    """Labels the components of a map strip by strip, and tells which of them are connected."""

    def __init__(self) -> None:
        self._known = 0
        self._above: NDArray[np.int64] | None = None
        self._links = [np.empty((2, 0), dtype=np.int64)]

    def labelled(self, lesions: NDArray[np.bool_]) -> NDArray[np.integer[Any]]:
        """Components of the next strip, numbered from 1 from its top to its bottom; 0 elsewhere."""
        labels, n = label(lesions)
        first_row, last_row = (np.where(row, row.astype(np.int64) + self._known, 0) for row in (labels[0], labels[-1]))
        if self._above is not None:
            self._links.append(np.stack([self._above, first_row])[:, (self._above > 0) & (first_row > 0)] - 1)
        self._above, self._known = last_row, self._known + n
        return np.asarray(labels)

    def groups(self) -> NDArray[np.int64]:
        """Group number of each component of all strips, in their order; connected components share a group."""
        pairs, n = np.concatenate(self._links, axis=1), self._known
        graph = coo_array((np.ones(pairs.shape[1], dtype=np.int8), (pairs[0], pairs[1])), shape=(n, n))
        return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


def _measured(
    labels: NDArray[np.integer[Any]], scores: Scores, spread: NDArray[np.uint8] | None = None, *, offset: int
) -> Components:
    """Measure the components of one strip; its first pixel has the index `offset` in the flattened map."""
    places = np.flatnonzero(labels)
    numbers = labels.ravel()[places] - 1
    peak = np.asarray(scores).ravel()[places].astype(np.int64)
    millionths = np.rint(as_probability(peak) * MILLION).astype(np.int64)  # whole numbers add up the same in any order
    steps = np.zeros_like(places) if spread is None else spread.ravel()[places].astype(np.int64)
    found = Components(places + offset, np.ones_like(places), millionths, peak, steps)
    return found.merged(numbers.astype(np.int64))
