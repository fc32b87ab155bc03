"""The points of a cohort's curves, from the histograms and counts that its summary holds."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesionmap.annotations.classes import LESION
from lesionmap.metrics.froc import FALSE_PER_SLIDE

Points = tuple[NDArray[np.float64], NDArray[np.float64]]


def roc_points(histograms: NDArray[Any]) -> Points:
    """Share of other pixels and of lesion pixels that are called lesion, (257,) each, from the highest threshold down.

    Parameters
    ----------
    histograms : (4, 256) array
        Of :class:`lesionmap.metrics.pixels.Histograms`; there must be pixels of lesion and others.
    """
    found, false = _called(histograms)
    return false / false[-1], found / found[-1]


def precision_recall_points(histograms: NDArray[Any]) -> Points:
    """Recall and precision from the highest level that any pixel has down, (N,) each.

    Parameters
    ----------
    histograms : (4, 256) array
        As for :func:`roc_points`.
    """
    found, false = _called(histograms)
    called = found + false
    some = called > 0
    return found[some] / found[-1], found[some] / called[some]


def froc_points(froc: Mapping[str, Any], ends: tuple[float, float], n: int = 200) -> Points:
    """Rates of false detections, evenly spread over a logarithmic axis, and the sensitivity at each.

    The rates of :func:`lesionmap.metrics.froc.froc_figures` are among them. Interpolated as there: linear between the
    points of the curve; beyond its last one, the sensitivity of all detections.

    Parameters
    ----------
    froc : mapping
        ``false_per_slide`` and ``sensitivity`` of :func:`lesionmap.evaluation.summary.summary_of`.
    ends : (lowest, highest) rate
    n : int
        Rates apart from those of the FROC score.
    """
    rates = np.union1d(np.geomspace(*ends, n), FALSE_PER_SLIDE)
    return rates, np.interp(rates, froc["false_per_slide"], froc["sensitivity"])


def area_points(rows: Sequence[Mapping[str, Any]]) -> Points:
    """Of each slide the mean of marked and annotated mm², and marked − annotated mm², (S,) each."""
    annotated, marked = (np.array([row[key] for row in rows], dtype=float) for key in ("annotated_mm2", "marked_mm2"))
    return (annotated + marked) / 2, marked - annotated


def _called(histograms: NDArray[Any]) -> Points:
    """Lesion pixels and others that are called lesion at no level, at 255 and above, …, at all levels, (257,) each."""
    counts = np.asarray(histograms, dtype=np.float64)
    lesion, others = counts[LESION], counts.sum(axis=0) - counts[LESION]
    found, false = (np.concatenate([[0.0], np.cumsum(part[::-1])]) for part in (lesion, others))
    return found, false
