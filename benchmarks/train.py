"""One region's joint training step, timed in one run against the textbook's way and the bare network.

``make bench-train`` runs it; the README beside it says who is timed on what.
"""

import os
import resource
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context

import numpy as np
import psutil
import torch
from lesionmap.network.forward import logits_of, mixed_precision, pick_device
from lesionmap.network.model import LesionFPN
from lesionmap.network.region_pass import RegionTensors, TilePasses
from lesionmap.network.settings import ModelSettings
from lesionmap.network.thread_pool import ThreadPool
from lesionmap.training.settings import TrainSettings
from lesionmap.training.updates import RegionSteps, fused_backward
from plain_network import PlainFPN
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

SIDE, PER_SIDE, TILE_BATCH = 512, 8, 4
TEXTBOOK_GB_PER_TILE = 0.9  # in fp32
NETWORK = ModelSettings("resnet50", "frozen")
SETTINGS = TrainSettings()
REPEATS = 3


@dataclass(frozen=True)
class Run:
    """What one step took; all of its process is counted in `rss_gb`."""

    seconds: float
    rss_gb: float


def region(n: int) -> RegionTensors:
    """Random pixels and a lesion: what is in them takes no time."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n + 1, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
    mask = torch.zeros(1, 1, SIDE, SIDE, dtype=torch.uint8)
    mask[..., 100:300, 50:400] = 1
    places = [(place // PER_SIDE, place % PER_SIDE) for place in range(n)]
    low, mask, tiles = (part.to(pick_device()) for part in (images[:1], mask, images[1:]))
    return RegionTensors("random", PER_SIDE, low, mask, mask, tiles, places, tile_masks=tiles[:0, :1])


def network() -> LesionFPN:
    """The default network; random weights that are scaled so that no sigmoid is saturated."""
    torch.manual_seed(0)
    model = LesionFPN(NETWORK)
    for block in (block for stage in model.stages for block in stage):
        block.bn3.weight.fill_(0.2)
    return model.to(pick_device(), memory_format=torch.channels_last).train()


class Textbook(PlainFPN):
    """The network as METHOD.md §2 writes it, in the precision of training."""

    def forward(self, images: Tensor, readers: object = None) -> Tensor:
        """(N, 3, H, W) uint8 → (N, 1, H, W) logits."""
        with mixed_precision(images.device):
            return super().forward(images).float()


def textbook_loss(model: nn.Module, part: RegionTensors, pass_tiles: Callable[[Tensor], Tensor]) -> Tensor:
    """METHOD.md §4, steps 2 and 3, as a paper has them: T1 from `pass_tiles`, stitched, shrunk, fused, one loss."""
    t1, t2 = pass_tiles(part.tiles), torch.sigmoid(model(part.low))
    small, side = nn.functional.avg_pool2d(t1, PER_SIDE), SIDE // PER_SIDE
    fused = t2.clone()
    for block, (row, column) in zip(small, part.row_col, strict=True):
        view = (..., slice(row * side, row * side + side), slice(column * side, column * side + side))
        fused[view] = (block + t2[view]) / 2
    target = (part.low_mask == 1).float()
    right = torch.where(target > 0, fused, 1 - fused).clamp(1e-6, 1 - 1e-6)
    weight = torch.where(target > 0, SETTINGS.focal_alpha, 1 - SETTINGS.focal_alpha)
    return (-weight * (1 - right) ** SETTINGS.focal_gamma * right.log()).mean()


def whole_step(model: nn.Module, part: RegionTensors, pass_tiles: Callable[[Tensor], Tensor]) -> None:
    """Low step and fused step, each with its Adam update."""
    optimiser = torch.optim.Adam(model.parameters(), lr=SETTINGS.learning_rate)
    low_only = replace(part, tiles=part.tiles[:0], row_col=[])
    for loss in (
        lambda: textbook_loss(model, low_only, lambda tiles: tiles[:, :1].float()),
        lambda: textbook_loss(model, part, pass_tiles),
    ):
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()


def textbook(part: RegionTensors) -> float:
    """All tiles in one autograd graph."""
    model = Textbook.of(network())
    start = time.perf_counter()
    whole_step(model, part, lambda tiles: torch.sigmoid(model(tiles)))
    return time.perf_counter() - start


def recomputed(part: RegionTensors) -> float:
    """The same graph, with gradient checkpointing of `TILE_BATCH` tiles at a time."""
    model = Textbook.of(network())

    def pass_tiles(tiles: Tensor) -> Tensor:
        batches = tiles.split(TILE_BATCH)
        return torch.cat([torch.sigmoid(checkpoint(model, batch, use_reentrant=False)) for batch in batches])

    start = time.perf_counter()
    whole_step(model, part, pass_tiles)
    return time.perf_counter() - start


def ours(part: RegionTensors) -> float:
    """LesionMap's joint step in micro-batches."""
    model = network()
    optimiser = torch.optim.Adam(model.parameters(), lr=SETTINGS.learning_rate, fused=True)
    with ThreadPool(len(os.sched_getaffinity(0)), pick_device()) as pool:
        steps = RegionSteps(TilePasses(model, TILE_BATCH, pool, lambda: None), optimiser, SETTINGS)
        start = time.perf_counter()
        steps.low(part)
        steps.rest(part)
        return time.perf_counter() - start


