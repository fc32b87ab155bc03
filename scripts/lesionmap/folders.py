"""Whole folders or none."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def folder_written_whole(target: str | Path) -> Iterator[Path]:
    """Give an empty folder beside `target` to fill; put it in the place of `target` if the block succeeds.

    What a killed writer has left the next one of the same target removes; Snakemake lets one at a time.
    """
    target = Path(target)
    draft = target.with_name(f".{target.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        yield draft
        shutil.rmtree(target, ignore_errors=True)
        os.replace(draft, target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
