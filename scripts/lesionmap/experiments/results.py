"""The metrics of all held-out slides, as far as every variant and seed has them, and proof that no model knew them."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesionmap.errors import TrainingError
from lesionmap.evaluation.leakage import Seen
from lesionmap.experiments.folds import read_folds
from lesionmap.experiments.statistics import Pair
from lesionmap.files.model_metadata import load_metadata
from lesionmap.files.records import read_json
from lesionmap.jobs.quarantine import quarantined
from lesionmap.metrics.boundaries import where_both
from lesionmap.metrics.slide_table import SlideTable, is_evaluated

Record = Mapping[str, Any]
Run = tuple[str, str]  # variant, and `seed_0` or `ensemble`


@dataclass(frozen=True)
class Results:
    """Metrics of the slides that all runs have.

    Parameters
    ----------
    records : mapping
        By variant and seed (``seed_0``), records of :func:`lesionmap.evaluation.evaluate.evaluate_slide` in the order
        of `slides`.
    fold : (S,) int64
        The fold of each slide, from 1.
    left_out : dict of str to str
        Slides that not all runs could map and evaluate, and why.
    """

    slides: list[str]
    records: dict[Run, list[Record]]
    fold: NDArray[np.int64]
    left_out: dict[str, str]

    @property
    def variants(self) -> list[str]:
        """In the order of the config."""
        return list(dict.fromkeys(variant for variant, _ in self.records))

    @property
    def seeds(self) -> list[str]:
        """The same of the seeds, as ``seed_0``."""
        return list(dict.fromkeys(seed for _, seed in self.records))

    def tables(self, variant: str, min_lesion_um: float) -> list[SlideTable]:
        """What metrics are computed from, once for each seed."""
        return [SlideTable.of(self.records[variant, seed], min_lesion_um) for seed in self.seeds]

    def paired(self, first: str, second: str, min_lesion_um: float) -> "list[Pair]":
        """What two variants are compared by, once for each seed.

        Mean distances of boundaries are over the slides for which both variants have one.
        """
        pairs = []
        for seed in self.seeds:
            own, other = self.records[first, seed], self.records[second, seed]
            tables = [SlideTable.of(part, min_lesion_um) for part in (own, other, [*own, *other])]
            both = where_both(tables[0].boundaries, tables[1].boundaries)
            boundaries = (*both, np.concatenate(both))
            pairs.append(
                Pair(*(replace(table, boundaries=part) for table, part in zip(tables, boundaries, strict=True)))
            )
        return pairs


def run_of(path: str) -> Run:
    """Variant and run of a file …/<variant>/<run>/metrics/slides/<slide>.json."""
    variant, run = Path(path).parts[-5:-3]
    return variant, run


def held_out_results(paths: Sequence[str], models: Sequence[str], folds: str, patients: Mapping[str, str]) -> Results:
    """Read the metrics of held-out slides.

    Parameters
    ----------
    paths : sequence of str
        Files of :func:`lesionmap.evaluation.evaluate.evaluate_slide`: …/<variant>/<seed>/metrics/slides/<slide>.json.
    models : sequence of str
        The models that mapped them: …/<variant>/<seed>/fold_<number>/….
    folds : str
        Table of :func:`lesionmap.experiments.folds.assign_folds`.
    patients : mapping of str to str
        Patients by slide, as the sheet names them now.

    Raises
    ------
    TrainingError
        If a model has seen a slide that it is judged by, or its patient.
    """
    fold_of, records, left_out = read_folds(folds), dict[Run, dict[str, Record]](), dict[str, str]()
    for path in paths:
        record, run, slide = read_json(path), run_of(path), Path(path).stem
        found = records.setdefault(run, {})
        if refused := quarantined(path):
            left_out.setdefault(slide, f"{' '.join(run)}: {refused}")
        elif is_evaluated(record):
            counts = record["histograms"]
            counts["counts"] = np.array(counts["counts"], dtype=np.int64)  # lists of thousands of slides take gigabytes
            found[slide] = record
        else:
            left_out.setdefault(slide, f"{' '.join(run)}: no pixel could be evaluated")
    slides = [slide for slide in dict.fromkeys(Path(path).stem for path in paths) if slide not in left_out]
    for run, model in _of_models(models):
        _check_unseen(model, fold_of, records[run], patients)
    for slide, why in left_out.items():
        logging.warning("%s is left out: %s", slide, why)
    return Results(
        slides,
        {run: [found[slide] for slide in slides] for run, found in records.items()},
        np.array([fold_of[slide] for slide in slides], dtype=np.int64),
        left_out,
    )


def _of_models(models: Sequence[str]) -> Iterator[tuple[Run, str]]:
    for path in models:
        variant, seed = Path(path).parts[-4:-2]
        yield (variant, seed), path


def _check_unseen(
    model: str, folds: Mapping[str, int], records: Mapping[str, Record], patients: Mapping[str, str]
) -> None:
    """Check that a fold's model has seen neither the slides of that fold nor their patients."""
    fold, seen = int(Path(model).parent.name.removeprefix("fold_")), Seen.of(load_metadata(model), patients)
    for slide, record in records.items():
        leakage = seen.leakage(record["provenance"]["identity"], record["patient"]) if folds[slide] == fold else ""
        if leakage:
            raise TrainingError(
                stage="compare_variants",
                slide=slide,
                finding=f"the model {model} is judged by it and knows it: {leakage}",
                remedy=f"delete {' and '.join(str(Path(model).parents[4] / name) for name in ('models', 'variants'))} "
                "and run again: all models are then trained anew",
            )
