"""How often the 95 % intervals of simulated cohorts contain the truth: the table of docs/metrics.md.

``make bench-coverage`` runs it; the README beside it says how cohorts are simulated.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from lesionmap.maps.probability import N_BINS, first_bin
from lesionmap.metrics.cohort import METRICS
from lesionmap.metrics.intervals import LINEAR, Interval, without_each
from lesionmap.metrics.slide_table import SIZES_UM, SlideTable, WeightedSlides
from numpy.typing import NDArray
from scipy.special import expit

PATIENTS = (8, 12, 20, 40, 80)
POPULATION = 2000  # patients, of whom cohorts are drawn with replacement: the truth is known exactly
SHOWN = 0.2  # share of cohorts that must have an interval for its coverage to be shown
THRESHOLD = 0.5
PIXEL_MM2 = 6.25e-6
LOGITS = np.linspace(-10, 10, 81)  # of all pixels and detections, whatever the values that maps are stored in
CODES = np.array([first_bin(probability) for probability in expit(LOGITS).tolist()])
ROWS = {
    "`dice`, `iou`": ("dice", "iou"),
    "`precision`, `recall`": ("precision", "recall"),
    "`auroc`, `auprc`": ("auroc", "auprc"),
    "`specificity`, `false_positive_rate_…`": (
        *("specificity", "false_positive_rate_rest", "false_positive_rate_vessel", "false_positive_rate_fat"),
    ),
    "`brier`": ("brier",),
    "`ece`": ("ece",),
    "`calibration_slope`": ("calibration_slope",),
    "`calibration_intercept`": ("calibration_intercept",),
    "`slide_mean_brier`": ("slide_mean_brier",),
    "`slide_mean_ece`": ("slide_mean_ece",),
    "other `slide_mean_…`": (
        *(f"slide_mean_{name}" for name in ("dice", "iou", "precision", "recall", "specificity", "auroc", "auprc")),
    ),
    "`slide_mean_nsd`": ("slide_mean_nsd",),
    "`slide_mean_hd95_um`": ("slide_mean_hd95_um",),
    "`froc_score`": ("froc_score",),
    "`sensitivity_at_…`": tuple(f"sensitivity_at_{rate}" for rate in ("0.25", "0.5", "1", "2", "4", "8")),
    "`false_lesions_per_slide`": ("false_lesions_per_slide",),
    "`lesion_recall`": ("lesion_recall",),
    "`lesion_recall_…` by size": (
        *(f"lesion_recall_{size}" for size in ("below_0.2mm", "0.2_to_0.5mm", "0.5_to_2mm", "from_2mm")),
    ),
    "`area_difference_mm2`": ("area_difference_mm2",),
    "`area_…_limit_mm2`": ("area_lower_limit_mm2", "area_upper_limit_mm2"),
    "`slide_auroc_…`": ("slide_auroc_probability", "slide_auroc_area"),
}
AT_USE = {metric.name: metric for metric in METRICS if metric.threshold is None}


@dataclass(frozen=True)
class Population:
    """Slides of all patients as two models see them, and what makes them easy or difficult for both.

    Parameters
    ----------
    patient, lesion_slide : (S,), (L,) int64
        Patient of each slide, slide of each lesion.
    classes_mm2 : (S, 4) float64
        Area of background, lesion, vessel and fat.
    extent_um : (L,) float64
    difficulty : (S,) float64
        Logits by which lesions are paler, most of them by patient.
    false_rate : (S,) float64
        Expected number of false detections.
    """

    patient: NDArray[np.int64]
    lesion_slide: NDArray[np.int64]
    classes_mm2: NDArray[np.float64]
    extent_um: NDArray[np.float64]
    difficulty: NDArray[np.float64]
    false_rate: NDArray[np.float64]

    @classmethod
    def drawn(cls, rng: np.random.Generator, n: int) -> "Population":
        """So many patients with one to three slides; a third have no lesion."""
        slides = rng.choice([1, 2, 3], n, p=[0.4, 0.35, 0.25])
        patient = np.repeat(np.arange(n), slides)
        size = len(patient)
        ill = rng.random(n) < 2 / 3
        has_lesion = ill[patient] & ((np.diff(patient, prepend=-1) > 0) | (rng.random(size) < 0.7))
        n_lesions = np.where(has_lesion, 1 + rng.poisson(rng.gamma(0.7, 2 / 0.7, n)[patient]), 0)
        slide = np.repeat(np.arange(size), n_lesions)
        extent_um = 600 * np.exp(rng.normal(0, 0.4, n)[patient[slide]] + rng.normal(0, 0.6, len(slide)))
        lesion_mm2 = np.bincount(slide, 0.55 * extent_um**2 / 1e6, minlength=size)
        tissue_mm2 = rng.lognormal(np.log(120), 0.6, size)
        vessel, fat = ((rng.random(size) < share) * rng.beta(1, b, size) for share, b in ((0.7, 30), (0.5, 8)))
        return cls(
            patient,
            slide,
            np.stack([tissue_mm2, lesion_mm2, vessel * tissue_mm2, fat * tissue_mm2], axis=1),
            extent_um,
            rng.normal(0, 1, n)[patient] + rng.normal(0, 0.4, size),
            rng.gamma(0.5, 4, n)[patient] * rng.gamma(1, 1, size),
        )

    def seen_by(self, rng: np.random.Generator, better: float) -> SlideTable:
        """What a model makes of all slides; `better` by so many logits."""
        size, n = len(self.patient), self.patient[-1] + 1
        own = rng.normal(0, 0.5, n)[self.patient] + rng.normal(0, 0.3, size) + better - self.difficulty
        strength = 0.5 + own[self.lesion_slide] + 1.2 * np.log(self.extent_um / 300)
        found = rng.random(len(strength)) < expit(strength)
        counts_as_lesion = self.extent_um >= SIZES_UM[1]
        hit = found & counts_as_lesion
        false_slide = np.repeat(np.arange(size), rng.poisson(self.false_rate * np.exp(-better)))
        false = _by_score(false_slide, np.abs(rng.normal(1, 2, len(false_slide))), size)
        logits = 2.2 + 0.7 * strength[hit] + rng.normal(0, 1, hit.sum())
        counts = self._histograms(rng, own)
        counts[:, 0] += false * np.rint(rng.lognormal(7, 1, false.shape)).astype(np.int32)
        annotated, predicted = counts[:, 1].sum(axis=1), counts[..., first_bin(THRESHOLD) :].sum(axis=(1, 2))
        return SlideTable(
            counts=counts,
            highest_scores=(counts.any(axis=1) * np.arange(N_BINS)).max(axis=1),
            false_positive_scores=false,
            detection_scores=_by_score(self.lesion_slide[hit], logits, size),
            n_lesions=np.bincount(self.lesion_slide[counts_as_lesion], minlength=size),
            by_size=np.stack([self._by_size(some) for some in (np.ones_like(found), found)], axis=-1),
            areas_mm2=np.stack([annotated, predicted], axis=1) * PIXEL_MM2,
            boundaries=self._boundaries(rng.spawn(1)[0], own, false.any(axis=1)),
            patient=self.patient,
            threshold=THRESHOLD,
            counts_at_use=counts,
        )

    def _histograms(self, rng: np.random.Generator, own: NDArray[np.float64]) -> NDArray[np.int64]:
        """Logits of each class have a logistic distribution that shifts from slide to slide, up to a peak."""
        size, n = len(self.patient), self.patient[-1] + 1
        shift = 0.3 * rng.normal(0, 1, n)[self.patient] + 0.3 * rng.normal(0, 1, size)
        peak, glow = 3 + own + 1.5 * rng.normal(0, 1, size), rng.normal(0.5, 1, size)
        kinds = (
            (-6 + shift, 0.5, glow),
            (1.2 + own, 1.2, np.maximum(peak, 0.1)),
            (-3.5 + 1.3 * shift, 0.6, np.full(size, 1.0)),
            (-4.5 + 1.3 * shift, 0.6, np.full(size, 0.5)),
        )
        counts = np.zeros((size, len(kinds), N_BINS), dtype=np.int32)  # half the memory
        edges = np.concatenate([[-np.inf], (LOGITS[1:] + LOGITS[:-1]) / 2, [np.inf]])
        for label, (mean, scale, highest) in enumerate(kinds):
            below = np.where(edges > highest[:, None], 1, expit((edges - mean[:, None]) / scale))
            pixels = np.rint(self.classes_mm2[:, [label]] / PIXEL_MM2 * np.diff(below, axis=1)).astype(np.int64)
            np.add.at(counts[:, label], (slice(None), CODES), pixels)
        return counts

    def _boundaries(self, rng: np.random.Generator, own: NDArray[np.float64], false: NDArray[np.bool_]) -> NDArray[Any]:
        """Normalised surface Dice and 95 % Hausdorff distance; maps of paler lesions miss all of them more often."""
        size, has_lesion = len(self.patient), self.classes_mm2[:, 1] > 0
        predicted = false | (has_lesion & (rng.random(size) < expit(2 + own)))
        nsd = np.where(has_lesion & predicted, expit(0.5 + own + rng.normal(0, 0.7, size)), 0)
        hd95_um = np.exp(5.5 - 0.6 * own + rng.normal(0, 0.9, size))
        either, both = has_lesion | predicted, has_lesion & predicted
        return np.stack([np.where(either, nsd, np.nan), np.where(both, hd95_um, np.nan)], axis=1)

    def _by_size(self, some: NDArray[np.bool_]) -> NDArray[np.int64]:
        number = np.digitize(self.extent_um, SIZES_UM[1:-1])
        counts = np.zeros((len(self.patient), len(SIZES_UM) - 1), dtype=np.int64)
        np.add.at(counts, (self.lesion_slide[some], number[some]), 1)
        return counts


def _by_score(slide: NDArray[np.int64], logits: NDArray[np.float64], n_slides: int) -> NDArray[np.int64]:
    """Number of detections with each score on each slide, (n_slides, N_BINS); all above the threshold."""
    counts = np.zeros((n_slides, N_BINS), dtype=np.int64)
    np.add.at(counts, (slide, CODES[np.searchsorted(LOGITS, np.clip(logits, 0.05, LOGITS[-1]))]), 1)
    return counts


def cohort_of(table: SlideTable, patients: NDArray[np.int64]) -> SlideTable:
    """The slides of some patients, each a patient of its own even where one is drawn twice."""
    rows = [np.flatnonzero(table.patient == patient) for patient in patients]
    arrays = {field.name: getattr(table, field.name) for field in fields(table) if field.name != "threshold"}
    chosen = {name: array[np.concatenate(rows)] for name, array in arrays.items()}
    return replace(table, **chosen | {"patient": np.repeat(np.arange(len(rows)), [len(some) for some in rows])})


def metrics_of(table: SlideTable, weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """As ``SlideTable.metrics``, without the sweep."""
    weighted = WeightedSlides(table, weights)
    return {name: metric.compute(weighted) for name, metric in AT_USE.items()}


def intervals_of(tables: Sequence[SlideTable]) -> Iterator[tuple[str, Interval]]:
    """Intervals of the first model's metrics, and of the second's differences to it."""
    values = [metrics_of(table, np.ones((1, len(table.patient)))) for table in tables]
    without = [without_each(lambda weights, table=table: metrics_of(table, weights), table.patient) for table in tables]
    for name, metric in AT_USE.items():
        n_patients = len(np.unique(tables[0].patient[metric.rests_on(tables[0])]))
        own, other = (value[name].item() for value in values)
        if not np.isnan(own):
            yield name, metric.interval(own, without[0][name], n_patients)
            difference = other - own, without[1][name] - without[0][name]
            yield f"difference {name}", metric.interval(*difference, n_patients, LINEAR)


def misses(tables: Sequence[SlideTable], n: int, cohorts: int, seed: int) -> dict[str, NDArray[np.int64]]:
    """For each metric: numbers of intervals, of those above the truth, and of those below it."""
    own, other = (metrics_of(table, np.ones((1, len(table.patient)))) for table in tables)
    truth = {name: own[name].item() for name in AT_USE}
    truth |= {f"difference {name}": (other[name] - own[name]).item() for name in AT_USE}
    found = {name: np.zeros(3, dtype=np.int64) for name in truth}
    rng = np.random.default_rng([seed, n])
    for _ in range(cohorts):
        patients = rng.integers(0, POPULATION, n)
        for name, interval in intervals_of([cohort_of(table, patients) for table in tables]):
            if interval.low is not None and interval.high is not None:
                found[name] += [1, truth[name] < interval.low, truth[name] > interval.high]
    return found


def cell(counts: Sequence[NDArray[np.int64]], cohorts: int) -> str:
    """Lowest and highest coverage of a row's metrics, %; and of the lowest, the share of misses above and below."""
    shown = [count / count[0] for count in counts if count[0] >= SHOWN * cohorts]
    if not shown:
        return "–"
    covered = [100 * (1 - above - below) for _, above, below in shown]
    _, above, below = shown[int(np.argmin(covered))]
    low, high = f"{min(covered):.0f}", f"{max(covered):.0f}"
    return f"{low if low == high else f'{low}–{high}'} ({100 * above:.0f}, {100 * below:.0f})"


def main() -> None:
    """Print the tables of metrics and of differences."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cohorts", type=int, default=1000, help="for each number of patients")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    population = Population.drawn(rng, POPULATION)
    tables = [population.seen_by(rng, better) for better in (0.0, 0.3)]
    found = [misses(tables, n, options.cohorts, options.seed) for n in PATIENTS]
    for prefix, title in (("", "patients"), ("difference ", "difference of two models")):
        print("|", title, "|", " | ".join(map(str, PATIENTS)), "|\n|" + "---|" * (len(PATIENTS) + 1))
        for row, names in ROWS.items():
            cells = [cell([of[prefix + name] for name in names], options.cohorts) for of in found]
            print("|", row, "|", " | ".join(cells), "|")
        print()


if __name__ == "__main__":
    main()
