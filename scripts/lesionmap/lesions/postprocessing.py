"""What is done to the lesions of a map once they are found: smoother outlines, no specks."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from lesionmap.maps.components import drop_small
from lesionmap.maps.on_disk import on_disk, strips

REACH = 4  # standard deviations of a Gaussian


@dataclass(frozen=True)
class Postprocessing:
    """What is done to lesions; 0: nothing.

    Parameters
    ----------
    smoothing_um : float
        Standard deviation of the Gaussian by which they are smoothed.
    min_lesion_area_um2 : float
        Smaller ones are dropped.
    """

    smoothing_um: float
    min_lesion_area_um2: float


def postprocessed(
    lesions: NDArray[np.bool_], tidying: Postprocessing, mpp: float, folder: str | Path
) -> tuple[NDArray[np.bool_], dict[str, Any]]:
    """Lesions, (H, W) at `mpp` µm/px, smoothed and without small ones, and what that has changed.

    A pixel is lesion after smoothing where at least half of its surroundings, weighted by the Gaussian, was.

    Returns
    -------
    lesions : (H, W) bool
        On the disk of `folder`; changed in place if they are not smoothed.
    metadata : dict
        mm² before, after smoothing, and in the end; how many were dropped.
    """
    metadata: dict[str, Any] = {"as_found_mm2": _mm2(lesions, mpp)}
    if tidying.smoothing_um:
        lesions = _smoothed(lesions, tidying.smoothing_um / mpp, folder)
    metadata["smoothed_mm2"] = _mm2(lesions, mpp)
    metadata["dropped"] = (
        drop_small(lesions, tidying.min_lesion_area_um2 / mpp**2) if tidying.min_lesion_area_um2 else 0
    )
    return lesions, metadata | {"kept_mm2": _mm2(lesions, mpp)}


def _smoothed(lesions: NDArray[np.bool_], sigma_px: float, folder: str | Path) -> NDArray[np.bool_]:
    smoothed = on_disk(lesions.shape, np.bool_, folder)
    halo = math.ceil(REACH * sigma_px) + 1
    for part in strips(lesions.shape[0]):
        top = max(0, part.start - halo)
        around = lesions[top : part.stop + halo].astype(np.float32)
        weighted = gaussian_filter(around, sigma_px, truncate=REACH)
        smoothed[part] = weighted[part.start - top : part.stop - top] >= 0.5
    return smoothed


def _mm2(lesions: NDArray[np.bool_], mpp: float) -> float:
    n = sum(int(np.count_nonzero(lesions[part])) for part in strips(lesions.shape[0]))
    return round(n * mpp**2 / 1e6, 9)
