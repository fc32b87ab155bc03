"""Postprocessing of the lesions of a map: smoother outlines, no specks."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from lesionmap.maps.components import drop_small
from lesionmap.maps.on_disk import on_disk, strips

REACH = 4  # of the Gaussian, in standard deviations


@dataclass(frozen=True)
class Postprocessing:
    """Settings of postprocessing; 0 turns a step off.

    Parameters
    ----------
    smoothing_um : float
        Standard deviation of the Gaussian that smooths lesions.
    min_lesion_area_um2 : float
        Smaller lesions are dropped.
    """

    smoothing_um: float
    min_lesion_area_um2: float


def postprocessed(
    lesions: NDArray[np.bool_],
    settings: Postprocessing,
    mpp: float,
    folder: str | Path,
    clear_background: Callable[[NDArray[np.bool_]], None],
) -> tuple[NDArray[np.bool_], dict[str, Any]]:
    """Smooth lesions, (H, W) at `mpp` µm/px, drop small ones, and report what changed.

    After smoothing, a pixel is lesion if at least half of its surroundings, weighted by the Gaussian, was lesion.

    Parameters
    ----------
    clear_background : callable
        Clears a map of lesions, in place, where there is no tissue: smoothing must not reach beyond it.

    Returns
    -------
    lesions : (H, W) bool
        On the disk of `folder`; changed in place if they are not smoothed.
    metadata : dict
        Area (mm²) before, after smoothing, and at the end; number of dropped lesions.
    """
    metadata: dict[str, Any] = {"as_found_mm2": _mm2(lesions, mpp)}
    if settings.smoothing_um:
        lesions = _smoothed(lesions, settings.smoothing_um / mpp, folder)
        clear_background(lesions)
    metadata["smoothed_mm2"] = _mm2(lesions, mpp)
    metadata["dropped"] = (
        drop_small(lesions, settings.min_lesion_area_um2 / mpp**2) if settings.min_lesion_area_um2 else 0
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
