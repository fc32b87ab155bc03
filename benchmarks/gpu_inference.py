"""Part of ``make gpu-check``: tiles per second of the pass over a slide, beside its stages and the network alone."""

import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import simplejpeg
import tifffile
import torch
from gpu_figures import Check, Utilisation
from gpu_training import RUIFROK, Sizes
from lesionmap.geometry.tiling import corners_px, map_size
from lesionmap.inference.engines import BF16, FP32
from lesionmap.inference.sliding_window import PassSettings, TileReader, _mean_into, sliding_window_maps
from lesionmap.inference.stitching import RowBand
from lesionmap.inference.torch_engine import TableOnGpu, TorchEngine
from lesionmap.network.model_file import save_model
from lesionmap.network.settings import ModelSettings
from lesionmap.slides.inspection import InspectionSettings, examine
from lesionmap.slides.reader_selection import choose_reader
from lesionmap.slides.sheet import SlideRow
from lesionmap.slides.slide import Slide, SlideInfo
from lesionmap.stain.profile import StainProfile
from lesionmap.stain.table import StainMatch
from lesionmap.tissue.mask import TissueMask
from torch import Tensor

BATCH, MAP_MPP, SLIDE_MPP, STORED_PX = 128, 2.5, 1.0, 512
PROFILE = StainProfile(RUIFROK, (1.5, 1.0), 1, 0.0, "none", "ok")
STAIN = StainMatch(PROFILE, PROFILE, (1.1, 0.9))
THREADS = len(os.sched_getaffinity(0))
INSPECTION = InspectionSettings(
    read_share=0.0,
    max_unreadable_fraction=0.05,
    mpp_tolerance=0.1,
    mpp_from_objective=None,
    apply_icc=False,
    reader="auto",
    needed_mpp=dict.fromkeys(("tiles", "low_view", "inference", "first_pass"), MAP_MPP),
)


@dataclass(frozen=True)
class Scene:
    """A slide, its tissue, its table of colours, and a model file."""

    info: SlideInfo
    tissue: TissueMask
    table: np.ndarray
    model: Path
    tile_px: int
    batch: int

    @classmethod
    def made(cls, folder: Path, check: Check) -> "Scene":
        """A slide of 1600 tiles of tissue, as a scanner's second level: JPEG tiles at 1 µm/px."""
        sizes = Sizes.of(check)
        across = 3 if check.quick else 40
        write_slide(folder / "slide.tif", across * sizes.tile_px * MAP_MPP / SLIDE_MPP)
        tifffile.imwrite(folder / "tissue.tif", np.full((64, 64), 255, dtype=np.uint8))
        info = examine(SlideRow("synthetic", str(folder / "slide.tif"), "inference"), INSPECTION)["info"]
        info = replace(info, reader=choose_reader(info, "auto", "gpu_check").reader)
        network = sizes.network(torch.device("cpu")).eval()
        save_model(folder / "model.safetensors", network, ModelSettings(sizes.backbone, "frozen"), {})
        tissue, batch = TissueMask(folder / "tissue.tif", info), 4 if check.quick else BATCH
        return cls(info, tissue, STAIN.table(THREADS), folder / "model.safetensors", sizes.tile_px, batch)

    def engine(self, check: Check, precision: str) -> TorchEngine:
        """The engine as a job opens it."""
        device, threads = check.device.type, THREADS
        return TorchEngine(str(self.model), precision, self.batch, tile_px=self.tile_px, threads=threads, device=device)

    def pass_rate(self, check: Check, precision: str) -> tuple[float, float]:
        """Tiles per second of the whole pass, and the mean utilisation."""
        engine = self.engine(check, precision)
        settings = PassSettings(MAP_MPP, self.tile_px, 0, flips=False, max_unreadable_fraction=0.0)
        engine.shares(self.tiles(engine.batch_size))  # kernels are loaded once
        start = time.perf_counter()
        with Utilisation(check.device) as busy:
            (mapped,) = sliding_window_maps(
                self.info, self.tissue, self.table, [engine], settings, folder=self.model.parent, threads=THREADS
            )
        return mapped.n_read / (time.perf_counter() - start), busy.mean

    def tiles(self, count: int) -> np.ndarray:
        """Raw tiles in memory, all alike."""
        return np.repeat(tissue_image(self.tile_px)[None], count, axis=0)


def tissue_image(side: int) -> np.ndarray:
    """Smooth colours of tissue with a little noise."""
    y, x = np.mgrid[:side, :side]
    smooth = np.stack([160 + 60 * np.sin(x / 19), 90 + 50 * np.cos(y / 23), 140 + 40 * np.sin((x + y) / 31)], axis=2)
    return (smooth + np.random.default_rng(0).normal(0, 6, (side, side, 3))).clip(0, 255).astype(np.uint8)


