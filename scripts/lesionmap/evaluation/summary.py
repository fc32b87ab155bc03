"""Summarise all evaluated slides: tables, a summary as JSON, and the headline (docs/metrics.md)."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesionmap.annotations.classes import LESION
from lesionmap.evaluation.groups import COLUMNS as OF_GROUPS
from lesionmap.evaluation.groups import Groups, group_rows
from lesionmap.evaluation.leakage import (
    GROUPS,
    LEAKED,
    UNSEEN,
    Seen,
    group_of,
    leaks_in_words,
    mark_of,
    refuse,
    validation_of,
)
from lesionmap.files.records import read_json, read_table, write_json, write_table, write_text
from lesionmap.formatting import counted, in_table
from lesionmap.maps.probability import as_probability
from lesionmap.metrics.boundaries import BOUNDARY_METRICS
from lesionmap.metrics.calibration import net_benefit, net_benefit_of_everything
from lesionmap.metrics.cohort import SWEEP, Metric, with_intervals
from lesionmap.metrics.froc import froc_curve
from lesionmap.metrics.intervals import LEAST_PATIENTS, LEVEL
from lesionmap.metrics.lesion_sizes import SIZE_NAMES
from lesionmap.metrics.pixels import Histograms, binary_metrics, calibration_sums
from lesionmap.metrics.readers import reader_agreement
from lesionmap.metrics.slide_table import SlideTable, is_evaluated
from lesionmap.metrics.verdicts import FALSE, NOT_JUDGED

OF_SLIDES = (
    *("annotated_mm2", "predicted_mm2", "annotated_lesions", "found_lesions", "false_lesions"),
    *("ignored_mm2", "ignored_lesions", "highest_probability", "patient"),
)
OF_TEXT = ("slide", "split", "patient", "leakage")
OF_COHORT = ("split", "metric", "value", "low", "high", "slides", "patients", "note", "mark")
OF_DIFFERENCE = ("difference", "difference_low", "difference_high")
OF_READERS = ("split", "pair", *OF_COHORT[1:-1], *OF_DIFFERENCE, "mark")
NO_HEADLINE = "no evaluated slide is independent of the model, so there is no headline metric"
MARKED = "not independent of the model: "


@dataclass(frozen=True)
class SummaryFiles:
    """Where the metrics are written.

    Parameters
    ----------
    slides : str
        TSV, one row per slide.
    cohort : str
        TSV, one row per split and metric.
    summary : str
        JSON: metrics, threshold sweep, calibration, decision curve, FROC curve, lesions by size, histograms and ignored
        area of each split and of leaked slides (``splits``); the rules of intervals and lesions; what kind of
        ``validation`` it is. ``mark`` says why metrics are not independent of the model. A slide of which nothing was
        evaluated is in its split's ignored area only.
    headline : str
        Text: Dice and AUROC of each split and of each of its slides; below them, marked, those that are not independent
        of the model; what kind of validation this is.
    readers : str
        TSV, one row per split, pair of model and readers, and metric; no rows if no slide has a second reader.
    groups : str
        TSV, one row per split, value of a group and metric; no row without groups. Leaked slides are left out.
    """

    slides: str
    cohort: str
    summary: str
    headline: str
    readers: str
    groups: str


def summarise(
    metric_paths: Sequence[str],
    files: SummaryFiles,
    min_lesion_um: float,
    seen: Seen = UNSEEN,
    *,
    groups: Groups = MappingProxyType({}),
    on_leakage: str = "mark",
    external: bool = False,
) -> None:
    """Write the metrics of all evaluated slides and of each split.

    Slides that the model has seen are left out of their split; they are a group of their own, ``leaked``.

    Parameters
    ----------
    metric_paths : sequence of str
        Files of :func:`lesionmap.evaluation.evaluate.evaluate_slide`; may be empty.
    min_lesion_um : float
        Annotated lesions of smaller extent (µm) do not count for the FROC curve.
    seen : Seen
        What the model has seen; by default nothing.
    groups : mapping of str to mapping
        Name of a group → slide → value, such as the name of its scanner.
    on_leakage : str
        ``mark`` or ``refuse``.
    external : bool
        Whether the model comes from another run.

    Raises
    ------
    SettingsError
        If the model has seen a slide, and `on_leakage` is ``refuse``.
    """
    records = [read_json(path) for path in metric_paths]
    rows = [_row(record, seen) for record in records]
    if leaks := {row["slide"]: row["leakage"] for row in rows if _group(row) == LEAKED}:
        logging.warning("%s", leaks_in_words(leaks))
    if on_leakage == "refuse":
        refuse(leaks, "summarise")
    validation = validation_of(seen, [(row["leakage"], row["patient"]) for row in rows], external=external)
    of_pixels = binary_metrics(Histograms.empty(), threshold=0.5)
    columns = ["slide", "split", "leakage", *of_pixels, *BOUNDARY_METRICS, *OF_SLIDES]
    write_table(files.slides, [{key: in_table(value) for key, value in row.items()} for row in rows], columns)
    splits = _splits(records, rows, min_lesion_um)
    rules = {"level": LEVEL, "least_patients": LEAST_PATIENTS, "min_lesion_um": min_lesion_um}
    notes = list(seen.notes) if rows else []
    write_json(files.summary, {"rules": rules, "notes": notes, "validation": validation, "splits": splits})
    write_table(files.cohort, list(_cohort_rows(splits)), OF_COHORT)
    write_table(files.readers, list(_reader_rows(records, rows)), OF_READERS)
    write_table(files.groups, list(_group_rows(records, rows, groups, splits, min_lesion_um)), OF_GROUPS)
    lines = [*_headline(splits, rows), *filter(None, [validation]), *notes]
    write_text(files.headline, "\n".join(lines) + "\n")


def _splits(
    records: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]], min_lesion_um: float
) -> dict[str, dict[str, Any]]:
    """Summary of each split, and of leaked slides; `rows` are those of `records`."""
    found = {}
    for group in GROUPS:
        members = [row for row in rows if _group(row) == group]
        if evaluated := _evaluated(records, rows, group):
            mark = mark_of(group, (row["leakage"] for row in members))
            summary = summary_of(SlideTable.of(evaluated, min_lesion_um))
            found[group] = {"mark": mark} | summary | {"ignored": _ignored(members)}
    return found


def _evaluated(
    records: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]], group: str
) -> list[Mapping[str, Any]]:
    """Records of the slides of a split, or of leaked ones, that have an evaluated pixel."""
    pairs = zip(records, rows, strict=True)
    return [record for record, row in pairs if _group(row) == group and is_evaluated(record)]


def _group_rows(
    records: Sequence[Mapping[str, Any]],
    rows: Sequence[Mapping[str, Any]],
    groups: Groups,
    splits: Mapping[str, Any],
    min_lesion_um: float,
) -> Iterator[dict[str, Any]]:
    """Rows of the table of subgroups: of each split, without leaked slides."""
    for split in (split for split in splits if split != LEAKED):
        for row in group_rows(_evaluated(records, rows, split), groups, min_lesion_um):
            yield row | {"split": split, "mark": splits[split]["mark"]}


def _group(row: Mapping[str, Any]) -> str:
    return group_of(row["split"], row["leakage"])


def read_slide_table(path: str) -> list[dict[str, Any]]:
    """Rows of the slide table, with numbers as float; NaN where there is none."""
    return [{key: _as_read(key, text) for key, text in row.items()} for row in read_table(path)]


def _as_read(key: str, text: str) -> str | float:
    if key in OF_TEXT:
        return text
    return math.nan if text == "NA" else float(text)


def summary_of(table: SlideTable) -> dict[str, Any]:
    """Summary of one split, which can be written as JSON."""
    entries = with_intervals(table)
    pooled = table.counts.sum(axis=0)
    n_slides, n_lesions = len(table.patient), table.n_lesions.sum()
    false, sensitivity = froc_curve(
        table.false_positive_scores.sum(axis=0), table.detection_scores.sum(axis=0), np.array(n_slides), n_lesions
    )
    return {
        "slides": n_slides,
        "patients": len(np.unique(table.patient)),
        "slides_with_lesion": int(table.has_lesion.sum()),
        "threshold": table.threshold,
        "metrics": _at(entries, None),
        "sweep": [{"threshold": threshold, **_at(entries, threshold)} for threshold in SWEEP],
        "calibration": _calibration(pooled),
        "decision_curve": _decision_curve(pooled),
        "froc": {"false_per_slide": false.tolist(), "sensitivity": sensitivity.tolist() if n_lesions else None},
        "lesions": _lesions(table.by_size.sum(axis=0)),
        "histograms": Histograms(pooled.astype(np.int64)).record(),
    }


def _at(entries: Mapping[Metric, Any], threshold: float | None) -> dict[str, Any]:
    """Entries of the sweep at a threshold, by name; None: those that are not part of the sweep."""
    return {metric.name: entry for metric, entry in entries.items() if metric.threshold == threshold}


def _calibration(counts: NDArray[np.int64]) -> list[dict[str, float]]:
    """Pixels, mean probability and share of lesion of each bin that has pixels."""
    sums = calibration_sums(counts[LESION], counts.sum(axis=0) - counts[LESION])
    bins = zip(*(part.tolist() for part in sums), strict=True)
    names = ("pixels", "mean_probability", "share_of_lesion")
    return [dict(zip(names, (n, total / n, lesion / n), strict=True)) for n, total, lesion in bins if n]


def _decision_curve(counts: NDArray[np.float64]) -> list[dict[str, float]]:
    """Net benefit at each threshold of the sweep: of the map, and of predicting lesion everywhere or nowhere."""
    return [
        {
            "threshold": threshold,
            "map": float(net_benefit(counts, threshold)),
            "everything": float(net_benefit_of_everything(counts, threshold)),
            "nothing": 0.0,
        }
        for threshold in SWEEP
    ]


def _lesions(by_size: NDArray[np.int64]) -> dict[str, dict[str, int]]:
    """Numbers of annotated lesions of each size, and of those that the map finds; `by_size` is (4, 2)."""
    counts = (dict(zip(("annotated", "found"), pair, strict=True)) for pair in by_size.tolist())
    return dict(zip(SIZE_NAMES, counts, strict=True))


def _ignored(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """What annotations say to ignore on the slides of a split: mm², slides that have any, predicted lesions in it."""
    slides = sum(row["ignored_mm2"] > 0 for row in rows)
    mm2, lesions = (sum(row[key] for row in rows) for key in ("ignored_mm2", "ignored_lesions"))
    return {"slides": slides, "mm2": round(mm2, 9), "lesions": lesions}


def _row(record: Mapping[str, Any], seen: Seen) -> dict[str, Any]:
    """A slide's row of the table."""
    lesions, highest = record["lesions"], record["highest_score"]
    return {
        **{key: record[key] for key in ("slide", "split", "patient", "annotated_mm2", "predicted_mm2", "ignored_mm2")},
        "leakage": seen.leakage(record["provenance"]["identity"], record["patient"]),
        **record["metrics"],
        **{name: record["boundary"][name] for name in BOUNDARY_METRICS},
        "annotated_lesions": sum(lesion["pixels"] > 0 for lesion in lesions),
        "found_lesions": sum(lesion["predicted_pixels"] > 0 for lesion in lesions),
        "false_lesions": record["verdicts"][FALSE],
        "ignored_lesions": record["verdicts"][NOT_JUDGED],
        "highest_probability": float(as_probability(np.array(highest))) if is_evaluated(record) else None,
    }


