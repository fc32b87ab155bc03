"""How well a lesion map agrees with the pathologist: the figures and what they are counted from.

Probabilities are levels of 1/255, so a 256-bin histogram per class holds all that any of these figures needs; cohort
figures are exact sums of slides' histograms.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from lesionmap.tiling import CLASS_NAMES, LESION

LEVELS = 256


def as_levels(probability: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Probability 0–1 as levels 0–255, rounded to the nearest."""
    levels: NDArray[np.uint8] = np.rint(probability * 255).astype(np.uint8)
    return levels


def first_positive_level(threshold: float) -> int:
    """The lowest level that counts as lesion at `threshold`."""
    return math.ceil(threshold * 255)


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
    """Pixel metrics of lesion against everything else.

    Parameters
    ----------
    histograms : Histograms
    threshold : float

    Returns
    -------
    dict
        Dice, IoU, precision, recall, specificity, AUROC, AUPRC, and the
        false-positive rate on ``vessel``, ``fat`` and the ``rest``; None where undefined
        (no such pixels), never NaN.
    """
    cut = first_positive_level(threshold)
    positive = histograms.counts[LESION]
    negative = histograms.counts.sum(axis=0) - positive
    tp, fn = int(positive[cut:].sum()), int(positive[:cut].sum())
    fp, tn = int(negative[cut:].sum()), int(negative[:cut].sum())
    figures = {
        "dice": _ratio(2 * tp, 2 * tp + fp + fn),
        "iou": _ratio(tp, tp + fp + fn),
        "precision": _ratio(tp, tp + fp),
        "recall": _ratio(tp, tp + fn),
        "specificity": _ratio(tn, tn + fp),
        **_ranking_metrics(positive, negative),
    }
    names = {"rest": 0, **{name: label for name, label in CLASS_NAMES.items() if label != LESION}}
    for name, label in names.items():
        counts = histograms.counts[label]
        figures[f"false_positive_rate_{name}"] = _ratio(int(counts[cut:].sum()), int(counts.sum()))
    return figures


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


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _ranking_metrics(positive: NDArray[np.int64], negative: NDArray[np.int64]) -> dict[str, float | None]:
    if not positive.any() or not negative.any():
        return {"auroc": None, "auprc": None}
    truth = np.repeat([1, 0], LEVELS)
    score = np.tile(np.arange(LEVELS), 2)
    weight = np.concatenate([positive, negative])
    return {
        "auroc": float(roc_auc_score(truth, score, sample_weight=weight)),
        "auprc": float(average_precision_score(truth, score, sample_weight=weight)),
    }
