"""Compare models on the same slides: the ablation table, and the model before and after corrections."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lesionmap.errors import ModelError
from lesionmap.evaluation.leakage import GROUPS, group_of, mark_of
from lesionmap.files.records import read_json, read_table, write_json, write_table
from lesionmap.formatting import in_table
from lesionmap.jobs.quarantine import usable
from lesionmap.metrics.boundaries import where_both
from lesionmap.metrics.cohort import entry_of, metrics_with_and_without
from lesionmap.metrics.intervals import LINEAR
from lesionmap.metrics.slide_table import SlideTable, is_evaluated

THIS_RUN, BEFORE, AFTER = "this run", "before", "after"
COLUMNS = (
    *("split", "metric", "model", "value", "low", "high", "slides", "patients", "note"),
    *("difference", "difference_low", "difference_high", "mark"),
)
UNKNOWN = "unknown whether the other model has seen these slides: its run is of an older version"
Records = Mapping[str, Mapping[str, Any]]


def compare_models(
    own: Sequence[str], slide_table: str, others: Mapping[str, str], output: str, min_lesion_um: float
) -> None:
    """Write the metrics of this run's model and of each other model on the slides that both have, and the differences.

    A difference is other − this run. For its interval each patient is left out of both models' metrics at once, so what
    makes a slide easy or difficult for both cancels out. Slides that either model has seen are apart from the others of
    their split, as in :func:`lesionmap.evaluation.summary.summarise`.

    Parameters
    ----------
    own : sequence of str
        Files of :func:`lesionmap.evaluation.evaluate.evaluate_slide`.
    slide_table : str
        Table of :func:`lesionmap.evaluation.summary.summarise`, which says which slides this run's model has seen.
    others : mapping of str to str
        Folder ``results/metrics`` of another run, by the name of its model.
    output : str
        TSV, one row per split, metric and model; NA where there is no interval or difference.
    min_lesion_um : float
        See :func:`lesionmap.evaluation.summary.summarise`.

    Raises
    ------
    ModelError
        If a model has no slide with the same content and split as in this run.
    """
    ours, rows = _records(own), list[dict[str, Any]]()
    own_leakages = _leakages(read_table(slide_table))
    for name, folder in others.items():
        theirs = _records(usable([str(path) for path in _files_of(folder, ours)]))
        common = [slide for slide in theirs if _comparable(ours[slide], theirs[slide])]
        if not common:
            raise ModelError(
                stage="compare_models",
                finding=f"evaluation.compare names {folder} for {name}, which has none of this run's evaluated slides "
                "as this version evaluates them",
                remedy="name the folder results/metrics of a run of this version with the same val or test slides, and "
                "the same evaluation.boundary_tolerance_um",
            )
        found = leakages_of(folder)
        leakages = {slide: [own_leakages[slide], (found or {}).get(slide, "")] for slide in common}
        of_pair = _rows({THIS_RUN: ours, name: theirs}, leakages, min_lesion_um)
        note = UNKNOWN if found is None else ""
        rows += (row | {"mark": "; ".join(filter(None, (row["mark"], note)))} for row in of_pair)
    write_table(output, [_as_text(row) for row in rows], COLUMNS)


def compare_with_before(
    own: Sequence[str], slide_table: str, before: str, table: str, counts: str, min_lesion_um: float
) -> None:
    """Compare the maps of this run with those before a review, on slides whose annotation is still the same.

    Parameters
    ----------
    own, slide_table, min_lesion_um
        As for :func:`compare_models`.
    before : str
        Folder of :func:`lesionmap.review.folder.write_review`.
    table : str
        TSV as that of :func:`compare_models`, of the models ``before`` and ``after``; a difference is after − before.
        It has no rows if all maps are still the same.
    counts : str
        JSON: ``compared`` slides; slides that both runs evaluated, but whose annotation has ``changed`` since; other
        slides of both that are ``not_comparable``, since they are evaluated in another way; and whether ``any_map``
        has changed.
    """
    after, earlier = _records(own), _records([str(path) for path in sorted(Path(before, "slides").glob("*.json"))])
    both = [slide for slide in after if slide in earlier]
    kept = [slide for slide in both if _annotation(after[slide]) == _annotation(earlier[slide])]
    common = [slide for slide in kept if _comparable(after[slide], earlier[slide])]
    any_map = any(_without_origin(after[slide]) != _without_origin(earlier[slide]) for slide in common)
    as_now = {slide: {**earlier[slide], "patient": after[slide]["patient"]} for slide in common}
    now, then = (_leakages(read_table(path)) for path in (slide_table, Path(before, "slides.tsv")))
    leakages = {slide: [now[slide], then.get(slide, "")] for slide in common if any_map}
    rows = _rows({BEFORE: as_now, AFTER: after}, leakages, min_lesion_um)
    write_table(table, [_as_text(row) for row in rows], COLUMNS)
    left_out = {"changed": len(both) - len(kept), "not_comparable": len(kept) - len(common)}
    write_json(counts, {"compared": len(common), **left_out, "any_map": any_map})


def _annotation(record: Mapping[str, Any]) -> str | None:
    """Digest of the annotation that a slide was held against; None if its run is of an older version."""
    digest: str | None = record["provenance"].get("annotation")
    return digest


def _without_origin(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key != "provenance"}


def _leakages(rows: Sequence[Mapping[str, str]]) -> dict[str, str]:
    return {row["slide"]: row["leakage"] for row in rows}


def _rows(
    models: Mapping[str, Records], leakages: Mapping[str, Sequence[str]], min_lesion_um: float
) -> Iterator[dict[str, Any]]:
    """Rows of two models, by name: the first and the other, on the slides of `leakages`, each group for itself."""
    first, _ = models.values()
    for group, members in _grouped(first, leakages).items():
        tables = [SlideTable.of([of[slide] for slide in members], min_lesion_um) for of in models.values()]
        both = where_both(*(table.boundaries for table in tables))
        pair = [
            replace(table, patient=tables[0].patient, boundaries=part) for table, part in zip(tables, both, strict=True)
        ]
        mark = mark_of(group, (leakage for slide in members for leakage in leakages[slide]))
        for row in _compared(tuple(models), pair):
            yield {"split": group, "mark": mark} | row


def leakages_of(folder: str) -> dict[str, str] | None:
    """How slides depend on another run's model; None if its table of slides is missing or of an older version."""
    table = Path(folder, "slides.tsv")
    rows = read_table(table) if table.exists() else []
    return {row["slide"]: row["leakage"] for row in rows if "leakage" in row} or None


