"""What the cohort's page of the report shows beside its slides: figures, models, the worst slides, how long it took."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from lesionmap.files.records import read_json, table_rows, text_rows
from lesionmap.jobs.provenance import commit, versions
from lesionmap.report.inputs import ReportInputs
from lesionmap.report.references import cited_sources
from lesionmap.report.slides import SlideReport
from lesionmap.training.learning_curves import published_epoch
from lesionmap.version import VERSION

SPLITS = ("train", "val", "test", "inference")
MOST_WORST = 10
COMPARED_FIGURES = ("dice", "auroc", "froc_score", "lesion_recall", "slide_auroc_area")
LATER_STAGES = ("render_report", "conclude")  # what an earlier run left of them is no part of this report
Row = Mapping[str, Any]


def _cohort_facts(inputs: ReportInputs, slides: list[SlideReport], config: Mapping[str, Any]) -> dict[str, Any]:
    history = pd.read_csv(inputs.history) if inputs.history else None
    summary = read_json(inputs.summary)
    evaluated = [slide.metrics for slide in slides if slide.metrics]
    return {
        "version": VERSION,
        "commit": commit(),
        "versions": versions(),
        "slides": slides,
        "split_counts": {split: sum(slide.split == split for slide in slides) for split in SPLITS},
        "quarantine": text_rows(inputs.quarantine),
        "summary": summary,
        "lowest_dice": lowest_dice(evaluated),
        "most_false": most_false(evaluated),
        "all_have_lesion": all(map(has_lesion, evaluated)),
        "models": compared_models(inputs.models) if inputs.models else [],
        "epochs": 0 if history is None else len(history),
        "published": None if history is None else published_epoch(history),
        "sources": cited_sources(config["stain"], evaluated=bool(summary["splits"])),
    }


def lowest_dice(rows: Iterable[Row]) -> list[Row]:
    """Evaluated slides with annotated lesion, those of the lowest Dice first, at most ten.

    Parameters
    ----------
    rows : iterable of mappings
        Of the slide table of :func:`lesionmap.evaluation.summary.summarise`.
    """
    return sorted((row for row in rows if has_lesion(row)), key=lambda row: row["dice"])[:MOST_WORST]


def most_false(rows: Iterable[Row]) -> list[Row]:
    """Evaluated slides without annotated lesion on which lesion is marked, the largest area first, at most ten.

    All that is marked on them is false. Of equal areas the slide with more false lesions comes first.
    """
    false = (row for row in rows if not has_lesion(row) and row["marked_mm2"] > 0)
    return sorted(false, key=lambda row: (row["marked_mm2"], row["false_lesions"]), reverse=True)[:MOST_WORST]


def has_lesion(row: Row) -> bool:
    """Whether lesion is annotated on an evaluated slide: Dice is defined just then."""
    return not math.isnan(row["dice"])


def compared_models(path: str) -> list[dict[str, Any]]:
    """Some figures of models that are compared, and what they differ by from this run's.

    Parameters
    ----------
    path : str
        File of :func:`lesionmap.evaluation.model_comparison.compare_models`.
    """
    return [
        {key: row[key] for key in ("split", "figure", "model")}
        | {"measured": _entry(row, "value", "low", "high")}
        | {"difference": _entry(row, "difference", "difference_low", "difference_high")}
        for row in text_rows(path)
        if row["figure"] in COMPARED_FIGURES
    ]


def _entry(row: dict[str, str], *columns: str) -> dict[str, float | None]:
    numbers = (None if row[column] == "NA" else float(row[column]) for column in columns)
    return dict(zip(("value", "low", "high"), numbers, strict=True))


def stage_times(benchmarks: str) -> list[dict[str, Any]]:
    """Jobs, summed and longest seconds, and peak memory (MB) of each stage; empty without benchmark files."""
    measured = [
        pd.read_csv(path, sep="\t").assign(stage=path.relative_to(benchmarks).parts[0].removesuffix(".tsv"))
        for path in sorted(Path(benchmarks).rglob("*.tsv"))
    ]
    if not measured:
        return []
    table = pd.concat(measured)
    stages = table[~table["stage"].isin(LATER_STAGES)].groupby("stage")
    times = stages.agg(jobs=("s", "size"), seconds=("s", "sum"), longest_s=("s", "max"))
    times["peak_mb"] = stages["max_rss"].max()
    return table_rows(times.sort_values("seconds", ascending=False).reset_index())
