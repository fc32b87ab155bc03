"""Read the slide sheet, one row per slide, and check it; messages name line and column."""

import csv
import os
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TextIO

from lesionmap.errors import SettingsError
from lesionmap.files.schema import listed, problems_of, read_schema
from lesionmap.servers.urls import is_remote, leads_up, lies_in, why_unfit, without_secrets

SPLITS = ("train", "val", "test", "inference")
EVALUATED = ("val", "test")
NEEDED_COLUMNS = ["slide", "path", "split"]
OPTIONAL_COLUMNS = dict.fromkeys(
    ("annotation", "annotation_2", "mpp", "upsample", "mask_mpp", "patient", "site", "white_point"), ""
)


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
    annotation_2 : str
        The annotation file of a second reader; empty if there is none.
    mpp : float or None
        µm/px of level 0 that overrides the file's own.
    upsample : bool
        Whether the slide may be used although it is coarser than its split needs.
    mask_mpp : float or None
        µm/px of annotations that are masks; None: a mask covers the whole slide, and its µm/px follows from that.
    patient : str
        The patient's id; empty if unknown.
    site : str
        Where the slide comes from, e.g. its hospital; empty if unknown.
    white_point : (int, int, int) or None
        Colour of bare glass, R, G, B; None: the config's ``stain.white_point`` applies.
    groups : mapping of str to str
        Texts of the columns that ``evaluation.groups`` names.
    """

    slide: str
    path: str
    split: str
    annotation: str = ""
    annotation_2: str = ""
    mpp: float | None = None
    upsample: bool = False
    mask_mpp: float | None = None
    patient: str = ""
    site: str = ""
    white_point: tuple[int, ...] | None = None
    groups: Mapping[str, str] = field(default_factory=dict)

    @property
    def second_reader(self) -> bool:
        """Whether a second reader's annotation is compared: that of a slide which is evaluated."""
        return bool(self.annotation_2) and self.split in EVALUATED


def read_sheet(
    path: str | Path,
    schema_path: str | Path,
    roots: Sequence[str] | None,
    ignored: Sequence[str] = (),
    groups: Sequence[str] = (),
) -> dict[str, SlideRow]:
    """Read and check the slide sheet.

    Parameters
    ----------
    schema_path : str or Path
        JSON schema of a row, as YAML.
    roots : sequence of str or None
        Folders in which slides and annotations must lie; None: anywhere.
    ignored : sequence of str
        Further columns that the sheet may have: names, or patterns with ``*`` and ``?``.
    groups : sequence of str
        Columns that it must have because ``evaluation.groups`` names them.

    Returns
    -------
    dict
        Slide id → row, in the sheet's order.

    Raises
    ------
    SettingsError
        If anything is wrong; it names every wrong row and column.
    """
    columns, lines = sheet_table(path, ignored, groups)
    rows = {number: _known_fields(columns, fields) for number, fields in lines.items()}
    problems = [
        f"line {number} ({rows[number]['slide'] or 'no id'}) has {len(fields)} fields, for {len(columns)} columns"
        for number, fields in lines.items()
        if len(fields) > len(columns)
    ]
    problems += _row_problems(rows, read_schema(schema_path), roots)
    if problems:
        raise SettingsError(stage="slide sheet", finding=f"{path}: {listed(problems)}", remedy="correct those rows")
    return {row["slide"]: _parsed(row, _groups(columns, lines[number], groups)) for number, row in rows.items()}


