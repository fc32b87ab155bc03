"""Whole files or none: everything is written beside its target and renamed."""

import csv
import hashlib
import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import Any

from lesionmap.storage import storage_told


@contextmanager
def written_whole(target: str | Path) -> Iterator[Path]:
    """Give a path beside `target` to write to; rename it to `target` if the block succeeds.

    A killed or failing writer leaves no file that a later stage could take for whole. Its draft is removed by the
    next writer of the same target on the same host.

    Raises
    ------
    StorageError
        If the disk is full or cannot be written to; it says how much room there was, the draft counted as used.
    """
    target = Path(target)
    prefix = f".{target.stem}.{socket.gethostname()}-"
    draft = target.with_name(f"{prefix}{os.getpid()}{target.suffix}")
    try:
        with storage_told(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            for left in target.parent.glob(f"{escape(prefix)}*{escape(target.suffix)}"):
                if not _is_running(left.name.removeprefix(prefix).removesuffix(target.suffix)):
                    left.unlink(missing_ok=True)
            yield draft
            os.replace(draft, target)
    finally:
        with suppress(OSError):  # it may never have been there
            draft.unlink()


def _is_running(process_id: str) -> bool:
    try:
        os.kill(int(process_id), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        pass  # another user's
    return True


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
