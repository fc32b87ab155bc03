"""Whole folders or none."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lesionmap.storage import storage_told


@contextmanager
def folder_written_whole(target: str | Path) -> Iterator[Path]:
    """Give an empty folder beside `target` to fill; put it in the place of `target` if the block succeeds.

    What a killed writer has left the next one of the same target removes; Snakemake lets one at a time.

    Raises
    ------
    StorageError
        If the disk is full or cannot be written to; it says how much room there was, the draft counted as used.
    """
    target = Path(target)
    draft = target.with_name(f".{target.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        with storage_told(target):
            draft.mkdir(parents=True)
            yield draft
            shutil.rmtree(target, ignore_errors=True)
            os.replace(draft, target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
