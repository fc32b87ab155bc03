"""Read the slide sheet, one row per slide, and check it; messages name line and column."""

import csv
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lesionmap.errors import SettingsError
from lesionmap.files.schema import listed, problems_of, read_schema
from lesionmap.servers.urls import is_remote, lies_below, why_unfit, without_secrets

SPLITS = ("train", "val", "test", "inference")
NEEDED_COLUMNS = ["slide", "path", "split"]
OPTIONAL_COLUMNS = {"annotation": "", "mpp": "", "upsample": "", "mask_mpp": "", "patient": "", "white_point": ""}


@dataclass(frozen=True)
class SlideRow:
    """One row of the slide sheet.

    Parameters
    ----------
    slide : str
        Id: letters, digits, ``._-``.
    path : str
        The slide file.
    split : str
        ``train``, ``val``, ``test`` or ``inference``.
    annotation : str
        The annotation file; empty for inference.
    mpp : float or None
        µm/px of level 0 that overrides the file's own.
    upsample : bool
        Whether the slide may be used although it is coarser than its split needs.
    mask_mpp : float or None
        µm/px of an annotation that is a mask; None: the mask covers the whole slide, and its µm/px follows from that.
    patient : str
        The patient's id; empty if unknown.
    white_point : (int, int, int) or None
        Colour of bare glass, R, G, B; None: the config's ``stain.white_point`` applies.
    """

    slide: str
    path: str
    split: str
    annotation: str = ""
    mpp: float | None = None
    upsample: bool = False
    mask_mpp: float | None = None
    patient: str = ""
    white_point: tuple[int, ...] | None = None


def read_sheet(path: str | Path, schema_path: str | Path, roots: Sequence[str] | None) -> dict[str, SlideRow]:
    """Read and check the slide sheet.

    Parameters
    ----------
    schema_path : str or Path
        JSON schema of a row, as YAML.
    roots : sequence of str or None
        Folders in which slides and annotations must lie; None: anywhere.

    Returns
    -------
    dict
        Slide id → row, in the sheet's order.

    Raises
    ------
    SettingsError
        If anything is wrong; it names every wrong row and column.
    """
    columns, lines = sheet_table(path)
    rows = {number: OPTIONAL_COLUMNS | dict(zip(columns, fields, strict=False)) for number, fields in lines.items()}
    problems = [
        f"line {number} ({rows[number]['slide'] or 'no id'}) has {len(fields)} fields, for {len(columns)} columns"
        for number, fields in lines.items()
        if len(fields) > len(columns)
    ]
    problems += _row_problems(rows, read_schema(schema_path), roots)
    if problems:
        raise SettingsError(stage="slide sheet", finding=f"{path}: {listed(problems)}", remedy="correct those rows")
    return {row["slide"]: _parsed(row) for row in rows.values()}


def sheet_table(path: str | Path) -> tuple[list[str], dict[int, list[str]]]:
    """Columns of the slide sheet, and its fields by line number; quotes are ordinary characters.

    Raises
    ------
    SettingsError
        If the file is not a tab-separated table, or does not have the columns of a slide sheet.
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
    """Strip blanks around fields, and drop the empty fields that spreadsheets add at the end of a line."""
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
    white_point = tuple(int(part) for part in row["white_point"].split(",")) if row["white_point"] else None
    others = {"upsample": row["upsample"].lower() == "true", "white_point": white_point}
    return SlideRow(**row | numbers | others)  # type: ignore[arg-type]


def _row_problems(
    rows: dict[int, dict[str, str]], schema: dict[str, Any], roots: Sequence[str] | None
) -> Iterator[str]:
    if not rows:
        yield "it has no slides; add a row for each"
    for number, row in rows.items():
        for problem in problems_of(row, schema):
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
    """What is wrong with the location of a slide or an annotation; None if nothing is."""
    if is_remote(path):
        if key != "path":
            return "is on a server, from which only slides are fetched; copy it to a folder of your own"
        if unfit := why_unfit(path):
            return unfit
    if roots is not None and not _lies_in(path, roots):
        return (
            f"is not in slides.roots ({', '.join(roots)}); add its folder to that key of the config, or move it there"
        )
    return None


def _lies_in(path: str, roots: Sequence[str]) -> bool:
    if is_remote(path):
        return any(lies_below(path, root) for root in roots)
    # Links are not resolved: whoever put one into a root did so on purpose. The sheet may be someone else's.
    place = Path(os.path.normpath(Path.cwd() / path))
    if ".." in Path(path).parts and place.resolve() != (Path.cwd() / path).resolve():
        return False  # after a link, ".." leads elsewhere
    return any(place.is_relative_to(os.path.normpath(Path.cwd() / root)) for root in roots)
