"""Metrics of a cohort, with confidence intervals.

Every metric is a function of sums over slides, so a cohort without one of its patients is one weighting of the slides.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesionmap.annotations.classes import LESION
from lesionmap.maps.probability import first_bin
from lesionmap.metrics.boundaries import BOUNDARY_METRICS
from lesionmap.metrics.calibration import calibration_metrics, why_undefined
from lesionmap.metrics.froc import FROC_METRICS, froc_metrics
from lesionmap.metrics.intervals import LEAST_PATIENTS, LINEAR, LOG, LOGIT, Interval, Scale, interval, without_each
from lesionmap.metrics.pixels import PIXEL_METRICS, Histograms, PixelMetric, Values, auroc, ratio

SIZES_UM = (0, 200, 500, 2000, np.inf)  # 0.2 and 2 mm separate isolated cells, micro- and macrometastases (AJCC)
SIZE_NAMES = ("below_0.2mm", "0.2_to_0.5mm", "0.5_to_2mm", "from_2mm")
SWEEP = tuple(round(0.05 * step, 2) for step in range(1, 20))
AGREEMENT_SD = 1.96  # of Bland and Altman's limits
NEEDS = {  # patients: with fewer, intervals contain the truth in clearly less than 90 % (docs/metrics.md)
    "brier": 20,
    "slide_mean_brier": 20,
    "area_difference_mm2": 40,
    "area_lower_limit_mm2": 80,
    "area_upper_limit_mm2": 80,
}


@dataclass(frozen=True)
class SlideTable:
    """What cohort metrics are computed from; S slides.

    Parameters
    ----------
    counts : (S, 4, N_BINS) float64
        Numbers of pixels, see :class:`lesionmap.metrics.pixels.Histograms`.
    highest_scores : (S,) int64
        The highest score on each slide.
    false_positive_scores, detection_scores : (S, 2L + 1) int64
        By score: number of detections outside annotated lesions, and of lesions whose best detection has it. L scores
        are of lesions, and have a column each; before, between and after them is one for all other scores.
    n_lesions : (S,) int64
        Number of annotated lesions that count for the FROC curve.
    by_size : (S, 4, 2) int64
        Numbers of annotated lesions of each size, and of those that the map finds.
    areas_mm2 : (S, 2) float64
        Annotated and predicted area.
    boundaries : (S, 2) float64
        Normalised surface Dice and 95 % Hausdorff distance, NaN where undefined.
    patient : (S,) int64
        Number of the patient, from 0.
    threshold : float
        Probability from which a pixel of `counts_at_use` counts as lesion.
    counts_at_use : (S, 4, N_BINS) float64
        For metrics at the threshold: `counts`. If slides have thresholds of their own, as those that several models
        map, they are moved so that each lies at one half.
    """

    counts: NDArray[np.float64]
    highest_scores: NDArray[np.int64]
    false_positive_scores: NDArray[np.int64]
    detection_scores: NDArray[np.int64]
    n_lesions: NDArray[np.int64]
    by_size: NDArray[np.int64]
    areas_mm2: NDArray[np.float64]
    boundaries: Values
    patient: NDArray[np.int64]
    threshold: float
    counts_at_use: NDArray[np.float64]

    @classmethod
    def of(cls, records: Sequence[Mapping[str, Any]], min_lesion_um: float) -> "SlideTable":
        """From records of :func:`lesionmap.evaluation.evaluate.evaluate_slide`: at least one.

        All must satisfy :func:`is_evaluated`.
        """
        counting = [_counting(record["lesions"], min_lesion_um) for record in records]
        found = [[lesion["detection_score"] for lesion in lesions] for lesions in counting]
        scores = [[score for score in of_slide if score is not None] for of_slide in found]
        levels = np.unique([score for of_slide in scores for score in of_slide]).astype(np.int64)
        counts = np.array([Histograms.of_record(record["histograms"]).counts for record in records], dtype=float)
        thresholds = [record["threshold"] for record in records]
        threshold = thresholds[0] if len(set(thresholds)) == 1 else 0.5
        return cls(
            counts=counts,
            highest_scores=np.array([record["highest_score"] for record in records]),
            false_positive_scores=np.array([_by_level(record["false_positive_scores"], levels) for record in records]),
            detection_scores=np.array([_by_level(of_slide, levels) for of_slide in scores]),
            n_lesions=np.array([len(lesions) for lesions in counting]),
            by_size=np.array([_by_size(record["lesions"]) for record in records]),
            areas_mm2=np.array([[record["annotated_mm2"], record["predicted_mm2"]] for record in records]),
            boundaries=np.array([[record["boundary"][name] for name in BOUNDARY_METRICS] for record in records], float),
            patient=patient_numbers(records),
            threshold=threshold,
            counts_at_use=counts if len(set(thresholds)) == 1 else _at_half(counts, thresholds),
        )

    @property
    def has_lesion(self) -> NDArray[np.bool_]:
        """Slides with annotated lesions, (S,)."""
        return _any(self.counts[:, LESION])

    def metrics(self, weights: NDArray[np.float64]) -> "dict[Metric, Values]":
        """All :data:`METRICS` for D weightings of the slides, (D, S); each (D,), NaN where undefined."""
        weighted = WeightedSlides(self, weights)
        return {metric: metric.compute(weighted) for metric in METRICS}

    @cached_property
    def of_slides(self) -> dict[str, Values]:
        """Metrics of pixels and boundaries of each slide, (S,)."""
        of_pixels = {metric.name: _at_use(metric, self, self.threshold) for metric in PIXEL_METRICS}
        return of_pixels | dict(zip(BOUNDARY_METRICS, self.boundaries.T, strict=True))


@dataclass(frozen=True)
class WeightedSlides:
    """Weighted sums over a table's slides, which several metrics share.

    Parameters
    ----------
    weights : (D, S) float64
        D weightings of the table's S slides.
    """

    table: SlideTable
    weights: NDArray[np.float64]

    @cached_property
    def counts(self) -> Values:
        """Histograms, (D, 4, N_BINS)."""
        return np.asarray(np.tensordot(self.weights, self.table.counts, axes=1))

    @cached_property
    def counts_at_use(self) -> Values:
        """The same of :attr:`SlideTable.counts_at_use`."""
        if self.table.counts_at_use is self.table.counts:
            return self.counts
        return np.asarray(np.tensordot(self.weights, self.table.counts_at_use, axes=1))

    @cached_property
    def calibration(self) -> dict[str, Values]:
        """Calibration slope and intercept, (D,) each."""
        return calibration_metrics(self.counts)

    @cached_property
    def froc(self) -> dict[str, Values]:
        """Metrics of the FROC curve, (D,) each."""
        table, weights = self.table, self.weights
        scores = weights @ table.false_positive_scores, weights @ table.detection_scores
        return froc_metrics(*scores, weights.sum(axis=1), weights @ table.n_lesions)

    @cached_property
    def by_size(self) -> Values:
        """Annotated lesions of each size and those found, (D, 4, 2)."""
        return np.asarray(np.tensordot(self.weights, self.table.by_size, axes=1))

    @cached_property
    def areas(self) -> dict[str, Values]:
        """Agreement of areas, (D,) each."""
        return bland_altman(self.table.areas_mm2, self.weights)


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


def is_evaluated(record: Mapping[str, Any]) -> bool:
    """Whether any pixel of a slide was evaluated; otherwise it is unknown whether there is lesion on it."""
    return bool(record["histograms"]["counts"][0])


def patient_numbers(records: Sequence[Mapping[str, Any]]) -> NDArray[np.int64]:
    """Number of each slide's patient, from 0; a slide without patient counts as a patient of its own; (S,)."""
    patients = [(record["patient"] is None, record["patient"] or record["slide"]) for record in records]
    numbers = {patient: number for number, patient in enumerate(dict.fromkeys(patients))}
    return np.array([numbers[patient] for patient in patients])


