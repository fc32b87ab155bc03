"""Pixel metrics: how well a lesion map agrees with the pathologist, and the histograms behind them.

A histogram of scores per class holds all that these metrics need. Its bins are even in the logit, so they part what a
sure network parts. Cohort metrics come from exact sums of slides' histograms. Definitions and sources: docs/metrics.md.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesionmap.annotations.classes import CLASS_NAMES, LESION
from lesionmap.maps.probability import BIN_PROBABILITIES, N_BINS, PER_BIN, Scores, first_bin, threshold_of

CALIBRATION_BINS = 16
_calibration_starts = np.searchsorted(BIN_PROBABILITIES, np.arange(CALIBRATION_BINS) / CALIBRATION_BINS)
NOT_LESION = {"rest": 0, **{name: label for name, label in CLASS_NAMES.items() if label != LESION}}

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Histograms:
    """Number of pixels of each true class in each bin of scores.

    Parameters
    ----------
    counts : (4, N_BINS) int64
        Rows: background, lesion, vessel, fat.
    """

    counts: NDArray[np.int64]

    @classmethod
    def empty(cls) -> "Histograms":
        """No pixels yet."""
        return cls(np.zeros((len(CLASS_NAMES) + 1, N_BINS), dtype=np.int64))

    @classmethod
    def of(cls, scores: Scores, mask: NDArray[np.uint8]) -> "Histograms":
        """Count a map's pixels by the class in a mask of the same shape; pixels with 255 in the mask are left out."""
        known = mask < len(CLASS_NAMES) + 1
        index = mask[known].astype(np.int64) * N_BINS + scores[known] // PER_BIN
        counts = np.bincount(index, minlength=(len(CLASS_NAMES) + 1) * N_BINS)
        return cls(counts.reshape(-1, N_BINS))

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> "Histograms":
        """From :meth:`record`, or its JSON."""
        counts, found = np.array(record["counts"], dtype=np.int64), cls.empty()
        found.counts[:, record["first_bin"] : record["first_bin"] + counts.shape[1]] = counts
        return found

    def record(self) -> dict[str, Any]:
        """The bins from the first to the last that has pixels, and the number of the first; can be written as JSON."""
        used = np.flatnonzero(self.counts.any(axis=0))
        first, stop = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 0)
        return {"first_bin": first, "counts": self.counts[:, first:stop].tolist()}

    def __add__(self, other: "Histograms") -> "Histograms":
        return Histograms(self.counts + other.counts)


@dataclass(frozen=True)
class PixelMetric:
    """One pixel metric, lesion against everything else.

    Parameters
    ----------
    compute : callable
        From histograms, (..., 4, N_BINS), and a threshold to (...) float64; NaN where undefined.
    rests_on : callable
        From histograms, (..., 4, N_BINS), to whether they hold the pixels that the metric needs, (...) bool.
    why_undefined : callable
        From histograms, (4, N_BINS), for which the metric is undefined to the reason.
    thresholded : bool
        Whether it depends on the threshold.
    swept : bool
        Whether it is also reported over a range of thresholds.
    averaged : bool
        Whether its mean over slides is also reported.
    """

    name: str
    compute: Callable[[NDArray[Any], float], Values]
    rests_on: Callable[[NDArray[Any]], NDArray[np.bool_]]
    why_undefined: Callable[[NDArray[Any]], str]
    thresholded: bool = False
    swept: bool = False
    averaged: bool = True


def pixel_metrics(counts: NDArray[Any], threshold: float) -> dict[str, Values]:
    """All :data:`PIXEL_METRICS` of many histograms at once, (..., 4, N_BINS), as for the cohorts of an interval."""
    return {metric.name: metric.compute(counts, threshold) for metric in PIXEL_METRICS}


def binary_metrics(histograms: Histograms, threshold: float) -> dict[str, float | None]:
    """All :data:`PIXEL_METRICS` of one slide; None where undefined, never NaN."""
    found = pixel_metrics(histograms.counts, threshold)
    return {name: None if np.isnan(value) else float(value) for name, value in found.items()}