def write_slide(path: Path, side_px: float) -> None:
    """A square TIFF whose JPEG tiles are all the same, with a level of a quarter of its size."""
    tile = simplejpeg.encode_jpeg(tissue_image(STORED_PX), quality=85, colorsubsampling="420")
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for factor in (1, 4):
            side = int(side_px) // factor
            tiff.write(
                _repeated(tile, (-(-side // STORED_PX)) ** 2),
                shape=(side, side, 3),
                dtype=np.uint8,
                tile=(STORED_PX, STORED_PX),
                photometric="ycbcr",
                subsampling=(2, 2),
                compression="jpeg",
                subfiletype=int(factor > 1),
                resolution=(1e4 / (SLIDE_MPP * factor),) * 2,
                resolutionunit="CENTIMETER",
                metadata=None,
            )


def _repeated(tile: bytes, count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield tile


def measure(check: Check) -> None:
    """All figures of inference; the least sure last."""
    with tempfile.TemporaryDirectory() as folder:
        scene = Scene.made(Path(folder), check)
        tiles = torch.from_numpy(scene.tiles(scene.batch)).to(check.device)
        bare, copies = {}, copy_rate(check, scene)
        for precision in (BF16, FP32):
            bare[precision] = check.attempt(
                f"bare network, {precision}, {scene.batch} tiles at a time",
                lambda p=precision: bare_rate(check, scene.engine(check, p), tiles),
                "tiles/s",
            )
        check.note(bare=bare[BF16], copy_limit=copies)
        check.say("copies from pinned memory to the device, the same bytes", copies, "tiles/s")
        check.reset_peak()
        whole, busy = scene.pass_rate(check, BF16)
        check.note(tiles_per_s=whole, vs_bare=whole / bare[BF16], utilisation=busy, peak_gb=check.peak_gb())
        check.say("whole pass over the slide, bf16", whole, "tiles/s")
        check.say("  utilisation of the GPU during that", busy, "%")
        stages(check, scene)
        single, _ = scene.pass_rate(check, FP32)
        check.note(fp32_tiles_per_s=single)
        check.say("whole pass over the slide, fp32", single, "tiles/s")


def stages(check: Check, scene: Scene) -> None:
    """The stages of the pass, each alone: the slowest is what to mend."""
    engine, table = scene.engine(check, BF16), TableOnGpu(scene.table, check.device.type)
    raw = scene.tiles(engine.batch_size)
    check.attempt("stage: normalise and pass tiles from memory", lambda: check.rate(
        lambda: engine.shares(table(raw)), len(raw), 4), "tiles/s")  # fmt: skip
    check.attempt(f"stage: read and decode tiles, {THREADS} threads", lambda: read_rate(check, scene), "tiles/s")
    check.attempt(f"stage: stitch tiles, {THREADS} threads", lambda: stitch_rate(check, scene), "tiles/s")


def bare_rate(check: Check, engine: TorchEngine, tiles: Tensor) -> float:
    """Tiles per second of the network alone; tiles and logits stay on the device."""
    with torch.inference_mode():
        return check.rate(lambda: engine._logits(tiles), len(tiles))


def copy_rate(check: Check, scene: Scene) -> float:
    """Tiles per second of copies to the device."""
    host = torch.from_numpy(scene.tiles(scene.batch))
    host = host.pin_memory() if check.device.type == "cuda" else host
    there = torch.empty_like(host, device=check.device)
    return check.rate(lambda: there.copy_(host, non_blocking=True), len(host), 2)


def read_rate(check: Check, scene: Scene) -> float:
    """Tiles per second of reading at the map's resolution."""
    corners = corners_px(map_size(scene.info.size_lv0, MAP_MPP / scene.info.mpp), scene.tile_px, scene.tile_px)
    some = corners[: 8 if check.quick else 8 * THREADS]
    with Slide(scene.info, "gpu_check") as slide, ThreadPoolExecutor(THREADS) as readers:
        reader = TileReader(slide, scene.tile_px, MAP_MPP)
        return check.rate(lambda: list(readers.map(reader.read, some)), len(some), 4)


def stitch_rate(check: Check, scene: Scene) -> float:
    """Tiles per second of adding tiles to a map and scoring it."""
    across, rows = 4 if check.quick else 40, 4
    shares = np.full((2, scene.tile_px, scene.tile_px), 0.5, np.float32)

    scores = np.zeros((rows * scene.tile_px, across * scene.tile_px), np.uint16)

    def whole(pool: ThreadPoolExecutor) -> None:
        band = RowBand(scores.shape, scene.tile_px, _mean_into(scores, pool))
        for row, column in np.ndindex(rows, across):
            band.add((column * scene.tile_px, row * scene.tile_px), *shares)
        band.finish()

    with ThreadPoolExecutor(THREADS) as pool:
        return check.rate(lambda: whole(pool), rows * across, 3)
