"""Measure what makes a region poor training data: blur, ink and folds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from lesionmap.tissue.mask import FOLD, INK

FINE_UM, COARSE_UM = 0.5, 2.0  # nuclear borders; whole nuclei
BLURRED = 0.36  # ratio on real slides: at least 0.40 in focus, at most 0.34 out of focus by 0.75 µm (σ)
SHARES = ("blur", "pen", "fold")
ROW_STEP = 8  # one row in 8 is measured


@dataclass(frozen=True)
class RegionQuality:
    """Quality of a region as shares from 0 to 1.

    Parameters
    ----------
    blur : float
        Share of blurred tiles among those that are at least half tissue.
    pen : float
        Share of ink in the area of tissue and ink.
    fold : float
        Share of folded tissue in all tissue.
    """

    blur: float = 0.0
    pen: float = 0.0
    fold: float = 0.0

    @classmethod
    def of(cls, codes: NDArray[np.uint8], kept: NDArray[np.bool_], blurred: Sequence[bool]) -> "RegionQuality":
        """Judge a region.

        Parameters
        ----------
        codes : (s, s) uint8
            The region's tissue map (:func:`lesionmap.tissue.detection.tissue_map`).
        kept : (n, n) bool
            True for the k tiles that are stored.
        blurred : sequence of k bool
            Whether each of these is blurred, row by row (:func:`is_blurred`). Only tiles that are at least half
            tissue count.
        """
        n = len(kept)
        tissue, inked = codes >= FOLD, codes == INK
        filled = tissue.reshape(n, len(codes) // n, n, -1).mean(axis=(1, 3))[kept] >= 0.5
        return cls(
            blur=_share((filled & np.asarray(blurred, dtype=bool)).sum(), filled.sum()),
            pen=_share(inked.sum(), inked.sum() + tissue.sum()),
            fold=_share((codes == FOLD).sum(), tissue.sum()),
        )


def _share(part: int, whole: int) -> float:
    return round(float(part / whole), 4) if whole else 0.0


def is_blurred(image: NDArray[np.uint8], mpp: float) -> bool:
    """Whether tissue is out of focus: green changes little over 0.5 µm, compared with 2 µm.

    The ratio of the two does not depend on how strongly the tissue is stained. Above 1 µm/px focus cannot be judged,
    so the result is False.

    Parameters
    ----------
    image : (H, W, 3) uint8
        A tile at `mpp`; only its green channel is used.
    mpp : float
        Resolution of the image, µm/px.
    """
    fine, coarse = (max(1, round(length / mpp)) for length in (FINE_UM, COARSE_UM))
    if mpp > 2 * FINE_UM or coarse >= min(image.shape[:2]):
        return False
    return bool(_change(image, fine) < BLURRED * _change(image, coarse))


@numba.njit(cache=True, nogil=True)
def _change(image, step):  # type: ignore[no-untyped-def]  # numba types it
    """Mean absolute difference of green between pixels `step` apart, along x and y."""
    total, height, width = 0, image.shape[0] - step, image.shape[1] - step
    for y in range(0, height, ROW_STEP):
        for x in range(width):
            here = np.int64(image[y, x, 1])
            total += abs(here - image[y, x + step, 1]) + abs(here - image[y + step, x, 1])
    return total / (2 * width * ((height - 1) // ROW_STEP + 1))