def _cohort_rows(splits: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for split, summary in splits.items():
        for name, entry in summary["metrics"].items():
            numbers = {key: in_table(entry[key]) for key in ("value", "low", "high")}
            yield {"split": split, "metric": name, **entry, **numbers, "mark": summary["mark"]}


def _reader_rows(records: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Agreement of model and readers on the slides of each group that two have annotated."""
    for group in GROUPS:
        pairs = [pair for pair in zip(records, rows, strict=True) if _group(pair[1]) == group]
        members = [(record, row["leakage"]) for record, row in pairs if record["readers"] and is_evaluated(record)]
        if members:
            mark = mark_of(group, (leakage for _, leakage in members))
            for entry in reader_agreement([record for record, _ in members]):
                numbers = {key: in_table(entry.get(key)) for key in ("value", "low", "high", *OF_DIFFERENCE)}
                yield {"split": group, "mark": mark} | entry | numbers


def _headline(splits: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Each group with its slides: first those whose metrics are independent of the model."""
    if not rows:
        yield "no slide was evaluated"
    elif splits and all(summary["mark"] for summary in splits.values()):
        yield NO_HEADLINE
    for group in sorted(GROUPS, key=lambda group: bool(splits.get(group, {}).get("mark"))):
        if summary := splits.get(group):
            words = ", ".join(_in_words(name, summary["metrics"][name.lower()]) for name in ("Dice", "AUROC"))
            name = "leaked slides" if group == LEAKED else f"split {group}"
            before, after = (MARKED, f"; {summary['mark']}") if summary["mark"] else ("lesion, ", "")
            yield f"{before}{name} ({counted(summary['slides'], 'slide')}): {words}{after}"
        for row in (row for row in rows if _group(row) == group):
            words = ", ".join(_in_words(name, {"value": row[name.lower()], "low": None}) for name in ("Dice", "AUROC"))
            yield f"  {row['slide']}: {words}" + (f" ({row['leakage']})" if row["leakage"] else "")


def _in_words(name: str, entry: Mapping[str, Any]) -> str:
    if entry["value"] is None:
        return f"{name} undefined"
    between = "" if entry["low"] is None else f" (95 % {entry['low']:.3f}–{entry['high']:.3f})"
    return f"{name} {entry['value']:.3f}{between}"