def bare(part: RegionTensors) -> float:
    """Forward and backward of our network alone on the same tiles, nothing else: no low view, no loss, no update.

    A micro-batch on each thread, as ours; a GPU has one.
    """
    model = network()
    weights = list(model.parameters())
    with ThreadPool(len(os.sched_getaffinity(0)), pick_device()) as pool:
        start = time.perf_counter()
        for _ in pool.map(
            lambda batch: torch.autograd.grad(logits_of(model, batch).mean(), weights, allow_unused=True),
            part.tiles.split(TILE_BATCH),
        ):
            pass
        return time.perf_counter() - start


def bare_together(part: RegionTensors) -> float:
    """The same, one micro-batch after another with PyTorch's own threads."""
    return forward_backward(network(), part)


def bare_textbook(part: RegionTensors) -> float:
    """The same of the network as it is written."""
    return forward_backward(Textbook.of(network()), part)


def smp(part: RegionTensors) -> float:
    """The same of segmentation_models_pytorch's ResNet-50 FPN, another network, for scale."""
    import segmentation_models_pytorch

    model = segmentation_models_pytorch.FPN("resnet50", encoder_weights=None).train()
    model = model.to(pick_device(), memory_format=torch.channels_last)
    scaled = nn.Sequential(Scaled(), model)
    return forward_backward(scaled, part)


class Scaled(nn.Module):
    """uint8 RGB as the float that other networks take."""

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 → float, 0–1."""
        return (images / 255).contiguous(memory_format=torch.channels_last)


def forward_backward(model: nn.Module, part: RegionTensors) -> float:
    start = time.perf_counter()
    for batch in part.tiles.split(TILE_BATCH):
        with mixed_precision(batch.device):
            logits = model(batch)
        logits.float().mean().backward()
    return time.perf_counter() - start


def timed(contestant: Callable[[RegionTensors], float], n: int) -> Run:
    warnings.simplefilter("ignore")
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    contestant(region(1))  # kernels are compiled and memory is fetched once
    seconds = contestant(region(n))
    return Run(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)


def gradient_error(n: int) -> float:
    """Largest relative difference of any weight's gradient between the micro-batched and the textbook's fused loss."""
    part, models = region(n), (network(), network())
    written = Textbook.of(models[0])
    textbook_loss(written, part, lambda tiles: torch.sigmoid(written(tiles))).backward()
    with ThreadPool(len(os.sched_getaffinity(0)), pick_device()) as pool:
        fused_backward(TilePasses(models[1], TILE_BATCH, pool, lambda: None), part, SETTINGS)
    return max(
        float((mine.grad - theirs.grad).norm() / theirs.grad.norm())
        for theirs, mine in zip(*(model.parameters() for model in models), strict=True)
    )


def in_own_process(task: Callable[..., Run | float], *arguments: object) -> Run | float:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(task, *arguments).result()


def measured(rows: dict[str, Callable[[RegionTensors], float]], n: int, repeats: int) -> Iterator[tuple[str, Run]]:
    """The median time and the largest memory of each; they take turns."""
    runs = [{name: in_own_process(partial(timed, one), n) for name, one in rows.items()} for _ in range(repeats)]
    for name in rows:
        mine = [run[name] for run in runs]
        yield name, Run(float(np.median([run.seconds for run in mine])), max(run.rss_gb for run in mine))


def main() -> None:
    """Compare; print a table and, last, the line that is quoted."""
    fits = psutil.virtual_memory().available / 2**30 * 0.75 / TEXTBOOK_GB_PER_TILE
    n_all = max(n for n in (4, 8, 16, 32, 64) if n <= max(4.0, fits))
    mine, floors = (
        f"LesionMap, {TILE_BATCH} tiles at a time",
        {
            "bare network, a micro-batch a thread": bare,
            "bare network, PyTorch's threads": bare_together,
        },
    )
    everyone = {
        "all tiles in one graph (textbook)": textbook,
        "gradient checkpointing": recomputed,
        mine: ours,
        **floors,
        "bare network as it is written": bare_textbook,
        "segmentation_models_pytorch FPN": smp,
    }
    few = dict(measured(everyone, n_all, REPEATS))
    many = dict(measured({mine: ours, **floors}, 64, 1))
    row = "{:<36} {:>6} {:>9} {:>9}"
    sys.stdout.write(row.format("one step of one region", "tiles", "seconds", "peak GB") + "\n")
    for n, runs in ((n_all, few), (64, many)):
        for name, run in runs.items():
            sys.stdout.write(row.format(name, n, f"{run.seconds:.1f}", f"{run.rss_gb:.2f}") + "\n")
    eight = many[mine].rss_gb / in_own_process(partial(timed, ours), 8).rss_gb
    sys.stdout.write(f"memory of LesionMap with 64 tiles, over that with 8: {eight:.2f}\n")
    textbooks, floor = few["all tiles in one graph (textbook)"], min(many[name].seconds for name in floors)
    sys.stdout.write(
        f"train: vs_textbook_time={few[mine].seconds / textbooks.seconds:.2f} "
        f"vs_textbook_mem={few[mine].rss_gb / textbooks.rss_gb:.2f} "
        f"overhead_over_bare={many[mine].seconds / floor:.2f} "
        f"grad_rel_err={in_own_process(gradient_error, min(n_all, 8)):.1e}\n"
    )


if __name__ == "__main__":
    main()