def _grouped(ours: Records, leakages: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Slides by group; one that either model has seen is leaked."""
    groups = {
        slide: {group_of(ours[slide]["split"], leakage) for leakage in found} for slide, found in leakages.items()
    }
    return {
        group: members
        for group in GROUPS
        if (members := [slide for slide, found in groups.items() if max(found, key=GROUPS.index) == group])
    }


def _records(paths: Sequence[str]) -> Records:
    return {record["slide"]: record for record in map(read_json, paths)}


def _files_of(folder: str, ours: Records) -> Iterator[Path]:
    paths = (Path(folder, "slides", f"{slide}.json") for slide in ours)
    return (path for path in paths if path.exists())


def _comparable(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    identities = [record["provenance"]["identity"] for record in (ours, theirs)]
    same = identities[0] == identities[1] and ours["split"] == theirs["split"] and ours.keys() == theirs.keys()
    same = same and ours["boundary"]["tolerance_um"] == theirs["boundary"]["tolerance_um"]
    return same and is_evaluated(ours) and is_evaluated(theirs)


def _compared(names: Sequence[str], tables: Sequence[SlideTable]) -> Iterator[dict[str, Any]]:
    """Two rows for each metric: the first model and the other on the same slides."""
    (first, name), (ours, theirs) = names, tables
    (own_values, own_without), (values, without) = map(metrics_with_and_without, (ours, theirs))
    for metric, value in values.items():
        if metric.threshold is not None:
            continue
        yield {
            "metric": metric.name,
            "model": first,
            **entry_of(ours, metric, own_values[metric], own_without[metric]),
        }
        entry = entry_of(theirs, metric, value, without[metric])
        difference = value - own_values[metric]
        row = {"metric": metric.name, "model": name, **entry}
        if not np.isnan(difference):
            found = metric.interval(difference, without[metric] - own_without[metric], entry["patients"], LINEAR)
            row |= {"difference": difference, "difference_low": found.low, "difference_high": found.high}
        yield row


def _as_text(row: Mapping[str, Any]) -> dict[str, Any]:
    numbers = ("value", "low", "high", "difference", "difference_low", "difference_high")
    return {**row, **{key: in_table(row.get(key)) for key in numbers}}
