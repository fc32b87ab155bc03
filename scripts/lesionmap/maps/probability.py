"""How lesion probability is kept (as scores: steps of its logit), and the threshold for lesion.

Where a network is sure, probabilities differ by less than 1/255: in such steps most pixels and lesions would be equal,
and no figure that ranks them would be true. So maps are computed with as scores, and published as probability × 255.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from lesionmap.errors import ModelError

PER_LOGIT = 1024  # steps of a score in one logit
EVEN = 2**15  # the score of probability 1/2
N_SCORES = 2**16
N_BINS = 4096  # of histograms and thresholds: 64 in one logit, so that none is wider than 1/256 in probability
PER_BIN = N_SCORES // N_BINS
MILLION = 1_000_000  # steps in which probabilities are added up
SPREAD_PER_SD = 510  # steps of a spread: the standard deviation of numbers from 0 to 1 is at most 1/2
UNMAPPED = 0  # the score where the network did not look; it counts as probability 0
ROUNDING = 1e-3  # of a bin: far more than the logit of a threshold is off
MOST_DIGITS = 16  # of a threshold
VALIDATION = "validation"

Scores = NDArray[np.uint16]
Values = NDArray[np.float32]

_probabilities = expit((np.arange(N_SCORES) - EVEN) / PER_LOGIT)
_probabilities[UNMAPPED] = 0
_as_u8 = np.rint(_probabilities * 255).astype(np.uint8)
BIN_PROBABILITIES = expit((np.arange(N_BINS) + 0.5 - N_BINS / 2) * PER_BIN / PER_LOGIT)  # at the middle of each bin
BIN_PROBABILITIES[UNMAPPED] = 0


def as_scores(logits: NDArray[np.floating[Any]]) -> Scores:
    """Logit × 1024 + 32768, rounded to the nearest whole number from 1 to 65535 (logits of about ±32)."""
    scores: Scores = np.clip(np.rint(logits * PER_LOGIT) + EVEN, UNMAPPED + 1, N_SCORES - 1).astype(np.uint16)
    return scores


def score_of(probability: float) -> int:
    """The score of a probability from 0 to 1; that of 0 includes what has no score."""
    return int(as_scores(np.array(logit(probability)))) if probability else UNMAPPED


def as_logits(scores: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """The logits of scores."""
    return (scores - np.float64(EVEN)) / PER_LOGIT


def as_probability(scores: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """The probabilities of scores, 0 to 1."""
    return np.asarray(_probabilities[scores])


def of_logits(logits: Values) -> tuple[Values, Values]:
    """Probability of lesion and of no lesion; each has all its digits, also where the other is as good as 1."""
    return expit(logits), expit(-logits)


def as_u8(scores: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
    """Probability × 255 of scores, rounded to the nearest whole number."""
    return np.asarray(_as_u8[scores])


def first_positive(threshold: float) -> int:
    """The lowest score that is lesion at a threshold between 0 and 1; what has no score is never lesion."""
    return max(first_bin(threshold) * PER_BIN, UNMAPPED + 1)


def first_bin(threshold: float) -> int:
    """The first bin that is lesion at a threshold: it begins there, or less than 1/64 logit above."""
    place = float(logit(threshold)) * PER_LOGIT / PER_BIN + N_BINS // 2 - ROUNDING
    return math.ceil(min(max(place, 0), N_BINS - 1))


def threshold_of(first: int) -> float:
    """The threshold with the fewest decimals from which on a bin is the first to be lesion."""
    exact = float(expit((first - N_BINS // 2) * PER_BIN / PER_LOGIT))
    rounded = (math.floor(exact * 10**digits) / 10**digits for digits in range(1, MOST_DIGITS))
    return next((threshold for threshold in rounded if threshold and first_bin(threshold) == first), exact)


def chosen_threshold(asked: float | str, validated: float | None, stage: str) -> float:
    """Probability from which a pixel counts as lesion.

    Parameters
    ----------
    asked : float or "validation"
        The config's ``inference.threshold``.
    validated : float or None
        The best threshold on the model's validation slides, if the model file has one.
    stage : str
        Stage that the error names.

    Raises
    ------
    ModelError
        If the model should provide the threshold, but has none.
    """
    if asked != VALIDATION:
        return float(asked)
    if validated is None:
        raise ModelError(
            stage=stage,
            finding=f"inference.threshold is {VALIDATION}, but the model file has no threshold for maps of this kind: "
            "it was trained without a validation slide that has a lesion, or without that view",
            remedy="set inference.threshold to a number such as 0.5, or train with slides of the split val",
        )
    return validated
