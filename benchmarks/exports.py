"""What the exports of a large slide cost; run by `make bench-exports`.

A map of 20,000 × 20,000 px (a slide of 200,000 px at 0.25 µm/px) with 100,000 ring-shaped lesions, and one with a tenth
of both for comparison. The last line is the one to quote.
"""

import resource
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from lesionmap.geometry.resampling import block_max, block_mean
from lesionmap.lesions.dicom import write_segmentation
from lesionmap.lesions.export import write_lesions
from lesionmap.lesions.find_lesions import above
from lesionmap.maps.ome_tiff import MapNotes, write_map
from lesionmap.maps.on_disk import on_disk, shrunk, strips
from lesionmap.maps.probability import as_scores, as_u8
from lesionmap.slides.slide import SlideInfo
from numpy.typing import NDArray
from scipy.special import logit

CELL_PX, COLUMNS = 63, 317  # a lesion in each cell of a grid
MPP, MAP_MPP = 0.25, 2.5
THRESHOLD = 0.5
METADATA = {"unreadable": [], "provenance": {"code": "0" * 16}}


def rings(rows_of_cells: int, folder: Path) -> NDArray[np.uint16]:
    """Scores of a map with `COLUMNS` lesions in each row of cells, elliptic, of random size, with a hole."""
    rng = np.random.default_rng(0)
    scores = on_disk((rows_of_cells * CELL_PX, COLUMNS * CELL_PX), np.uint16, folder)
    y, x = np.mgrid[:CELL_PX, :CELL_PX] - CELL_PX / 2
    for part in strips(len(scores), CELL_PX):
        size = rng.uniform(6, 28, (COLUMNS, 1, 1))
        distance = np.hypot(x, y * rng.uniform(1, 2, (COLUMNS, 1, 1))) / size
        cells = as_scores(logit(np.exp(-8 * np.abs(distance - 0.7) ** 2)))  # (COLUMNS, CELL_PX, CELL_PX)
        scores[part] = cells.transpose(1, 0, 2).reshape(CELL_PX, -1)
    return scores


def published(scores: NDArray[np.uint16], folder: Path) -> NDArray[np.uint8]:
    """Probability × 255 of a map."""
    probability_u8 = on_disk(scores.shape, np.uint8, folder)
    for part in strips(len(scores)):
        probability_u8[part] = as_u8(scores[part])
    return probability_u8


def timed(what: str, step: Callable[[], object]) -> tuple[float, float]:
    """Do one step; print and return its seconds, and those of CPU, which other work on the machine hardly changes."""
    start, cpu_start = time.perf_counter(), time.process_time()
    step()
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu_start
    sys.stdout.write(f"  {what:<22}{seconds:7.1f} s, {cpu:6.1f} s of CPU   peak so far {peak_mb():6.0f} MB\n")
    sys.stdout.flush()
    return seconds, cpu


def peak_mb() -> float:
    """Most memory that this process has had, the pages of maps on disk included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def export(rows_of_cells: int, folder: Path) -> tuple[int, float, float]:
    """Time every export of one map; say how many lesions it has, and the seconds of outlines and table, and of CPU."""
    scores = rings(rows_of_cells, folder)
    height, width = scores.shape
    size = (int(width * MAP_MPP / MPP), int(height * MAP_MPP / MPP))
    info = SlideInfo("s1", "", "0" * 64, "none", size, MPP, (1.0,), (size,), (0, 0))
    sys.stdout.write(f"{rows_of_cells * COLUMNS} lesions on {width} × {height} px\n")
    lesions, probability_u8 = above(scores, THRESHOLD, folder), published(scores, folder)
    maps = {"probability.ome.tif": (probability_u8, block_mean), "lesions.tif": (lesions, block_max)}
    for name, (image, reduction) in {"scores.ome.tif": (scores, None), **maps}.items():
        notes = MapNotes("s1", name, MAP_MPP, METADATA)
        timed(name, partial(write_map, folder / name, image, notes, reduction))
    timed("overlay's overviews", lambda: [shrunk(image, 13, how, folder) for image, how in maps.values()])
    counted: list[tuple[int, float]] = []
    paths = (folder / "lesions.geojson", folder / "lesions.tsv", folder / "lesions.tif")
    seconds, cpu = timed(
        "geojson and tsv", lambda: counted.append(write_lesions(*paths, scores, info=info, metadata=METADATA))
    )
    timed("lesions.dcm", lambda: write_segmentation(info, folder / "lesions.tif", folder / "lesions.dcm"))
    for path in sorted(folder.iterdir()):
        sys.stdout.write(f"  {path.name:<22}{path.stat().st_size / 1e6:7.1f} MB\n")
    return counted[0][0], seconds, cpu


def main() -> None:
    """Export a tenth, then the whole; quote the whole, and how much dearer a lesion is in it."""
    results = []
    for rows_of_cells in (COLUMNS // 10, COLUMNS):
        with tempfile.TemporaryDirectory(dir=".") as folder:
            results.append(export(rows_of_cells, Path(folder)))
    (few, _, few_cpu), (many, seconds, many_cpu) = results
    growth = many_cpu / many / (few_cpu / few)
    sys.stdout.write(
        f"exports: lesions={many} outlines_s={seconds:.1f} outlines_cpu_s={many_cpu:.1f} "
        f"growth_per_lesion={growth:.2f}x peak_rss_mb={peak_mb():.0f}\n"
    )


if __name__ == "__main__":
    main()
