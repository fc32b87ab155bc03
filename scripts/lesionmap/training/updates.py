"""Training updates on one region (METHOD.md §3–4), in micro-batches of tiles that sum to the exact gradient.

In shapes, s is the side of a tile in pixels, n the number of tiles per side of a region, and k the number of tiles.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lesionmap.jobs.parallel import no_pause
from lesionmap.network.forward import as_images, logits_of
from lesionmap.network.model import LesionFPN, ViewNorm
from lesionmap.network.region_pass import MicroBatch, Places, RegionTensors, TilePasses, downsampled, fused_map
from lesionmap.training.loss import Losses, NonFiniteLossError, focal_sum, labelled_pixels
from lesionmap.training.process_group import ALONE, ProcessGroup
from lesionmap.training.settings import TrainSettings

Gradients = tuple[Tensor | None, ...]
Images = NDArray[np.uint8]


@dataclass(frozen=True)
class RegionSteps:
    """Updates the network on a region, by the schedule of `settings`.

    Where all pixels of a mask are to be ignored (255), there is no update with it and no loss.

    With several processes (`group`), each passes its own region, or None. All make the same updates, on the mean of
    the regions' gradients, and all must call every step.
    """

    passes: TilePasses
    optimiser: torch.optim.Optimizer
    settings: TrainSettings
    group: ProcessGroup = ALONE

    def low(self, region: RegionTensors | None) -> Losses:
        """Step 1: update on the low view."""
        if self.settings.schedule == "high_only":
            return {}
        passes, settings, with_labels = self.passes, self.settings, _with_labels(region, "low_mask")
        return self._update(
            "low", with_labels, lambda part: low_backward(passes.model, part, settings), passes.pause_point
        )

    def rest(self, region: RegionTensors | None) -> Losses:
        """Steps 2 and 3: the updates after the low view."""
        passes, settings, with_labels = self.passes, self.settings, _with_labels(region, "low_mask")
        if settings.schedule == "joint":
            return self._update(
                "fused", with_labels, lambda part: fused_backward(passes, part, settings), passes.pause_point
            )
        if settings.schedule == "low_only":
            return {}
        t1s: list[Tensor] = []
        with_tiles = _with_labels(region, "tile_masks")
        losses = self._update(
            "high", with_tiles, lambda part: tiles_backward(passes, part, settings, t1s.append), passes.pause_point
        )
        if settings.schedule == "sequential":
            t1, model = torch.cat(t1s) if t1s else torch.zeros(0), passes.model
            losses |= self._update("fused", with_labels, lambda part: constant_t1_backward(model, part, t1, settings))
        return losses

    def _update(
        self,
        name: str,
        region: RegionTensors | None,
        backward: Callable[[RegionTensors], float],
        pause_point: Callable[[], None] = no_pause,
    ) -> Losses:
        """Make one update with all processes; return the loss of this process's region, empty without a region.

        Without a `pause_point`, nothing ends it: between two updates of :meth:`rest`, no state can be saved.
        """
        self.optimiser.zero_grad()
        losses = {name: backward(region)} if region else {}
        if region and not math.isfinite(losses[name]):
            raise NonFiniteLossError(region)
        if self.group.mean_gradients(self.passes.weights(), bool(region), pause_point):
            self._step()
        return losses

    def _step(self) -> None:
        """Let the optimiser make its update, with a share of the learning rate while the run warms up."""
        group = self.optimiser.param_groups[0]
        made = self.optimiser.state.get(group["params"][0], {}).get("step", 0)  # Adam counts, and checkpoints keep it
        rate = group["lr"]
        group["lr"] = rate * self.settings.warmth(int(made))
        self.optimiser.step()
        group["lr"] = rate


@dataclass(frozen=True)
class Tops:
    """The readers of the network (:meth:`LesionFPN.readers`), merged once for all micro-batches of a region.

    Parameters
    ----------
    merged, leaves : list of Tensor
        Their weights and biases, and the same detached from their graph: micro-batches add up the gradients of these.
    others : list of Parameter
        The weights that micro-batches use besides.
    """

    merged: list[Tensor]
    leaves: list[Tensor]
    others: list[nn.Parameter]

    @classmethod
    def of(cls, passes: TilePasses) -> "Tops":
        """Those of the network as it is now."""
        merged = [tensor for pair in passes.model.readers() for tensor in pair]
        own = {id(weight) for part in passes.model.tops() for weight in part.parameters()}
        others = [weight for weight in passes.weights() if id(weight) not in own]
        return cls(merged, [tensor.detach().requires_grad_() for tensor in merged], others)

    @property
    def readers(self) -> list[tuple[Tensor, Tensor]]:
        """For the forward pass of a micro-batch."""
        return list(zip(self.leaves[::2], self.leaves[1::2], strict=True))

    @property
    def weights(self) -> list[Tensor]:
        """All that micro-batches have gradients of."""
        return [*self.leaves, *self.others]

    def backward(self) -> None:
        """Pass the gradients that have added up on to the weights that were merged."""
        reached = [number for number, leaf in enumerate(self.leaves) if leaf.grad is not None]
        if reached:
            gradients = [self.leaves[number].grad for number in reached]
            torch.autograd.backward([self.merged[number] for number in reached], gradients)


def _with_labels(region: RegionTensors | None, mask: str) -> RegionTensors | None:
    """The region if one of its masks, `low_mask` or `tile_masks`, has a pixel that is not to be ignored."""
    return region if region and labelled_pixels(getattr(region, mask)) else None


def low_backward(model: LesionFPN, region: RegionTensors, settings: TrainSettings) -> float:
    """Add the gradient of the low view's focal loss to the weights; return the loss."""
    loss = focal_sum(logits_of(model, region.low), region.low_mask, settings) / labelled_pixels(region.low_mask)
    loss.backward()  # type: ignore[no-untyped-call]  # torch does not type it
    return loss.item()


