"""The checklist: item by item, what the report answers of what guidelines ask a paper to report.

The items stand in ``checklist.yaml``. An item is answered only if the run has every fact that it needs.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from lesionmap.files.model_metadata import load_metadata
from lesionmap.files.records import write_table
from lesionmap.report.checklist_facts import RUN_FACTS, Fact, Run
from lesionmap.report.checklist_metrics import METRIC_FACTS
from lesionmap.report.inputs import ReportInputs

GUIDELINES = Path(__file__).with_suffix(".yaml")
ANSWERED, PARTLY, FOR_AUTHOR = "answered", "partly", "for the author"
COLUMNS = ("guideline", "section", "item", "topic", "status", "facts", "where", "to_write")


def checklist_of(
    inputs: ReportInputs,
    content: Mapping[str, Any],
    config: Mapping[str, Any],
    *,
    card: Mapping[str, Any],
    map_mpp: float,
) -> list[dict[str, Any]]:
    """The guidelines, with what the run says to each item.

    Parameters
    ----------
    content : mapping
        From :func:`lesionmap.report.cohort.cohort_content`.
    card : mapping
        From :func:`lesionmap.report.model_card.card_metadata`.
    map_mpp : float
        Resolution of the lesion maps, µm/px.

    Returns
    -------
    list of dict
        Guidelines as in ``checklist.yaml``; each with ``counts`` of its items by status. Each item has a ``status``,
        ``facts`` (``text`` and ``links``: name → address from the report's folder) and ``to_write``, what is left.
    """
    run = Run(content, config, load_metadata(inputs.model), card, Path(inputs.summary).parents[1], map_mpp)
    known = {name: answer(run) for name, answer in {**RUN_FACTS, **METRIC_FACTS}.items()}
    asked = yaml.safe_load(GUIDELINES.read_text(encoding="utf-8"))
    return [_answered(guideline, known, asked["facts"]) for guideline in asked["guidelines"]]


def _answered(
    guideline: Mapping[str, Any], known: Mapping[str, Fact | None], places: Mapping[str, Any]
) -> dict[str, Any]:
    sections = [
        section | {"items": [item | _answer(item, known, places) for item in section["items"]]}
        for section in guideline["sections"]
    ]
    found = Counter(item["status"] for section in sections for item in section["items"])
    return dict(guideline) | {
        "sections": sections,
        "counts": {status: found[status] for status in (ANSWERED, PARTLY, FOR_AUTHOR)},
    }


def _answer(item: Mapping[str, Any], known: Mapping[str, Fact | None], places: Mapping[str, Any]) -> dict[str, Any]:
    """Status, facts and what is left to write of an item."""
    needed = item.get("facts", [])
    facts = {name: fact for name in [*needed, *item.get("also", [])] if (fact := known[name])}
    lacking = [name for name in needed if name not in facts or not facts[name].whole]
    to_write = [*filter(None, [item.get("write")]), *(places[name]["lacking"] for name in lacking)]
    return {
        "status": (PARTLY if to_write else ANSWERED) if facts else FOR_AUTHOR,
        "facts": [{"text": fact.text, "links": places[name]["links"]} for name, fact in facts.items()],
        "to_write": to_write,
    }


def write_checklist(target: str, guidelines: Iterable[Mapping[str, Any]]) -> None:
    """Write the checklist as TSV, a row for each item."""
    write_table(target, _rows(guidelines), COLUMNS)


def _rows(guidelines: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for guideline in guidelines:
        for section in guideline["sections"]:
            for item in section["items"]:
                yield {
                    "guideline": guideline["name"],
                    "section": section["name"],
                    **item,
                    "facts": " ".join(fact["text"] for fact in item["facts"]),
                    "where": ", ".join({link: None for fact in item["facts"] for link in fact["links"].values()}),
                    "to_write": "; ".join(item["to_write"]),
                }
