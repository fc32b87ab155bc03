"""The metrics of all held-out slides, as far as every variant and seed has them, and proof that no model knew them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesionmap.errors import TrainingError
from lesionmap.evaluation.leakage import Seen
from lesionmap.experiments.folds import read_folds
from lesionmap.files.model_metadata import load_metadata
from lesionmap.files.records import read_json
from lesionmap.jobs.quarantine import usable
from lesionmap.metrics.cohort import SlideTable, is_evaluated

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
    left_out : list of str
        Slides that not all runs could map and evaluate.
    """

    slides: list[str]
    records: dict[Run, list[Record]]
    fold: NDArray[np.int64]
    left_out: list[str]

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

    def together(self, first: str, second: str, min_lesion_um: float) -> list[SlideTable]:
        """The same of two variants, the slides of the second after those of the first."""
        return [
            SlideTable.of([*self.records[first, seed], *self.records[second, seed]], min_lesion_um)
            for seed in self.seeds
        ]


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
    fold_of, records = read_folds(folds), dict[Run, dict[str, Record]]()
    for path in paths:
        records.setdefault(run_of(path), {})
    for path in usable(paths):
        record = read_json(path)
        if is_evaluated(record):
            records[run_of(path)][record["slide"]] = record
    slides = list(dict.fromkeys(Path(path).stem for path in paths))
    common = [slide for slide in slides if all(slide in found for found in records.values())]
    for run, path in _of_models(models):
        _check_unseen(path, fold_of, records[run], patients)
    return Results(
        common,
        {run: [found[slide] for slide in common] for run, found in records.items()},
        np.array([fold_of[slide] for slide in common], dtype=np.int64),
        [slide for slide in slides if slide not in common],
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
                remedy=f"delete the folder {Path(model).parents[1]} and run again: its models are then trained anew",
            )


def pairs_of(variants: Sequence[str]) -> list[tuple[str, str]]:
    """All pairs of variants, the one that is named first in the config first."""
    return [(first, second) for number, first in enumerate(variants) for second in variants[number + 1 :]]
