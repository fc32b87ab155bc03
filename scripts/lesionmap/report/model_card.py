"""The model card: what a model file says about the model, for people who did not train it."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from jinja2 import ChainableUndefined, Environment, FileSystemLoader
from safetensors import safe_open

from lesionmap.files.model_metadata import load_metadata
from lesionmap.files.records import sha256, write_text
from lesionmap.formatting import counted, with_interval

TEMPLATES = Path(__file__).parent / "templates/model_card"
MOST_SLIDES_LISTED = 100
VIEWS = ("low", "fused", "high")
METRICS = ("loss", "dice", "auroc", "calibration_slope", "calibration_intercept")
EVALUATED = ("dice", "auroc", "froc_score", "lesion_recall")
MARKUP = re.compile(r"([\\`*_\[\]<>|~&$#!])")


class Verbatim(str):
    """Markdown that we wrote; it is not escaped."""


class NotRecorded(ChainableUndefined):
    """A value that a model file lacks because an older version wrote it."""

    def __str__(self) -> str:
        return "not recorded"


@dataclass(frozen=True)
class Stated:
    """What only people know of a model; empty texts are "not stated" on the card.

    Parameters
    ----------
    contact, organ, scanner, hardware, license : str
        From the config section ``report``.
    classes : mapping of str to str
        Names in annotation files → classes, from the config section ``annotations``; empty for a model from elsewhere.
    """

    contact: str = ""
    organ: str = ""
    scanner: str = ""
    hardware: str = ""
    license: str = ""
    classes: Mapping[str, str] = field(default_factory=dict)


def describe_model(model: str, output: str, stated: Stated = Stated()) -> None:
    """Write the model card, with front matter as Hugging Face's Hub reads it, from the model file and what is stated.

    Parameters
    ----------
    model : str
        Model file; the card shows missing metadata as "not recorded".
    output : str
        Markdown.

    Raises
    ------
    ModelError
        If the file is not a LesionMap model.
    """
    card = card_metadata(model)
    shown = {
        "stated": vars(stated),
        "written": datetime.now(UTC).date().isoformat(),
        "front_matter": Verbatim(front_matter(card, stated)),
    }
    write_text(output, _templates().get_template("model_card.md.j2").render(card | shown))


def evaluation_section(splits: Mapping[str, Any]) -> str:
    """What the report adds to a card: metrics with intervals of the slides that are independent of the model, Markdown.

    Parameters
    ----------
    splits : mapping
        Of the summary of :func:`lesionmap.evaluation.summary.summarise`.
    """
    independent = {name: found for name, found in splits.items() if not found["mark"]}
    lines = ["", "## Evaluation in this run", ""]
    if not independent:
        return "\n".join([*lines, "No slide that is independent of the model was evaluated.", ""])
    lines += ["| Split | Slides | Patients | Metric | Value (95 % interval) |", "|---|---|---|---|---|"]
    for name, found in independent.items():
        about = f"| {name} | {found['slides']} | {found['patients']} |"
        lines += [f"{about} {key} | {with_interval(found['metrics'][key], 3)} |" for key in EVALUATED]
    return "\n".join([*lines, ""])


def front_matter(card: Mapping[str, Any], stated: Stated) -> str:
    """The card's metadata for a model hub, as YAML without its fences; metrics are those of the validation slides."""
    known: dict[str, Any] = {"license": stated.license} if stated.license else {}
    organ = [stated.organ] if stated.organ else []
    content: dict[str, Any] = known | {
        "library_name": "lesionmap",
        "pipeline_tag": "image-segmentation",
        "tags": ["histopathology", "whole-slide-image", "haematoxylin-eosin", *organ],
    }
    metrics = [
        {"type": name, "name": f"{name}, {row['view']} view", "value": value}
        for row in card["validation"]
        for name, value in row.items()
        if name != "view" and value is not None
    ]
    if metrics:
        dataset = {"name": "validation slides, which chose the epoch", "type": "private", "split": "validation"}
        result = {"task": {"type": "image-segmentation"}, "dataset": dataset, "metrics": metrics}
        content["model-index"] = [{"name": "LesionMap", "results": [result]}]
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100).rstrip()


def card_metadata(model: str) -> dict[str, Any]:
    """Content of a model card, for :func:`describe_model` and the report.

    Returns
    -------
    dict
        The metadata in the file; ``file``: its checksum and number of parameters; ``patients``: their number
        in words, of training and validation slides; ``validation``: metrics, a row for each view; ``most_slides``: how
        many slides are listed at most.
    """
    metadata = load_metadata(model)
    epoch = metadata.get("epoch", {})
    return metadata | {
        "file": _file_metadata(model),
        "patients": {name: _patients(metadata, name) for name in ("training_slides", "validation_slides")},
        "validation": [row for view in VIEWS if (row := _metrics(view, epoch))],
        "most_slides": MOST_SLIDES_LISTED,
    }


def _patients(metadata: Mapping[str, Any], slides: str) -> str:
    """How many patients the training or the validation slides are of, in words."""
    if "patients" not in metadata:
        return "Patients: not recorded"
    found = [metadata["patients"].get(slide) for slide in metadata.get(slides, {})]
    of_none = f", and {counted(found.count(None), 'slide')} without one" if None in found else ""
    return f"Patients: {len({*found} - {None})}{of_none}"


def _file_metadata(path: str) -> dict[str, Any]:
    with safe_open(path, framework="numpy") as file:
        numbers = sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 – not a mapping
    return {"sha256": sha256(path), "numbers": numbers}


def _metrics(view: str, epoch: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics of one view on the validation slides; empty if there are none."""
    found = {name: epoch[key] for name in METRICS if (key := f"val_{view}_{name}") in epoch}
    return {"view": view} | found if found else {}


def _templates() -> Environment:
    templates = Environment(  # noqa: S701 – Markdown; `escaped` escapes every value
        loader=FileSystemLoader(TEMPLATES),
        finalize=escaped,
        undefined=NotRecorded,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters |= FILTERS | {"code_block": code_block}
    return templates


def escaped(value: Any) -> str:
    """`value` on one line, with Markdown's special characters escaped; a dash for None."""
    if isinstance(value, Verbatim):
        return value
    return "—" if value is None else MARKUP.sub(r"\\\1", " ".join(str(value).split()))


def short(identity: Any) -> Any:
    """The first 12 digits of a checksum."""
    return identity[:12] if isinstance(identity, str) else identity


def rounded(value: Any, unit: str = "") -> Any:
    """A number with its unit, floats with four significant digits; anything else unchanged."""
    if not isinstance(value, int | float):
        return value
    return f"{value:.4g}{unit}" if isinstance(value, float) else f"{value}{unit}"


def listed(values: Any) -> Any:
    """A list of numbers, or a mapping of names to numbers in order of number, on one line; anything else unchanged."""
    if isinstance(values, dict):
        return ", ".join(f"{number} {name}" for name, number in sorted(values.items(), key=lambda item: item[1]))
    return ", ".join(str(rounded(value)) for value in values) if isinstance(values, list) else values


FILTERS = {"short": short, "rounded": rounded, "listed": listed}


def code_block(content: Any) -> Any:
    """`content` as YAML in an indented Markdown block, which no content can end."""
    if isinstance(content, NotRecorded):
        return content
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)
    return Verbatim("\n".join(f"    {line}".rstrip() for line in text.splitlines()))
