"""Inference of whole slides, timed in one run against the bare network and other packages with the same weights.

``make bench-infer`` runs it; the README beside it says who is timed on what.
"""

import logging
import os
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import openslide
import tifffile
import torch
from lesionmap.files.records import read_json, write_json
from lesionmap.geometry.tiling import TileSpec, corners_px, map_size
from lesionmap.inference import map_slide as mapping
from lesionmap.inference.settings import PATENT_MPP, MapSettings
from lesionmap.inference.sliding_window import TableOnDevice, TileReader
from lesionmap.lesions.find_lesions import LesionFiles, LesionSettings, find_lesions
from lesionmap.maps.map_file import MapFile
from lesionmap.network.forward import logits_of
from lesionmap.network.model import LesionFPN
from lesionmap.network.model_file import load_model, save_model
from lesionmap.network.settings import ModelSettings
from lesionmap.network.thread_pool import ThreadPool
from lesionmap.slides.slide import Slide, SlideInfo
from lesionmap.slides.tiff_reader import TiffReader
from lesionmap.stain.profile import StainProfile
from lesionmap.stain.table import StainMatch
from lesionmap.tissue.detection import TissueSettings, find_tissue
from lesionmap.tissue.mask import FOLD, TissueMask
from lesionmap.viewer.overlay import draw_overlay
from numpy.typing import NDArray
from slide_infos import slide_info
from torch import Tensor

SLIDES = Path("../shared/data/slides")
MPP, THREADS = 0.25, 2
SPEC = TileSpec(4096, 512, MPP)
SCALE = PATENT_MPP / MPP
NETWORK = ModelSettings("resnet50", "frozen")
LESION_SHARE = 0.001  # of the pixels of a slide's middle tile: random weights scatter specks of lesion
COPIES = 4  # of the slide, along each side of the large one
RUIFROK = ((0.650, 0.704, 0.286), (0.072, 0.990, 0.105))
PINKER = ((0.548, 0.771, 0.325), (0.092, 0.952, 0.282))
STAIN = StainMatch(*(StainProfile(basis, (1.5, 1.0), 1, 0.0, "none", "ok") for basis in (RUIFROK, PINKER)), (1.1, 0.9))
THRESHOLD = 0.5
SETTINGS = MapSettings(SPEC)
MAPPED = ("probability.ome.tif", "scores.ome.tif", "inference.json")
FOUND = ("lesions.tif", "lesions.geojson", "lesions.tsv", "lesions.json")
STAGES = ("load_model", "sliding_window_map", "write_map")
OURS = "LesionMap, map_slide to overlay"
ROW = "{:<20} {:<44} {:>5} {:>8} {:>7} {:>7} {:>7}  {}"
ALL_CPUS = os.sched_getaffinity(0)


@dataclass(frozen=True)
class Case:
    """A slide and a folder with its tissue mask, stain, model and tiles in memory, and for results."""

    name: str
    path: str
    folder: str

    def info(self) -> SlideInfo:
        """What is needed to read it, by the reader that its inspection would choose."""
        return slide_info(self.path, MPP)

    def file(self, name: str) -> str:
        """Path of a file in its folder."""
        return f"{self.folder}/{name}"

    def corners(self) -> NDArray[np.int64]:
        """Corners of the tiles with tissue, pixels of the map."""
        info = self.info()
        tissue = TissueMask(self.file("tissue.tif"), info)
        grid = corners_px(map_size(info.size_lv0, SCALE), SPEC.tile_px, SPEC.tile_px)
        return grid[[tissue.any_at(tuple(xy * SCALE), (SPEC.tile_px, SPEC.tile_px), SCALE) for xy in grid]]

    def area_mm2(self) -> float:
        """What those tiles cover of the slide."""
        size = np.array(map_size(self.info().size_lv0, SCALE))
        return float(np.minimum(SPEC.tile_px, size - self.corners()).prod(axis=1).sum() * (PATENT_MPP / 1000) ** 2)


