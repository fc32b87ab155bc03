"""Tile extraction, timed in one run against a bare OpenSlide read of the same boxes and against other packages.

``make bench-tiles`` runs it; the README beside it says who is timed on what.
"""

import logging
import os
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import openslide
import tifffile
from lesionmap.files.records import write_json
from lesionmap.geometry.tiling import TileSpec
from lesionmap.jobs.parallel import map_in_order
from lesionmap.slides.slide import SlideInfo
from lesionmap.slides.tiff_reader import TiffReader
from lesionmap.stain.profile import StainProfile
from lesionmap.stain.table import StainMatch
from lesionmap.tiles.codec import TileCodec
from lesionmap.tiles.extraction import Extraction, extract_tiles
from lesionmap.tiles.store import PackedRegion, Region, TileStore, new_store, packed
from lesionmap.tissue.detection import TissueSettings, find_tissue
from slide_infos import slide_info

SLIDES = Path("../shared/data/slides")
MPP = 0.25
SPEC = TileSpec(4096, 512, MPP)
REPEATS = 5
CODECS = [TileCodec(), TileCodec("jpegxl", 100), TileCodec("jpeg", 90), TileCodec("jpegxl", 90)]
RUIFROK = ((0.650, 0.704, 0.286), (0.072, 0.990, 0.105))
PINKER = ((0.548, 0.771, 0.325), (0.092, 0.952, 0.282))
STAIN = StainMatch(*(StainProfile(basis, (1.5, 1.0), 1, 0.0, "none", "ok") for basis in (RUIFROK, PINKER)), (1.1, 0.9))


@dataclass(frozen=True)
class Case:
    """A slide with its tissue, a folder for results, and the µm/px that it is taken to have."""

    path: str
    folder: str
    mpp_lv0: float = MPP

    def info(self) -> SlideInfo:
        """What is needed to read it, by the reader that its inspection would choose."""
        return slide_info(self.path, self.mpp_lv0)

    def settings(self, codec: TileCodec) -> Extraction:
        """The method's, with a fixed stain match."""
        return Extraction(SPEC, 0.0, 0.0, STAIN, codec)

    def files(self) -> tuple[str, str]:
        """Its tissue mask and its (empty) annotation."""
        return f"{self.folder}/tissue.tif", f"{self.folder}/annotation.geojson"

    def boxes(self) -> list[tuple[int, int, int, int]]:
        """x, y, width, height of the regions that are stored, as far as they lie on the slide."""
        with TileStore(f"{self.folder}/store.h5") as store:
            corners = [store.region(index).xy_lv0 for index in range(len(store))]
        width, height = self.info().size_lv0
        return [(int(x), int(y), min(4096, width - int(x)), min(4096, height - int(y))) for x, y in corners]


@dataclass(frozen=True)
class Run:
    """What one run took; all of its process is counted in `rss_mb`."""

    seconds: float
    rss_mb: float
    files: int = 0


def ours(case: Case, threads: int) -> Run:
    """The whole job: read, normalise, downsample, draw masks, compress, write. Compiled kernels come from the cache."""
    info = case.info()
    Path(case.folder, "store.h5").unlink(missing_ok=True)  # as Snakemake does with what a job is to make
    start = time.perf_counter()
    extract_tiles(
        info, *case.files(), f"{case.folder}/store.h5", case.settings(TileCodec()), provenance={}, threads=threads
    )
    return finished(start)


def bare_read(case: Case, threads: int) -> Run:
    """The same boxes by OpenSlide into its own RGBA images, nothing else: not even the arrays that any use needs."""
    with openslide.OpenSlide(case.path) as handle:
        boxes = case.boxes()
        start = time.perf_counter()

        def read(box: tuple[int, int, int, int]) -> tuple[int, int]:
            return handle.read_region(box[:2], 0, box[2:]).size

        for _ in map_in_order(read, boxes, threads):
            pass
        return finished(start)


def tiatoolbox(case: Case, threads: int) -> Run:
    """Patches of 512 px in its tissue mask, as PNG; it extracts on one thread."""
    from tiatoolbox.tools.patchextraction import get_patch_extractor
    from tiatoolbox.utils.misc import imwrite
    from tiatoolbox.wsicore.wsireader import OpenSlideWSIReader

    start = time.perf_counter()
    reader = OpenSlideWSIReader(case.path, mpp=(MPP, MPP), power=40)
    options = {"patch_size": (512, 512), "stride": (512, 512), "resolution": 0, "units": "level"}
    patches = get_patch_extractor("slidingwindow", input_img=reader, input_mask="morphological", **options)
    for count, patch in enumerate(patches, start=1):
        imwrite(Path(case.folder) / f"tiatoolbox_{count}.png", patch)
    return finished(start, count)


