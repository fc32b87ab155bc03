"""Add a folder's new slides to a slide sheet: ``python -m lesionmap.run.new_slides slides.tsv FOLDER``."""

import argparse
import io
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path

from lesionmap.errors import LesionMapError, SettingsError
from lesionmap.files.records import write_text
from lesionmap.run.exclusion import RECORDS, excluded_slides, recorded, taken_off
from lesionmap.servers.urls import is_remote
from lesionmap.slides.identity import content_digest, slide_parts
from lesionmap.slides.sheet import NEEDED_COLUMNS, sheet_table

SUFFIXES = (".svs", ".tif", ".tiff", ".ndpi", ".scn", ".mrxs", ".bif", ".svslide")
SECONDS_AT_REST = 3600
# Not allowed in a path of the sheet: braces, tabs, line ends, and bytes that are not UTF-8.
UNFIT = re.compile("[{}\t\r\n\ud800-\udfff]")
FIELD = re.compile(r'"(?:[^"]|"")*"|[^\t\r\n]*')  # of a sheet that has been read, so that its quotes are in order
LONGEST_ID = 90


@dataclass
class NewSlides:
    """Slides of a folder that a sheet lacked: those added or moved (id → path), and those left out, by reason."""

    added: dict[str, Path] = field(default_factory=dict)
    moved: dict[str, Path] = field(default_factory=dict)
    taken_off: dict[Path, str] = field(default_factory=dict)  # path → the id that it had
    changing: list[Path] = field(default_factory=list)
    unfit: list[Path] = field(default_factory=list)
    closed: list[OSError] = field(default_factory=list)  # folders that cannot be read


@dataclass
class KnownSlides:
    """What a sheet, its excluded slides and the results know of slides.

    Parameters
    ----------
    places : set of str
        Resolved paths of the sheet.
    off_ids : set of str
        Ids of slides that were taken off the sheet, and of which nothing else is known.
    off_by_path, off_by_content, lost : dict
        Ids of the others, by resolved path and by SHA-256; those of rows whose file is gone, by SHA-256.
    """

    places: set[str]
    off_ids: set[str]
    off_by_path: dict[str, str]
    off_by_content: dict[str, str]
    lost: dict[str, str]

    def content(self, path: Path) -> str:
        """SHA-256 of a slide; not computed (empty) if there is none to compare it with."""
        return content_digest(path) if self.off_by_content or self.lost else ""


def add_new_slides(sheet: str | Path, folder: str | Path) -> NewSlides:
    """Add a row for inference to a slide sheet for each slide of a folder that it lacks; existing rows stay.

    A slide that was taken off the sheet is not added again. If a row's file is gone, and the folder has the same
    content elsewhere, the row gets the new path. What slides hold is known from the records of their inspection.

    Parameters
    ----------
    sheet : str or Path
        Created if it does not exist. Its relative paths start from the working directory, as do the results.
    folder : str or Path
        Searched with its subfolders. A slide's path relative to this folder becomes its id. Slides that changed within
        the last hour may still be being copied; they are left for the next run.

    Raises
    ------
    SettingsError
        If the sheet cannot be read or has wrong columns, or the folder cannot be read. The sheet stays unchanged.
    """
    sheet = Path(sheet).resolve()
    columns, lines = sheet_table(sheet, ["*"]) if sheet.exists() else (NEEDED_COLUMNS, {})
    rows = {number: dict(zip(columns, fields, strict=False)) for number, fields in lines.items()}
    paths = {row.get("slide", ""): row.get("path", "") for row in rows.values()}
    known = _known_slides(sheet, paths)
    ids = {slide.lower() for slide in paths} | {""}
    new = NewSlides()
    for path in _slides_in(folder, new.closed.append):
        if (place := os.path.realpath(path)) not in known.places:
            known.places.add(place)
            _sort_in(new, path, known, ids, Path(folder).absolute())
    moved = {number: new.moved[row["slide"]] for number, row in rows.items() if row.get("slide") in new.moved}
    _write(sheet, columns, moved, new.added)
    return new


def _known_slides(sheet: Path, paths: Mapping[str, str]) -> KnownSlides:
    places = {os.path.realpath(path) for path in paths.values()}
    off = [*excluded_slides(sheet), *taken_off(paths)]
    kept = {_content_of(slide) for slide in paths} if off else set()
    off = [row for row in off if row["sha256"] not in kept and os.path.realpath(row["path"]) not in places]
    gone = [slide for slide, path in paths.items() if not is_remote(path) and not Path(path).exists()]
    return KnownSlides(
        places=places,
        off_ids={row["slide"] for row in off if not (row["path"] or row["sha256"])} - set(paths),
        off_by_path={os.path.realpath(row["path"]): row["slide"] for row in off if row["path"]},
        off_by_content={row["sha256"]: row["slide"] for row in off if row["sha256"]},
        lost={content: slide for slide in gone if (content := _content_of(slide))},
    )


