"""Metrics of subgroups of slides, such as those of one scanner (``evaluation.groups``, docs/metrics.md)."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lesionmap.files.records import read_json
from lesionmap.formatting import in_table
from lesionmap.metrics.cohort import with_intervals
from lesionmap.metrics.slide_table import SlideTable

STAIN = "stain"  # a group of its own, which needs no column
NOT_STATED = "not stated"
COLUMNS = (
    *("split", "group", "group_value", "group_slides", "group_patients"),
    *("metric", "value", "low", "high", "slides", "patients", "note", "mark"),
)
Groups = Mapping[str, Mapping[str, str]]


def group_values(
    groups: Sequence[str], sheet: Mapping[str, Mapping[str, str]], stain_paths: Sequence[str]
) -> dict[str, dict[str, str]]:
    """Value of each group for each slide; empty where the sheet has none.

    Parameters
    ----------
    groups : sequence of str
        ``evaluation.groups``: columns of the slide sheet, and ``stain`` for the verdict on the slide's stain.
    sheet : mapping of str to mapping
        Slide → column → text.
    stain_paths : sequence of str
        Files of :func:`lesionmap.stain.match.match_slide`; needed for ``stain`` alone.
    """
    verdicts = {record["slide"]: record["fitted"]["verdict"] for record in map(read_json, stain_paths)}
    columns = {group: {slide: row[group] for slide, row in sheet.items()} for group in groups if group != STAIN}
    return {group: verdicts if group == STAIN else columns[group] for group in groups}


def group_rows(records: Sequence[Mapping[str, Any]], groups: Groups, min_lesion_um: float) -> Iterator[dict[str, Any]]:
    """Rows of the table of subgroups for the evaluated slides of one split, without split and mark.

    Values are in alphabetical order, slides without one (``not stated``) last.
    """
    for group, values in groups.items():
        members = defaultdict(list)
        for record in records:
            members[values[record["slide"]] or NOT_STATED].append(record)
        for value in sorted(members, key=lambda value: (value == NOT_STATED, value)):
            table = SlideTable.of(members[value], min_lesion_um)
            sizes = {"group_slides": len(table.patient), "group_patients": len(np.unique(table.patient))}
            for metric, entry in with_intervals(table).items():
                if metric.threshold is None:
                    numbers = {key: in_table(entry[key]) for key in ("value", "low", "high")}
                    yield {"group": group, "group_value": value, **sizes, "metric": metric.name, **entry, **numbers}
