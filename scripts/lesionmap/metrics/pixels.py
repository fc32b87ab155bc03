"""How well a lesion map agrees with the pathologist, pixel by pixel: the figures and what they are counted from.

Probabilities are levels of 1/255, so a 256-bin histogram per class holds all that any of these figures needs; cohort
figures are exact sums of slides' histograms. Definitions and sources: docs/metrics.md.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesionmap.annotations.classes import CLASS_NAMES, LESION
from lesionmap.maps.probability import LEVELS, first_positive_level

CALIBRATION_BINS = 16
NOT_LESION = {"rest": 0, **{name: label for name, label in CLASS_NAMES.items() if label != LESION}}
FALSE_POSITIVE_RATE = "false_positive_rate_"
Figures = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Histograms:
    """Pixels of each true class at each probability level.

    Parameters
    ----------
    counts : (4, 256) int64
        Rows: background, lesion, vessel, fat.
    """

    counts: NDArray[np.int64]

    @classmethod
    def empty(cls) -> "Histograms":
        """No pixels yet."""
        return cls(np.zeros((len(CLASS_NAMES) + 1, LEVELS), dtype=np.int64))

    @classmethod
    def of(cls, levels: NDArray[np.uint8], mask: NDArray[np.uint8]) -> "Histograms":
        """Count the pixels of a map against a class mask of the same shape; 255 in the mask is left out."""
        known = mask < len(CLASS_NAMES) + 1
        index = mask[known].astype(np.int64) * LEVELS + levels[known]
        counts = np.bincount(index, minlength=(len(CLASS_NAMES) + 1) * LEVELS)
        return cls(counts.reshape(-1, LEVELS))

    def __add__(self, other: "Histograms") -> "Histograms":
        return Histograms(self.counts + other.counts)


def binary_metrics(histograms: Histograms, threshold: float) -> dict[str, float | None]:
    """Pixel metrics of lesion against everything else, see :func:`pixel_figures`; None where undefined, never NaN."""
    figures = pixel_figures(histograms.counts, threshold)
    return {name: None if np.isnan(value) else float(value) for name, value in figures.items()}


def pixel_figures(counts: NDArray[Any], threshold: float) -> Figures:
    """All pixel metrics of many sums of histograms at once, as the draws of a bootstrap need them.

    Parameters
    ----------
    counts : (..., 4, 256) array
        Of :class:`Histograms`; may be weighted sums.
    threshold : float

    Returns
    -------
    dict of str to (...) float64
        Those of :func:`threshold_figures`; ``auroc``, ``auprc``, ``brier``, ``ece``; and the false-positive rate on
        ``rest``, ``vessel`` and ``fat``. NaN where undefined: without such pixels, and all that is about lesions
        where there is none.
    """
    cut = first_positive_level(threshold)
    positive, negative = _lesion_and_not(counts)
    figures = threshold_figures(counts, threshold)
    figures |= {"auroc": auroc(positive, negative), "auprc": average_precision(positive, negative)}
    figures |= {"brier": brier_score(positive, negative), "ece": calibration_error(positive, negative)}
    for name, label in NOT_LESION.items():
        rate = ratio(counts[..., label, cut:].sum(axis=-1), counts[..., label, :].sum(axis=-1))
        figures[f"{FALSE_POSITIVE_RATE}{name}"] = rate
    return figures


def why_undefined(name: str, counts: NDArray[Any]) -> str:
    """Why a pixel metric of histograms, (4, 256), is undefined."""
    if not counts.any():
        return "no pixel was evaluated"
    if name.startswith(FALSE_POSITIVE_RATE):
        return f"no pixel of {name.removeprefix(FALSE_POSITIVE_RATE)}"
    if name != "specificity" and not counts[LESION].any():
        return "no lesion is annotated"
    return "no pixel is called lesion" if name == "precision" else "every pixel is annotated as lesion"


def threshold_figures(counts: NDArray[Any], threshold: float) -> Figures:
    """Dice, IoU, precision, recall and specificity at a threshold, each (...), of histograms (..., 4, 256).

    All but the specificity are NaN where there is no lesion: on such a slide one pixel would decide between 0 and 1.
    """
    cut = first_positive_level(threshold)
    positive, negative = (part.astype(np.float64) for part in _lesion_and_not(counts))
    tp, fn = positive[..., cut:].sum(axis=-1), positive[..., :cut].sum(axis=-1)
    fp, tn = negative[..., cut:].sum(axis=-1), negative[..., :cut].sum(axis=-1)
    no_lesion = np.where(tp + fn > 0, 0.0, np.nan)
    return {
        "dice": ratio(2 * tp, 2 * tp + fp + fn) + no_lesion,
        "iou": ratio(tp, tp + fp + fn) + no_lesion,
        "precision": ratio(tp, tp + fp) + no_lesion,
        "recall": ratio(tp, tp + fn),
        "specificity": ratio(tn, tn + fp),
    }


def auroc(positive: NDArray[Any], negative: NDArray[Any]) -> NDArray[np.float64]:
    """Area under the ROC curve of histograms of a score, (..., bins) each in ascending order: (...).

    It is the probability that a positive scores higher than a negative, ties counting one half (Hanley & McNeil,
    Radiology 1982); scikit-learn's ``roc_auc_score``, for many histograms at once.
    """
    below = np.cumsum(negative, axis=-1) - negative / 2
    pairs = positive.sum(axis=-1, dtype=np.float64) * negative.sum(axis=-1, dtype=np.float64)
    return ratio((positive * below).sum(axis=-1), pairs)


def average_precision(positive: NDArray[Any], negative: NDArray[Any]) -> NDArray[np.float64]:
    """Area under the precision-recall curve, (...), of histograms of a score, (..., bins) each in ascending order.

    The mean of the precision at each level, weighted by the recall gained there, without interpolation (Davis &
    Goadrich, ICML 2006); scikit-learn's ``average_precision_score``, for many histograms at once.
    """
    found = np.cumsum(positive[..., ::-1], axis=-1, dtype=np.float64)[..., ::-1]
    false = np.cumsum(negative[..., ::-1], axis=-1, dtype=np.float64)[..., ::-1]
    precision = found / np.maximum(found + false, np.finfo(np.float64).tiny)  # 0 where nothing is called positive
    area = ratio((positive * precision).sum(axis=-1), positive.sum(axis=-1))
    return np.where(negative.sum(axis=-1) > 0, area, np.nan)


def brier_score(positive: NDArray[Any], negative: NDArray[Any]) -> NDArray[np.float64]:
    """Mean squared difference of probability and truth (Brier 1950), (...), of histograms over levels, (..., 256)."""
    probability = np.arange(LEVELS) / (LEVELS - 1)
    total = positive @ (1 - probability) ** 2 + negative @ probability**2
    return ratio(total, (positive + negative).sum(axis=-1))


def calibration_error(positive: NDArray[Any], negative: NDArray[Any]) -> NDArray[np.float64]:
    """Expected calibration error, (...), of histograms over levels, (..., 256), in 16 bins of 16 levels.

    The mean, weighted by pixels, of how far the mean probability of a bin is from its share of lesion (Naeini et al.,
    AAAI 2015).
    """
    total, probability, lesion = calibration_sums(positive, negative)
    return ratio(np.abs(probability - lesion).sum(axis=-1), total.sum(axis=-1))


def calibration_sums(
    positive: NDArray[Any], negative: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Pixels, sum of their probabilities, and lesion pixels in each bin of the calibration, each (..., 16)."""
    everything = positive + negative
    probability = everything * (np.arange(LEVELS) / (LEVELS - 1))
    total, expected, lesion = (
        part.reshape(*part.shape[:-1], CALIBRATION_BINS, -1).sum(axis=-1, dtype=np.float64)
        for part in (everything, probability, positive)
    )
    return total, expected, lesion


def best_threshold(histograms: Histograms) -> float | None:
    """The probability from which Dice is highest, halfway between two levels; of equal ones that nearest to one half.

    None where there is no lesion.
    """
    positive, everything = histograms.counts[LESION], histograms.counts.sum(axis=0)
    if not positive.any():
        return None
    levels = np.arange(1, LEVELS)
    found, called = (np.cumsum(counts[::-1])[::-1][1:] for counts in (positive, everything))  # from each level on
    dice = 2 * found / (called + positive.sum())
    best: int = min(levels[dice == dice.max()].tolist(), key=lambda level: abs(level - LEVELS / 2))
    return round((best - 0.5) / (LEVELS - 1), 4)


def ratio(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    """`part` / `whole`, element by element; NaN where `whole` is 0."""
    whole = np.asarray(whole, dtype=np.float64)
    return np.asarray(np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0))


def _lesion_and_not(counts: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    positive = counts[..., LESION, :]
    return positive, counts.sum(axis=-2) - positive