def histolab(case: Case, threads: int) -> Run:
    """Tiles of 512 px of its tissue mask, as PNG; it extracts on one thread."""
    from histolab.masks import TissueMask as HistolabMask
    from histolab.slide import Slide as HistolabSlide
    from histolab.tiler import GridTiler

    start = time.perf_counter()
    slide = HistolabSlide(case.path, f"{case.folder}/histolab")
    tiler = GridTiler(tile_size=(512, 512), level=0, check_tissue=True, tissue_percent=1, suffix=".png")
    tiler.extract(slide, extraction_mask=HistolabMask())
    return finished(start, len(list(Path(case.folder, "histolab").glob("*.png"))))


def finished(start: float, files: int = 0) -> Run:
    seconds = time.perf_counter() - start
    return Run(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, files)


def quiet(task: Callable[[], Run]) -> Run:
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    return task()


def in_own_process(task: Callable[[], Run], threads: int) -> Run:
    """Run `task` in a new process on the first `threads` processors."""
    os.sched_setaffinity(0, sorted(ALL_CPUS)[:threads])
    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            return pool.submit(quiet, task).result()
    finally:
        os.sched_setaffinity(0, ALL_CPUS)


def prepare(path: Path, folder: Path) -> Case:
    """Find the slide's tissue, and extract once, so that everything is compiled and the file is in memory."""
    folder.mkdir()
    case = Case(str(path), str(folder))
    tissue, annotation = case.files()
    find_tissue(case.info(), tissue, TissueSettings(mpp=8.0, min_area_um2=20000, min_hole_um2=5000))
    write_json(annotation, {"type": "FeatureCollection", "features": []})
    in_own_process(partial(ours, case, 1), 1)
    return case


def compare(case: Case, threads: int) -> tuple[Run, Run]:
    """The best of our runs and the best bare read; they take turns."""
    runs: list[tuple[Run, Run]] = []
    for _ in range(REPEATS):
        mine, bare = (in_own_process(partial(work, case, threads), threads) for work in (ours, bare_read))
        runs.append((mine, bare))
    mine, bare = (min(column, key=lambda run: run.seconds) for column in zip(*runs, strict=True))
    return mine, bare


