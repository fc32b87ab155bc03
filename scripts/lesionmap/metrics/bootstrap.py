"""Confidence intervals by resampling patients (Efron & Tibshirani, An Introduction to the Bootstrap, 1993)."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, t

from lesionmap.metrics.pixels import Values

LEVEL = 0.95
LEAST_PATIENTS = 5
MOST_UNDEFINED = 0.05
DRAWS_AT_ONCE = 100

Name = TypeVar("Name")


@dataclass(frozen=True)
class Bootstrap:
    """Number of bootstrap draws, and their seed."""

    draws: int
    seed: int


@dataclass(frozen=True)
class Interval:
    """A 95 % confidence interval, or a note on why there is none."""

    low: float | None
    high: float | None
    note: str


def resampled(
    metrics: Callable[[NDArray[np.float64]], dict[Name, Values]], patient: NDArray[np.int64], settings: Bootstrap
) -> dict[Name, Values]:
    """Metrics of bootstrap cohorts, (draws,) each: as many patients as there are, drawn with replacement.

    All slides of a patient are drawn together, as they are not independent. Draws are not stratified: how many of the
    patients have lesions is itself a matter of chance.

    Parameters
    ----------
    metrics : callable
        From the weights of the slides in d draws, (d, S), to metrics, (d,) each.
    patient : (S,) int64
        Number of each slide's patient, from 0.
    settings : Bootstrap
        Equal settings draw equal patients, so that models are compared on the same draws.
    """
    parts = [metrics(weights[:, patient].astype(np.float64)) for weights in _draws(int(patient.max()) + 1, settings)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _draws(n_patients: int, settings: Bootstrap) -> Iterator[NDArray[np.int64]]:
    """How often each patient is drawn, (d, n_patients) at a time."""
    rng = np.random.default_rng(settings.seed)
    equal = np.full(n_patients, 1 / n_patients)
    for start in range(0, settings.draws, DRAWS_AT_ONCE):
        yield rng.multinomial(n_patients, equal, size=min(DRAWS_AT_ONCE, settings.draws - start))


def interval(values: NDArray[np.float64], n_patients: int) -> Interval:
    """The expanded percentile interval of a metric's draws.

    The plain percentiles 2.5 and 97.5 give too narrow an interval for few patients. Wider percentiles replace them:
    quantiles of a t distribution with n − 1 degrees of freedom, times √(n / (n − 1)), as percentiles of a normal
    distribution (Hesterberg, The American Statistician 2015).

    Parameters
    ----------
    values : (draws,) float64
        NaN where the metric is undefined for a draw.
    n_patients : int
        Number of patients that the metric rests on.
    """
    if n_patients < LEAST_PATIENTS:
        return Interval(None, None, f"no interval: fewer than {LEAST_PATIENTS} patients")
    undefined = np.isnan(values)
    if undefined.mean() > MOST_UNDEFINED:
        return Interval(None, None, f"no interval: undefined in {undefined.mean():.0%} of the draws")
    wide = math.sqrt(n_patients / (n_patients - 1)) * t.ppf((1 - LEVEL) / 2, n_patients - 1)
    low, high = np.quantile(values[~undefined], norm.cdf(np.array([wide, -wide]))).tolist()
    if low == high:
        return Interval(None, None, "no interval: all draws are equal")
    return Interval(low, high, "")
