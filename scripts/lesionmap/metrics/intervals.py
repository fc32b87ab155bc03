"""Confidence intervals from a jackknife over patients (Efron & Stein, Annals of Statistics 1981).

``make bench-coverage`` simulates how often they contain the truth; docs/metrics.md has its table.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit
from scipy.stats import t

from lesionmap.metrics.pixels import Values

LEVEL = 0.95
LEAST_PATIENTS = 5
ROUNDING = 1e-9  # relative differences below are those of sums in another order
PATIENTS_AT_ONCE = 100

Name = TypeVar("Name")


@dataclass(frozen=True)
class Interval:
    """A 95 % confidence interval, or a note on why there is none."""

    low: float | None
    high: float | None
    note: str


@dataclass(frozen=True)
class Scale:
    """A scale on which an interval is symmetrical for a metric without skew, so that it stays in the metric's range.

    Parameters
    ----------
    to, back : callable
        To the scale, and back from it.
    slope : callable
        Derivative of `to`.
    """

    to: Callable[[float], float]
    slope: Callable[[float], float]
    back: Callable[[float], float]


LINEAR = Scale(float, lambda _: 1.0, float)
LOG = Scale(np.log, lambda value: 1 / value, np.exp)  # from 0
LOGIT = Scale(logit, lambda value: 1 / (value * (1 - value)), expit)  # from 0 to 1
FISHER = Scale(np.arctanh, lambda value: 1 / (1 - value**2), np.tanh)  # from −1 to 1: Fisher, Metron 1921


def without_each(
    metrics: Callable[[NDArray[np.float64]], dict[Name, Values]], patient: NDArray[np.int64]
) -> dict[Name, Values]:
    """Metrics of the cohort without each of its patients, (patients,) each.

    All slides of a patient are left out together, as they are not independent.

    Parameters
    ----------
    metrics : callable
        From weights of the slides, (D, S), to metrics, (D,) each.
    patient : (S,) int64
        Number of each slide's patient, from 0, without gaps.
    """
    numbers = np.arange(patient.max() + 1)
    batches = np.split(numbers, range(PATIENTS_AT_ONCE, len(numbers), PATIENTS_AT_ONCE))
    parts = [metrics((patient != batch[:, None]).astype(np.float64)) for batch in batches]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def interval(
    value: float, without: Values, n_patients: int, scale: Scale = LINEAR, least_patients: int = LEAST_PATIENTS
) -> Interval:
    """A metric's interval: its jackknife standard error times a quantile of t, on a scale that fits the metric.

    A few patients may decide: those with large lesions, or with many false ones. Then both the standard error and its
    own error come from few, so the degrees of freedom follow from the kurtosis of the patients' influences
    (Satterthwaite, Biometrics Bulletin 1946), and the side to which they are skewed is longer (Johnson, JASA 1978,
    whose correction is made one-sided and larger, as simulation asks for).

    Parameters
    ----------
    value : float
        The metric of all patients, or a difference of two metrics.
    without : (patients,) float64
        The same of :func:`without_each`.
    n_patients, least_patients : int
        Number of patients that the metric rests on, and for how many there is an interval.
    """
    if n_patients < least_patients:
        return Interval(None, None, f"no interval: fewer than {least_patients} patients")
    if np.isnan(without).any():
        return Interval(None, None, "no interval: undefined without one of the patients")
    if np.allclose(without, value, rtol=ROUNDING, atol=0):
        otherwise = 1 - (1 - LEVEL) ** (1 / n_patients)
        note = f"no interval: all {n_patients} patients agree, and up to {otherwise:.0%} of others may not"
        return Interval(None, None, note)
    if not np.isfinite(scale.to(value)):
        return Interval(None, None, "no interval: the value is the end of its range")
    shorter, longer, upwards = _reach(without)
    below, above = (shorter, longer) if upwards else (longer, shorter)
    centre, slope = scale.to(value), scale.slope(value)
    return Interval(float(scale.back(centre - below * slope)), float(scale.back(centre + above * slope)), "")


def _reach(without: Values) -> tuple[float, float, bool]:
    """How far the interval reaches to its shorter and longer side, in the unit of the metric, and if the longer is up.

    With n patients, the influences' kurtosis k gives 2 n / (k − 1) degrees of freedom, at most n − 1. The longer side
    is exp(absolute skewness / √n) times the other.
    """
    n = len(without)
    influence = without.mean() - without
    variance, third, fourth = (np.mean(influence**power) for power in (2, 3, 4))
    freedom = 2 * n / max(fourth / variance**2 - 1, 2 * n / (n - 1))
    shorter = t.ppf((1 + LEVEL) / 2, freedom) * np.sqrt((n - 1) * variance)
    return shorter, shorter * np.exp(abs(third) / variance**1.5 / np.sqrt(n)), bool(third > 0)