def _content_of(slide: str) -> str | None:
    return recorded(Path(RECORDS, f"{slide}.json"))["sha256"] or None


def _sort_in(new: NewSlides, path: Path, known: KnownSlides, ids: set[str], folder: Path) -> None:
    """Decide what becomes of a slide that the sheet does not have under this path."""
    if UNFIT.search(str(path)):
        new.unfit.append(path)
    elif os.path.realpath(path) in known.off_by_path:
        new.taken_off[path] = known.off_by_path[os.path.realpath(path)]
    elif _changed(path) > time.time() - SECONDS_AT_REST:
        new.changing.append(path)
    elif (content := known.content(path)) in known.off_by_content:
        new.taken_off[path] = known.off_by_content[content]
    elif content in known.lost:
        new.moved[known.lost.pop(content)] = path
    elif (slide := _plain_id(path.relative_to(folder))) in known.off_ids:
        new.taken_off[path] = slide
    else:
        new.added[_unused_id(path.relative_to(folder), ids)] = path


def _slides_in(folder: str | Path, tell: Callable[[OSError], None]) -> Iterator[Path]:
    """Files with a slide's suffix in a folder and below; hidden files, and hidden or linked folders, are skipped."""
    if not os.access(folder, os.R_OK | os.X_OK):
        finding, remedy = f"{folder} is not there or cannot be read", "name the folder that slides come to"
        raise SettingsError(stage="new slides", finding=finding, remedy=remedy)
    for place, folders, files in os.walk(Path(folder).absolute(), onerror=tell):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                yield Path(place, name)


def _changed(path: Path) -> float:
    """Last change of a slide's files, seconds since 1970; infinite if it is missing (a broken link, or just moved)."""
    try:
        return max(part.stat().st_mtime for part in slide_parts(path) if part == path or part.exists())
    except FileNotFoundError:
        return math.inf


def _plain_id(path: Path) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", str(path.with_suffix("")))[-LONGEST_ID:].lstrip("._-")


def _unused_id(path: Path, used: set[str]) -> str:
    """Id of a path: ``case_1_a`` for ``case 1/a.svs``, or ``case_1_a_2`` if that is taken, in whatever case."""
    plain = _plain_id(path)
    names = chain([plain], (f"{plain or 'slide'}_{n}" for n in count(2)))
    slide = next(name for name in names if name.lower() not in used)
    used.add(slide.lower())
    return slide


def _write(sheet: Path, columns: list[str], moved: Mapping[int, Path], added: Mapping[str, Path]) -> None:
    """Change the paths of moved slides (by line number) and append new rows; all other bytes of the sheet stay."""
    text = sheet.read_bytes().decode() if sheet.exists() else "\t".join(columns) + "\n"
    for number, path in moved.items():
        text = _with_path(text, number, columns.index("path"), path)
    line_end = "\r\n" if text.partition("\n")[0].endswith("\r") else "\n"
    rows = ({"slide": slide, "path": str(path), "split": "inference"} for slide, path in added.items())
    lines = ["\t".join(row.get(column, "") for column in columns) + line_end for row in rows]
    if lines or moved or not sheet.exists():
        write_text(sheet, text + ("" if text.endswith("\n") or not lines else line_end) + "".join(lines))


def _with_path(text: str, number: int, column: int, path: Path) -> str:
    """The sheet's text with another path in the row that begins on a line (from 1)."""
    start = sum(map(len, list(io.StringIO(text, newline=""))[: number - 1]))
    for _ in range(column):
        start = _end_of_field(text, start) + 1
    return text[:start] + str(path) + text[_end_of_field(text, start) :]


def _end_of_field(text: str, start: int) -> int:
    return next(FIELD.finditer(text, start)).end()


def main() -> None:
    """Add a folder's new slides to a sheet, and print what was added and what was left out."""
    parser = argparse.ArgumentParser(description="Add the slides of a folder that a sheet lacks, for inference.")
    parser.add_argument("sheet", type=Path)
    parser.add_argument("folder", type=Path)
    asked = parser.parse_args()
    try:
        new = add_new_slides(asked.sheet, asked.folder)
    except LesionMapError as error:
        sys.exit(f"LesionMap: {error}")
    print(f"{len(new.added)} slides of {asked.folder} are new in {asked.sheet}.")
    for slide, path in new.moved.items():
        print(f"{slide} has moved to {path}; its row has the new path.")
    for path, slide in new.taken_off.items():
        print(f"{path} is left out: it was taken off the sheet ({slide}). Remedy: if you want it, write its row.")
    for path in new.changing:
        print(f"{path} waits for the next time: it changed within the last hour, or is a link to nowhere.")
    for path in new.unfit:
        print(f"{str(path)!a} is left out. Remedy: rename it: no braces, tabs and line ends, and only UTF-8.")
    for closed in new.closed:
        print(f"{closed.filename} is left out ({closed.strerror}). Remedy: ask for access to it, if slides come there.")


if __name__ == "__main__":
    main()
