"""Compare the variants of an experiment: tables, a summary as JSON, and its headline."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from lesionmap.evaluation.leakage import Seen
from lesionmap.experiments.costs import OF_COSTS, costs_of
from lesionmap.experiments.results import Record, Results, held_out_results, run_of
from lesionmap.experiments.statistics import Difference, differences, entries, holm
from lesionmap.files.model_metadata import load_metadata
from lesionmap.files.records import read_json, write_json, write_table, write_text
from lesionmap.formatting import counted, in_table
from lesionmap.jobs.quarantine import usable
from lesionmap.metrics.slide_table import SlideTable, is_evaluated

JUDGED = {"held_out": "out of fold", "tested": "ensemble, test slides"}
HEADLINE = "slide_mean_dice"
Row = Mapping[str, Any]
OF_TABLE = (
    *("variant", "judged", "metric", "value", "low", "high", "seed_sd", "fold_sd"),
    *("slides", "patients", "note"),
)
OF_DIFFERENCES = ("metric", "variant", "minus", "difference", "low", "high", "p", "p_holm", "patients", "note")
OF_SLIDES = ("variant", "run", "fold", "slide", "patient", "threshold", "annotated_mm2", "predicted_mm2")


@dataclass(frozen=True)
class ComparedFiles:
    """Where the comparison is written.

    Parameters
    ----------
    table : str
        TSV, one row per variant and metric: mean over seeds, 95 % interval, spread over seeds and over folds.
    differences : str
        TSV, one row per pair of variants and metric: paired difference, 95 % interval, p-value, the same after Holm.
    slides : str
        TSV, one row per variant, seed and slide: its metrics by a model that has not seen its patient.
    costs : str
        TSV, one row per variant: hours, memory.
    summary : str
        All of it but the slides as JSON.
    headline : str
        Text: a line per variant, a line per comparison, and a last line for programs.
    """

    table: str
    differences: str
    slides: str
    costs: str
    summary: str
    headline: str


@dataclass(frozen=True)
class ComparedInputs:
    """What is compared.

    Parameters
    ----------
    folds : str
        See :func:`lesionmap.experiments.results.held_out_results`, as for `metrics`, `models` and `patients`.
    ensemble : sequence of str
        Metrics of the test slides by the ensembles, …/<variant>/ensemble/metrics/slides/<slide>.json; may be empty.
    recipes : mapping of str to str
        The recipe of each variant.
    n_folds : int
        Number of folds.
    benchmarks : str
        Folder of Snakemake's benchmark files.
    """

    folds: str
    metrics: Sequence[str]
    models: Sequence[str]
    ensemble: Sequence[str]
    patients: Mapping[str, str]
    recipes: Mapping[str, str]
    n_folds: int
    benchmarks: str


def compare_variants(inputs: ComparedInputs, files: ComparedFiles, min_lesion_um: float) -> None:
    """Write the tables of an experiment.

    Parameters
    ----------
    min_lesion_um : float
        See :func:`lesionmap.evaluation.summary.summarise`.

    Raises
    ------
    TrainingError
        If a model has seen a slide that it is judged by, or its patient.
    """
    results = held_out_results(inputs.metrics, inputs.models, inputs.folds, inputs.patients)
    tested, leaked = _tested(inputs)
    about = {
        "folds": inputs.n_folds,
        "seeds": len(results.seeds),
        "slides": len(results.slides),
        "left_out": results.left_out,
        "leaked_test_slides": leaked,
    }
    found: dict[str, list[dict[str, Any]]] = {
        "held_out": [*_rows_of_variants(results, min_lesion_um)],
        "tested": [*_rows_of_ensembles(tested, min_lesion_um)],
        "differences": _compared(results, min_lesion_um),
        "costs": [costs_of(name, inputs.recipes[name], results.seeds, inputs.benchmarks) for name in results.variants],
    }
    judged = [{"judged": kind} | row for key, kind in JUDGED.items() for row in found[key]]
    slides = [*_rows_of_slides(results, tested)]
    metrics = [key for key in slides[0] if key not in OF_SLIDES] if slides else []
    _write(files.table, judged, OF_TABLE)
    _write(files.differences, found["differences"], OF_DIFFERENCES)
    _write(files.slides, slides, (*OF_SLIDES, *metrics))
    _write(files.costs, found["costs"], OF_COSTS)
    write_json(files.summary, about | found)
    write_text(files.headline, "\n".join(_headline(about, found["held_out"], found["differences"])) + "\n")


def _write(path: str, rows: Sequence[Row], columns: Sequence[str]) -> None:
    write_table(path, [{key: in_table(value) for key, value in row.items()} for row in rows], columns)


def _rows_of_variants(results: Results, min_lesion_um: float) -> Iterator[dict[str, Any]]:
    for variant in results.variants if results.slides else ():
        for entry in entries(results.tables(variant, min_lesion_um), results.fold):
            yield {"variant": variant, **entry}


def _tested(inputs: ComparedInputs) -> tuple[dict[str, list[Record]], list[str]]:
    """Test slides that none of a variant's models has seen, by variant; and those that one has."""
    found, leaked = dict[str, list[Record]](), list[str]()
    seen: dict[str, list[Seen]] = {}
    for model in inputs.models:
        seen.setdefault(Path(model).parts[-4], []).append(Seen.of(load_metadata(model), inputs.patients))
    for path in usable(inputs.ensemble):
        (variant, _), record = run_of(path), read_json(path)
        identity, patient = record["provenance"]["identity"], record["patient"]
        if any(one.leakage(identity, patient) for one in seen[variant]):
            leaked.append(record["slide"])
        elif is_evaluated(record):
            found.setdefault(variant, []).append(record)
    return found, list(dict.fromkeys(leaked))


