"""The config and the slide sheet, checked once, with messages that say what to change."""

import csv
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from lesionmap.addresses import is_remote, lies_below, why_unfit, without_secrets
from lesionmap.errors import SettingsError
from lesionmap.infer_settings import NO_REFINEMENT, cut_of, inference_mpp
from lesionmap.inspection import SlideRow
from lesionmap.tile_codec import LOSSLESS
from lesionmap.tiling import TileSpec

NEEDED_COLUMNS = ["slide", "path", "split"]
MACHINE_SETTINGS = ("device", "checkpoint_minutes", "batch_size")
OPTIONAL_COLUMNS = {"annotation": "", "mpp": "", "upsample": "", "mask_mpp": "", "patient": ""}


def check_config(config: dict[str, Any], schema_path: str | Path) -> None:
    """Check a config against its schema and against itself.

    Raises
    ------
    SettingsError
        Naming every key that is wrong, what it is, and what it may be.
    """
    problems = list(_problems(config, _schema(schema_path))) or list(_contradictions(config))
    if problems:
        raise SettingsError(stage="config", finding=_listed(problems), remedy="correct the keys named above")
    TileSpec(**cut_of(config))


def _contradictions(config: Mapping[str, Any]) -> Iterator[str]:
    if config["model"]["norm"] == "frozen" and config["model"]["weights"] == "none":
        yield "model.norm: frozen statistics need pretrained weights; take group or batch with weights: none"
    if config["tiles"]["store"] == "none" and config["tiles"]["codec"] != LOSSLESS:
        codec = config["tiles"]["codec"]
        yield f"tiles.codec: {codec} is of no use with store: none, which holds no tiles; take lossless"
    if config["tiles"]["store"] == "none" and config["slides"]["copies"]["of"] == "all":
        yield "slides.copies.of: all is of no use with tiles.store: none, by which training reads slides; take remote"
    device, processes = config["train"]["device"], config["train"]["processes"]
    if processes > 1 and device.startswith("cuda:"):
        yield f"train.device: {device} is one GPU, and processes: {processes} need one each; take cuda or auto"
    for section, key in (("stain", "ratio_limits"), ("inference", "unsure")):
        least, most = config[section][key]
        if least > most:
            yield f"{section}.{key}: the least, {least}, is above the largest, {most}; take [{most}, {least}]"


def inspection_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """What the config asks of a slide: the fields of :class:`lesionmap.inspection.InspectionSettings`."""
    asked = {key: value for key, value in config["slides"].items() if key not in ("sheet", "roots", "copies")}
    first_pass, tiles = inference_mpp(config), config["tiles"]["mpp"]
    inference = first_pass if config["inference"]["refine"] == NO_REFINEMENT else min(first_pass, tiles)
    return asked | {"needed_mpp": {"tiles": tiles, "inference": inference, "first_pass": first_pass}}


def tile_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """What the config asks of tiles, as far as results depend on it: not on whether stores are dropped in the end."""
    tiles = config["tiles"]
    return {key: value for key, value in tiles.items() if key != "store"} | {"stored": tiles["store"] != "none"}


def inference_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """What the config asks of inference, as far as maps depend on it: not on how many tiles pass at once."""
    asked = {key: value for key, value in config["inference"].items() if key not in MACHINE_SETTINGS}
    return asked | {"tiles": cut_of(config)}


def train_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """What the config asks of training, as far as results depend on it: not on where it runs or how often it saves."""
    return {key: value for key, value in config["train"].items() if key not in MACHINE_SETTINGS}


def read_sheet(path: str | Path, schema_path: str | Path, roots: Sequence[str] | None) -> dict[str, SlideRow]:
    """Read and check the slide sheet.

    Parameters
    ----------
    path, schema_path : str or Path
    roots : sequence of str or None
        Folders in which slides and annotations must lie; None: anywhere.

    Returns
    -------
    dict
        Slide id → row, in the sheet's order.

    Raises
    ------
    SettingsError
        Naming every row and column that is wrong.
    """
    columns, lines = sheet_table(path)
    rows = {number: OPTIONAL_COLUMNS | dict(zip(columns, fields, strict=False)) for number, fields in lines.items()}
    problems = [
        f"line {number} ({rows[number]['slide'] or 'no id'}) has {len(fields)} fields, for {len(columns)} columns"
        for number, fields in lines.items()
        if len(fields) > len(columns)
    ]
    problems += _row_problems(rows, _schema(schema_path), roots)
    if problems:
        raise SettingsError(stage="slide sheet", finding=f"{path}: {_listed(problems)}", remedy="correct those rows")
    return {row["slide"]: _parsed(row) for row in rows.values()}


