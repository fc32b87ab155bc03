"""Add a folder's new slides to a slide sheet: ``python -m lesionmap.run.new_slides slides.tsv FOLDER``."""

import argparse
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path

from lesionmap.errors import LesionMapError, SettingsError
from lesionmap.files.records import write_text
from lesionmap.slides.file_checks import slide_parts
from lesionmap.slides.sheet import NEEDED_COLUMNS, sheet_table

SUFFIXES = (".svs", ".tif", ".tiff", ".ndpi", ".scn", ".mrxs", ".bif", ".svslide")
SECONDS_AT_REST = 3600
# Not allowed in a path of the sheet: braces, tabs, line ends, and bytes that are not UTF-8.
UNFIT = re.compile("[{}\t\r\n\ud800-\udfff]")
NO_IDS = {"cohort", ""}
LONGEST_ID = 90


@dataclass
class NewSlides:
    """Slides of a folder that a sheet lacked: those added (id → path), and those left out, by reason."""

    added: dict[str, Path] = field(default_factory=dict)
    changing: list[Path] = field(default_factory=list)
    unfit: list[Path] = field(default_factory=list)
    closed: list[OSError] = field(default_factory=list)  # folders that cannot be read


def add_new_slides(sheet: str | Path, folder: str | Path) -> NewSlides:
    """Add a row for inference to a slide sheet for each slide of a folder that it lacks; existing rows stay.

    Parameters
    ----------
    sheet : str or Path
        Created if it does not exist. Its relative paths start from the working directory.
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
    rows = [dict(zip(columns, fields, strict=False)) for fields in lines.values()]
    known = {os.path.realpath(row.get("path", "")) for row in rows}
    ids = {row.get("slide", "").lower() for row in rows} | NO_IDS
    new = NewSlides()
    for path in _slides_in(folder, new.closed.append):
        if (place := os.path.realpath(path)) in known:
            continue
        known.add(place)
        if UNFIT.search(str(path)):
            new.unfit.append(path)
        elif _changed(path) > time.time() - SECONDS_AT_REST:
            new.changing.append(path)
        else:
            slide = _unused_id(path.relative_to(Path(folder).absolute()), ids)
            ids.add(slide.lower())
            new.added[slide] = path
    _append(sheet, columns, new.added)
    return new


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
    """Last change of a slide's files, seconds since 1970; infinite if one is missing (a broken link, or just moved)."""
    try:
        return max(part.stat().st_mtime for part in slide_parts(path))
    except FileNotFoundError:
        return math.inf


def _unused_id(path: Path, used: Set[str]) -> str:
    """Id of a path: ``case_1_a`` for ``case 1/a.svs``, or ``case_1_a_2`` if that is taken, in whatever case."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", str(path.with_suffix("")))[-LONGEST_ID:].lstrip("._-")
    names = chain([plain], (f"{plain or 'slide'}_{n}" for n in count(2)))
    return next(name for name in names if name.lower() not in used)


def _append(sheet: Path, columns: list[str], slides: dict[str, Path]) -> None:
    text = sheet.read_bytes().decode() if sheet.exists() else "\t".join(columns) + "\n"
    line_end = "\r\n" if text.partition("\n")[0].endswith("\r") else "\n"
    rows = ({"slide": slide, "path": str(path), "split": "inference"} for slide, path in slides.items())
    lines = ["\t".join(row.get(column, "") for column in columns) + line_end for row in rows]
    if lines or not sheet.exists():
        write_text(sheet, text + ("" if text.endswith("\n") else line_end) + "".join(lines))


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
    for path in new.changing:
        print(f"{path} waits for the next time: it changed within the last hour, or is a link to nowhere.")
    for path in new.unfit:
        print(f"{str(path)!a} is left out. Remedy: rename it: no braces, tabs and line ends, and only UTF-8.")
    for closed in new.closed:
        print(f"{closed.filename} is left out ({closed.strerror}). Remedy: ask for access to it, if slides come there.")


if __name__ == "__main__":
    main()
