"""Free-response ROC: sensitivity for lesions against false detections per slide, as computed in CAMELYON16."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesionmap.metrics.pixels import Values, ratio

FALSE_PER_SLIDE = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
FROC_METRICS = {  # and whether they need an annotated lesion
    **{f"sensitivity_at_{rate:g}": True for rate in FALSE_PER_SLIDE},
    "froc_score": True,
    "false_lesions_per_slide": False,
}


def froc_curve(
    false_positive_scores: NDArray[Any], detection_scores: NDArray[Any], n_slides: NDArray[Any], n_lesions: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """False detections per slide and sensitivity, (..., N + 1) each, from above the highest confidence down.

    Parameters
    ----------
    false_positive_scores : (..., N) array
        Number of detections outside annotated lesions with each of N confidences, ascending, on all slides.
    detection_scores : (..., N) array
        Number of lesions whose best detection has each confidence.
    n_slides, n_lesions : (...) array
        Number of slides with and without lesion, and of lesions that count, found or not. Without lesions the
        sensitivity is NaN.
    """
    totals = ((false_positive_scores, n_slides), (detection_scores, n_lesions))
    false, sensitivity = (ratio(_from_the_top(scores), _repeated(scores, total)) for scores, total in totals)
    return false, sensitivity


def froc_metrics(
    false_positive_scores: NDArray[Any], detection_scores: NDArray[Any], n_slides: NDArray[Any], n_lesions: NDArray[Any]
) -> dict[str, Values]:
    """Sensitivity at 1/4, 1/2, 1, 2, 4 and 8 false detections per slide, FROC score, and false lesions per slide.

    The FROC score is the mean of the six sensitivities. Sensitivity is interpolated between the points of the curve.
    Beyond its last point, where the map has no more false detections, it is the sensitivity of all detections
    (Ehteshami Bejnordi et al., JAMA 2017).

    Parameters
    ----------
    false_positive_scores, detection_scores : (D, N) array
        As for :func:`froc_curve`, with `n_slides` and `n_lesions` of shape (D,).

    Returns
    -------
    dict of str to (D,) float64
    """
    false, sensitivity = froc_curve(false_positive_scores, detection_scores, n_slides, n_lesions)
    pairs = zip(false, sensitivity, strict=True)
    at = np.array([np.interp(FALSE_PER_SLIDE, *pair) for pair in pairs])  # (D, 6)
    return dict(zip(FROC_METRICS, (*at.T, at.mean(axis=1), false[:, -1]), strict=True))


def _from_the_top(scores: NDArray[Any]) -> NDArray[np.float64]:
    """Cumulative counts from the highest score down, starting with 0."""
    none = np.zeros((*scores.shape[:-1], 1))
    return np.concatenate([none, np.cumsum(scores[..., ::-1], axis=-1, dtype=np.float64)], axis=-1)


def _repeated(scores: NDArray[Any], total: NDArray[Any]) -> NDArray[np.float64]:
    """`total`, (...), repeated for each point of the curve of `scores`."""
    return np.broadcast_to(np.asarray(total, dtype=np.float64)[..., None], (*scores.shape[:-1], scores.shape[-1] + 1))
