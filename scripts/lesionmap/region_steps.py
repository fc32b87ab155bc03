"""The updates that one region makes to the network (METHOD.md §3–4), exact in micro-batches of tiles."""

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.ops import sigmoid_focal_loss

from lesionmap.model import LesionFPN, mixed_precision
from lesionmap.parallel import return_freed_memory
from lesionmap.ranks import ALONE, Ranks
from lesionmap.tiling import IGNORE, LESION
from lesionmap.train_settings import TrainSettings
from lesionmap.workers import Workers

Places = list[tuple[int, int]]
Losses = dict[str, float]
Gradients = tuple[Tensor | None, ...]
Result = TypeVar("Result")
CLAMP = 1e-6  # keeps the logit of a probability finite


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


class NonFiniteLossError(Exception):
    """The loss of a region is not finite; the weights are those before the update that it belongs to."""

    def __init__(self, region: RegionTensors) -> None:
        self.region = region


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
    workers : Workers
    pause_point : callable
        Called between micro-batches; what it raises ends the pass and leaves weights and statistics as they were.
    """

    model: LesionFPN
    tile_batch: int
    workers: Workers
    pause_point: Callable[[], None]

    def map(self, function: Callable[[MicroBatch], Result], batches: Sequence[MicroBatch]) -> Iterator[Result]:
        """Results in the order of the micro-batches."""
        with own_statistics(self.model):
            for result in self.workers.map(function, batches):
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


@dataclass(frozen=True)
class RegionSteps:
    """The updates that a region makes, by the schedule of `settings`.

    With several processes, `ranks`, each brings its own region, or None, and all make the same updates on the mean of
    the regions' gradients. All must take every step.
    """

    passes: TilePasses
    optimiser: torch.optim.Optimizer
    settings: TrainSettings
    ranks: Ranks = ALONE

    def low(self, region: RegionTensors | None) -> Losses:
        """Step 1: the update on the low view."""
        if self.settings.schedule == "high_only":
            return {}
        return self._update("low", region, lambda part: low_backward(self.passes.model, part, self.settings))

    def rest(self, region: RegionTensors | None) -> Losses:
        """Steps 2 and 3: what follows the low update."""
        passes, settings = self.passes, self.settings
        if settings.schedule == "joint":
            return self._update("fused", region, lambda part: fused_backward(passes, part, settings))
        if settings.schedule == "low_only":
            return {}
        t1s: list[Tensor] = []
        with_tiles = region if region and len(region.tiles) else None
        losses = self._update("high", with_tiles, lambda part: tiles_backward(passes, part, settings, t1s.append))
        if settings.schedule == "sequential":
            t1 = torch.cat(t1s) if t1s else torch.zeros(0)
            losses |= self._update("fused", region, lambda part: constant_t1_backward(passes.model, part, t1, settings))
        return losses

    def _update(self, name: str, region: RegionTensors | None, backward: Callable[[RegionTensors], float]) -> Losses:
        """One update by all processes; our region's loss, if there is a region."""
        self.optimiser.zero_grad()
        losses = {name: backward(region)} if region else {}
        if region and not math.isfinite(losses[name]):
            raise NonFiniteLossError(region)
        if self.ranks.mean_gradients(self.passes.weights(), bool(region)):
            self.optimiser.step()
        return losses


def low_backward(model: LesionFPN, region: RegionTensors, settings: TrainSettings) -> float:
    """Add the gradient of the low view's focal loss to the weights; return the loss."""
    loss = focal_sum(logits_of(model, region.low), region.low_mask, settings) / counted(region.low_mask)
    loss.backward()  # type: ignore[no-untyped-call]  # torch does not type it
    return loss.item()


def fused_backward(passes: TilePasses, region: RegionTensors, settings: TrainSettings) -> float:
    """Add the gradient of the fused loss, through T1 and T2, to the weights; return the loss.

    Downsampling and fusion are local, so the loss is a sum over tile blocks. T2 is computed once and cut from its
    graph; each micro-batch gives its part of the weights' and of T2's gradient, which then flows back once through
    the low pass.
    """
    model, weights, n = passes.model, passes.weights(), region.tiles_per_side
    t2 = torch.sigmoid(logits_of(model, region.low))  # (1, 1, s, s)
    leaf = t2.detach().requires_grad_()
    n_pixels = counted(region.low_mask)

    def part(batch: MicroBatch) -> tuple[float, Gradients]:
        fused = blocks(leaf, batch.places, n)  # (k, 1, s/n, s/n)
        if len(batch.tiles):
            fused = model.fusion(downsampled(torch.sigmoid(logits_of(model, batch.tiles)), n), fused)
        loss = map_loss(fused, blocks(region.low_mask, batch.places, n), settings) / n_pixels
        return loss.item(), torch.autograd.grad(loss, [leaf, *weights], allow_unused=True)

    leaf.grad = torch.zeros_like(leaf)
    total = _add_up(passes.map(part, [*passes.batches(region), *_places_without_tile(region)]), [leaf, *weights])
    t2.backward(leaf.grad)  # type: ignore[no-untyped-call]  # torch does not type it
    return total


