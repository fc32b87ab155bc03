"""Which predicted lesions are true or false, and which annotated lesions are found: by the pixels that they share.

The FROC curve judges the point of a lesion's highest probability instead (:mod:`lesionmap.metrics.lesions`).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lesionmap.maps.components import Linker

MATCHED, MERGED, FALSE, NOT_JUDGED = "matched", "merged", "false", "not judged"
VERDICTS = (MATCHED, MERGED, FALSE, NOT_JUDGED)


@dataclass(frozen=True)
class Verdicts:
    """N predicted lesions in the order of their first pixels, row by row, and L annotated ones by their number from 1.

    Parameters
    ----------
    first : (N,) int64
        Index of a predicted lesion's first pixel in the flattened map, ascending.
    verdict : (N,) str
        ``matched``: it shares pixels with one annotated lesion; ``merged``: with several; ``false``: with none; ``not
        judged``: with none, and the annotation says to ignore more than half of its pixels.
    judged, found : (L,) bool
        Whether any pixel of an annotated lesion is judged, and whether any of those is predicted.
    """

    first: NDArray[np.int64]
    verdict: NDArray[np.str_]
    judged: NDArray[np.bool_]
    found: NDArray[np.bool_]

    def counts(self) -> dict[str, int]:
        """Number of predicted lesions with each verdict."""
        return {name: int((self.verdict == name).sum()) for name in VERDICTS}


class LesionMatcher:
    """Matches the lesions of a map and of its annotation, strip by strip from the top.

    Parameters
    ----------
    n_lesions : int
        Number of annotated lesions.
    """

    def __init__(self, n_lesions: int) -> None:
        self._linker = Linker()
        self._judged = np.zeros(n_lesions + 1, dtype=np.bool_)
        self._first, self._surplus = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        self._shared = [np.empty((2, 0), np.int64)]  # component, annotated lesion
        self._components, self._pixels = 0, 0

    def add(self, predicted: NDArray[np.bool_], annotated: NDArray[np.int32], ignored: NDArray[np.bool_]) -> None:
        """Add the next strip, each (rows, W).

        Parameters
        ----------
        annotated : (rows, W) int32
            Number of the annotated lesion in whose outline a pixel lies; 0 where there is none, or it is not judged.
        ignored : (rows, W) bool
            Where the annotation says to ignore.
        """
        labels = self._linker.labelled(predicted)
        self._judged[np.unique(annotated)] = True
        _, first, pixels = np.unique(labels[labels > 0], return_index=True, return_counts=True)
        self._first.append(np.flatnonzero(labels)[first] + self._pixels)
        self._surplus.append(2 * np.bincount(labels[ignored], minlength=len(first) + 1)[1:] - pixels)
        both = (labels > 0) & (annotated > 0)
        shared = np.unique(np.stack([labels[both].astype(np.int64) - 1, annotated[both]]), axis=1)
        self._shared.append(shared + np.array([[self._components], [0]]))
        self._components, self._pixels = self._components + len(first), self._pixels + labels.size

    def verdicts(self) -> Verdicts:
        """The verdicts on the whole map."""
        groups = self._linker.groups()
        n = int(groups.max(initial=-1)) + 1
        first, surplus = np.full(n, np.iinfo(np.int64).max), np.zeros(n, dtype=np.int64)
        np.minimum.at(first, groups, np.concatenate(self._first))
        np.add.at(surplus, groups, np.concatenate(self._surplus))
        component, number = np.concatenate(self._shared, axis=1)
        owners, numbers = np.unique(np.stack([groups[component], number]), axis=1)
        lesions = np.bincount(owners, minlength=n)
        verdict = np.select([lesions > 1, lesions == 1, surplus > 0], [MERGED, MATCHED, NOT_JUDGED], FALSE)
        order = np.argsort(first)
        found = np.isin(np.arange(1, len(self._judged)), numbers)
        return Verdicts(first[order], verdict[order], self._judged[1:], found)
