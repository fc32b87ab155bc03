"""Figures of a cohort: what its slides add up to, with confidence intervals.

Every figure is a function of sums over slides, so that a bootstrap draw is one weighting of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesionmap.annotations.classes import LESION
from lesionmap.maps.probability import LEVELS
from lesionmap.metrics.bootstrap import Bootstrap, interval, resampled
from lesionmap.metrics.froc import froc_figures
from lesionmap.metrics.pixels import (
    FALSE_POSITIVE_RATE,
    NOT_LESION,
    Figures,
    auroc,
    pixel_figures,
    ratio,
    threshold_figures,
    why_undefined,
)

SIZES_UM = (0, 200, 500, 2000, np.inf)  # 0.2 and 2 mm part isolated cells, micro- and macrometastases (AJCC)
SIZE_NAMES = ("below_0.2mm", "0.2_to_0.5mm", "0.5_to_2mm", "from_2mm")
SWEEP = tuple(round(0.05 * step, 2) for step in range(1, 20))
AGREEMENT_SD = 1.96  # of Bland and Altman's limits
SLIDE_MEAN = "slide_mean_"


@dataclass(frozen=True)
class SlideTable:
    """What figures of a cohort are reckoned from; S slides.

    Parameters
    ----------
    counts : (S, 4, 256) int64
        Pixels, see :class:`lesionmap.metrics.pixels.Histograms`.
    false_levels, hit_levels : (S, 256) int64
        Detections outside annotated lesions, and lesions that count by their best detection, at each level.
    n_lesions : (S,) int64
        Annotated lesions that count for the FROC curve.
    by_size : (S, 4, 2) int64
        Annotated lesions of each size, and those of them that the map marks.
    areas_mm2 : (S, 2) float64
        Annotated and marked.
    patient : (S,) int64
        Number of the patient, from 0.
    threshold : float
    """

    counts: NDArray[np.int64]
    false_levels: NDArray[np.int64]
    hit_levels: NDArray[np.int64]
    n_lesions: NDArray[np.int64]
    by_size: NDArray[np.int64]
    areas_mm2: NDArray[np.float64]
    patient: NDArray[np.int64]
    threshold: float

    @classmethod
    def of(cls, records: Sequence[Mapping[str, Any]], min_lesion_um: float) -> "SlideTable":
        """From records of :func:`lesionmap.evaluation.evaluate.evaluate_slide`: at least one, all of one threshold."""
        patients = [(record["patient"] is None, record["patient"] or record["slide"]) for record in records]
        numbers = {patient: number for number, patient in enumerate(dict.fromkeys(patients))}
        counting = [_counting(record["lesions"], min_lesion_um) for record in records]
        return cls(
            counts=np.array([record["histograms"] for record in records]),
            false_levels=np.array([record["false_levels"] for record in records]),
            hit_levels=np.array([_hit_levels(lesions) for lesions in counting]),
            n_lesions=np.array([len(lesions) for lesions in counting]),
            by_size=np.array([_by_size(record["lesions"]) for record in records]),
            areas_mm2=np.array([[record["annotated_mm2"], record["marked_mm2"]] for record in records]),
            patient=np.array([numbers[patient] for patient in patients]),
            threshold=records[0]["threshold"],
        )

    @property
    def has_lesion(self) -> NDArray[np.bool_]:
        """Slides with annotated lesions, (S,)."""
        return _any(self.counts[:, LESION])

    def figures(self, weights: NDArray[np.float64]) -> Figures:
        """All figures for some weightings of the slides, (D, S); each (D,), NaN where undefined.

        Those of the threshold sweep are named ``dice@0.05`` and so on.
        """
        sums = np.tensordot(weights, self.counts, axes=1)  # (D, 4, 256)
        n_slides, n_lesions = weights.sum(axis=1), weights @ self.n_lesions
        return {
            **pixel_figures(sums, self.threshold),
            **self._slide_means(weights),
            **froc_figures(weights @ self.false_levels, weights @ self.hit_levels, n_slides, n_lesions),
            **_recalls(np.tensordot(weights, self.by_size, axes=1)),
            **bland_altman(self.areas_mm2, weights),
            "slide_auroc_probability": self._slide_auroc(self._highest_levels(), weights),
            "slide_auroc_area": self._slide_auroc(self.areas_mm2[:, 1], weights),
            **_sweep(sums),
        }

    def basis(self, name: str) -> NDArray[np.bool_]:
        """Slides without which a figure would be undefined, (S,); of two kinds that it tells apart, the rarer."""
        parts = {f"lesion_recall_{size}": self.by_size[:, n, 0] for n, size in enumerate(SIZE_NAMES)}
        parts |= {f"{FALSE_POSITIVE_RATE}{kind}": self.counts[:, label] for kind, label in NOT_LESION.items()}
        has_lesion = self.has_lesion
        if name in parts:
            return _any(parts[name])
        if name.startswith("slide_auroc"):
            return has_lesion if 2 * has_lesion.sum() <= len(has_lesion) else ~has_lesion
        if name.startswith(("sensitivity_at", "froc_score")):
            return _any(self.n_lesions)
        if name.startswith(SLIDE_MEAN):
            return ~np.isnan(self._of_slides[name.removeprefix(SLIDE_MEAN)])
        about_all = ("specificity", "brier", "ece", "false_lesions", "area_")
        return _any(self.counts) if name.startswith(about_all) else has_lesion

    @cached_property
    def _of_slides(self) -> Figures:
        """Pixel metrics of each slide, (S,)."""
        return pixel_figures(self.counts, self.threshold)

    def _slide_means(self, weights: NDArray[np.float64]) -> Figures:
        """Means over the slides for which a pixel metric is defined."""
        return {
            f"{SLIDE_MEAN}{name}": ratio(weights @ np.nan_to_num(values), weights @ ~np.isnan(values))
            for name, values in self._of_slides.items()
            if not name.startswith(FALSE_POSITIVE_RATE)
        }

    def _highest_levels(self) -> NDArray[np.int64]:
        """The highest level on each slide, (S,); 0 where nothing was evaluated."""
        return np.asarray((self.counts.any(axis=1) * np.arange(LEVELS)).max(axis=1))

    def _slide_auroc(self, score: NDArray[Any], weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """How well a score tells slides with lesion from those without, (D,)."""
        _, rank = np.unique(score, return_inverse=True)
        order = np.argsort(rank, kind="stable")
        starts = np.searchsorted(rank[order], np.arange(rank.max() + 1))
        kinds = (weights[:, order] * kind[order] for kind in (self.has_lesion, ~self.has_lesion))
        return auroc(*(np.add.reduceat(kind, starts, axis=1) for kind in kinds))


def _any(counts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Slides that have any, (S,), of counts (S, ...)."""
    return np.asarray(counts.reshape(len(counts), -1).any(axis=1))


