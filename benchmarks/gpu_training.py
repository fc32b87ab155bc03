"""Part of ``make gpu-check``: regions per second of the joint training step, and what is not deterministic in it."""

import math
import os
import re
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from gpu_figures import Check, Utilisation
from lesionmap.geometry.tiling import TileSpec
from lesionmap.network.forward import logits_of
from lesionmap.network.model import LesionFPN
from lesionmap.network.region_pass import RegionTensors, TilePasses
from lesionmap.network.settings import ModelSettings
from lesionmap.network.thread_pool import ThreadPool
from lesionmap.tiles.codec import TileCodec
from lesionmap.tiles.store import Region, new_store, packed
from lesionmap.training.augmentation import Augmentation
from lesionmap.training.dataset import RegionDataset, RegionLoader
from lesionmap.training.settings import TrainSettings
from lesionmap.training.updates import RegionSteps

MICRO_BATCHES = (4, 16, 64)
MOST = MICRO_BATCHES[-1]
SETTINGS = TrainSettings()
N_STORED, MOST_PASSED = 6, 40  # regions
RUIFROK = ((0.650, 0.704, 0.286), (0.072, 0.990, 0.105))
STAIN = {"basis": RUIFROK, "p99": (1.5, 1.0), "n_px": 1, "residual": 0.0, "method": "none", "verdict": "ok"}


