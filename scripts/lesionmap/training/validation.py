"""Metrics on the validation slides, after each epoch."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from lesionmap.maps.probability import N_VALUES, as_u8
from lesionmap.metrics.pixels import Histograms, best_threshold, binary_metrics
from lesionmap.network.forward import logits_of
from lesionmap.network.region_pass import RegionTensors, TilePasses, fused_map, stitched, tile_maps
from lesionmap.training.augmentation import Augmentation
from lesionmap.training.checkpoint import HistoryRow
from lesionmap.training.dataset import RegionLoader
from lesionmap.training.loss import NonFiniteLossError, focal_sum, labelled_pixels, map_loss
from lesionmap.training.process_group import ALONE, ProcessGroup
from lesionmap.training.settings import TrainSettings

NO_AUGMENTATION = Augmentation()


@torch.no_grad()
def validate(
    loader: RegionLoader, passes: TilePasses, settings: TrainSettings, group: ProcessGroup = ALONE
) -> HistoryRow:
    """Loss, Dice, AUROC and best threshold of each map that the schedule trains, against the mask of the low view.

    The model must be in evaluation mode. Several processes share the regions; each returns the metrics over all. All
    are None if every pixel is to be ignored (255).

    Raises
    ------
    NonFiniteLossError
        If a loss is not finite, because the last update gave unusable weights.
    """
    seen = {view: Histograms.empty() for view in settings.views}
    losses, n_pixels = dict.fromkeys(settings.views, 0.0), 0
    for region in loader.tensors(
        (number, NO_AUGMENTATION) for number in range(group.rank, len(loader.regions), group.count)
    ):
        passes.pause_point()
        n_pixels += labelled_pixels(region.low_mask)
        for view, loss, probability in _views(passes, region, settings):
            if not math.isfinite(loss):
                raise NonFiniteLossError(region)
            losses[view] += loss
            probability_u8 = as_u8(probability[0, 0].cpu().numpy())
            seen[view] += Histograms.of(probability_u8, region.low_mask[0, 0].cpu().numpy())
    row: HistoryRow = {}
    for view, histograms in seen.items():
        n_all, loss, *counts = group.summed([n_pixels, losses[view], *histograms.counts.ravel().tolist()])
        histograms = Histograms(np.array(counts, dtype=np.int64).reshape(-1, N_VALUES))
        metrics = binary_metrics(histograms, threshold=0.5)
        row |= {f"val_{view}_loss": loss / n_all if n_all else None}
        row |= {f"val_{view}_dice": metrics["dice"], f"val_{view}_auroc": metrics["auroc"]}
        row |= {f"val_{view}_threshold": best_threshold(histograms)}
    return row


def _views(passes: TilePasses, region: RegionTensors, settings: TrainSettings) -> Iterator[tuple[str, float, Tensor]]:
    """Name, focal loss (summed over pixels) and probability map, (1, 1, s, s), of each map in `settings.views`."""
    if "high" in settings.views:
        t1 = stitched(_tile_maps(passes, region), region, region.low_mask.float())
        yield "high", map_loss(t1, region.low_mask, settings).item(), t1
        return
    logits = logits_of(passes.model, region.low)
    t2 = torch.sigmoid(logits)
    yield "low", focal_sum(logits, region.low_mask, settings).item(), t2
    if "fused" in settings.views:
        fused = fused_map(passes.model, region, _tile_maps(passes, region), t2)
        yield "fused", map_loss(fused, region.low_mask, settings).item(), fused


def _tile_maps(passes: TilePasses, region: RegionTensors) -> Tensor:
    """T1 of a region; as a loss does, it shows whether the weights are unusable."""
    try:
        return tile_maps(passes, region)
    except FloatingPointError:
        raise NonFiniteLossError(region) from None