def _rows_of_ensembles(tested: Mapping[str, Sequence[Record]], min_lesion_um: float) -> Iterator[dict[str, Any]]:
    for variant, records in tested.items():
        table = SlideTable.of(records, min_lesion_um)
        for entry in entries([table], table.patient * 0):
            yield {"variant": variant, **entry}


def _compared(results: Results, min_lesion_um: float) -> list[dict[str, Any]]:
    """Rows of the table of differences, metric by metric; p-values are adjusted for the pairs of each metric."""
    found: dict[tuple[str, str], list[Difference]] = {}
    for first, second in combinations(results.variants, 2) if results.slides else ():
        found[first, second] = differences(results.paired(first, second, min_lesion_um))
    rows = []
    for of_metric in zip(*found.values(), strict=True):
        adjusted = holm(dict(zip(found, (one.p for one in of_metric), strict=True)))
        for (first, second), one in zip(found, of_metric, strict=True):
            row = {"variant": second, "minus": first, "difference": one.value, "p_holm": adjusted[first, second]}
            rows.append(asdict(one) | row)
    return rows


def _rows_of_slides(results: Results, tested: Mapping[str, Sequence[Record]]) -> Iterator[dict[str, Any]]:
    for (variant, seed), records in results.records.items():
        for fold, record in zip(results.fold.tolist(), records, strict=True):
            yield {"variant": variant, "run": seed, "fold": fold} | _of_slide(record)
    for variant, tested_records in tested.items():
        for record in tested_records:
            yield {"variant": variant, "run": "ensemble", "fold": None} | _of_slide(record)


def _of_slide(record: Record) -> dict[str, Any]:
    metrics: dict[str, Any] = record["metrics"]
    return {key: record[key] for key in OF_SLIDES[3:]} | metrics


def _headline(about: Row, held_out: Sequence[Row], compared: Sequence[Row]) -> Iterator[str]:
    """In words, and a last line: variants, folds, seeds, the best by mean Dice of slides, and how far ahead it is."""
    found = [row for row in held_out if row["metric"] == HEADLINE]
    counts = ", ".join(counted(about[f"{noun}s"], noun) for noun in ("slide", "fold", "seed"))
    yield f"out of fold: {counts}; mean Dice of slides"
    ranked = sorted((row for row in found if row["value"] is not None), key=lambda row: row["value"], reverse=True)
    for row in [*ranked, *(row for row in found if row["value"] is None)]:
        yield f"  {row['variant']}: {_with_interval(row, 'value')}"
    for slide, why in about["left_out"].items():
        yield f"  left out: {slide}, {why}"
    for row in compared:
        if row["metric"] == HEADLINE:
            p = "" if row["p"] is None else f", p {row['p']:.3g}, after Holm {row['p_holm']:.3g}"
            yield f"  {row['variant']} − {row['minus']}: {_with_interval(row, 'difference')}{p}"
    ahead = f"{ranked[0]['value'] - ranked[1]['value']:.4f}" if len(ranked) > 1 else "NA"
    best = ranked[0]["variant"] if ranked else "NA"
    yield f"cv: variants={len(found)} folds={about['folds']} seeds={about['seeds']} best={best} minus_next={ahead}"


def _with_interval(row: Row, key: str) -> str:
    if row[key] is None:
        return "undefined"
    interval = "" if row["low"] is None else f" ({row['low']:.3f} to {row['high']:.3f})"
    return f"{row[key]:.3f}{interval}"