@dataclass(frozen=True)
class Confusion:
    """Numbers of true and false positive and negative pixels at a threshold, (...) float64 each."""

    tp: Values
    fp: Values
    fn: Values
    tn: Values

    @classmethod
    def of(cls, counts: NDArray[Any], threshold: float) -> "Confusion":
        """From histograms, (..., 4, N_BINS)."""
        called, everything = (
            part.sum(axis=-1, dtype=np.float64) for part in (counts[..., first_bin(threshold) :], counts)
        )
        tp, lesion = called[..., LESION], everything[..., LESION]
        fp, others = called.sum(axis=-1) - tp, everything.sum(axis=-1) - lesion
        return cls(tp, fp, lesion - tp, others - fp)

    @property
    def without_lesion(self) -> Values:
        """NaN where there is no lesion, else 0. Without lesion, one pixel would decide between 0 and 1."""
        return np.where(self.tp + self.fn > 0, 0.0, np.nan)

    @property
    def dice(self) -> Values:
        """2 TP / (2 TP + FP + FN)."""
        return ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn) + self.without_lesion

    @property
    def iou(self) -> Values:
        """TP / (TP + FP + FN)."""
        return ratio(self.tp, self.tp + self.fp + self.fn) + self.without_lesion

    @property
    def precision(self) -> Values:
        """TP / (TP + FP)."""
        return ratio(self.tp, self.tp + self.fp) + self.without_lesion

    @property
    def recall(self) -> Values:
        """TP / (TP + FN)."""
        return ratio(self.tp, self.tp + self.fn)

    @property
    def specificity(self) -> Values:
        """TN / (TN + FP)."""
        return ratio(self.tn, self.tn + self.fp)

    @property
    def kappa(self) -> Values:
        """Agreement beyond that by chance (Cohen 1960), for two raters and two classes."""
        by_chance = (self.tp + self.fp) * (self.fp + self.tn) + (self.tp + self.fn) * (self.fn + self.tn)
        return ratio(2 * (self.tp * self.tn - self.fp * self.fn), by_chance)


def _of_counts(name: str) -> Callable[[NDArray[Any], float], Values]:
    """A metric of :class:`Confusion`, of histograms, (..., 4, N_BINS), at a threshold."""
    return lambda counts, threshold: getattr(Confusion.of(counts, threshold), name)


def false_positive_rate(label: int, counts: NDArray[Any], threshold: float) -> Values:
    """Share of the pixels of one class that are predicted as lesion, (...), of histograms (..., 4, N_BINS)."""
    of_class = counts[..., label, :]
    return ratio(of_class[..., first_bin(threshold) :].sum(axis=-1), of_class.sum(axis=-1))


def auroc(positive: NDArray[Any], negative: NDArray[Any]) -> NDArray[np.float64]:
    """Area under the ROC curve, (...), of histograms of a score, (..., bins) each in ascending order.

    It is the probability that a positive scores higher than a negative; ties count one half (Hanley & McNeil,
    Radiology 1982). Same as scikit-learn's ``roc_auc_score``, for many histograms at once.
    """
    below = np.cumsum(negative, axis=-1) - negative / 2
    pairs = positive.sum(axis=-1, dtype=np.float64) * negative.sum(axis=-1, dtype=np.float64)
    return ratio((positive * below).sum(axis=-1), pairs)


def average_precision(positive: NDArray[Any], negative: NDArray[Any]) -> NDArray[np.float64]:
    """Area under the precision-recall curve, (...), of histograms of a score, (..., bins) each in ascending order.

    It is the mean precision over all values, weighted by the recall gained at each, without interpolation (Davis &
    Goadrich, ICML 2006). Same as scikit-learn's ``average_precision_score``, for many histograms at once.
    """
    found = np.cumsum(positive[..., ::-1], axis=-1, dtype=np.float64)[..., ::-1]
    false = np.cumsum(negative[..., ::-1], axis=-1, dtype=np.float64)[..., ::-1]
    precision = found / np.maximum(found + false, np.finfo(np.float64).tiny)  # 0 where nothing is called positive
    area = ratio((positive * precision).sum(axis=-1), positive.sum(axis=-1))
    return np.where(negative.sum(axis=-1) > 0, area, np.nan)