@dataclass(frozen=True)
class Sizes:
    """A network, and the sides of its regions."""

    backbone: str
    tile_px: int
    tiles_per_side: int

    @classmethod
    def of(cls, check: Check) -> "Sizes":
        """4096 px in tiles of 512, of ResNet-50; a small one where nothing is measured."""
        return cls("resnet18", 64, 2) if check.quick else cls("resnet50", 512, 8)

    def network(self, device: torch.device) -> LesionFPN:
        """Random weights, scaled so that no sigmoid is saturated."""
        torch.manual_seed(0)
        model = LesionFPN(ModelSettings(self.backbone, "frozen"))
        for block in (block for stage in model.stages for block in stage):
            getattr(block, "bn3", block.bn2).weight.fill_(0.2)
        return model.to(device, memory_format=torch.channels_last).train()

    def region(self) -> Region:
        """Smooth colours with a little noise, which compress as tissue does, and a lesion."""
        n, side = self.tiles_per_side, self.tile_px
        rng = np.random.default_rng(0)
        y, x = np.mgrid[:side, :side]
        smooth = np.stack([150 + 60 * np.sin(x / 19), 90 + 50 * np.cos(y / 23), 130 + x / 16 + y / 16], axis=2)
        images = (smooth + rng.normal(0, 6, (n * n + 1, side, side, 3))).clip(0, 255).astype(np.uint8)
        mask = np.zeros((side, side), np.uint8)
        mask[side // 5 : side // 2, side // 9 : side // 3] = 1
        places = np.stack(np.divmod(np.arange(n * n), n), axis=1).astype(np.uint8)
        return Region((0.0, 0.0), images[0], mask, mask, places, images[1:], np.stack([mask] * n * n))

    def on(self, device: torch.device) -> RegionTensors:
        """The same on the device, without the tiles' masks, as joint training takes it."""
        part = self.region()
        mask = torch.from_numpy(part.low_mask)[None, None].to(device)
        low, tiles = (
            torch.from_numpy(stack).permute(0, 3, 1, 2).to(device) for stack in (part.low_image[None], part.images)
        )
        places = [(int(row), int(column)) for row, column in part.row_col]
        return RegionTensors("synthetic", self.tiles_per_side, low, mask, mask, tiles, places, tiles[:0, :1])


def measure(check: Check) -> None:
    """All figures of training."""
    sizes = Sizes.of(check)
    region = sizes.on(check.device)
    torch.use_deterministic_algorithms(True, warn_only=True)  # as training does
    print_nondeterministic(check, sizes, region)
    warnings.simplefilter("ignore")
    rates = {}
    for k in MICRO_BATCHES:
        rates[k] = check.attempt(
            f"joint step, {k} tiles at a time", lambda k=k: step_rate(check, sizes, region, k), "regions/s"
        )
        check.note(**{f"k{k}": rates[k]})
        check.say(f"  peak memory of that, {k} tiles at a time", check.peak_gb(), "GB")
    check.note(peak_gb=check.peak_gb())
    with tempfile.TemporaryDirectory() as folder:
        name = f"joint step with regions from a tile store, {MOST} tiles at a time"
        check.note(loader_k64=check.attempt(name, lambda: loader_rate(check, sizes, folder), "regions/s"))
    torch.use_deterministic_algorithms(False)
    bare = check.attempt(
        f"bare network, forward and backward, {MOST} tiles at a time",
        lambda: bare_rate(check, sizes, region),
        "regions/s",
    )
    check.note(vs_bare=rates[MOST] / bare if bare else math.nan)
    for k in MICRO_BATCHES[:-1]:
        check.attempt(f"bare network, {k} tiles at a time", lambda k=k: bare_rate(check, sizes, region, k), "regions/s")
    leads(check, sizes, region)


def leads(check: Check, sizes: Sizes, region: RegionTensors) -> None:
    """What the joint step would gain by less determinism; the switches add up."""
    switches: dict[str, Callable[[], object]] = {
        "new memory is not filled": lambda: setattr(torch.utils.deterministic, "fill_uninitialized_memory", False),
        "no deterministic algorithms": lambda: torch.use_deterministic_algorithms(False),
        "and cudnn.benchmark": lambda: setattr(torch.backends.cudnn, "benchmark", True),
    }
    torch.use_deterministic_algorithms(True, warn_only=True)
    for name, switch in switches.items():
        switch()
        for k in (MICRO_BATCHES[0], MOST):
            check.attempt(
                f"lead: {name}, {k} tiles at a time", lambda k=k: step_rate(check, sizes, region, k), "regions/s"
            )


def print_nondeterministic(check: Check, sizes: Sizes, region: RegionTensors) -> None:
    """Name the operations of a joint step that torch calls nondeterministic on this device."""
    with warnings.catch_warnings(record=True) as caught, ThreadPool(1, check.device) as pool:
        warnings.simplefilter("always")
        take_step(_steps(sizes.network(check.device), check, pool, 4), region)
        check.wait()
    found = {name[1] for one in caught if (name := re.match(r"(\S+) does not have a determin", str(one.message)))}
    found |= {
        "cuBLAS without CUBLAS_WORKSPACE_CONFIG" for one in caught if "CUBLAS_WORKSPACE_CONFIG" in str(one.message)
    }
    print("  operations that are not deterministic:", ", ".join(sorted(found)) or "none")


def _steps(model: LesionFPN, check: Check, pool: ThreadPool, k: int) -> RegionSteps:
    optimiser = torch.optim.Adam(model.parameters(), lr=SETTINGS.learning_rate)
    return RegionSteps(TilePasses(model, k, pool, lambda: None), optimiser, SETTINGS)


def take_step(steps: RegionSteps, region: RegionTensors) -> None:
    """Both updates on a region."""
    steps.low(region)
    steps.rest(region)


def step_rate(check: Check, sizes: Sizes, region: RegionTensors, k: int) -> float:
    """Regions per second of the joint step, of a region that is on the device."""
    check.reset_peak()
    with ThreadPool(len(os.sched_getaffinity(0)), check.device) as pool:
        steps = _steps(sizes.network(check.device), check, pool, k)
        return check.rate(lambda: take_step(steps, region), 1)


def bare_rate(check: Check, sizes: Sizes, region: RegionTensors, k: int = MOST) -> float:
    """Regions per second of forward and backward of the tiles alone: no low view, no loss, no update."""
    model = sizes.network(check.device)

    def work() -> None:
        for tiles in region.tiles.split(k):
            logits_of(model, tiles).mean().backward()

    return check.rate(work, 1)


def loader_rate(check: Check, sizes: Sizes, folder: str) -> float:
    """Regions per second from a tile store on disk: read, decoded, turned, moved to the device and trained on."""
    loader = RegionLoader(RegionDataset([_store(sizes, folder)]), check.device, with_tile_masks=False)
    with ThreadPool(len(os.sched_getaffinity(0)), check.device) as pool:
        steps = _steps(sizes.network(check.device), check, pool, MOST)
        regions = loader.tensors(_tasks(2 if check.quick else MOST_PASSED))
        for region in islice(regions, 1):
            take_step(steps, region)
        check.wait()
        start, done = time.perf_counter(), 0
        with Utilisation(check.device) as busy:
            for region in regions:
                take_step(steps, region)
                done += 1
                if time.perf_counter() - start > 15:
                    break
            check.wait()
            seconds = time.perf_counter() - start
    check.note(utilisation=busy.mean)
    check.say("  utilisation of the GPU during that", busy.mean, "%")
    return done / seconds


def _tasks(count: int) -> Iterator[tuple[int, Augmentation]]:
    for number in range(count):
        yield number % N_STORED, Augmentation(quarters=number % 4, flip=bool(number % 2))


def _store(sizes: Sizes, folder: str) -> str:
    """A tile store as extraction writes it, of some regions."""
    path, codec = Path(folder, "tiles.h5"), TileCodec()
    metadata = {"slide": "synthetic", "identity": "0" * 64, "stain": {"reference": STAIN}}
    spec = TileSpec(sizes.tile_px * sizes.tiles_per_side, sizes.tile_px, 0.25)
    content = packed(sizes.region(), codec)
    with new_store(path, spec, metadata, codec) as writer:
        for _ in range(N_STORED):
            writer.append(content)
    return str(path)
