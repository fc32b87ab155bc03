"""The config and the slide sheet, checked once, with messages that say what to change."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pandas as pd
import yaml

from lesionmap.errors import SettingsError
from lesionmap.inspection import SlideRow
from lesionmap.tiling import TileSpec

COLUMNS = ["slide", "path", "split", "annotation", "mpp"]


def check_config(config: dict[str, Any], schema_path: str | Path) -> None:
    """Check a config against its schema and against itself.

    Raises
    ------
    SettingsError
        Naming every key that is wrong, what it is, and what it may be.
    """
    problems = list(_problems(config, _schema(schema_path)))
    if not problems and config["model"]["norm"] == "frozen" and config["model"]["weights"] == "none":
        problems = ["model.norm: frozen statistics need pretrained weights; take group or batch with weights: none"]
    if problems:
        raise SettingsError(stage="config", finding=_listed(problems), remedy="correct the keys named above")
    tiles = config["tiles"]
    TileSpec(tiles["region_px"], tiles["tile_px"], tiles["mpp"])


def read_sheet(path: str | Path, schema_path: str | Path) -> dict[str, SlideRow]:
    """Read and check the slide sheet.

    Returns
    -------
    dict
        Slide id → row, in the sheet's order.

    Raises
    ------
    SettingsError
        Naming every row and column that is wrong.
    """
    try:
        table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise SettingsError(
            stage="slide sheet", finding=f"{path} cannot be read ({error})", remedy="give a TSV file as `slides`"
        ) from error
    if list(table.columns) != COLUMNS:
        raise SettingsError(
            stage="slide sheet",
            finding=f"{path} has the columns {', '.join(map(repr, table.columns))}",
            remedy=f"its tab-separated columns must be {', '.join(COLUMNS)}",
        )
    table = table.apply(lambda column: column.str.strip())
    rows = [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]
    problems = list(_row_problems(rows, _schema(schema_path)))
    if problems:
        raise SettingsError(stage="slide sheet", finding=f"{path}: {_listed(problems)}", remedy="correct those rows")
    return {row["slide"]: SlideRow(**row | {"mpp": float(row["mpp"]) if row["mpp"] else None}) for row in rows}


def check_reference(rows: dict[str, SlideRow], reference: str) -> None:
    """Refuse a stain reference that is not in the sheet."""
    if reference not in rows:
        raise SettingsError(
            stage="config",
            finding=f"stain.reference is '{reference}', which is no slide of the sheet",
            remedy=f"name one of its slides, e.g. {', '.join(list(rows)[:3])}",
        )


def _row_problems(rows: list[dict[str, str]], schema: dict[str, Any]) -> Iterator[str]:
    if not rows:
        yield "it has no slides; add a row for each"
    for number, row in enumerate(rows, start=2):
        for problem in _problems(row, schema):
            yield f"line {number} ({row['slide'] or 'no id'}), {problem}"
    for slide, count in Counter(row["slide"] for row in rows).items():
        if count > 1:
            yield f"slide '{slide}' has {count} rows; ids must be unique"


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