def fused_backward(passes: TilePasses, region: RegionTensors, settings: TrainSettings) -> float:
    """Add the gradient of the fused loss, through T1 and T2, to the weights; return the loss.

    Downsampling and fusion are local, so the loss is a sum over tile blocks. T2 is computed once and detached from its
    graph. Each micro-batch adds its part to the gradients of the weights and of T2. The gradient of T2 then flows back
    through the low pass once.
    """
    model, n = passes.model, region.tiles_per_side
    tops = Tops.of(passes)
    t2 = logits_of(model, region.low)  # (1, 1, s, s)
    leaf = t2.detach().requires_grad_()
    n_pixels = labelled_pixels(region.low_mask)

    def part(batch: MicroBatch) -> tuple[Tensor, Gradients]:
        fused = blocks(leaf, batch.places, n)  # (k, 1, s/n, s/n)
        if len(batch.tiles):
            fused = model.fusion(downsampled(logits_of(model, batch.tiles, tops.readers), n), fused)
        loss = focal_sum(fused, blocks(region.low_mask, batch.places, n), settings) / n_pixels
        return loss.detach(), torch.autograd.grad(loss, [leaf, *tops.weights], allow_unused=True)

    leaf.grad = torch.zeros_like(leaf)
    total = _add_up(passes.map(part, [*passes.batches(region), *_places_without_tile(region)]), [leaf, *tops.weights])
    tops.backward()
    t2.backward(leaf.grad)  # type: ignore[no-untyped-call]  # torch does not type it
    return total


def tiles_backward(
    passes: TilePasses, region: RegionTensors, settings: TrainSettings, take_t1: Callable[[Tensor], None]
) -> float:
    """Add the gradient of the tiles' focal loss against their own masks to the weights; return the loss.

    `take_t1` is called with T1, (k, 1, s/n, s/n), of each micro-batch in order.
    """
    n_pixels, tops = labelled_pixels(region.tile_masks), Tops.of(passes)

    def part(batch: MicroBatch) -> tuple[Tensor, Gradients, Tensor]:
        logits = logits_of(passes.model, batch.tiles, tops.readers)
        loss = focal_sum(logits, batch.masks, settings) / n_pixels
        gradients = torch.autograd.grad(loss, tops.weights, allow_unused=True)
        return loss.detach(), gradients, downsampled(logits.detach(), region.tiles_per_side)

    def parts() -> Iterator[tuple[Tensor, Gradients]]:
        for loss, gradients, t1 in passes.map(part, passes.batches(region)):
            take_t1(t1)
            yield loss, gradients

    total = _add_up(parts(), tops.weights)
    tops.backward()
    return total


def constant_t1_backward(model: LesionFPN, region: RegionTensors, t1: Tensor, settings: TrainSettings) -> float:
    """Add the gradient of the fused loss, through T2 only, to the weights; return the loss."""
    fused = fused_map(model, region, t1, logits_of(model, region.low))
    loss = focal_sum(fused, region.low_mask, settings) / labelled_pixels(region.low_mask)
    loss.backward()  # type: ignore[no-untyped-call]  # torch does not type it
    return loss.item()


def _add_up(parts: Iterable[tuple[Tensor, Gradients]], tensors: Sequence[Tensor]) -> float:
    """Add the parts' gradients to those of the tensors, in order; return the sum of the losses."""
    losses = []  # their values are asked for at the end: a GPU would else be waited for after each part
    for loss, gradients in parts:
        losses.append(loss)
        for tensor, gradient in zip(tensors, gradients, strict=True):
            if gradient is not None:
                tensor.grad = gradient if tensor.grad is None else tensor.grad.add_(gradient)
        del gradients  # free them before the next ones are computed
    return sum(loss.item() for loss in losses)


def _places_without_tile(region: RegionTensors) -> list[MicroBatch]:
    n = region.tiles_per_side
    alone = [(row, column) for row in range(n) for column in range(n) if (row, column) not in region.row_col]
    return [MicroBatch(alone, region.tiles[:0], region.tile_masks[:0])] if alone else []


def blocks(image: Tensor, places: Places, n: int) -> Tensor:
    """Cut from a map, (1, C, s, s), the blocks of the tiles at (row, column) in an n × n grid; (k, C, s/n, s/n)."""
    side = image.shape[-1] // n
    return torch.cat([image[..., r * side : (r + 1) * side, c * side : (c + 1) * side] for r, c in places])


@torch.no_grad()
def settle_norms(model: LesionFPN, low_views: Iterable[Images], tiles: Iterable[Images]) -> None:
    """Set the running statistics of trainable batch norm to their mean over batches, (N, H, W, 3) each, of each view.

    With batch size 1, running averages follow the last few regions and lag behind the weights (PreciseBN: Wu & Johnson,
    arXiv:2105.07576, §3). Frozen and group norm have no running statistics. Where no tile passes, tiles are normalised
    as low views are.
    """
    norms = [module for module in model.modules() if isinstance(module, ViewNorm)]
    if not norms:
        return
    if _settle(model, norms, tiles):
        for norm in norms:
            norm.keep_for_tiles()
        _settle(model, norms, low_views)
    elif _settle(model, norms, low_views):
        for norm in norms:
            norm.keep_for_tiles()


def _settle(model: LesionFPN, norms: Sequence[ViewNorm], batches: Iterable[Images]) -> int:
    """Set the running statistics to their mean over batches; return the number of images."""
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean of all batches
    model.train()
    return sum(len(logits_of(model, as_images(batch).to(model.mean.device))) for batch in batches)
