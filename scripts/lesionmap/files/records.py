"""Whole files or none: everything is written beside its target and renamed."""

import csv
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lesionmap.files.atomic import written_whole


def write_text(target: str | Path, text: str) -> None:
    """Write `text` as UTF-8 with Unix line ends, whole or not at all."""
    with written_whole(target) as draft:
        draft.write_bytes(text.encode())


def write_json(target: str | Path, content: object) -> None:
    """Write `content` as JSON that people can read; equal content gives equal bytes."""
    write_text(target, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_table(target: str | Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Write some columns of rows as TSV."""
    with written_whole(target) as draft, open(draft, "w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns, dialect="excel-tab", lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_json(path: str | Path) -> Any:
    """Read a JSON file written by :func:`write_json`."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def _read_table(path: str) -> pd.DataFrame:
    return pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)


def table_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a table by column."""
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def text_rows(path: str) -> list[dict[str, str]]:
    """Rows of a TSV whose fields are taken as they stand."""
    return table_rows(pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False))