def _any(counts: NDArray[Any]) -> NDArray[np.bool_]:
    """Which slides have a count that is not 0, (S,), from counts (S, ...)."""
    return np.asarray(counts.reshape(len(counts), -1).any(axis=1))


def bland_altman(areas_mm2: NDArray[np.float64], weights: NDArray[np.float64]) -> dict[str, Values]:
    """Agreement of areas: mean difference, and the limits 1.96 standard deviations around it, mm².

    Bland & Altman, The Lancet 1986. Limits need two slides.

    Parameters
    ----------
    areas_mm2 : (S, 2) float64
        Annotated and predicted; the difference is predicted − annotated.
    weights : (D, S) float64
        D weightings of the slides.

    Returns
    -------
    dict of str to (D,) float64
    """
    difference = areas_mm2[:, 1] - areas_mm2[:, 0]
    n = weights.sum(axis=1)
    mean = ratio(weights @ difference, n)
    squares = ((difference - mean[:, None]) ** 2 * weights).sum(axis=1)
    reach = AGREEMENT_SD * np.sqrt(ratio(squares, n - 1))
    return {
        "area_difference_mm2": mean,
        "area_lower_limit_mm2": mean - reach,
        "area_upper_limit_mm2": mean + reach,
    }


def _at_half(counts: Values, thresholds: Sequence[float]) -> Values:
    """Histograms, (S, 4, N_BINS), in two bins: pixels below their slide's threshold, and from it on."""
    moved = np.zeros_like(counts)
    for of_slide, its_counts, threshold in zip(moved, counts, thresholds, strict=True):
        first = first_bin(threshold)
        of_slide[:, 0], of_slide[:, -1] = its_counts[:, :first].sum(axis=1), its_counts[:, first:].sum(axis=1)
    return moved


