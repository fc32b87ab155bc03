"""Points of a cohort's curves, from the histograms and counts in its summary."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesionmap.annotations.classes import LESION
from lesionmap.metrics.froc import FALSE_PER_SLIDE

Curve = tuple[NDArray[np.float64], NDArray[np.float64]]


def roc_points(histograms: NDArray[Any]) -> Curve:
    """Shares of other and of lesion pixels that are predicted as lesion, (N,) each, from the highest threshold down.

    Parameters
    ----------
    histograms : (4, N_BINS) array
        Counts of :class:`lesionmap.metrics.pixels.Histograms`, with at least one lesion and one other pixel.
    """
    found, false = _called(histograms)
    return false / false[-1], found / found[-1]


def precision_recall_points(histograms: NDArray[Any]) -> Curve:
    """Recall and precision, (N,) each, for thresholds from the highest probability of any pixel down.

    Parameters
    ----------
    histograms : (4, N_BINS) array
        As for :func:`roc_points`.
    """
    found, false = _called(histograms)
    called = found + false
    some = called > 0
    return found[some] / found[-1], found[some] / called[some]


def froc_points(froc: Mapping[str, Any], ends: tuple[float, float], n: int = 200) -> Curve:
    """Rates of false detections, evenly spaced on a logarithmic axis, and the sensitivity at each.

    The rates of :func:`lesionmap.metrics.froc.froc_metrics` are among them. Interpolation is the same as there: linear
    between the points of the curve; beyond its last point, the sensitivity of all detections.

    Parameters
    ----------
    froc : mapping
        ``false_per_slide`` and ``sensitivity`` of :func:`lesionmap.evaluation.summary.summary_of`.
    ends : (float, float)
        Lowest and highest rate, false detections per slide.
    n : int
        Number of evenly spaced rates, without those of the FROC score.
    """
    rates = np.union1d(np.geomspace(*ends, n), FALSE_PER_SLIDE)
    return rates, np.interp(rates, froc["false_per_slide"], froc["sensitivity"])


def area_differences(rows: Sequence[Mapping[str, Any]]) -> Curve:
    """Mean of predicted and annotated area, and predicted − annotated area, mm², of each slide; (S,) each."""
    annotated, predicted = (
        np.array([row[key] for row in rows], dtype=float) for key in ("annotated_mm2", "predicted_mm2")
    )
    return (annotated + predicted) / 2, predicted - annotated


def _called(histograms: NDArray[Any]) -> Curve:
    """Number of lesion and of other pixels predicted as lesion: none, those of the highest bin with pixels, …, all."""
    counts = np.asarray(histograms, dtype=np.float64)
    counts = counts[:, counts.any(axis=0)]
    lesion, others = counts[LESION], counts.sum(axis=0) - counts[LESION]
    found, false = (np.concatenate([[0.0], np.cumsum(part[::-1])]) for part in (lesion, others))
    return found, false
