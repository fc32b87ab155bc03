"""Run a region's tiles and low view through the network and fuse their maps (METHOD.md §4).

In shapes, s is the side of a tile in pixels, n the number of tiles per side of a region, and k the number of tiles.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from lesionmap.network.forward import finite_logits
from lesionmap.network.logits import mean_logit
from lesionmap.network.model import LesionFPN, ViewNorm
from lesionmap.network.thread_pool import ThreadPool

Places = list[tuple[int, int]]
Result = TypeVar("Result")


@dataclass(frozen=True)
class RegionTensors:
    """A region on the device.

    Parameters
    ----------
    name : str
        Slide and position, for messages.
    tiles_per_side : int
        n: the region is a grid of n × n places, some without a tile.
    low, low_mask : (1, 3, s, s), (1, 1, s, s) uint8
        RGB image and class codes of the low view, which covers the whole region.
    judged_mask : (1, 1, s, s) uint8
        The same codes where pixels are judged, 255 elsewhere.
    tiles : (k, 3, s, s) uint8
        RGB images of the high view.
    row_col : list of (int, int)
        Row and column of each tile in the grid.
    tile_masks : (k, 1, s, s) uint8
        Class codes of the tiles; empty, (0, 1, s, s), if training has no loss on tiles.
    """

    name: str
    tiles_per_side: int
    low: Tensor
    low_mask: Tensor
    judged_mask: Tensor
    tiles: Tensor
    row_col: Places
    tile_masks: Tensor


@dataclass(frozen=True)
class MicroBatch:
    """Some tiles of a region with their places and masks; or places that have no tile, with empty tensors."""

    places: Places
    tiles: Tensor
    masks: Tensor


@dataclass(frozen=True)
class TilePasses:
    """Runs a region's tiles through the network, in micro-batches.

    Parameters
    ----------
    tile_batch : int
        Tiles per micro-batch; each thread of `pool` runs one micro-batch at a time.
    pause_point : callable
        Called before and while micro-batches run. It may raise to end the pass; weights stay unchanged.
    count : callable
        Called with the number of tiles of each micro-batch that is done.
    """

    model: LesionFPN
    tile_batch: int
    pool: ThreadPool
    pause_point: Callable[[], None]
    count: Callable[[int], object] = lambda n_tiles: None

    def map(self, function: Callable[[MicroBatch], Result], batches: Sequence[MicroBatch]) -> Iterator[Result]:
        """Results in the order of the micro-batches."""
        with passing_tiles(self.model):
            results = self.pool.map(function, batches, self.pause_point)
            for batch in batches:  # with zip, gradients would stay in memory beside the next ones
                self.pause_point()
                result = next(results)
                self.count(len(batch.tiles))
                yield result
                del result  # for the same reason

    def batches(self, region: RegionTensors) -> list[MicroBatch]:
        """All tiles of a region, `tile_batch` at a time."""
        cuts = [slice(first, first + self.tile_batch) for first in range(0, len(region.tiles), self.tile_batch)]
        return [MicroBatch(region.row_col[cut], region.tiles[cut], region.tile_masks[cut]) for cut in cuts]

    def weights(self) -> list[nn.Parameter]:
        """The trainable weights."""
        return [weight for weight in self.model.parameters() if weight.requires_grad]


@torch.no_grad()
def tile_maps(passes: TilePasses, region: RegionTensors) -> Tensor:
    """T1, the downsampled maps of all tiles, in logits; (k, 1, s/n, s/n).

    Raises
    ------
    FloatingPointError
        If a logit is NaN or infinite.
    """

    def part(batch: MicroBatch) -> Tensor:
        with torch.no_grad():  # gradients are switched off per thread
            return downsampled(finite_logits(passes.model, batch.tiles), region.tiles_per_side)

    t1s = list(passes.map(part, passes.batches(region)))
    return torch.cat(t1s) if t1s else torch.zeros(0)


def fused_map(model: LesionFPN, region: RegionTensors, t1: Tensor, t2: Tensor) -> Tensor:
    """Fuse T1, (k, 1, s/n, s/n), with T2, (1, 1, s, s), where a tile exists; elsewhere T2. All in logits."""
    if not len(t1):
        return t2
    has_tile = stitched(torch.ones_like(t1), region, t2) > 0
    return torch.where(has_tile, model.fusion(stitched(t1, region, t2), t2), t2)


def stitched(t1: Tensor, region: RegionTensors, like: Tensor) -> Tensor:
    """Place the tiles' blocks into a map with the shape and dtype of `like`, (1, 1, s, s); 0 where there is no tile."""
    whole, side = torch.zeros_like(like), like.shape[-1] // region.tiles_per_side
    for block, (row, column) in zip(t1, region.row_col, strict=True):
        whole[0, :, row * side : (row + 1) * side, column * side : (column + 1) * side] = block
    return whole


def downsampled(logits: Tensor, factor: int) -> Tensor:
    """Downsample by area mean of the probabilities: (k, 1, s, s) → (k, 1, s/factor, s/factor), in logits."""
    k, _, height, width = logits.shape
    areas = logits.reshape(k, 1, height // factor, factor, width // factor, factor)
    return mean_logit(areas, (3, 5))


@contextmanager
def passing_tiles(model: LesionFPN) -> Iterator[None]:
    """Tell trainable batch norm that tiles pass, for which it has statistics of their own."""
    norms = [module for module in model.modules() if isinstance(module, ViewNorm)]
    for norm in norms:
        norm.on_tiles = True
    try:
        yield
    finally:
        for norm in norms:
            norm.on_tiles = False
