"""Metrics of a cohort, with confidence intervals.

Every metric is a function of sums over slides, so a cohort without one of its patients is one weighting of the slides.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesionmap.metrics.calibration import why_undefined
from lesionmap.metrics.froc import FROC_METRICS
from lesionmap.metrics.intervals import LEAST_PATIENTS, LINEAR, LOG, LOGIT, Interval, Scale, interval, without_each
from lesionmap.metrics.lesion_sizes import SIZE_NAMES
from lesionmap.metrics.pixels import PIXEL_METRICS, PixelMetric, Values, auroc, ratio
from lesionmap.metrics.slide_table import LEAST_SLIDES, SlideTable, WeightedSlides, any_of, at_use

SWEEP = tuple(round(0.05 * step, 2) for step in range(1, 20))
NEEDS = {  # patients: with fewer, intervals contain the truth in clearly less than 90 % (docs/metrics.md)
    "brier": 20,
    "slide_mean_brier": 20,
    "area_difference_mm2": 40,
    "area_lower_limit_mm2": 80,
    "area_upper_limit_mm2": 80,
}


@dataclass(frozen=True)
class Metric:
    """One metric of a cohort.

    Parameters
    ----------
    compute : callable
        From weighted slides to (D,) float64; NaN where undefined.
    rests_on : callable
        From a table to the slides without which the metric would be undefined, (S,) bool. If the metric compares two
        kinds of slides, those of the rarer kind.
    why_undefined : callable
        From a table for which the metric is undefined to the reason.
    threshold : float or None
        Its threshold in the sweep; None: the metric uses the threshold of the maps, or none.
    scale : Scale
        Scale of its interval.
    """

    name: str
    compute: Callable[[WeightedSlides], Values]
    rests_on: Callable[[SlideTable], NDArray[np.bool_]]
    why_undefined: Callable[[SlideTable], str]
    threshold: float | None = None
    scale: Scale = LOGIT

    def interval(self, value: float, without: Values, n_patients: int, scale: Scale | None = None) -> Interval:
        """Its interval, or on another scale that of a difference; see :func:`lesionmap.metrics.intervals.interval`."""
        return interval(value, without, n_patients, scale or self.scale, NEEDS.get(self.name, LEAST_PATIENTS))


def _mean_of_slides(name: str, weighted: WeightedSlides) -> Values:
    """Mean over the slides for which a metric is defined."""
    return mean_of_defined(weighted.table.of_slides[name], weighted.weights)


def mean_of_defined(values: Values, weights: NDArray[np.float64]) -> Values:
    """Mean over the slides whose value, (S,), is not NaN, for D weightings of them, (D, S); (D,)."""
    return ratio(weights @ np.nan_to_num(values), weights @ ~np.isnan(values))


def _recall_of_size(size: int, weighted: WeightedSlides) -> Values:
    """Share of the annotated lesions of one size that the map finds."""
    annotated, found = np.moveaxis(weighted.by_size[:, size], -1, 0)
    return ratio(found, annotated)


def _recall_of_all(weighted: WeightedSlides) -> Values:
    annotated, found = np.moveaxis(weighted.by_size.sum(axis=1), -1, 0)
    return ratio(found, annotated)


def _slide_auroc(score: Callable[[SlideTable], NDArray[Any]], weighted: WeightedSlides) -> Values:
    """AUROC of a score per slide, for slides with lesion against slides without."""
    has_lesion, weights = weighted.table.has_lesion, weighted.weights
    _, rank = np.unique(score(weighted.table), return_inverse=True)
    order = np.argsort(rank, kind="stable")
    starts = np.searchsorted(rank[order], np.arange(rank.max() + 1))
    kinds = (weights[:, order] * kind[order] for kind in (has_lesion, ~has_lesion))
    return auroc(*(np.add.reduceat(kind, starts, axis=1) for kind in kinds))


def _rarer_kind(table: SlideTable) -> NDArray[np.bool_]:
    has_lesion = table.has_lesion
    return has_lesion if 2 * has_lesion.sum() <= len(has_lesion) else ~has_lesion


def _pixel(metric: PixelMetric) -> Metric:
    """A pixel metric over all pixels of the cohort, at the threshold in use."""
    return Metric(
        metric.name,
        lambda weighted: at_use(metric, weighted, weighted.table.threshold),
        lambda table: metric.rests_on(table.counts),
        partial(_why_undefined, metric),
    )


def _slide_mean(name: str, why_undefined: Callable[[SlideTable], str], scale: Scale = LOGIT) -> Metric:
    return Metric(
        f"slide_mean_{name}",
        partial(_mean_of_slides, name),
        lambda table: ~np.isnan(table.of_slides[name]),
        why_undefined,
        scale=scale,
    )


def _why_undefined(metric: PixelMetric, table: SlideTable) -> str:
    return metric.why_undefined(table.counts.sum(axis=0))


def _calibration(name: str) -> Metric:
    return Metric(
        name,
        lambda weighted: weighted.calibration[name],
        lambda table: table.has_lesion,
        lambda table: why_undefined(table.counts.sum(axis=0)),
        scale=LINEAR,
    )


def _swept(metric: PixelMetric, threshold: float) -> Metric:
    return Metric(
        metric.name,
        lambda weighted: metric.compute(weighted.counts, threshold),
        lambda table: metric.rests_on(table.counts),
        partial(_why_undefined, metric),
        threshold,
    )


def _froc(name: str, *, needs_lesion: bool) -> Metric:
    return Metric(
        name,
        lambda weighted: weighted.froc[name],
        lambda table: any_of(table.n_lesions if needs_lesion else table.counts),
        lambda _: "no lesion of that kind is annotated",
        scale=LOGIT if needs_lesion else LOG,
    )


def _area(name: str) -> Metric:
    return Metric(
        name,
        lambda weighted: weighted.areas[name],
        lambda table: any_of(table.counts),
        lambda _: f"needs {LEAST_SLIDES} slides",
        scale=LINEAR,
    )


def _lesion_recall(name: str, size: int) -> Metric:
    return Metric(
        f"lesion_recall_{name}",
        partial(_recall_of_size, size),
        lambda table: any_of(table.by_size[:, size, 0]),
        lambda _: "no lesion of that kind is annotated",
    )


def _of_slides(name: str, score: Callable[[SlideTable], NDArray[Any]]) -> Metric:
    why = "needs slides with and slides without lesion"
    return Metric(name, partial(_slide_auroc, score), _rarer_kind, lambda _: why)


METRICS = (
    *map(_pixel, PIXEL_METRICS),
    *map(_calibration, ("calibration_slope", "calibration_intercept")),
    *(_slide_mean(metric.name, partial(_why_undefined, metric)) for metric in PIXEL_METRICS if metric.averaged),
    _slide_mean("nsd", lambda _: "no slide has annotated or predicted lesion"),
    _slide_mean("hd95_um", lambda _: "no slide has annotated and predicted lesion", LOG),
    *(_froc(name, needs_lesion=needs_lesion) for name, needs_lesion in FROC_METRICS.items()),
    Metric(
        "lesion_recall",
        _recall_of_all,
        lambda table: table.has_lesion,
        lambda _: "no lesion of that kind is annotated",
    ),
    *(_lesion_recall(name, size) for size, name in enumerate(SIZE_NAMES)),
    *map(_area, ("area_difference_mm2", "area_lower_limit_mm2", "area_upper_limit_mm2")),
    _of_slides("slide_auroc_probability", lambda table: table.highest_scores),
    _of_slides("slide_auroc_area", lambda table: table.areas_mm2[:, 1]),
    *(_swept(metric, threshold) for threshold in SWEEP for metric in PIXEL_METRICS if metric.swept),
)


def metrics_of(
    table: SlideTable, weights: NDArray[np.float64], metrics: Sequence[Metric] = METRICS
) -> dict[Metric, Values]:
    """Metrics for D weightings of the slides, (D, S); each (D,), NaN where undefined."""
    weighted = WeightedSlides(table, weights)
    return {metric: metric.compute(weighted) for metric in metrics}


def metrics_with_and_without(
    table: SlideTable, metrics: Sequence[Metric] = METRICS
) -> tuple[dict[Metric, float], dict[Metric, Values]]:
    """Metrics of a cohort, NaN where undefined, and those without each of its patients, (patients,) each."""
    values = metrics_of(table, np.ones((1, len(table.patient))), metrics)
    without = without_each(partial(metrics_of, table, metrics=metrics), table.patient)
    return {metric: value.item() for metric, value in values.items()}, without


def with_intervals(table: SlideTable) -> dict[Metric, dict[str, Any]]:
    """All :data:`METRICS` of a cohort with their intervals, see :func:`entry_of`."""
    values, without = metrics_with_and_without(table)
    return {metric: entry_of(table, metric, value, without[metric]) for metric, value in values.items()}


def entry_of(table: SlideTable, metric: Metric, value: float, without: Values) -> dict[str, Any]:
    """A metric with its interval, which can be written as JSON.

    Returns
    -------
    dict
        ``value``, ``low`` and ``high``, None where undefined; numbers of ``slides`` and ``patients`` that it rests on;
        ``note``, which says why something is None.
    """
    rests_on = metric.rests_on(table)
    n_patients = len(np.unique(table.patient[rests_on]))
    entry = {"value": value, "low": None, "high": None, "slides": int(rests_on.sum()), "patients": n_patients}
    if np.isnan(value):
        return entry | {"value": None, "note": metric.why_undefined(table)}
    return entry | asdict(metric.interval(value, without, n_patients))
