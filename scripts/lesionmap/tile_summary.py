"""What the tile stores of a run hold: a record per slide, and the cohort's table."""

import csv
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lesionmap.files import read_json, write_json, write_table
from lesionmap.quality import SHARES
from lesionmap.store import TileStore
from lesionmap.tiling import STORED_CLASSES

COLUMNS = ["slide", "regions", "tiles", *(f"{name}_mm2" for name in STORED_CLASSES)]
COLUMNS += [*SHARES, "unreadable_regions", "bytes", "seconds"]


def write_record(store_path: str, output: str) -> None:
    """Write what a store holds as JSON, which stays when the store is dropped.

    Areas are those of the stored tiles; ``blur``, ``pen`` and ``fold`` are means over the regions.
    """
    with TileStore(store_path) as store:
        mm2 = store.class_pixels().sum(axis=0) * store.spec.mpp**2 / 1e6
        areas = {f"{name}_mm2": round(float(area), 6) for name, area in zip(STORED_CLASSES, mm2, strict=True)}
        shares = {name: round(float(store.quality(name).mean()), 4) for name in SHARES}
        counts = {"slide": store.slide, "regions": len(store), "tiles": store.n_tiles}
        unreadable = store.unreadable
    write_json(output, counts | areas | shares | {"bytes": Path(store_path).stat().st_size, "unreadable": unreadable})


def summarise_tiles(records: Sequence[str], benchmarks: str, output: str) -> None:
    """Write the cohort's table.

    Parameters
    ----------
    records : sequence of str
        Files of :func:`write_record`.
    benchmarks : str
        Folder with a Snakemake benchmark (TSV) of the extraction of each slide; it may lack some.
    output : str
        TSV, one row per slide.
    """
    write_table(output, [_row(read_json(path), benchmarks) for path in records], COLUMNS)


def _row(record: dict[str, Any], benchmarks: str) -> dict[str, Any]:
    timed = {"unreadable_regions": len(record["unreadable"]), "seconds": ""}
    # Absent if the run was killed between the job's end and Snakemake's note of it.
    with suppress(FileNotFoundError), open(Path(benchmarks, f"{record['slide']}.tsv"), encoding="utf-8") as stream:
        timed["seconds"] = next(csv.DictReader(stream, dialect="excel-tab"))["s"]
    return record | timed