def _at_use(metric: PixelMetric, of: SlideTable | WeightedSlides, threshold: float) -> Values:
    return metric.compute(of.counts_at_use if metric.thresholded else of.counts, threshold)


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
        lambda weighted: _at_use(metric, weighted, weighted.table.threshold),
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
        lambda table: _any(table.n_lesions if needs_lesion else table.counts),
        lambda _: "no lesion of that kind is annotated",
        scale=LOGIT if needs_lesion else LOG,
    )


def _area(name: str) -> Metric:
    return Metric(
        name,
        lambda weighted: weighted.areas[name],
        lambda table: _any(table.counts),
        lambda _: "needs two slides",
        scale=LINEAR,
    )


def _lesion_recall(name: str, size: int) -> Metric:
    return Metric(
        f"lesion_recall_{name}",
        partial(_recall_of_size, size),
        lambda table: _any(table.by_size[:, size, 0]),
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


def metrics_with_and_without(table: SlideTable) -> tuple[dict[Metric, float], dict[Metric, Values]]:
    """All metrics of a cohort, NaN where undefined, and those without each of its patients, (patients,) each."""
    values = table.metrics(np.ones((1, len(table.patient))))
    without = without_each(table.metrics, table.patient)
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


def _counting(lesions: Sequence[Mapping[str, Any]], min_lesion_um: float) -> list[Mapping[str, Any]]:
    """Lesions that count for the FROC curve: large enough, and evaluated at least in part."""
    return [lesion for lesion in lesions if lesion["extent_um"] >= min_lesion_um and lesion["pixels"]]


def _by_level(scores: Sequence[int], levels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number of scores below the first level, at it, between it and the next, and so on; (2L + 1,)."""
    place = np.searchsorted(levels, scores)
    at_level = np.isin(scores, levels)
    return np.bincount((2 * place + at_level).astype(np.int64), minlength=2 * len(levels) + 1)


def _by_size(lesions: Sequence[Mapping[str, Any]]) -> NDArray[np.int64]:
    """Numbers of lesions of each size and of those that the map finds, (4, 2); lesions not evaluated are left out."""
    seen = [lesion for lesion in lesions if lesion["pixels"]]
    extents = np.array([lesion["extent_um"] for lesion in seen])
    found = np.array([lesion["predicted_pixels"] > 0 for lesion in seen], dtype=bool)
    return np.stack([np.histogram(part, SIZES_UM)[0] for part in (extents, extents[found])], axis=1)
