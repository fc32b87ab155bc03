"""The table of slides that cohort metrics are computed from, and weighted sums over its slides."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesionmap.annotations.classes import LESION
from lesionmap.maps.probability import first_bin
from lesionmap.metrics.boundaries import BOUNDARY_METRICS
from lesionmap.metrics.calibration import calibration_metrics
from lesionmap.metrics.froc import froc_metrics
from lesionmap.metrics.lesion_sizes import SIZES_UM
from lesionmap.metrics.pixels import PIXEL_METRICS, Histograms, PixelMetric, Values, ratio

AGREEMENT_SD = 1.96  # of Bland and Altman's limits
LEAST_SLIDES = 5  # of which limits of agreement are told


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
        return any_of(self.counts[:, LESION])

    @cached_property
    def of_slides(self) -> dict[str, Values]:
        """Metrics of pixels and boundaries of each slide, (S,)."""
        of_pixels = {metric.name: at_use(metric, self, self.threshold) for metric in PIXEL_METRICS}
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


def is_evaluated(record: Mapping[str, Any]) -> bool:
    """Whether any pixel of a slide was evaluated; otherwise it is unknown whether there is lesion on it."""
    return bool(record["histograms"]["counts"][0])


def patient_numbers(records: Sequence[Mapping[str, Any]]) -> NDArray[np.int64]:
    """Number of each slide's patient, from 0; a slide without patient counts as a patient of its own; (S,)."""
    patients = [(record["patient"] is None, record["patient"] or record["slide"]) for record in records]
    numbers = {patient: number for number, patient in enumerate(dict.fromkeys(patients))}
    return np.array([numbers[patient] for patient in patients])


def any_of(counts: NDArray[Any]) -> NDArray[np.bool_]:
    """Which slides have a count that is not 0, (S,), from counts (S, ...)."""
    return np.asarray(counts.reshape(len(counts), -1).any(axis=1))


def bland_altman(areas_mm2: NDArray[np.float64], weights: NDArray[np.float64]) -> dict[str, Values]:
    """Agreement of areas: mean difference, and the limits 1.96 standard deviations around it, mm².

    Bland & Altman, The Lancet 1986. Limits are NaN for fewer than `LEAST_SLIDES`.

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
    reach = np.where(n < LEAST_SLIDES, np.nan, AGREEMENT_SD * np.sqrt(ratio(squares, n - 1)))
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


def at_use(metric: PixelMetric, of: SlideTable | WeightedSlides, threshold: float) -> Values:
    """A pixel metric at the threshold in use, of each slide or of weighted sums."""
    return metric.compute(of.counts_at_use if metric.thresholded else of.counts, threshold)


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
