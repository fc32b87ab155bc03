"""Batch sizes that fit the memory: for training (``train.tile_batch: auto``) and as the limit for inference."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil
import torch
from torch import Tensor

from lesionmap.network.forward import logits_of
from lesionmap.network.model import LesionFPN
from lesionmap.network.region_pass import passing_tiles
from lesionmap.network.resources import MOST_TILES_ON_CPU, machine_costs
from lesionmap.network.settings import ModelSettings

MOST_TILES_ON_GPU = 64
USED_SHARE = 0.8  # of the free memory; the rest is a reserve for other allocations
CGROUPS = Path("/sys/fs/cgroup")


def fitting_tile_batch(model: LesionFPN, settings: ModelSettings, tile_px: int, threads: int, cache: Path) -> int:
    """Training tiles per batch that fit the free memory of the model's device; on a CPU, each thread has a batch.

    `cache` is that of :func:`lesionmap.network.resources.machine_costs`, which a CPU needs.
    """
    if model.mean.device.type == "cuda":
        return on_gpu(_free_bytes(model.mean.device), _bytes_per_tile(model, tile_px, partial(_train_step, model)))
    return on_cpu(available_bytes(), machine_costs(settings, tile_px, cache).training_bytes, threads)


def fitting_inference_batch(model: LesionFPN, tile_px: int, asked: int, use: Callable[[Tensor], object]) -> int:
    """Tiles per batch in a pass without gradient: at most `asked`, and at most what fits a GPU's free memory.

    On a CPU it is 1, because larger batches are no faster: each thread takes one tile after another.

    Parameters
    ----------
    use : callable
        Runs the network on (N, 3, s, s) uint8 in the precision of the pass: fp32 takes twice the memory of bf16.
    """
    device = model.mean.device
    if device.type == "cpu":
        return 1
    per_tile = _bytes_per_tile(model, tile_px, use)
    return max(1, min(asked, int(USED_SHARE * _free_bytes(device) / per_tile)))


def on_gpu(free_bytes: int, bytes_per_tile: int) -> int:
    """Tiles per batch on a GPU: the largest power of two, from 1 to 64, that leaves room for the low view."""
    fitting = USED_SHARE * free_bytes / bytes_per_tile - 1
    return min(MOST_TILES_ON_GPU, 1 << math.floor(math.log2(max(1, fitting))))


def on_cpu(available: int, bytes_per_tile: float, threads: int) -> int:
    """Tiles per batch that fit one CPU thread's share of the memory, from 1 to 4."""
    return max(1, min(MOST_TILES_ON_CPU, int(USED_SHARE * available / threads / bytes_per_tile)))


def available_bytes() -> int:
    """Bytes that this process may still use: the least that the machine and its control groups leave."""
    return min([int(psutil.virtual_memory().available), *_left_in_cgroups()])


def _left_in_cgroups() -> Iterator[int]:
    """Bytes left below the memory limit of each control group (cgroup v2: containers, SLURM)."""
    own = Path("/proc/self/cgroup")
    lines = own.read_text(encoding="utf-8").splitlines() if own.exists() else []
    for name in (line.removeprefix("0::/") for line in lines if line.startswith("0::/")):
        for folder in (CGROUPS / name, *(CGROUPS / name).parents):
            limit, used = folder / "memory.max", folder / "memory.current"
            if limit.exists() and (most := limit.read_text(encoding="utf-8").strip()) != "max":
                yield max(0, int(most) - int(used.read_text(encoding="utf-8")))


def _free_bytes(device: torch.device) -> int:
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # torch keeps it for reuse
    return torch.cuda.mem_get_info(device)[0] + kept


def _bytes_per_tile(model: LesionFPN, tile_px: int, use: Callable[[Tensor], object]) -> int:
    """How much a second tile adds to the peak memory of `use`, which runs the network on a batch."""
    device = model.mean.device
    before, peaks = torch.cuda.memory_allocated(device), []
    for count in (1, 2):
        torch.cuda.reset_peak_memory_stats(device)
        use(torch.zeros(count, 3, tile_px, tile_px, dtype=torch.uint8, device=device))
        peaks.append(torch.cuda.max_memory_allocated(device))
    # at least half of their mean: convolutions may take less workspace for two than for one
    return max(1, peaks[1] - peaks[0], (peaks[1] - before) // 4)


def _train_step(model: LesionFPN, tiles: Tensor) -> None:
    with passing_tiles(model):
        logits_of(model, tiles).sum().backward()  # type: ignore[no-untyped-call]  # torch does not type it
    model.zero_grad()