@dataclass(frozen=True)
class Run:
    """What one run took: seconds, the most memory of its process, its tiles, and seconds of its stages."""

    seconds: float = float("nan")
    rss_mb: float = float("nan")
    tiles: int = 0
    stages: dict[str, float] = field(default_factory=dict)
    problem: str = ""


def bare_threads(case: Case) -> Run:
    """The network alone, a tile a thread, as the pass over a slide runs it; its kernels are compiled before."""
    model, tiles = load_model(case.file("model.safetensors")), tiles_in_memory(case).split(1)
    model.to(memory_format=torch.channels_last)
    with ThreadPool(THREADS) as pool:
        list(pool.map(partial(probability, model), tiles[:THREADS]))
        start = time.perf_counter()
        for _ in pool.map(partial(probability, model), tiles):
            pass
        return finished(start, len(tiles))


def bare_batches(case: Case, size: int = 1) -> Run:
    """The network alone, so many tiles at once, in PyTorch's own threads."""
    model, tiles = load_model(case.file("model.safetensors")), tiles_in_memory(case)
    model.to(memory_format=torch.channels_last)
    torch.set_num_threads(THREADS)
    probability(model, tiles[:size])
    start = time.perf_counter()
    for batch in tiles.split(size):
        probability(model, batch)
    return finished(start, len(tiles))


def ours(case: Case) -> Run:
    """From the slide's file to all exports: what the rules map_slide and find_lesions do, and the overlay."""
    stages: dict[str, float] = {}
    for name in STAGES:
        setattr(mapping, name, clocked(getattr(mapping, name), name, stages))
    mapped = mapping.MapFiles(*(case.file(name) for name in MAPPED))
    files = LesionFiles(*(case.file(name) for name in FOUND))
    inputs = mapping.MapInputs(*(case.file(name) for name in ("tissue.tif", "stain.json", "model.safetensors")))
    info = case.info()
    start = time.perf_counter()
    mapping.map_slide(info, inputs, mapped, SETTINGS, provenance={}, threads=THREADS)
    clocked(find_lesions, "find_lesions", stages)(info, mapped.scores, inputs.tissue, files, LesionSettings(), {})
    clocked(overlay, "overlay", stages)(info, mapped.probability, files.lesions, case.file("overlay.png"))
    run = finished(start, 0)
    tiles = read_json(mapped.record)["tiles"]["read"]
    return replace(run, tiles=tiles, stages=stages | {"the rest": run.seconds - sum(stages.values())})


def overlay(info: SlideInfo, probability: str, lesions: str, output: str) -> None:
    """Augmentation one slide's overlay."""
    with Slide(info, "cut_view") as slide, MapFile(probability) as mapped, MapFile(lesions) as found:
        draw_overlay(output, slide, mapped, found, mapped.mpp)


def clocked(function: Callable[..., Any], name: str, seconds: dict[str, float]) -> Callable[..., Any]:
    """The same function; what it takes is added to `seconds`."""

    def run(*arguments: Any, **options: Any) -> Any:
        start = time.perf_counter()
        result = function(*arguments, **options)
        seconds[name] = seconds.get(name, 0) + time.perf_counter() - start
        return result

    return run


def tiatoolbox(case: Case, batch: int = 1, pool: int = 0) -> Run:
    """SemanticSegmentor from the slide's file to a zarr of probabilities and classes; no normalisation, no outlines."""
    from tiatoolbox.models.engine.io_config import IOSegmentorConfig
    from tiatoolbox.models.engine.semantic_segmentor import SemanticSegmentor

    torch.set_num_threads(THREADS)
    side, resolution = (SPEC.tile_px, SPEC.tile_px), [{"units": "mpp", "resolution": PATENT_MPP}]
    tissue = (tifffile.imread(case.file("tissue.tif")) >= FOLD).astype(np.uint8)
    with tempfile.TemporaryDirectory(dir=case.folder) as folder:
        start = time.perf_counter()
        model = tiatoolbox_model(case.file("model.safetensors"))
        engine = SemanticSegmentor(model, batch_size=batch, num_workers=pool, device="cpu", verbose=False)
        engine.run(
            [Path(case.path)],
            masks=[tissue],
            patch_mode=False,
            ioconfig=IOSegmentorConfig(
                input_resolutions=resolution,
                output_resolutions=resolution,
                patch_input_shape=side,
                patch_output_shape=side,
                stride_shape=side,
            ),
            wsireader_kwargs={"mpp": (MPP, MPP), "power": 40},
            save_dir=Path(folder, "out"),
            output_type="zarr",
            return_probabilities=True,
        )
        return finished(start, len(engine.dataloader.dataset))


