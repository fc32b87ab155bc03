"""Agreement of a model and two readers on the same pixels, with confidence intervals (docs/metrics.md).

All metrics follow from sums over slides and from means over slides, so a cohort without one of its patients is one
weighting of the slides.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesionmap.metrics.boundaries import BOUNDARY_METRICS, where_both
from lesionmap.metrics.cohort import mean_of_defined
from lesionmap.metrics.intervals import FISHER, LEAST_PATIENTS, LINEAR, LOG, LOGIT, Scale, interval, without_each
from lesionmap.metrics.pairs import COUNTS, OF_MODEL, OF_PIXELS, OF_READERS, PAIRS
from lesionmap.metrics.pixels import Confusion, Values
from lesionmap.metrics.slide_table import patient_numbers

OF_SLIDES = dict(zip((f"slide_mean_{name}" for name in BOUNDARY_METRICS), (LOGIT, LOG), strict=True))
SCALES: dict[str, Scale] = dict.fromkeys(OF_PIXELS, LOGIT) | {"kappa": FISHER} | OF_SLIDES
DIFFERENCE = {"": "value", "_low": "low", "_high": "high"}  # end of a column's name, and what it holds
UNDEFINED = "the pair has too little lesion for it, or none"


@dataclass(frozen=True)
class ReaderTable:
    """What the agreement of a pair is computed from; S slides.

    Parameters
    ----------
    counts : (S, 4) float64
        True and false positive, false and true negative pixels; the second of the pair counts as the truth.
    boundaries : (S, 2) float64
        Normalised surface Dice and 95 % Hausdorff distance, NaN where undefined.
    patient : (S,) int64
        Number of the patient, from 0.
    """

    counts: NDArray[np.float64]
    boundaries: Values
    patient: NDArray[np.int64]

    @classmethod
    def of(cls, records: Sequence[Mapping[str, Any]], pair: str, patient: NDArray[np.int64]) -> "ReaderTable":
        """From records of slides that two readers have annotated, at least one."""
        found = [record["readers"][pair] for record in records]
        counts, boundaries = ([[one[name] for name in names] for one in found] for names in (COUNTS, BOUNDARY_METRICS))
        return cls(np.array(counts, dtype=np.float64), np.array(boundaries, dtype=np.float64), patient)

    def metrics(self, weights: NDArray[np.float64]) -> dict[str, Values]:
        """All metrics for D weightings of the slides, (D, S); each (D,), NaN where undefined."""
        pixels = Confusion(*(weights @ self.counts).T)
        means = {
            name: mean_of_defined(values, weights) for name, values in zip(OF_SLIDES, self.boundaries.T, strict=True)
        }
        return {name: getattr(pixels, name) for name in OF_PIXELS} | means

    def rests_on(self, name: str) -> NDArray[np.bool_]:
        """The slides that a metric needs, (S,): with a boundary to compare; with lesion, or for two metrics, any."""
        if name in OF_SLIDES:
            return np.asarray(~np.isnan(self.boundaries[:, list(OF_SLIDES).index(name)]))
        tp, _, fn, _ = self.counts.T
        return np.asarray((tp + fn > 0) | (name in ("specificity", "kappa")))


def reader_agreement(records: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Each metric of each pair, with its interval.

    A difference is that of the model's agreement with reader 1 and reader 2's with reader 1. For its interval each
    patient is left out of both at once.

    Parameters
    ----------
    records : sequence of mapping
        Of :func:`lesionmap.evaluation.evaluate.evaluate_slide`, at least one; all of slides with two readers.

    Yields
    ------
    dict
        ``pair``, ``metric``, ``value``, ``low``, ``high``, ``slides``, ``patients``, ``note``, and for the model and
        reader 1 ``difference``, ``difference_low``, ``difference_high``; None where undefined.
    """
    patient = patient_numbers(records)
    tables = {pair: ReaderTable.of(records, pair, patient) for pair in PAIRS}
    differences = list(_differences(tables[OF_MODEL], tables[OF_READERS]))
    for pair, table in tables.items():
        values, without = table.metrics(np.ones((1, len(patient)))), without_each(table.metrics, patient)
        for number, (name, scale) in enumerate(SCALES.items()):
            entry = _entry(table, name, values[name].item(), without[name], scale)
            more = differences[number] if pair == OF_MODEL else {}
            yield {"pair": pair, "metric": name} | entry | more


def _differences(model: ReaderTable, reader: ReaderTable) -> Iterator[dict[str, float | None]]:
    """Of each metric; means over slides are over those for which both are defined."""
    both = where_both(model.boundaries, reader.boundaries)
    tables = [replace(table, boundaries=part) for table, part in zip((model, reader), both, strict=True)]

    def changes(weights: NDArray[np.float64]) -> dict[str, Values]:
        one, other = (table.metrics(weights) for table in tables)
        return {name: one[name] - other[name] for name in SCALES}

    values, without = changes(np.ones((1, len(model.patient)))), without_each(changes, model.patient)
    for name in SCALES:
        n_patients = _patients(model, tables[0].rests_on(name) & tables[1].rests_on(name))
        found = _interval(values[name].item(), without[name], n_patients, LINEAR)
        yield {f"difference{key}": found[part] for key, part in DIFFERENCE.items()}


def _entry(table: ReaderTable, name: str, value: float, without: Values, scale: Scale) -> dict[str, Any]:
    rests_on = table.rests_on(name)
    patients = _patients(table, rests_on)
    return {"slides": int(rests_on.sum()), "patients": patients} | _interval(value, without, patients, scale)


def _patients(table: ReaderTable, slides: NDArray[np.bool_]) -> int:
    return len(np.unique(table.patient[slides]))


def _interval(value: float, without: Values, n_patients: int, scale: Scale) -> dict[str, Any]:
    if np.isnan(value):
        return {"value": None, "low": None, "high": None, "note": UNDEFINED}
    return {"value": value} | asdict(interval(value, without, n_patients, scale, LEAST_PATIENTS))