def sheet_table(path: str | Path) -> tuple[list[str], dict[int, list[str]]]:
    """Columns and, by line number, the fields of the slide sheet as they stand; quotes mean themselves.

    Raises
    ------
    SettingsError
        If it is no such table, or its columns are not a slide sheet's.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            table = list(csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
    except (OSError, ValueError, csv.Error) as error:
        raise SettingsError(
            stage="slide sheet",
            finding=f"{path} cannot be read ({error})",
            remedy="give a tab-separated table in UTF-8 as slides.sheet",
        ) from error
    lines = {number: _without_blanks(fields) for number, fields in enumerate(table, start=1)}
    filled = {number: fields for number, fields in lines.items() if fields}
    columns = filled.pop(min(filled, default=0), [])
    _check_columns(path, columns)
    return columns, filled


def _without_blanks(fields: list[str]) -> list[str]:
    """Fields without blanks around them, and without those empty ones that spreadsheets add to the end of a line."""
    stripped = [field.strip() for field in fields]
    while stripped and not stripped[-1]:
        stripped.pop()
    return stripped


def _check_columns(path: str | Path, columns: list[str]) -> None:
    allowed = [*NEEDED_COLUMNS, *OPTIONAL_COLUMNS]
    if set(NEEDED_COLUMNS) - set(columns) or set(columns) - set(allowed) or len(columns) != len(set(columns)):
        raise SettingsError(
            stage="slide sheet",
            finding=f"{path} has the columns {', '.join(map(repr, columns))}",
            remedy=f"its columns, separated by tabs, must be {', '.join(NEEDED_COLUMNS)} and any of "
            f"{', '.join(OPTIONAL_COLUMNS)}",
        )


def _parsed(row: dict[str, str]) -> SlideRow:
    numbers = {key: float(row[key]) if row[key] else None for key in ("mpp", "mask_mpp")}
    return SlideRow(**row | numbers | {"upsample": row["upsample"].lower() == "true"})  # type: ignore[arg-type]


def check_remote(config: Mapping[str, Any], rows: Mapping[str, SlideRow]) -> None:
    """See that no slide is to be read from a server all through training.

    Raises
    ------
    SettingsError
        If one is.
    """
    read_in_training = [row.slide for row in rows.values() if row.split in ("train", "val") and is_remote(row.path)]
    if config["tiles"]["store"] == "none" and read_in_training:
        raise SettingsError(
            stage="config",
            finding="tiles.store is none, by which training reads slides themselves, and "
            f"{', '.join(read_in_training[:3])} are on a server",
            remedy="set tiles.store to keep, or copy the slides for training to a folder of your own",
        )


def reference_file(config: Mapping[str, Any], rows: Mapping[str, SlideRow]) -> str | None:
    """The file that holds the stain reference: the model, or a profile; None if it is a slide or chosen among them.

    Raises
    ------
    SettingsError
        If `stain.reference` is neither a slide of the sheet, nor ``auto``, nor a file.
    """
    named, model = config["stain"]["reference"], config["model"]["path"]
    if model or named in rows or named == "auto":
        return str(model) if model else None
    if named.endswith(".json") and Path(named).is_file():
        return str(named)
    raise SettingsError(
        stage="config",
        finding=f"stain.reference is '{named}', which is neither a slide of the sheet nor a profile (.json)",
        remedy=f"name one of its slides, e.g. {', '.join(list(rows)[:3])}, or set auto",
    )


def _row_problems(
    rows: dict[int, dict[str, str]], schema: dict[str, Any], roots: Sequence[str] | None
) -> Iterator[str]:
    if not rows:
        yield "it has no slides; add a row for each"
    for number, row in rows.items():
        for problem in _problems(row, schema):
            yield f"line {number} ({row['slide'] or 'no id'}), {problem}"
        for key in ("path", "annotation"):
            if row[key] and (unfit := _place_problem(key, row[key], roots)):
                place = without_secrets(row[key]) if is_remote(row[key]) else row[key]
                yield f"line {number} ({row['slide']}), {key}: {place} {unfit}"
    lines = defaultdict(list)
    for number, row in rows.items():
        lines[row["slide"]].append(number)
    for slide, numbers in lines.items():
        if len(numbers) > 1:
            yield f"lines {_in_words(numbers)}, slide: all have '{slide}' (ids are unique; delete or rename)"


def _in_words(numbers: Sequence[int]) -> str:
    return f"{', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"


def _place_problem(key: str, path: str, roots: Sequence[str] | None) -> str | None:
    """What is wrong with where a slide or an annotation lies."""
    if is_remote(path):
        if key != "path":
            return "is on a server, from which only slides are fetched; copy it to a folder of your own"
        if unfit := why_unfit(path):
            return unfit
    if roots is not None and not _lies_in(path, roots):
        return f"is not in slides.roots ({', '.join(roots)})"
    return None


def _lies_in(path: str, roots: Sequence[str]) -> bool:
    if is_remote(path):
        return any(lies_below(path, root) for root in roots)
    # Links are not followed: whoever put one into a root meant it, whoever wrote the sheet may be someone else.
    place = Path(os.path.normpath(Path.cwd() / path))
    if ".." in Path(path).parts and place.resolve() != (Path.cwd() / path).resolve():
        return False  # after a link ".." leads elsewhere
    return any(place.is_relative_to(os.path.normpath(Path.cwd() / root)) for root in roots)


def _problems(instance: Any, schema: dict[str, Any]) -> Iterator[str]:
    validator = jsonschema.Draft202012Validator(schema)
    for error in sorted(validator.iter_errors(instance), key=lambda error: list(map(str, error.absolute_path))):
        place = ".".join(map(str, error.absolute_path))
        meaning = error.schema.get("description") if isinstance(error.schema, dict) else None
        yield f"{place + ': ' if place else ''}{error.message}{f' ({meaning})' if meaning else ''}"


def _schema(path: str | Path) -> dict[str, Any]:
    schema: dict[str, Any] = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    return schema


def _listed(problems: list[str], most: int = 20) -> str:
    shown = "".join(f"\n  - {problem}" for problem in problems[:most])
    return shown + (f"\n  … and {len(problems) - most} more" if len(problems) > most else "") + "\n"