def brier_score(positive: NDArray[Any], negative: NDArray[Any]) -> NDArray[np.float64]:
    """Mean squared difference between probability and truth (Brier 1950), (...), of histograms, (..., N_BINS)."""
    total = positive @ (1 - BIN_PROBABILITIES) ** 2 + negative @ BIN_PROBABILITIES**2
    return ratio(total, (positive + negative).sum(axis=-1))


def calibration_error(positive: NDArray[Any], negative: NDArray[Any]) -> NDArray[np.float64]:
    """Expected calibration error, (...), of histograms, (..., N_BINS), in 16 equal bins.

    It is the mean absolute difference between a bin's mean probability and its share of lesion, weighted by pixels
    (Naeini et al., AAAI 2015).
    """
    total, probability, lesion = calibration_sums(positive, negative)
    return ratio(np.abs(probability - lesion).sum(axis=-1), total.sum(axis=-1))


def calibration_sums(
    positive: NDArray[Any], negative: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Pixels, sum of their probabilities, and lesion pixels in each calibration bin, each (..., 16)."""
    everything = positive + negative
    total, expected, lesion = (
        np.add.reduceat(part, _calibration_starts, axis=-1, dtype=np.float64)
        for part in (everything, everything * BIN_PROBABILITIES, positive)
    )
    return total, expected, lesion


def best_threshold(histograms: Histograms) -> float | None:
    """The threshold with the highest Dice; in a tie, the one nearest to one half. None if there is no lesion."""
    positive, everything = histograms.counts[LESION], histograms.counts.sum(axis=0)
    if not positive.any():
        return None
    bins = np.arange(1, N_BINS)
    found, called = (np.cumsum(counts[::-1])[::-1][1:] for counts in (positive, everything))  # from each bin on
    dice = 2 * found / (called + positive.sum())
    return threshold_of(min(bins[dice == dice.max()].tolist(), key=lambda first: abs(first - N_BINS // 2)))


def ratio(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    """`part` / `whole`, element by element; NaN where `whole` is 0."""
    whole = np.asarray(whole, dtype=np.float64)
    return np.asarray(np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0))


def _lesion_and_not(counts: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    positive = counts[..., LESION, :]
    return positive, counts.sum(axis=-2) - positive


def _any(counts: NDArray[Any]) -> NDArray[np.bool_]:
    return np.asarray(counts.any(axis=(-1, -2)))


def _any_of(label: int, counts: NDArray[Any]) -> NDArray[np.bool_]:
    return np.asarray(counts[..., label, :].any(axis=-1))


def _why(counts: NDArray[Any], else_: str = "every pixel is annotated as lesion", *, needs_lesion: bool = True) -> str:
    if not counts.any():
        return "no pixel was evaluated"
    return "no lesion is annotated" if needs_lesion and not counts[LESION].any() else else_


_about_lesion = partial(_any_of, LESION)
_why_precision = partial(_why, else_="no pixel is predicted as lesion")
_why_all = partial(_why, needs_lesion=False)

PIXEL_METRICS = (
    PixelMetric("dice", _of_counts("dice"), _about_lesion, _why, thresholded=True, swept=True),
    PixelMetric("iou", _of_counts("iou"), _about_lesion, _why, thresholded=True, swept=True),
    PixelMetric("precision", _of_counts("precision"), _about_lesion, _why_precision, thresholded=True, swept=True),
    PixelMetric("recall", _of_counts("recall"), _about_lesion, _why, thresholded=True, swept=True),
    PixelMetric("specificity", _of_counts("specificity"), _any, _why_all, thresholded=True, swept=True),
    PixelMetric("auroc", lambda counts, _: auroc(*_lesion_and_not(counts)), _about_lesion, _why),
    PixelMetric("auprc", lambda counts, _: average_precision(*_lesion_and_not(counts)), _about_lesion, _why),
    PixelMetric("brier", lambda counts, _: brier_score(*_lesion_and_not(counts)), _any, _why_all),
    PixelMetric("ece", lambda counts, _: calibration_error(*_lesion_and_not(counts)), _any, _why_all),
    *(
        PixelMetric(
            f"false_positive_rate_{name}",
            partial(false_positive_rate, label),
            partial(_any_of, label),
            partial(_why, else_=f"no pixel of {name}", needs_lesion=False),
            thresholded=True,
            averaged=False,
        )
        for name, label in NOT_LESION.items()
    ),
)
