"""How near the boundaries of two lesion masks are: normalised surface Dice and 95 % Hausdorff distance.

The boundary of a mask are the pixel sides between lesion and other pixels, all of one length. Where ignored or
unreadable pixels or the end of the map cut a lesion, nobody has drawn a boundary: such sides count for nothing, but the
other mask may lie near them. Sources and what is undefined: docs/metrics.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

BOUNDARY_METRICS = ("nsd", "hd95_um")
HAUSDORFF_SHARE = 0.95

Distances = NDArray[np.float64]


@dataclass(frozen=True)
class Boundary:
    """The boundary of a mask.

    Parameters
    ----------
    sides : (N, 2) int32
        Row and column of the middle of each pixel side, in half pixels from the top-left corner; none without lesion.
    drawn : (N,) bool
        False where the lesion is merely cut.
    """

    sides: NDArray[np.int32]
    drawn: NDArray[np.bool_]

    def distances_px(self, other: "Boundary") -> NDArray[np.float64]:
        """Distance of each drawn side to the nearest side of `other`, which has at least one; 0 where both have it."""
        tree = KDTree(other.sides, leafsize=32, compact_nodes=False, balanced_tree=False)
        return np.asarray(tree.query(self.sides[self.drawn])[0]) / 2


class BoundaryTracer:
    """Finds the boundary of a mask, strip by strip from its top; the size of the strips does not change the result.

    Parameters
    ----------
    width : int
        Of the mask, in pixels.
    """

    def __init__(self, width: int) -> None:
        self._above = np.zeros(width + 2, dtype=np.bool_), np.ones(width + 2, dtype=np.bool_)
        self._top = 0
        self._parts: list[tuple[NDArray[np.int32], NDArray[np.bool_]]] = []

    def add(self, lesion: NDArray[np.bool_], cut: NDArray[np.bool_]) -> None:
        """Add the next strip.

        Parameters
        ----------
        lesion, cut : (rows, W) bool
            Lesion, and pixels that are neither lesion nor other tissue, because they are ignored or unreadable.
        """
        lesion = np.vstack([self._above[0], np.pad(lesion, ((0, 0), (1, 1)))])
        cut = np.vstack([self._above[1], np.pad(cut, ((0, 0), (1, 1)), constant_values=True)])
        self._find(lesion[1:], cut[1:], 1)
        self._find(lesion[:, 1:-1], cut[:, 1:-1], 0)
        self._above = lesion[-1], cut[-1]
        self._top += len(lesion) - 1

    def _find(self, lesion: NDArray[np.bool_], cut: NDArray[np.bool_], axis: int) -> None:
        """Add the sides between neighbours along an axis, on which the first row or column is the one before."""
        before = np.nonzero(np.diff(lesion, axis=axis))
        after = tuple(place + (along == axis) for along, place in enumerate(before))
        sides = np.stack([2 * place + (along != axis) for along, place in enumerate(before)], axis=1)
        sides[:, 0] += 2 * self._top
        self._parts.append((sides.astype(np.int32), ~(cut[before] | cut[after])))

    def found(self) -> Boundary:
        """The boundary of the whole mask, after its last strip."""
        below = np.flatnonzero(self._above[0][1:-1])
        end = np.stack([np.full_like(below, 2 * self._top), 2 * below + 1], axis=1).astype(np.int32)
        sides, drawn = zip(*self._parts, (end, np.zeros(len(end), dtype=np.bool_)), strict=True)
        return Boundary(np.concatenate(sides), np.concatenate(drawn))


def boundary_metrics(pair: Sequence[Boundary], mpp: float, tolerance_um: float) -> dict[str, Any]:
    """Normalised surface Dice and 95 % Hausdorff distance of two masks, which is the same either way round.

    Returns
    -------
    dict
        ``nsd``: share of both boundaries that is within the tolerance of the other; 0 if only one mask has lesion.
        ``hd95_um``: of the two distances within which 95 % of one boundary is to the other, the larger; µm.
        Each is None where it is undefined; ``undefined`` says why, by name.
    """
    one, other = pair
    sizes = len(one.sides), len(other.sides)
    if not all(sizes):
        if not any(sizes):
            return _undefined(BOUNDARY_METRICS, "neither has lesion")
        return _undefined(["hd95_um"], "only one of the two has lesion") | {"nsd": 0.0}
    found = [part * mpp for part in (one.distances_px(other), other.distances_px(one))]
    everything = np.concatenate(found)
    if not len(everything):
        return _undefined(BOUNDARY_METRICS, "no boundary lies in judged pixels")
    largest = max(np.quantile(part, HAUSDORFF_SHARE, method="inverted_cdf") for part in found if len(part))
    return {"nsd": float((everything <= tolerance_um).mean()), "hd95_um": float(largest), "undefined": {}}


def where_both(one: Distances, other: Distances) -> tuple[Distances, Distances]:
    """Metrics of the same slides by two raters, NaN where either is undefined, so that means are of the same slides.

    Else who misses a difficult lesion wholly would have the smaller mean distance.

    Parameters
    ----------
    one, other : (S, 2) float64
        :data:`BOUNDARY_METRICS` of each slide.
    """
    gaps = np.where(np.isnan(one + other), np.nan, 0.0)
    return one + gaps, other + gaps


def _undefined(names: Any, why: str) -> dict[str, Any]:
    return dict.fromkeys(BOUNDARY_METRICS) | {"undefined": dict.fromkeys(names, why)}