def _recalls(by_size: NDArray[np.float64]) -> Figures:
    """Share of annotated lesions that are marked, of all and of each size; by_size: (D, 4, 2)."""
    annotated, marked = np.moveaxis(by_size, -1, 0)
    of_sizes = {f"lesion_recall_{name}": ratio(marked[:, n], annotated[:, n]) for n, name in enumerate(SIZE_NAMES)}
    return {"lesion_recall": ratio(marked.sum(axis=1), annotated.sum(axis=1))} | of_sizes


def _sweep(sums: NDArray[np.float64]) -> Figures:
    """Figures at thresholds from 0.05 to 0.95 of histograms, (D, 4, 256)."""
    at = {threshold: threshold_figures(sums, threshold) for threshold in SWEEP}
    return {f"{name}@{threshold}": values for threshold, part in at.items() for name, values in part.items()}


def bland_altman(areas_mm2: NDArray[np.float64], weights: NDArray[np.float64]) -> Figures:
    """Agreement of areas: mean difference, and the limits 1.96 standard deviations around it, mm².

    Bland & Altman, The Lancet 1986. Limits need two slides.

    Parameters
    ----------
    areas_mm2 : (S, 2) float64
        Annotated and marked; the difference is marked − annotated.
    weights : (D, S) float64

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


def figures_and_draws(table: SlideTable, settings: Bootstrap) -> tuple[dict[str, float], Figures]:
    """All figures of a cohort, NaN where undefined, and their bootstrap draws, (draws,) each."""
    values = table.figures(np.ones((1, len(table.patient))))
    return {name: value.item() for name, value in values.items()}, resampled(table.figures, table.patient, settings)


def with_intervals(table: SlideTable, settings: Bootstrap) -> dict[str, dict[str, Any]]:
    """Each of a cohort's :meth:`SlideTable.figures`, see :func:`entry_of`."""
    values, draws = figures_and_draws(table, settings)
    return {name: entry_of(table, name, value, draws[name]) for name, value in values.items()}


def entry_of(table: SlideTable, name: str, value: float, draws: NDArray[np.float64]) -> dict[str, Any]:
    """A figure with its interval; JSON-able.

    Returns
    -------
    dict
        ``value``, ``low`` and ``high``, None where undefined; ``slides`` and ``patients`` that it rests on; ``note``,
        which says why something is None.
    """
    kind = name.split("@")[0]
    basis = table.basis(kind)
    n_patients = len(np.unique(table.patient[basis]))
    entry = {"value": value, "low": None, "high": None, "slides": int(basis.sum()), "patients": n_patients}
    if np.isnan(value):
        return entry | {"value": None, "note": _why_undefined(kind, table.counts.sum(axis=0))}
    return entry | asdict(interval(draws, n_patients))


def _why_undefined(name: str, counts: NDArray[np.int64]) -> str:
    if name.startswith("slide_auroc"):
        return "needs slides with and slides without lesion"
    if name.startswith("area_"):
        return "needs two slides"
    if name.startswith(("sensitivity_at", "froc_score", "lesion_recall")):
        return "no lesion of that kind is annotated"
    return why_undefined(name.removeprefix(SLIDE_MEAN), counts)


def _counting(lesions: Sequence[Mapping[str, Any]], min_lesion_um: float) -> list[Mapping[str, Any]]:
    """Lesions that count for the FROC curve: large enough, and evaluated at least in part."""
    return [lesion for lesion in lesions if lesion["extent_um"] >= min_lesion_um and lesion["pixels"]]


def _hit_levels(lesions: Sequence[Mapping[str, Any]]) -> NDArray[np.int64]:
    return np.bincount([lesion["hit_level"] for lesion in lesions if lesion["hit_level"] is not None], minlength=LEVELS)


def _by_size(lesions: Sequence[Mapping[str, Any]]) -> NDArray[np.int64]:
    """Lesions of each size and those that are marked, (4, 2); what was not evaluated is left out."""
    seen = [lesion for lesion in lesions if lesion["pixels"]]
    extents = np.array([lesion["extent_um"] for lesion in seen])
    marked = np.array([lesion["marked_pixels"] > 0 for lesion in seen], dtype=bool)
    return np.stack([np.histogram(part, SIZES_UM)[0] for part in (extents, extents[marked])], axis=1)
