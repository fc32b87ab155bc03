"""Read and write text, JSON and tables, each written whole or not at all; compute a file's digest."""

import csv
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from lesionmap.files.atomic import written_whole


def write_text(target: str | Path, text: str) -> None:
    """Write `text` as UTF-8 with Unix line ends, whole or not at all."""
    with written_whole(target) as draft:
        draft.write_bytes(text.encode())


def write_json(target: str | Path, content: object) -> None:
    """Write `content` as JSON that people can read; equal content gives equal bytes."""
    write_text(target, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_table(target: str | Path, rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Write the given columns of rows as TSV, or as CSV if `target` ends in ``.csv``."""
    with written_whole(target) as draft, open(draft, "w", encoding="utf-8", newline="") as stream:
        table_writer(stream, columns, _delimiter(target)).writerows(rows)


def table_writer(stream: TextIO, columns: Sequence[str], delimiter: str = "\t") -> "csv.DictWriter[str]":
    """Start a table in an open stream, for rows that are written one by one."""
    writer = csv.DictWriter(stream, columns, delimiter=delimiter, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    return writer


def _delimiter(path: str | Path) -> str:
    return "," if Path(path).suffix == ".csv" else "\t"


def read_table(path: str | Path) -> list[dict[str, str]]:
    """Rows of a TSV, or of a CSV, as column → text; no field is converted, so a slide may be called NA."""
    with open(path, encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, delimiter=_delimiter(path)))


def sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_identity(target: str | Path, path: str | Path, **facts: Any) -> None:
    """Write the SHA-256 of the file `path` as JSON, with `facts` from it that a table shows.

    Snakemake compares small files by content, large ones by date. A rule that takes this file, and the large one as
    ``ancient``, runs again only if the content of the large one has changed.
    """
    write_json(target, {"sha256": sha256(path)} | facts)


def sha256_of(content: object) -> str:
    """SHA-256 of JSON-serialisable content, in hexadecimal; the order of keys does not count."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_json(path: str | Path) -> Any:
    """Read a JSON file written by :func:`write_json`."""
    return json.loads(Path(path).read_text(encoding="utf-8"))
