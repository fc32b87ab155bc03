"""Metrics on the validation slides, after each epoch."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from lesionmap.annotations.classes import LESION
from lesionmap.maps.probability import as_scores
from lesionmap.metrics.calibration import logistic_recalibration
from lesionmap.metrics.pixels import Histograms, best_threshold, binary_metrics
from lesionmap.network.forward import logits_of
from lesionmap.network.region_pass import RegionTensors, TilePasses, fused_map, tile_maps
from lesionmap.training.augmentation import Augmentation
from lesionmap.training.checkpoint import HistoryRow
from lesionmap.training.dataset import RegionLoader
from lesionmap.training.loss import NonFiniteLossError, focal_sum, labelled_pixels
from lesionmap.training.process_group import ALONE, ProcessGroup
from lesionmap.training.settings import TrainSettings

NO_AUGMENTATION = Augmentation()


@torch.no_grad()
def validate(
    loader: RegionLoader, passes: TilePasses, settings: TrainSettings, group: ProcessGroup = ALONE
) -> HistoryRow:
    """Loss, Dice, AUROC, best threshold and calibration of each map that the schedule trains, on the judged pixels.

    The model must be in evaluation mode. Several processes share the regions; each returns the metrics over all. All
    are None if no pixel is judged.

    Raises
    ------
    NonFiniteLossError
        If a loss is not finite, because the last update gave unusable weights.
    """
    seen = {view: Histograms.empty() for view in settings.views}
    losses, n_pixels = dict.fromkeys(settings.views, 0.0), 0
    for region in loader.tensors(
        ((number, NO_AUGMENTATION) for number in range(group.rank, len(loader.regions), group.count)),
        passes.pause_point,
    ):
        passes.pause_point()
        n_pixels += labelled_pixels(region.judged_mask)
        for view, logits in _views(passes, region, settings):
            loss = focal_sum(logits, region.judged_mask, settings).item()
            if not math.isfinite(loss):
                raise NonFiniteLossError(region)
            losses[view] += loss
            scores, mask = as_scores(logits[0, 0].cpu().numpy()), region.judged_mask[0, 0].cpu().numpy()
            seen[view] += Histograms.of(scores, mask)
    row: HistoryRow = {}
    for view, histograms in seen.items():
        counted = [n_pixels, losses[view], *histograms.counts.ravel().tolist()]
        n_all, loss, *counts = group.summed(counted, passes.pause_point)
        histograms = Histograms(np.array(counts, dtype=np.int64).reshape(histograms.counts.shape))
        metrics = binary_metrics(histograms, threshold=0.5)
        row |= {f"val_{view}_loss": loss / n_all if n_all else None}
        row |= {f"val_{view}_dice": metrics["dice"], f"val_{view}_auroc": metrics["auroc"]}
        row |= {f"val_{view}_threshold": best_threshold(histograms)}
        row |= {f"val_{view}_calibration_{name}": value for name, value in _calibration(histograms).items()}
    return row


def _calibration(histograms: Histograms) -> dict[str, float | None]:
    """Intercept and slope that bring the probabilities to what was observed; None where undefined."""
    lesion = histograms.counts[LESION]
    fit = logistic_recalibration(lesion, histograms.counts.sum(axis=0) - lesion)
    found = dict(zip(("intercept", "slope"), map(float, fit), strict=True))
    return {name: None if math.isnan(value) else value for name, value in found.items()}


def _views(passes: TilePasses, region: RegionTensors, settings: TrainSettings) -> Iterator[tuple[str, Tensor]]:
    """Name and logits, (1, 1, s, s), of each map in `settings.views`, as inference makes it."""
    low = logits_of(passes.model, region.low)
    passes.count(1)
    for view in settings.views:
        yield view, low if view == "low" else fused_map(passes.model, region, _tile_maps(passes, region), low)


def _tile_maps(passes: TilePasses, region: RegionTensors) -> Tensor:
    """T1 of a region; as a loss does, it shows whether the weights are unusable."""
    try:
        return tile_maps(passes, region)
    except FloatingPointError:
        raise NonFiniteLossError(region) from None