def tiatoolbox_model(path: str) -> Any:
    """The network as tiatoolbox asks for it."""
    from tiatoolbox.models.models_abc import ModelABC

    class Wrapped(ModelABC):
        """Takes (N, s, s, 3) uint8, gives (N, s, s, 1) probabilities."""

        def __init__(self) -> None:
            super().__init__()
            self.network = load_model(path).to(memory_format=torch.channels_last)

        def forward(self, images: Tensor) -> Tensor:
            return probability(self.network, images.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)

        @staticmethod
        def infer_batch(model: torch.nn.Module, batch_data: Tensor, *, device: str) -> NDArray[np.float32]:
            return model(batch_data).numpy()

        @staticmethod
        def postproc(image: Any) -> Any:
            return image[..., 0] >= THRESHOLD

    return Wrapped()


def monai(case: Case, batch: int = 1, pool: int = 0) -> Run:
    """PatchWSIDataset of the same tiles and AvgMerger; neither tissue detection, normalisation nor files."""
    from monai.data import DataLoader, PatchWSIDataset
    from monai.inferers import AvgMerger
    from monai.transforms import Resized

    torch.set_num_threads(THREADS)
    corners, info = case.corners(), case.info()
    start = time.perf_counter()
    model = load_model(case.file("model.safetensors")).to(memory_format=torch.channels_last)
    level = max(i for i, factor in enumerate(info.downsamples) if factor <= SCALE)
    tiles = PatchWSIDataset(
        [{"image": case.path, "location": [int(y * SCALE), int(x * SCALE)]} for x, y in corners],
        patch_size=round(SPEC.tile_px * SCALE / info.downsamples[level]),
        patch_level=level,
        transform=Resized("image", (SPEC.tile_px, SPEC.tile_px), mode="area"),
        include_label=False,
        center_location=False,
        reader="openslide",
    )
    width, height = (int(corners[:, axis].max()) + SPEC.tile_px for axis in (0, 1))
    merger = AvgMerger((1, 1, height, width))
    places = iter(corners)
    for some in DataLoader(tiles, batch_size=batch, num_workers=pool):
        for one in probability(model, some["image"].as_tensor()):
            x, y = next(places)
            merger.aggregate(one[None], (int(y), int(x)))
    lesions = merger.finalize() >= THRESHOLD
    return finished(start, len(tiles) if lesions.any() else 0)


@torch.no_grad()
def probability(model: LesionFPN, tiles: Tensor) -> Tensor:
    """(N, 3, s, s) → (N, 1, s, s), in the precision of the pass over slides."""
    return torch.sigmoid(logits_of(model, tiles))


def finished(start: float, tiles: int) -> Run:
    """The most memory is that of this process alone: `ru_maxrss` would count the parent's before its exec."""
    seconds = time.perf_counter() - start
    peak_kb = re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())
    return Run(seconds, int(peak_kb[1]) / 1024 if peak_kb else float("nan"), tiles)


def tiles_in_memory(case: Case) -> Tensor:
    """(N, 3, s, s) uint8, normalised."""
    return torch.from_numpy(np.load(case.file("tiles.npy"))).permute(0, 3, 1, 2)