def tiles_backward(
    passes: TilePasses, region: RegionTensors, settings: TrainSettings, take_t1: Callable[[Tensor], None]
) -> float:
    """Add the gradient of the tiles' focal loss against their own masks to the weights; return the loss.

    `take_t1` is given T1, (k, 1, s/n, s/n), of one micro-batch after the other.
    """
    n_pixels, weights = counted(region.tile_masks), passes.weights()

    def part(batch: MicroBatch) -> tuple[float, Gradients, Tensor]:
        logits = logits_of(passes.model, batch.tiles)
        loss = focal_sum(logits, batch.masks, settings) / n_pixels
        gradients = torch.autograd.grad(loss, weights, allow_unused=True)
        return loss.item(), gradients, downsampled(torch.sigmoid(logits.detach()), region.tiles_per_side)

    def parts() -> Iterator[tuple[float, Gradients]]:
        for loss, gradients, t1 in passes.map(part, passes.batches(region)):
            take_t1(t1)
            yield loss, gradients

    return _add_up(parts(), weights)


def constant_t1_backward(model: LesionFPN, region: RegionTensors, t1: Tensor, settings: TrainSettings) -> float:
    """Add the gradient of the fused loss, through T2 alone, to the weights; return the loss."""
    t2 = torch.sigmoid(logits_of(model, region.low))
    loss = map_loss(fused_map(model, region, t1, t2), region.low_mask, settings) / counted(region.low_mask)
    loss.backward()  # type: ignore[no-untyped-call]  # torch does not type it
    return loss.item()


def _add_up(parts: Iterable[tuple[float, Gradients]], tensors: Sequence[Tensor]) -> float:
    """Add the parts' gradients to those of the tensors, in the parts' order; the sum of the losses."""
    total = 0.0
    for loss, gradients in parts:
        total += loss
        for tensor, gradient in zip(tensors, gradients, strict=True):
            if gradient is not None:
                tensor.grad = gradient if tensor.grad is None else tensor.grad.add_(gradient)
        del gradients  # not to be held while the next ones are made
    return total


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


def _places_without_tile(region: RegionTensors) -> list[MicroBatch]:
    n = region.tiles_per_side
    alone = [(row, column) for row in range(n) for column in range(n) if (row, column) not in region.row_col]
    return [MicroBatch(alone, region.tiles[:0], region.tile_masks[:0])] if alone else []


def downsampled(probability: Tensor, factor: int) -> Tensor:
    """The area mean: (k, 1, s, s) → (k, 1, s/factor, s/factor)."""
    return nn.functional.avg_pool2d(probability, factor)


def blocks(image: Tensor, places: Places, n: int) -> Tensor:
    """The blocks of a (1, C, s, s) map that tiles at (row, column) of an n×n region cover; (k, C, s/n, s/n)."""
    side = image.shape[-1] // n
    return torch.cat([image[..., r * side : (r + 1) * side, c * side : (c + 1) * side] for r, c in places])


def focal_sum(logits: Tensor, mask: Tensor, settings: TrainSettings) -> Tensor:
    """Focal loss (claim 5) against the lesion class, summed over the pixels that are not 255."""
    target = (mask == LESION).to(logits.dtype)
    loss = sigmoid_focal_loss(logits, target, alpha=settings.focal_alpha, gamma=settings.focal_gamma)
    total: Tensor = (loss * (mask != IGNORE)).sum()
    return total


def map_loss(probability: Tensor, mask: Tensor, settings: TrainSettings) -> Tensor:
    """The same of a probability map."""
    return focal_sum(torch.logit(probability, eps=CLAMP), mask, settings)


def counted(mask: Tensor) -> int:
    """Pixels that are not 255, at least 1."""
    return max(1, int((mask != IGNORE).sum()))


def logits_of(model: LesionFPN, images: Tensor) -> Tensor:
    """Logits of (N, 3, H, W) uint8 images in the precision that suits the device; (N, 1, H, W), at least fp32."""
    with mixed_precision(images.device):
        logits: Tensor = model(images)
    return logits if logits.dtype == torch.float64 else logits.float()


def as_images(stack: NDArray[np.uint8]) -> Tensor:
    """(N, H, W, 3) → (N, 3, H, W)."""
    return torch.from_numpy(stack).permute(0, 3, 1, 2)


@torch.no_grad()
def settle_statistics(model: LesionFPN, low_images: Iterable[NDArray[np.uint8]]) -> None:
    """Set trainable batch norm's running statistics to their mean over the low views of all regions.

    Running averages at batch 1 follow the last few regions and lag behind the weights (PreciseBN: Wu & Johnson,
    arXiv:2105.07576, §3). Frozen and group norm have none.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean of all batches
    model.train()
    for low_image in low_images if norms else ():
        logits_of(model, as_images(low_image[None]).to(model.mean.device))


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
