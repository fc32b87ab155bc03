"""Free-response ROC: sensitivity for lesions against false detections per slide, as CAMELYON16 reckons it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesionmap.metrics.pixels import Figures, ratio

FALSE_PER_SLIDE = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


def froc_curve(
    false_levels: NDArray[Any], hit_levels: NDArray[Any], n_slides: NDArray[Any], n_lesions: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """False detections per slide and sensitivity, (..., 257) each, for confidences from above 255 down to 0.

    Parameters
    ----------
    false_levels : (..., 256) array
        Detections outside annotated lesions at each level of confidence, of slides with and without lesion.
    hit_levels : (..., 256) array
        Lesions at each level of the best detection in them.
    n_slides, n_lesions : (...) array
        Slides, and lesions that count, found or not. Without lesions the sensitivity is NaN.
    """
    totals = ((false_levels, n_slides), (hit_levels, n_lesions))
    false, sensitivity = (ratio(_from_the_top(levels), _like(levels, total)) for levels, total in totals)
    return false, sensitivity


def froc_figures(
    false_levels: NDArray[Any], hit_levels: NDArray[Any], n_slides: NDArray[Any], n_lesions: NDArray[Any]
) -> Figures:
    """Sensitivity at 1/4, 1/2, 1, 2, 4 and 8 false detections per slide, their mean (the FROC score), and false ones.

    Between the points of the curve it is interpolated; beyond its last point, where the map has no more false
    detections, the sensitivity is that of all its detections (Ehteshami Bejnordi et al., JAMA 2017).

    Parameters
    ----------
    false_levels, hit_levels : (D, 256) array
        As for :func:`froc_curve`, as are `n_slides` and `n_lesions`, (D,).

    Returns
    -------
    dict of str to (D,) float64
    """
    false, sensitivity = froc_curve(false_levels, hit_levels, n_slides, n_lesions)
    pairs = zip(false, sensitivity, strict=True)
    at = np.array([np.interp(FALSE_PER_SLIDE, *pair) for pair in pairs])  # (D, 6)
    figures = {f"sensitivity_at_{rate:g}": at[:, index] for index, rate in enumerate(FALSE_PER_SLIDE)}
    return figures | {"froc_score": at.mean(axis=1), "false_lesions_per_slide": false[:, -1]}


def _from_the_top(levels: NDArray[Any]) -> NDArray[np.float64]:
    """How many there are from each level on, highest level first, after a 0."""
    none = np.zeros((*levels.shape[:-1], 1))
    return np.concatenate([none, np.cumsum(levels[..., ::-1], axis=-1, dtype=np.float64)], axis=-1)


def _like(levels: NDArray[Any], total: NDArray[Any]) -> NDArray[np.float64]:
    """`total`, (...), once for each point of the curve of `levels`."""
    return np.broadcast_to(np.asarray(total, dtype=np.float64)[..., None], (*levels.shape[:-1], levels.shape[-1] + 1))