Contestant = Callable[[Case], Run]
CONTESTANTS: dict[str, Contestant] = {
    "bare network, a tile a thread": bare_threads,
    "bare network, PyTorch's threads": bare_batches,
    "bare network, four tiles at once": partial(bare_batches, size=4),
    OURS: ours,
    "tiatoolbox, SemanticSegmentor": tiatoolbox,
    "tiatoolbox, four tiles at once": partial(tiatoolbox, batch=4),
    "tiatoolbox, reading in a process beside": partial(tiatoolbox, pool=1),
    "MONAI, PatchWSIDataset": monai,
    "MONAI, four tiles at once": partial(monai, batch=4),
    "MONAI, reading in a process beside": partial(monai, pool=1),
}


def attempt(task: Callable[[], Run]) -> Run:
    """Run it; what goes wrong inside another package belongs in its row."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    try:
        return task()
    except ImportError as error:
        return Run(problem=f"not installed: {error}")
    except Exception as error:
        return Run(problem=f"failed: {error!r}")


def in_own_process(task: Callable[[], Any]) -> Any:
    """Run `task` in a new process on the first `THREADS` processors."""
    os.sched_setaffinity(0, sorted(ALL_CPUS)[:THREADS])
    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            return pool.submit(task).result()
    finally:
        os.sched_setaffinity(0, ALL_CPUS)


def prepare(name: str, path: Path, folder: Path) -> Case:
    """Find the slide's tissue, make its model, and put its normalised tiles aside."""
    folder.mkdir()
    case = Case(name, str(path), str(folder))
    info = case.info()
    find_tissue(info, case.file("tissue.tif"), TissueSettings(mpp=8.0, min_area_um2=20000, min_hole_um2=5000))
    write_json(case.file("stain.json"), STAIN.as_record())
    table = TableOnDevice(STAIN.table(THREADS), torch.device("cpu"))
    with Slide(info, "benchmark") as slide:
        reader = TileReader(slide, SPEC.tile_px, PATENT_MPP)
        tiles = np.stack([table.normalised(reader.read(xy)).numpy() for xy in case.corners()])
    np.save(case.file("tiles.npy"), tiles)
    facts = {"tiles": asdict(SPEC), "provenance": {}, "stain_reference": vars(STAIN.reference)}
    save_model(case.file("model.safetensors"), network(tiles_in_memory(case)[[len(tiles) // 2]]), NETWORK, facts)
    return case


def network(tile: Tensor) -> LesionFPN:
    """The default network with random weights, which find specks of lesion in a tile and saturate no sigmoid."""
    torch.manual_seed(0)
    model = LesionFPN(NETWORK).eval()
    for block in (block for stage in model.stages for block in stage):
        block.bn3.weight.fill_(0.2)
    with torch.no_grad():
        model.head.weight /= model(tile).std()
        model.head.bias -= model(tile).quantile(1 - LESION_SHARE)
    return model


def large_slide(path: Path, target: Path) -> Path:
    """A slide of copies of another, without what lies on its edges, with a pyramid of the same levels."""
    with openslide.OpenSlide(path) as handle:
        sizes = list(handle.level_dimensions)
        factors = [round(factor) for factor in handle.level_downsamples]
    unit = 16 * factors[-1] * 3  # pixels of level 0; in every level it is a multiple of 16, as the side of a tile is
    columns, rows = (length // unit for length in sizes[0])
    with TiffReader(str(path), sizes) as reader, tifffile.TiffWriter(target, bigtiff=True) as tiff:
        for level, factor in enumerate(factors):
            side = min(256, unit // factor)
            across, down = columns * unit // factor // side, rows * unit // factor // side
            encoded = [
                imagecodecs.jpeg8_encode(reader.read(level, (x * side, y * side), (side, side)), level=85)
                for y in range(down)
                for x in range(across)
            ]
            tiff.write(
                repeated(encoded, across),
                shape=(COPIES * down * side, COPIES * across * side, 3),
                dtype=np.uint8,
                tile=(side, side),
                photometric="ycbcr",
                subsampling=(2, 2),
                compression="jpeg",
                subfiletype=int(level > 0),
                metadata=None,
            )
    return target


def repeated(tiles: list[bytes], across: int) -> Iterator[bytes]:
    """The tiles of copies of a slide, row by row."""
    rows = [tiles[first : first + across] for first in range(0, len(tiles), across)]
    for row in COPIES * rows:
        yield from COPIES * row


def compare(case: Case, contestants: Mapping[str, Contestant], repeats: int) -> dict[str, Run]:
    """The best run of each; they take turns."""
    runs: dict[str, list[Run]] = {name: [] for name in contestants}
    for _ in range(repeats):
        for name, work in contestants.items():
            if not any(run.problem for run in runs[name]):
                runs[name].append(in_own_process(partial(attempt, partial(work, case))))
                sys.stderr.write(f"{case.name}: {name} {runs[name][-1].seconds:.1f} s\n")
    return {name: min(many, key=lambda run: run.seconds) for name, many in runs.items()}


def table(case: Case, best: dict[str, Run]) -> Iterator[str]:
    """A row per contestant, and the stages of ours."""
    for name, run in best.items():
        speed = case.area_mm2() / len(case.corners()) * run.tiles / run.seconds
        figures = f"{run.seconds:.2f}", f"{speed:.1f}", f"{run.rss_mb:.0f}", f"{over(run, best[OURS]):.2f}"
        yield ROW.format(case.name, name, run.tiles, *figures, run.problem).rstrip()
    yield "  of which " + ", ".join(f"{name} {seconds:.2f}" for name, seconds in best[OURS].stages.items())


def over(run: Run, other: Run) -> float:
    """Seconds a tile of a run, over those of another; NaN if it failed."""
    return run.seconds / run.tiles / (other.seconds / other.tiles) if run.tiles and other.tiles else float("nan")


def fastest(best: dict[str, Run], package: str) -> str:
    """Its faster way; any if none ran."""
    return min(
        (name for name in best if name.startswith(package)),
        key=lambda name: np.nan_to_num(best[name].seconds, nan=np.inf),
    )


def ratios(case: Case, best: dict[str, Run]) -> str:
    """Ours over the bare network, and each package over ours, by the faster of its ways."""
    bare, tiatoolbox_run, monai_run = (best[fastest(best, package)] for package in ("bare", "tiatoolbox", "MONAI"))
    mine = best[OURS]
    return (
        f"vs_bare={over(mine, bare):.2f} vs_tiatoolbox={over(tiatoolbox_run, mine):.2f}x "
        f"vs_monai={over(monai_run, mine):.2f}x "
        f"mm2_per_s={case.area_mm2() / mine.seconds:.1f} peak_rss_mb={mine.rss_mb:.0f}"
    )


def main() -> None:
    """Compare on a slide, then on a large one; print the tables and, last, the line that is quoted."""
    if not SLIDES.exists():
        sys.exit(f"{SLIDES} is absent: this benchmark needs a whole slide (README.md)")
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # everyone computes on the CPU
    source = SLIDES / "metaplasia_he.tif"
    with tempfile.TemporaryDirectory() as root:
        case = in_own_process(partial(prepare, source.name, source, Path(root, "small")))
        best = compare(case, CONTESTANTS, repeats=3)
        copies = large_slide(source, Path(root, "large.tif"))
        large = in_own_process(partial(prepare, f"{COPIES}×{COPIES} copies of it", copies, Path(root, "large")))
        kept = [*list(CONTESTANTS)[:2], OURS, fastest(best, "tiatoolbox"), fastest(best, "MONAI")]
        best_large = compare(large, {name: CONTESTANTS[name] for name in kept}, repeats=2)
        lines = [
            ROW.format("slide", "timed", "tiles", "seconds", "mm²/s", "RSS MB", "÷ ours", ""),
            *table(case, best),
            f"  {ratios(case, best)}",
            *table(large, best_large),
            f"infer: {ratios(large, best_large)}",
        ]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
