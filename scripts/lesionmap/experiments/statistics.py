"""Statistics of held-out slides: means over seeds, intervals, and paired comparisons of two variants (docs/metrics.md).

Each variant has a table of the same slides for each seed. What is reported is the mean of a metric over seeds; what is
left out or exchanged, as one, is a patient with all of its slides and seeds.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesionmap.metrics.cohort import METRICS, Metric, entry_of, metrics_of, metrics_with_and_without
from lesionmap.metrics.intervals import LINEAR
from lesionmap.metrics.pixels import Values
from lesionmap.metrics.slide_table import SlideTable

REPORTED = tuple(metric for metric in METRICS if metric.threshold is None)
COMPARED = tuple(
    metric
    for metric in REPORTED
    if metric.name
    in {
        *("slide_mean_dice", "slide_mean_auroc", "slide_mean_nsd", "dice", "auroc", "auprc"),
        *("froc_score", "lesion_recall", "slide_auroc_area"),
    }
)
MOST_EXACT = 13  # patients: up to 8,192 exchanges are all tried, of more some are drawn
DRAWS = 9_999
AT_ONCE = 100
ROUNDING = 1e-12
Without = dict[Metric, Values]


@dataclass(frozen=True)
class Pair:
    """Two variants on the same slides, with one seed.

    Parameters
    ----------
    first, second : SlideTable
        Of S slides in the same order.
    together : SlideTable
        Of the first's S slides, and then the second's.
    """

    first: SlideTable
    second: SlideTable
    together: SlideTable


@dataclass(frozen=True)
class Difference:
    """One metric of a second variant − that of a first, on the same slides.

    Parameters
    ----------
    value, low, high : float or None
        With its 95 % interval; None where undefined.
    p : float or None
        Two-sided, of :func:`exchange_test`.
    """

    metric: str
    value: float | None
    low: float | None
    high: float | None
    p: float | None
    patients: int
    note: str


def over_seeds(tables: Sequence[SlideTable], metrics: Sequence[Metric]) -> tuple[dict[Metric, float], Without]:
    """The mean of metrics over seeds, and of those without each of the patients; NaN if undefined for a seed."""
    found = [metrics_with_and_without(table, metrics) for table in tables]
    means = {metric: float(np.mean([values[metric] for values, _ in found])) for metric in metrics}
    return means, {metric: np.mean([without[metric] for _, without in found], axis=0) for metric in metrics}


def entries(tables: Sequence[SlideTable], fold: NDArray[np.int64]) -> Iterator[dict[str, Any]]:
    """Each metric's mean over seeds with its interval, and how it varies from seed to seed and from fold to fold.

    Parameters
    ----------
    tables : sequence of SlideTable
        The same slides, once for each seed.
    fold : (S,) int64
        The fold of each slide.

    Yields
    ------
    dict
        As :func:`lesionmap.metrics.cohort.entry_of`, with ``metric``; ``seed_sd`` and ``fold_sd``, standard deviations
        over seeds, and over folds (of means over seeds), None for fewer than two.
    """
    means, without = over_seeds(tables, REPORTED)
    weights = np.concatenate([np.ones((1, len(fold))), fold == np.unique(fold)[:, None]])  # all, then each fold's
    found = [metrics_of(table, weights, REPORTED) for table in tables]
    for metric in REPORTED:
        values = np.array([of_seed[metric] for of_seed in found])  # (seeds, 1 + folds)
        spreads = {"seed_sd": _sd(values[:, 0]), "fold_sd": _sd(values[:, 1:].mean(axis=0))}
        yield {"metric": metric.name, **entry_of(tables[0], metric, means[metric], without[metric]), **spreads}


def _sd(values: Values) -> float | None:
    defined = values[~np.isnan(values)]
    return float(np.std(defined, ddof=1)) if len(defined) > 1 else None


def differences(pairs: Sequence[Pair], seed: int = 0) -> list[Difference]:
    """Compare a second variant with a first, metric by metric.

    Parameters
    ----------
    pairs : sequence of Pair
        One for each seed of training.
    seed : int
        Draws the exchanges of :func:`exchange_test`.
    """
    (own, own_without), (other, other_without) = (
        over_seeds([getattr(pair, role) for pair in pairs], COMPARED) for role in ("first", "second")
    )
    first, p_values = pairs[0].first, exchange_test([pair.together for pair in pairs], seed)
    found = []
    for metric in COMPARED:
        value, rests_on = other[metric] - own[metric], metric.rests_on(first)
        n_patients = len(np.unique(first.patient[rests_on]))
        if np.isnan(value):
            note = metric.why_undefined(first)
            found.append(Difference(metric.name, None, None, None, None, n_patients, note))
            continue
        interval = metric.interval(value, other_without[metric] - own_without[metric], n_patients, LINEAR)
        p = p_values[metric]
        found.append(Difference(metric.name, value, interval.low, interval.high, p, n_patients, interval.note))
    return found


def exchange_test(together: Sequence[SlideTable], seed: int = 0) -> dict[Metric, float | None]:
    """Two-sided p-values of a permutation test: how often a difference is as large if patients' results are exchanged.

    If two variants are equally good, a patient's results could as well be the other variant's. So the results of whole
    patients, all slides and seeds at once, are exchanged between them (Pesarin & Salmaso 2010; Phipson & Smyth,
    Statistical Applications in Genetics and Molecular Biology 2010): in all ways for up to 13 patients, else in 9,999
    ways drawn at random, and the way that is observed counts as one more.

    Parameters
    ----------
    together : sequence of SlideTable
        Of :class:`Pair`, one for each seed of training.

    Returns
    -------
    dict
        None where the difference is undefined.
    """
    patient = together[0].patient[: len(together[0].patient) // 2]
    exchanges = _exchanges(int(patient.max()) + 1, seed)
    batches = [
        _differences(together, exchanges[start : start + AT_ONCE][:, patient])
        for start in range(0, len(exchanges), AT_ONCE)
    ]
    found: dict[Metric, float | None] = {}
    for metric in COMPARED:
        values = np.concatenate([batch[metric] for batch in batches])
        defined = values[~np.isnan(values)]
        as_large = np.abs(defined) >= abs(values[0]) - ROUNDING
        found[metric] = None if np.isnan(values[0]) else float(as_large.mean())
    return found


def _exchanges(n_patients: int, seed: int) -> NDArray[np.bool_]:
    """Ways to exchange patients, (D, patients); the first exchanges nobody."""
    if n_patients <= MOST_EXACT:
        return np.asarray(np.arange(2**n_patients)[:, None] >> np.arange(n_patients) & 1, dtype=bool)
    drawn = np.random.default_rng(seed).random((DRAWS, n_patients)) < 0.5
    return np.concatenate([np.zeros((1, n_patients), dtype=bool), drawn])


def _differences(together: Sequence[SlideTable], exchanged: NDArray[np.bool_]) -> dict[Metric, Values]:
    """Second − first of each metric, mean over seeds, (D,), if some slides, (D, S), are exchanged."""
    first = np.concatenate([~exchanged, exchanged], axis=1).astype(np.float64)
    changes = []
    for table in together:
        own, other = (metrics_of(table, weights, COMPARED) for weights in (first, 1 - first))
        changes.append({metric: other[metric] - own[metric] for metric in COMPARED})
    return {metric: np.mean([of_seed[metric] for of_seed in changes], axis=0) for metric in COMPARED}


def holm(p_values: Mapping[Any, float | None]) -> dict[Any, float | None]:
    """P-values adjusted for their number (Holm, Scandinavian Journal of Statistics 1979); None stays, and counts not.

    The smallest of m is multiplied by m, the next by m − 1 and so on; none is below the one before it, or above 1.
    """
    known = sorted((p, name) for name, p in p_values.items() if p is not None)
    adjusted, least = dict[Any, float | None](p_values), 0.0
    for place, (p, name) in enumerate(known):
        least = max(least, min(1.0, p * (len(known) - place)))
        adjusted[name] = least
    return adjusted
