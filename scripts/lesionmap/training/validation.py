"""Metrics on the validation slides, after each epoch."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from scipy.special import expit
from torch import Tensor

from lesionmap.annotations.classes import LESION
from lesionmap.maps.probability import as_scores
from lesionmap.metrics.calibration import logistic_recalibration
from lesionmap.metrics.pixels import Histograms, best_threshold, binary_metrics
from lesionmap.network.forward import logits_of
from lesionmap.network.model import LearnedFusion
from lesionmap.network.region_pass import RegionTensors, TilePasses, fused_map, tile_maps
from lesionmap.training.augmentation import Augmentation
from lesionmap.training.checkpoint import HistoryRow
from lesionmap.training.dataset import RegionLoader
from lesionmap.training.loss import NonFiniteLossError, focal_sum, labelled_pixels
from lesionmap.training.process_group import ALONE, ProcessGroup
from lesionmap.training.settings import TrainSettings

NO_AUGMENTATION = Augmentation()
# Of the tiles in a fused map, as logits of their weight: a half, a quarter, three quarters, as good as none, and all.
TILE_WEIGHTS = (0.0, -math.log(3), math.log(3), -20.0, 20.0)
Map = tuple[str, float | None]  # view, and the weight of tiles in it if that is chosen


@torch.no_grad()
def validate(
    loader: RegionLoader, passes: TilePasses, settings: TrainSettings, group: ProcessGroup = ALONE
) -> HistoryRow:
    """Loss, Dice, AUROC, best threshold and calibration of each map that the schedule trains, on the judged pixels.

    The model must be in evaluation mode. Several processes share the regions; each returns the metrics over all. All
    are None if no pixel is judged.

    A learned fusion takes the one of :data:`TILE_WEIGHTS` with the lowest loss, and keeps it. Among them are both views
    alone, so that on these slides the fused map is never worse than either.

    Raises
    ------
    NonFiniteLossError
        If a loss is not finite, because the last update gave unusable weights.
    """
    maps = [(view, a) for view in settings.views for a in _fusions(passes, view)]
    seen = {key: Histograms.empty() for key in maps}
    losses, n_pixels = dict.fromkeys(maps, 0.0), 0
    for region in loader.tensors(
        ((number, NO_AUGMENTATION) for number in range(group.rank, len(loader.regions), group.count)),
        passes.pause_point,
    ):
        passes.pause_point()
        n_pixels += labelled_pixels(region.judged_mask)
        for key, logits in _maps(passes, region, maps):
            loss = focal_sum(logits, region.judged_mask, settings).item()
            if not math.isfinite(loss):
                raise NonFiniteLossError(region)
            losses[key] += loss
            scores, mask = as_scores(logits[0, 0].cpu().numpy()), region.judged_mask[0, 0].cpu().numpy()
            seen[key] += Histograms.of(scores, mask)
    n_all, *all_losses = group.summed([n_pixels, *losses.values()], passes.pause_point)
    losses = dict(zip(maps, all_losses, strict=True))
    row: HistoryRow = {}
    for view in settings.views:
        best = min((key for key in maps if key[0] == view), key=losses.__getitem__)  # the first in a tie
        counts = group.summed(seen[best].counts.ravel().tolist(), passes.pause_point)
        histograms = Histograms(np.array(counts, dtype=np.int64).reshape(seen[best].counts.shape))
        metrics = binary_metrics(histograms, threshold=0.5)
        row |= {f"val_{view}_loss": losses[best] / n_all if n_all else None}
        row |= {f"val_{view}_dice": metrics["dice"], f"val_{view}_auroc": metrics["auroc"]}
        row |= {f"val_{view}_threshold": best_threshold(histograms)}
        row |= {f"val_{view}_calibration_{name}": value for name, value in _calibration(histograms).items()}
        if best[1] is not None:
            passes.model.fusion.get_buffer("a").fill_(best[1])
            row |= {f"val_{view}_tile_weight": float(expit(best[1]))}  # of numpy, no checkpoint could be read
    return row


def _fusions(passes: TilePasses, view: str) -> Sequence[float | None]:
    """The weights of tiles, as logits, among which the fusion of a view is chosen; None: it has no choice."""
    return TILE_WEIGHTS if view == "fused" and isinstance(passes.model.fusion, LearnedFusion) else (None,)


def _calibration(histograms: Histograms) -> dict[str, float | None]:
    """Intercept and slope that bring the probabilities to what was observed; None where undefined."""
    lesion = histograms.counts[LESION]
    fit = logistic_recalibration(lesion, histograms.counts.sum(axis=0) - lesion)
    found = dict(zip(("intercept", "slope"), map(float, fit), strict=True))
    return {name: None if math.isnan(value) else value for name, value in found.items()}


def _maps(passes: TilePasses, region: RegionTensors, maps: Sequence[Map]) -> Iterator[tuple[Map, Tensor]]:
    """The logits, (1, 1, s, s), of each of the `maps`, as inference makes it."""
    model = passes.model
    low = logits_of(model, region.low)
    passes.count(1)
    tiles = _tile_maps(passes, region) if any(view != "low" for view, _ in maps) else low
    for view, a in maps:
        if a is not None:
            model.fusion.get_buffer("a").fill_(a)
        yield (view, a), low if view == "low" else fused_map(model, region, tiles, low)


def _tile_maps(passes: TilePasses, region: RegionTensors) -> Tensor:
    """T1 of a region; as a loss does, it shows whether the weights are unusable."""
    try:
        return tile_maps(passes, region)
    except FloatingPointError:
        raise NonFiniteLossError(region) from None