def sheet_table(
    path: str | Path, ignored: Sequence[str], groups: Sequence[str] = ()
) -> tuple[list[str], dict[int, list[str]]]:
    """Columns of the slide sheet, and its fields by the number of the line on which their row begins.

    Quotes are read as spreadsheets write them: around a whole field, which may then hold tabs, line ends and doubled
    quotes. A quote inside a field is an ordinary character.

    Raises
    ------
    SettingsError
        If the file is not a tab-separated table, or does not have the columns of a slide sheet.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            lines = {number: _without_blanks(fields) for number, fields in _numbered(stream)}
    except (OSError, ValueError) as error:
        raise SettingsError(
            stage="slide sheet",
            finding=f"{path} cannot be read ({error})",
            remedy="give a tab-separated table in UTF-8 as slides.sheet",
        ) from error
    filled = {number: fields for number, fields in lines.items() if fields}
    columns = filled.pop(min(filled, default=0), [])
    _check_columns(path, columns, ignored, groups)
    return columns, filled


def _numbered(stream: TextIO) -> Iterator[tuple[int, list[str]]]:
    """Rows of a table, each with the number of its first line."""
    reader = csv.reader(stream, delimiter="\t", strict=True)
    while True:
        number = reader.line_num + 1
        try:
            fields = next(reader, None)
        except csv.Error as error:
            raise _open_quote(stream.name, number, str(error)) from error
        if fields is None:
            return
        if any("\t" in field and ("\n" in field or "\r" in field) for field in fields):
            raise _open_quote(stream.name, number, f"it ends in line {reader.line_num}, behind tabs and line ends")
        yield number, fields


def _open_quote(path: str, number: int, error: str) -> SettingsError:
    return SettingsError(
        stage="slide sheet",
        finding=f"{path}, line {number}: a field begins with a quote and does not end with one ({error})",
        remedy='delete that quote, or write the field as spreadsheets do: "12"" slide" for 12" slide',
    )


def _known_fields(columns: Sequence[str], fields: Sequence[str]) -> dict[str, str]:
    """The fields of a row that the workflow reads."""
    named = OPTIONAL_COLUMNS | dict(zip(columns, fields, strict=False))
    return {column: named[column] for column in (*NEEDED_COLUMNS, *OPTIONAL_COLUMNS) if column in named}


def _groups(columns: Sequence[str], fields: Sequence[str], groups: Sequence[str]) -> dict[str, str]:
    """The texts of the groups' columns, on one line each; empty where the row has none."""
    named = dict(zip(columns, fields, strict=False))
    return {group: " ".join(named.get(group, "").split()) for group in groups}


def _without_blanks(fields: list[str]) -> list[str]:
    """Strip blanks around fields, and drop the empty fields that spreadsheets add at the end of a line."""
    stripped = [field.strip() for field in fields]
    while stripped and not stripped[-1]:
        stripped.pop()
    return stripped


def _check_columns(path: str | Path, columns: list[str], ignored: Sequence[str], groups: Sequence[str]) -> None:
    allowed = list(dict.fromkeys((*NEEDED_COLUMNS, *OPTIONAL_COLUMNS, *groups)))
    problems = [f"it has no column '{column}'" for column in NEEDED_COLUMNS if column not in columns]
    others = [column for column in columns if column not in NEEDED_COLUMNS]
    problems += [
        f"it has no column '{group}'{_meant(group, others)}, which evaluation.groups names; add it or take it out there"
        for group in groups
        if group not in columns
    ]
    problems += [f"it has the column '{column}' twice" for column in allowed if columns.count(column) > 1]
    problems += [
        f"it has a column '{column}'{_meant(column, allowed)}"
        for column in columns
        if column not in allowed and not any(fnmatchcase(column, pattern) for pattern in ignored)
    ]
    if problems:
        raise SettingsError(
            stage="slide sheet",
            finding=f"{path}: {listed(problems)}",
            remedy=f"its columns, separated by tabs, must be {', '.join(NEEDED_COLUMNS)} and any of "
            f"{', '.join(OPTIONAL_COLUMNS)}; list others that it may have in slides.ignored_columns",
        )


def _meant(name: str, allowed: Collection[str]) -> str:
    near = get_close_matches(name.lower(), allowed, n=1)
    return f" (is '{near[0]}' meant?)" if near else ""