def four_times(path: Path, target: Path) -> Path:
    """A slide of 2×2 copies of level 0 of another, without the partial tiles on its edges."""
    with openslide.OpenSlide(path) as handle:
        sizes = list(handle.level_dimensions)
    columns, rows = (length // 256 for length in sizes[0])
    with TiffReader(str(path), sizes) as reader, tifffile.TiffWriter(target, bigtiff=True) as tiff:
        tiff.write(
            (
                reader.read(0, (column % columns * 256, row % rows * 256), (256, 256))
                for row in range(2 * rows)
                for column in range(2 * columns)
            ),
            shape=(2 * rows * 256, 2 * columns * 256, 3),
            dtype=np.uint8,
            tile=(256, 256),
            photometric="ycbcr",
            subsampling=(2, 2),
            compression="jpeg",
            compressionargs={"level": 85},
            metadata=None,
        )
    return target


def cold_reading(case: Case, threads: int) -> list[str]:
    """How fast a training gets its regions, in random order, from a store that is not in memory."""
    from lesionmap.training.dataset import (
        RegionDataset,  # with PyTorch, which should not count in the RSS of extractions
    )
    from torch.utils.data import DataLoader

    regions = RegionDataset([f"{case.folder}/store.h5"])
    order = random_order(len(regions))
    loader = DataLoader(regions, batch_size=None, sampler=order, num_workers=threads)
    readers = {"threads": lambda: map_in_order(regions.__getitem__, order, threads), "worker processes": lambda: loader}
    lines = []
    for name, read in readers.items():
        speed = np.median([cold_speed(regions.metadata(0).path, read) for _ in range(REPEATS)])
        lines.append(f"regions read for training, {threads} {name}: {speed:.0f} Mpx/s of tiles")
    return lines


def random_order(n: int) -> list[int]:
    order: list[int] = np.random.default_rng(0).permutation(n).tolist()
    return order


def cold_speed(path: str, read: Callable[[], Iterable[Region]]) -> float:
    """Mpx/s of the tiles of all regions that are read, from a file that the system was told to forget."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    start = time.perf_counter()
    pixels = sum(region.images[..., 0].size for region in read())
    return pixels / 1e6 / (time.perf_counter() - start)


def codec_table(case: Case) -> list[str]:
    """Size and speed of every codec on regions of a slide, one thread."""
    with TileStore(f"{case.folder}/store.h5") as store:
        regions = [store.region(index) for index in range(6)]
    pixels = sum(region.images[..., 0].size for region in regions)
    row = "{:<16} {:>12} {:>14} {:>13} {:>26}"
    lines = [row.format("codec", "bytes/px", "write Mpx/s", "read Mpx/s", "cold random regions Mpx/s")]
    for codec in CODECS:
        start = time.perf_counter()
        stored = [packed(region, codec) for region in regions]
        written = time.perf_counter()
        for one in stored:
            for image in one.images:
                codec.decode(image, np.empty(regions[0].images.shape[1:], np.uint8))
        read = time.perf_counter()
        size = sum(len(image) for one in stored for image in one.images) / pixels
        speeds = [f"{pixels / 1e6 / spent:.0f}" for spent in (written - start, read - written)]
        name = codec.name if codec.name == "lossless" else f"{codec.name} {codec.quality}"
        lines.append(row.format(name, f"{size:.2f}", *speeds, f"{random_regions(case, codec, stored):.0f}"))
    return lines


def random_regions(case: Case, codec: TileCodec, stored: list[PackedRegion]) -> float:
    """Mpx/s of a training's reads: all tiles of one region at once, regions in random order, from a cold file."""
    path = f"{case.folder}/codec.h5"
    with new_store(path, SPEC, {}, codec) as writer:
        for region in stored:
            writer.append(region)
    with TileStore(path) as store:
        return float(
            np.median([cold_speed(path, lambda: map(store.region, random_order(len(store)))) for _ in range(REPEATS)])
        )


ALL_CPUS = os.sched_getaffinity(0)


def main() -> None:
    """Compare on one thread and two; print the tables and, last, the line that is quoted."""
    if not SLIDES.exists():
        sys.exit(f"{SLIDES} is absent: this benchmark needs a whole slide (README.md)")
    logging.disable(logging.WARNING)
    row = "{:<20} {:<34} {:>8} {:>10} {:>10} {:>8}"
    lines = [row.format("slide", "timed", "threads", "seconds", "Mpx/s", "RSS MB")]
    with tempfile.TemporaryDirectory() as root:
        cases = [prepare(SLIDES / name, Path(root, name)) for name in ("metaplasia_he.tif", "tcga_cr_7395.svs")]
        quoted = {}
        for case in cases:
            mpx = sum(width * height for _, _, width, height in case.boxes()) / 1e6
            for threads in (1, 2):
                mine, bare = compare(case, threads)
                quoted[case, threads] = mine, bare
                for label, run in (("LesionMap, whole extraction", mine), ("OpenSlide, bare read", bare)):
                    figures = f"{run.seconds:.2f}", f"{mpx / run.seconds:.0f}", f"{run.rss_mb:.0f}"
                    lines.append(row.format(Path(case.path).name, label, threads, *figures))
                lines.append(f"{'':20} ours / bare read {mine.seconds / bare.seconds:.2f}")
            for peer in (tiatoolbox, histolab):
                run = in_own_process(partial(peer, case, 2), 2)
                figures = f"{run.seconds:.2f}", f"{run.files * 0.262144 / run.seconds:.0f}", f"{run.rss_mb:.0f}"
                lines.append(row.format(Path(case.path).name, f"{peer.__name__}, {run.files} files", 2, *figures))
                quoted[case, peer.__name__] = run.files * 0.262144 / run.seconds
        large = prepare(four_times(SLIDES / "metaplasia_he.tif", Path(root, "large.tif")), Path(root, "large"))
        four = in_own_process(partial(ours, large, 2), 2)
        finer = replace(cases[0], mpp_lv0=0.2431)
        in_own_process(partial(ours, finer, 2), 2)
        resampled = in_own_process(partial(ours, finer, 2), 2)
        in_own_process(partial(ours, cases[0], 2), 2)  # its own store again
        lines += [
            f"four times as large: {four.seconds:.2f} s, RSS {four.rss_mb:.0f} MB",
            f"resampled from 0.2431 µm/px: {resampled.seconds:.2f} s, RSS {resampled.rss_mb:.0f} MB",
            *cold_reading(cases[0], 2),
            "",
            *codec_table(cases[0]),
        ]
        mine, bare = quoted[cases[0], 2]
        mpx = sum(width * height for _, _, width, height in cases[0].boxes()) / 1e6
        size = Path(cases[0].folder, "store.h5").stat().st_size / mpx / 1e6
    jpeg_2000 = quoted[cases[1], 2][0].seconds / quoted[cases[1], 2][1].seconds
    lines.append(
        f"tiles: ours={mpx / mine.seconds:.0f}Mpx/s vs_bare_read={mine.seconds / bare.seconds:.2f} "
        f"vs_bare_read_jp2k={jpeg_2000:.2f} "
        f"vs_tiatoolbox={mpx / mine.seconds / quoted[cases[0], 'tiatoolbox']:.1f}x "
        f"vs_histolab={mpx / mine.seconds / quoted[cases[0], 'histolab']:.1f}x "
        f"bytes_per_px={size:.2f} peak_rss_mb={mine.rss_mb:.0f}"
    )
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
