"""How probabilities agree with what is observed: logistic recalibration, and net benefit (docs/metrics.md)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from lesionmap.annotations.classes import LESION
from lesionmap.maps.probability import N_BINS, PER_BIN, UNMAPPED, as_logits
from lesionmap.metrics.pixels import Confusion, Values, ratio

BISECTIONS = 60  # of an interval of 64 logits
MOST_STEPS = 100
MOST_HALVINGS = 30
CONVERGED = 1e-9  # the largest change of a coefficient in the last step
BIN_LOGITS = as_logits(np.arange(N_BINS) * PER_BIN + PER_BIN // 2)  # at the middle of each bin
RIDGE = 1e-12  # share of the information matrix, so that it can be inverted; it changes the way, but not the goal


def logistic_recalibration(positive: NDArray[Any], negative: NDArray[Any]) -> tuple[Values, Values]:
    """Intercept a and slope b by which the truth follows from the score as expit(a + b · logit), (...) each.

    Cox, Biometrika 1958: a perfectly calibrated map has 0 and 1. Fitted together by maximum likelihood, without
    penalty. Pixels without score (probability 0) have no logit, and are left out.

    Parameters
    ----------
    positive, negative : (..., N_BINS) array
        Histograms of lesion and of other pixels.

    Returns
    -------
    intercept, slope : (...) float64
        NaN where one of the classes is missing, or where a logit parts them: then no slope is the best.
    """
    logits, positive, negative = _with_score(positive, negative)
    overlap = _overlap(positive > 0, negative > 0)
    found = np.full((*overlap.shape, 2), np.nan)
    found[overlap] = _fitted(logits, positive[overlap], negative[overlap])
    return found[..., 0], found[..., 1]


def calibration_in_the_large(positive: NDArray[Any], negative: NDArray[Any]) -> Values:
    """The same intercept if the slope is 1, (...); above 0, probabilities are too low (Van Calster et al., 2019).

    NaN where one of the classes is missing.
    """
    logits, positive, negative = _with_score(positive, negative)
    everything = positive + negative
    share = ratio(positive.sum(axis=-1), everything.sum(axis=-1))
    share[(share == 0) | (share == 1)] = np.nan
    low, high = (logit(share) + end for end in (BIN_LOGITS[0], BIN_LOGITS[-1]))
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        expected = (everything * expit(middle[..., None] + logits)).sum(axis=-1)
        too_low = expected < positive.sum(axis=-1)
        low, high = np.where(too_low, middle, low), np.where(too_low, high, middle)
    return np.asarray((low + high) / 2)


def net_benefit(counts: NDArray[Any], threshold: float) -> Values:
    """Net benefit of the called pixels, (...), of histograms (..., 4, N_BINS), as a share of all pixels.

    TP / n − FP / n · t / (1 − t) at the threshold t, which says how many false pixels one true pixel is worth (Vickers
    & Elkin, Medical Decision Making 2006).
    """
    found = Confusion.of(counts, threshold)
    return ratio(found.tp - found.fp * threshold / (1 - threshold), counts.sum(axis=(-1, -2)))


def net_benefit_of_everything(counts: NDArray[Any], threshold: float) -> Values:
    """The same if all pixels were predicted as lesion, (...)."""
    found = Confusion.of(counts, threshold)
    lesion, others = found.tp + found.fn, found.fp + found.tn
    return ratio(lesion - others * threshold / (1 - threshold), lesion + others)


def calibration_metrics(counts: NDArray[Any]) -> dict[str, Values]:
    """Slope, and the intercept if the slope is 1, (...) each, of histograms (..., 4, N_BINS)."""
    lesion = counts[..., LESION, :]
    others = counts.sum(axis=-2) - lesion
    _, slope = logistic_recalibration(lesion, others)
    return {"calibration_slope": slope, "calibration_intercept": calibration_in_the_large(lesion, others)}


def why_undefined(counts: NDArray[Any]) -> str:
    """Why a histogram, (4, N_BINS), has no slope, or no intercept either."""
    _, *classes = _with_score(counts[LESION], counts.sum(axis=0) - counts[LESION])
    both = all(part.any() for part in classes)
    return "a threshold parts lesion from all else" if both else "needs mapped pixels of lesion and others"


def _with_score(positive: NDArray[Any], negative: NDArray[Any]) -> tuple[Values, Values, Values]:
    """Logits of the bins that have pixels with a score, (bins,), and the histograms there, (..., bins)."""
    used = (positive + negative).reshape(-1, N_BINS).any(axis=0)
    used[UNMAPPED] = False
    used[-1] = True  # so that there is one
    return BIN_LOGITS[used], positive[..., used].astype(np.float64), negative[..., used].astype(np.float64)


def _overlap(positive: NDArray[np.bool_], negative: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether each class has a logit below the highest of the other, (...); from which bins it has, (..., bins)."""
    (lowest_positive, highest_positive), (lowest_negative, highest_negative) = (
        (some.argmax(axis=-1), some.shape[-1] - 1 - some[..., ::-1].argmax(axis=-1)) for some in (positive, negative)
    )
    both = positive.any(axis=-1) & negative.any(axis=-1)
    return np.asarray(both & (lowest_positive < highest_negative) & (lowest_negative < highest_positive))


def _fitted(logits: Values, positive: Values, negative: Values) -> Values:
    """Intercepts and slopes of logistic regressions, (D, 2), by Newton's method; a step that is too long is halved.

    Parameters
    ----------
    positive, negative : (D, bins) float64
        Numbers of pixels at `logits`; both classes are there, and no logit parts them.
    """
    total = (positive + negative).sum(axis=1, keepdims=True)
    positive, everything = positive / total, (positive + negative) / total
    design = np.stack([np.ones_like(logits), logits], axis=1)  # (bins, 2)
    found = np.zeros((len(positive), 2))
    for _ in range(MOST_STEPS):
        step = _newton_step(found @ design.T, design, positive, everything)
        before = _loss(found @ design.T, positive, everything)
        for _ in range(MOST_HALVINGS):
            worse = _loss((found + step) @ design.T, positive, everything) > before
            if not worse.any():
                break
            step[worse] /= 2
        found += step
        if np.abs(step).max(initial=0) < CONVERGED:
            break
    return found


def _newton_step(predictor: Values, design: Values, positive: Values, everything: Values) -> Values:
    """Score, multiplied by the inverse of the information matrix, (D, 2); `predictor` is (D, bins)."""
    probability = expit(predictor)
    score = (positive - everything * probability) @ design  # (D, 2)
    information = np.einsum("db,bp,bq->dpq", everything * probability * (1 - probability), design, design)
    information += RIDGE * np.trace(information, axis1=1, axis2=2)[:, None, None] * np.eye(2)
    return np.linalg.solve(information, score[..., None])[..., 0]


def _loss(predictor: Values, positive: Values, everything: Values) -> Values:
    """Mean negative log-likelihood, (D,)."""
    return np.asarray((everything * np.logaddexp(0, predictor) - positive * predictor).sum(axis=1))
