"""How many tiles the network takes at once: in training (``train.tile_batch: auto``), and at most in inference."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil
import torch
from torch import Tensor

from lesionmap.network.forward import logits_of
from lesionmap.network.model import LesionFPN
from lesionmap.network.region_pass import own_statistics
from lesionmap.network.resources import MOST_TILES_ON_CPU, training_gb

MOST_TILES_ON_GPU = 64
USED_SHARE = 0.8  # of the free memory; the rest is for what else grows meanwhile
CGROUPS = Path("/sys/fs/cgroup")


def fitting_tile_batch(model: LesionFPN, backbone: str, tile_px: int, threads: int) -> int:
    """Tiles at once that fit the free memory of the model's device, each thread of a CPU holding so many."""
    if model.mean.device.type == "cuda":
        return on_gpu(_free_bytes(model.mean.device), _bytes_per_tile(model, tile_px, partial(_train_step, model)))
    return on_cpu(available_bytes(), training_gb(backbone, tile_px) * 1e9, threads)


def fitting_inference_batch(model: LesionFPN, tile_px: int, asked: int) -> int:
    """Tiles at once in a pass without gradient: `asked`, or as many as fit a GPU's free memory; one on a CPU.

    A CPU is no faster with more. Each thread of it takes one tile after another.
    """
    device = model.mean.device
    if device.type == "cpu":
        return 1
    with torch.no_grad():
        per_tile = _bytes_per_tile(model, tile_px, lambda tiles: logits_of(model, tiles))
    return max(1, min(asked, int(USED_SHARE * _free_bytes(device) / per_tile)))


def on_gpu(free_bytes: int, bytes_per_tile: int) -> int:
    """The largest power of two up to 64 that fits beside the low view, at least 1."""
    fitting = USED_SHARE * free_bytes / bytes_per_tile - 1
    return min(MOST_TILES_ON_GPU, 1 << math.floor(math.log2(max(1, fitting))))


def on_cpu(available: int, bytes_per_tile: float, threads: int) -> int:
    """As many as fit a thread's share, at least 1 and at most 4."""
    return max(1, min(MOST_TILES_ON_CPU, int(USED_SHARE * available / threads / bytes_per_tile)))


def available_bytes() -> int:
    """Memory that this process may still take: of the machine, and of every control group that it lies in."""
    return min([int(psutil.virtual_memory().available), *_left_in_cgroups()])


def _left_in_cgroups() -> Iterator[int]:
    """What limits (cgroup v2: containers, SLURM) leave of memory."""
    own = Path("/proc/self/cgroup")
    lines = own.read_text(encoding="utf-8").splitlines() if own.exists() else []
    for name in (line.removeprefix("0::/") for line in lines if line.startswith("0::/")):
        for folder in (CGROUPS / name, *(CGROUPS / name).parents):
            limit, used = folder / "memory.max", folder / "memory.current"
            if limit.exists() and (most := limit.read_text(encoding="utf-8").strip()) != "max":
                yield max(0, int(most) - int(used.read_text(encoding="utf-8")))


def _free_bytes(device: torch.device) -> int:
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # by torch, for what comes next
    return torch.cuda.mem_get_info(device)[0] + kept


def _bytes_per_tile(model: LesionFPN, tile_px: int, use: Callable[[Tensor], object]) -> int:
    """What a second tile adds to the peak of a use of the network."""
    peaks = []
    for count in (1, 2):
        torch.cuda.reset_peak_memory_stats(model.mean.device)
        use(torch.zeros(count, 3, tile_px, tile_px, dtype=torch.uint8, device=model.mean.device))
        peaks.append(torch.cuda.max_memory_allocated(model.mean.device))
    return max(1, peaks[1] - peaks[0])


def _train_step(model: LesionFPN, tiles: Tensor) -> None:
    with own_statistics(model):
        logits_of(model, tiles).sum().backward()  # type: ignore[no-untyped-call]  # torch does not type it
    model.zero_grad()
