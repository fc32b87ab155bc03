"""Content of the report's cohort page: metrics, compared models, the worst slides, and run times."""

import math
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lesionmap.evaluation.findings_in_words import total_in_words, with_lesions, without_lesions
from lesionmap.files.records import read_json, read_table
from lesionmap.formatting import as_number
from lesionmap.jobs.provenance import commit, versions
from lesionmap.metrics.pairs import OF_MODEL
from lesionmap.report.inputs import ReportInputs
from lesionmap.report.references import cited_sources
from lesionmap.report.slides import SlideReport
from lesionmap.slides.sheet import SPLITS
from lesionmap.training.learning_curves import published_epoch, read_history
from lesionmap.version import VERSION

MOST_WORST = 10
MOST_FOUND = 12
COMPARED_METRICS = ("dice", "auroc", "froc_score", "lesion_recall", "slide_auroc_area")
GROUPED_METRICS = ("dice", "auroc", "lesion_recall")
LATER_STAGES = ("render_report", "conclude")  # their times come from an earlier run, if there are any
TableRow = Mapping[str, Any]


def cohort_content(inputs: ReportInputs, slides: list[SlideReport], config: Mapping[str, Any]) -> dict[str, Any]:
    """Content of the cohort page, besides what all pages share."""
    history = read_history(inputs.history) if inputs.history else None
    summary = read_json(inputs.summary)
    evaluated = [slide.metrics for slide in slides if slide.metrics]
    found = read_table(inputs.found)
    return {
        "findings": {
            "total": total_in_words(found),
            "some": with_lesions(found),
            "none": without_lesions(found),
            "most": MOST_FOUND,
            "judged": any(row["annotated_lesions"] != "NA" for row in found),
        },
        "tables": sorted(copied_tables(inputs.tables)),
        "version": VERSION,
        "commit": commit(),
        "versions": versions(),
        "slides": slides,
        "shown": {slide.slide for slide in slides if slide.viewable},
        "split_counts": {split: sum(slide.split == split for slide in slides) for split in SPLITS},
        "quarantine": read_table(inputs.quarantine),
        "failed_exports": read_table(inputs.failed_exports),
        "summary": summary,
        "lead": next((group for group, found in summary["splits"].items() if not found["mark"]), None),
        "lowest_dice": lowest_dice(evaluated),
        "largest_false_positives": largest_false_positives(evaluated),
        "all_have_lesion": all(map(has_lesion, evaluated)),
        "models": compared_models(inputs.models) if inputs.models else [],
        "before_after": before_and_after(*inputs.before_after) if inputs.before_after else None,
        "readers": agreement_of_readers(inputs.readers),
        "subgroups": subgroups(inputs.groups),
        "epochs": 0 if history is None else len(history),
        "published": None if history is None else published_epoch(history),
        "sources": cited_sources(config["stain"], mapped=bool(slides), evaluated=bool(summary["splits"])),
    }


def copied_tables(paths: Sequence[str]) -> dict[str, str]:
    """Paths of the cohort's small files by their place in the report, which is that below the folder of all results."""
    results = os.path.commonpath(paths) if paths else ""
    return {Path(path).relative_to(results).as_posix(): path for path in paths}


def lowest_dice(rows: Iterable[TableRow]) -> list[TableRow]:
    """Evaluated slides with annotated lesion, lowest Dice first, at most ten.

    Parameters
    ----------
    rows : iterable of mappings
        Rows of the slide table of :func:`lesionmap.evaluation.summary.summarise`.
    """
    return sorted((row for row in rows if has_lesion(row)), key=lambda row: row["dice"])[:MOST_WORST]


def largest_false_positives(rows: Iterable[TableRow]) -> list[TableRow]:
    """Evaluated slides without annotated but with predicted lesion, largest area first, at most ten.

    All lesion predicted on them is false. Of slides with equal area, the one with more false lesions comes first.
    """
    false = (row for row in rows if not has_lesion(row) and row["predicted_mm2"] > 0)
    return sorted(false, key=lambda row: (row["predicted_mm2"], row["false_lesions"]), reverse=True)[:MOST_WORST]