def unknown_slide(slide: str, known: Collection[str]) -> str:
    """Say that the sheet has no such slide, and which ids are like it."""
    near = get_close_matches(slide, known) or list(known)[:3]
    return f"LesionMap: no slide '{slide}' in the sheet. Remedy: name one of its {len(known)}, e.g. {', '.join(near)}."


def _parsed(row: dict[str, str], groups: Mapping[str, str]) -> SlideRow:
    numbers = {key: float(row[key]) if row[key] else None for key in ("mpp", "mask_mpp")}
    white_point = tuple(int(part) for part in row["white_point"].split(",")) if row["white_point"] else None
    others = {"upsample": row["upsample"].lower() == "true", "white_point": white_point, "groups": groups}
    return SlideRow(**row | numbers | others)  # type: ignore[arg-type]


def _row_problems(
    rows: dict[int, dict[str, str]], schema: dict[str, Any], roots: Sequence[str] | None
) -> Iterator[str]:
    if not rows:
        yield "it has no slides; add a row for each"
    for number, row in rows.items():
        for problem in problems_of(row, schema):
            yield f"line {number} ({row['slide'] or 'no id'}), {problem}"
        for key in (key for key, text in row.items() if set(text) & set("\t\r\n")):
            yield f"line {number} ({row['slide'] or 'no id'}), {key}: {row[key]!r} holds a tab or a line end"
        if row["annotation_2"] and row["annotation_2"] == row["annotation"]:
            yield f"line {number} ({row['slide']}), annotation_2: is the file in annotation; name the second reader's"
        for key in ("path", "annotation", "annotation_2"):
            if row[key] and (unfit := _place_problem(key, row[key], roots)):
                place = without_secrets(row[key]) if is_remote(row[key]) else row[key]
                yield f"line {number} ({row['slide']}), {key}: {place} {unfit}"
    yield from _shared_ids(rows)


def _shared_ids(rows: dict[int, dict[str, str]]) -> Iterator[str]:
    lines = defaultdict(list)
    for number, row in rows.items():
        lines[row["slide"].lower()].append(number)
    for numbers in lines.values():
        ids = list(dict.fromkeys(rows[number]["slide"] for number in numbers))
        if len(ids) > 1:
            yield (
                f"lines {_in_words(numbers)}, slide: {_in_words(ids)} differ in case only (their files would be the "
                "same on Windows shares and macOS disks; rename)"
            )
        elif len(numbers) > 1:
            yield f"lines {_in_words(numbers)}, slide: all have '{ids[0]}' (ids are unique; delete or rename)"


def _in_words(things: Sequence[object]) -> str:
    return f"{', '.join(map(str, things[:-1]))} and {things[-1]}"


def _place_problem(key: str, path: str, roots: Sequence[str] | None) -> str | None:
    """What is wrong with the location of a slide or an annotation; None if nothing is."""
    if is_remote(path):
        if key != "path":
            return "is on a server, from which only slides are fetched; copy it to a folder of your own"
        if unfit := why_unfit(path):
            return unfit
    if roots is not None and not _lies_in(path, roots):
        if is_remote(path) and leads_up(path):
            return "has a part '..', maybe an encoded one, that may lead out of slides.roots; write it without"
        return (
            f"is not in slides.roots ({', '.join(roots)}); add its folder to that key of the config, or move it there"
        )
    return None


def _lies_in(path: str, roots: Sequence[str]) -> bool:
    if is_remote(path):
        return lies_in(path, roots)
    # Links are not resolved: whoever put one into a root did so on purpose. The sheet may be someone else's.
    place = Path(os.path.normpath(Path.cwd() / path))
    if ".." in Path(path).parts and place.resolve() != (Path.cwd() / path).resolve():
        return False  # after a link, ".." leads elsewhere
    return any(place.is_relative_to(os.path.normpath(Path.cwd() / root)) for root in roots)
