"""A region's tiles and low view through the network, and their maps fused (METHOD.md §4)."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from lesionmap.jobs.parallel import return_freed_memory
from lesionmap.network.forward import logits_of
from lesionmap.network.model import LesionFPN
from lesionmap.network.thread_pool import ThreadPool

Places = list[tuple[int, int]]
Result = TypeVar("Result")


@dataclass(frozen=True)
class RegionTensors:
    """A region on the device.

    Parameters
    ----------
    name : str
        Slide and place, for people.
    tiles_per_side : int
    low, low_mask : (1, 3, s, s), (1, 1, s, s) uint8
    tiles : (n, 3, s, s) uint8
    row_col : list of (int, int)
        Row and column of each tile.
    tile_masks : (n, 1, s, s) uint8
        None of them, (0, 1, s, s), where tiles have no loss of their own.
    """

    name: str
    tiles_per_side: int
    low: Tensor
    low_mask: Tensor
    tiles: Tensor
    row_col: Places
    tile_masks: Tensor


@dataclass(frozen=True)
class MicroBatch:
    """Some tiles of a region, their places and masks; with no tiles, the places that have none."""

    places: Places
    tiles: Tensor
    masks: Tensor


@dataclass(frozen=True)
class TilePasses:
    """Passes of a region's tiles through the network, few at a time.

    Parameters
    ----------
    model : LesionFPN
    tile_batch : int
        Tiles in the network at once, on each thread.
    pool : ThreadPool
    pause_point : callable
        Called between micro-batches; what it raises ends the pass and leaves weights and statistics as they were.
    """

    model: LesionFPN
    tile_batch: int
    pool: ThreadPool
    pause_point: Callable[[], None]

    def map(self, function: Callable[[MicroBatch], Result], batches: Sequence[MicroBatch]) -> Iterator[Result]:
        """Results in the order of the micro-batches."""
        with own_statistics(self.model):
            for result in self.pool.map(function, batches):
                self.pause_point()
                yield result
                del result  # its gradients would live on beside those of the next ones
                return_freed_memory()

    def batches(self, region: RegionTensors) -> list[MicroBatch]:
        """All tiles of a region, `tile_batch` at a time."""
        cuts = [slice(first, first + self.tile_batch) for first in range(0, len(region.tiles), self.tile_batch)]
        return [MicroBatch(region.row_col[cut], region.tiles[cut], region.tile_masks[cut]) for cut in cuts]

    def weights(self) -> list[nn.Parameter]:
        """What is trained."""
        return [weight for weight in self.model.parameters() if weight.requires_grad]


@torch.no_grad()
def tile_maps(passes: TilePasses, region: RegionTensors) -> Tensor:
    """T1 of all tiles; (n, 1, s/n, s/n)."""

    def part(batch: MicroBatch) -> Tensor:
        with torch.no_grad():  # each thread has its own switch
            return downsampled(torch.sigmoid(logits_of(passes.model, batch.tiles)), region.tiles_per_side)

    t1s = list(passes.map(part, passes.batches(region)))
    return torch.cat(t1s) if t1s else torch.zeros(0)


def fused_map(model: LesionFPN, region: RegionTensors, t1: Tensor, t2: Tensor) -> Tensor:
    """T1, (n, 1, s/n, s/n), and T2, (1, 1, s, s), fused where a tile exists, T2 elsewhere; (1, 1, s, s)."""
    if not len(t1):
        return t2
    has_tile = stitched(torch.ones_like(t1), region, t2) > 0
    return torch.where(has_tile, model.fusion(stitched(t1, region, t2), t2), t2)


def stitched(t1: Tensor, region: RegionTensors, like: Tensor) -> Tensor:
    """The tiles' blocks at their places in a map of the shape and type of `like`, (1, 1, s, s), 0 elsewhere."""
    whole, side = torch.zeros_like(like), like.shape[-1] // region.tiles_per_side
    for block, (row, column) in zip(t1, region.row_col, strict=True):
        whole[0, :, row * side : (row + 1) * side, column * side : (column + 1) * side] = block
    return whole


def downsampled(probability: Tensor, factor: int) -> Tensor:
    """The area mean: (k, 1, s, s) → (k, 1, s/factor, s/factor)."""
    return nn.functional.avg_pool2d(probability, factor)


@contextmanager
def own_statistics(model: LesionFPN) -> Iterator[None]:
    """Let trainable batch norm normalise tiles by their own statistics, and keep its running ones as they are.

    Statistics of mixed scales fit neither (METHOD.md §4): the running ones are those of the low view, which the pass
    over whole slides reads. Frozen and group norm have none, and are not touched.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    before = [(norm.momentum, norm.training, copy.deepcopy(norm.num_batches_tracked)) for norm in norms]
    for norm in norms:
        norm.momentum, norm.training = 0.0, True
    try:
        yield
    finally:
        for norm, (momentum, training, count) in zip(norms, before, strict=True):
            norm.momentum, norm.training, norm.num_batches_tracked = momentum, training, count