def has_lesion(row: TableRow) -> bool:
    """Whether an evaluated slide has annotated lesion; only then is its Dice defined."""
    return not math.isnan(row["dice"])


def compared_models(path: str) -> list[dict[str, Any]]:
    """The most important metrics of the compared models, and their differences from this run's model.

    Parameters
    ----------
    path : str
        File of :func:`lesionmap.evaluation.model_comparison.compare_models`.
    """
    return [
        {key: row[key] for key in ("split", "metric", "model", "mark")}
        | {"measured": _entry(row, "value", "low", "high")}
        | {"difference": _entry(row, "difference", "difference_low", "difference_high")}
        for row in read_table(path)
        if row["metric"] in COMPARED_METRICS
    ]


def before_and_after(table: str, counts: str) -> dict[str, Any]:
    """The maps before and after corrections: how many slides are compared, and pairs of rows, before first.

    Parameters
    ----------
    table, counts : str
        Files of :func:`lesionmap.evaluation.model_comparison.compare_with_before`.
    """
    rows, found = compared_models(table), dict[str, Any](read_json(counts))
    return found | {"pairs": list(zip(rows[::2], rows[1::2], strict=True))}


def agreement_of_readers(path: str) -> list[dict[str, Any]]:
    """Each metric of each split, of all pairs of model and readers, with the slides and patients that it rests on.

    Parameters
    ----------
    path : str
        Table of readers of :func:`lesionmap.evaluation.summary.summarise`.
    """
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in read_table(path):
        of_metric = found.setdefault((row["split"], row["metric"]), dict(row) | {"pairs": {}})
        of_metric["pairs"][row["pair"]] = _entry(row, "value", "low", "high")
        if row["pair"] == OF_MODEL:
            of_metric["change"] = _entry(row, "difference", "difference_low", "difference_high")
    return list(found.values())


def subgroups(path: str) -> dict[str, list[dict[str, Any]]]:
    """Rows of each group's table: split and its mark, value, slides and patients, and the most important metrics.

    Parameters
    ----------
    path : str
        The table of subgroups of :func:`lesionmap.evaluation.summary.summarise`.
    """
    found: dict[str, dict[tuple[str, str], dict[str, Any]]] = defaultdict(dict)
    for row in read_table(path):
        if row["metric"] in GROUPED_METRICS:
            about = {"split": row["split"], "mark": row["mark"], "value": row["group_value"]}
            about |= {"slides": row["group_slides"], "patients": row["group_patients"]}
            of_value = found[row["group"]].setdefault((row["split"], row["group_value"]), about)
            of_value[row["metric"]] = _entry(row, "value", "low", "high")
    return {group: list(rows.values()) for group, rows in found.items()}


def _entry(row: dict[str, str], *columns: str) -> dict[str, float | None]:
    numbers = (None if row[column] == "NA" else float(row[column]) for column in columns)
    return dict(zip(("value", "low", "high"), numbers, strict=True))


def stage_times(benchmarks: str) -> list[dict[str, Any]]:
    """Number of jobs, total and longest time (s), and peak memory (MB) of each stage; empty without benchmark files."""
    measured: dict[str, list[tuple[float, float | None]]] = defaultdict(list)
    for path in sorted(Path(benchmarks).rglob("*.tsv")):
        stage = path.relative_to(benchmarks).parts[0].removesuffix(".tsv")
        measured[stage] += [(float(row["s"]), as_number(row["max_rss"])) for row in read_table(path)]
    times = [
        {
            "stage": stage,
            "jobs": len(jobs),
            "seconds": sum(seconds for seconds, _ in jobs),
            "longest_s": max(seconds for seconds, _ in jobs),
            "peak_mb": max((peak for _, peak in jobs if peak is not None), default=math.nan),
        }
        for stage, jobs in measured.items()
        if stage not in LATER_STAGES
    ]
    return sorted(times, key=lambda row: row["seconds"], reverse=True)
