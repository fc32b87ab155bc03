"""Compare a slide's lesion map with the annotations of two readers, and these with each other, on the same pixels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesionmap.annotations.classes import BACKGROUND, IGNORE, LESION
from lesionmap.metrics.boundaries import BoundaryTracer, boundary_metrics
from lesionmap.metrics.pairs import COUNTS, FIRST, MODEL, PAIRS, SECOND, pixel_agreement

Mask = NDArray[np.bool_]


class ReaderTally:
    """Agreement of model, reader 1 and reader 2 on one slide, added up strip by strip from its top.

    Parameters
    ----------
    width : int
        Of the map, in pixels.
    """

    def __init__(self, width: int) -> None:
        self._tracers = {name: BoundaryTracer(width) for name in (MODEL, FIRST, SECOND)}
        self._counts = {pair: np.zeros(len(COUNTS), dtype=np.int64) for pair in PAIRS}

    def add(self, predicted: Mask, classes: Sequence[NDArray[np.uint8]], tissue: Mask, unreadable: Mask) -> None:
        """Add the next strip, each (rows, W): predicted lesion, and the classes of the annotations of both readers.

        What is compared is readable, on tissue or annotated by a reader, and ignored by none.
        """
        cut = unreadable | np.any([mask == IGNORE for mask in classes], axis=0)
        compared = (tissue | np.any([mask != BACKGROUND for mask in classes], axis=0)) & ~cut
        lesions = dict(zip((MODEL, FIRST, SECOND), (predicted, *(mask == LESION for mask in classes)), strict=True))
        seen = {name: lesion & compared for name, lesion in lesions.items()}
        for name, tracer in self._tracers.items():
            tracer.add(seen[name], cut)
        n = np.count_nonzero(compared)
        for pair, (one, other) in PAIRS.items():
            tp, called, truth = map(np.count_nonzero, (seen[one] & seen[other], seen[one], seen[other]))
            self._counts[pair] += [tp, called - tp, truth - tp, n - called - truth + tp]

    def record(self, mpp: float, tolerance_um: float) -> dict[str, Any]:
        """Of each pair, its numbers of pixels, their metrics, and those of its boundaries."""
        boundaries = {name: tracer.found() for name, tracer in self._tracers.items()}
        found = {}
        for pair, names in PAIRS.items():
            counts = dict(zip(COUNTS, self._counts[pair].tolist(), strict=True))
            of_boundaries = boundary_metrics([boundaries[name] for name in names], mpp, tolerance_um)
            found[pair] = counts | pixel_agreement(counts) | of_boundaries
        return found
