"""Summarise the tile stores of a run in one table, from one record per slide."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lesionmap.annotations.classes import STORED_CLASSES
from lesionmap.files.records import read_json, read_table, write_table
from lesionmap.tissue.quality import SHARES

COLUMNS = ["slide", "regions", "tiles", *(f"{name}_mm2" for name in STORED_CLASSES)]
COLUMNS += [*SHARES, "unreadable_regions", "bytes", "seconds"]


def summarise_tiles(records: Sequence[str], benchmarks: str, output: str) -> None:
    """Write the table of the whole cohort.

    Parameters
    ----------
    records : sequence of str
        Files of :func:`lesionmap.tiles.extraction.write_record`.
    benchmarks : str
        Folder with a Snakemake benchmark (TSV) of each slide's extraction; some may be missing.
    output : str
        TSV, one row per slide.
    """
    write_table(output, [_row(read_json(path), benchmarks) for path in records], COLUMNS)


def _row(record: dict[str, Any], benchmarks: str) -> dict[str, Any]:
    timed = {"unreadable_regions": len(record["unreadable"]), "seconds": ""}
    # Missing if the run was killed after the job ended, but before Snakemake wrote its benchmark.
    with suppress(FileNotFoundError):
        timed["seconds"] = read_table(Path(benchmarks, f"{record['slide']}.tsv"))[0]["s"]
    return record | timed
