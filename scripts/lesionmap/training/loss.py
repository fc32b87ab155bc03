"""Focal loss on logits (METHOD.md §3)."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from lesionmap.annotations.classes import IGNORE, LESION
from lesionmap.errors import TrainingError
from lesionmap.files.atomic import written_whole
from lesionmap.network.region_pass import RegionTensors
from lesionmap.training.settings import TrainSettings

Losses = dict[str, float]
JUDGED_TOGETHER = 48  # regions; one alone may be hard
LARGE_UPDATES = "lower train.learning_rate to a tenth, or raise train.warmup_updates"
EXPLODED = 10  # times the loss of a network that cannot decide


class NonFiniteLossError(Exception):
    """The loss of a region is not finite; the weights have not been updated with it."""

    def __init__(self, region: RegionTensors) -> None:
        self.region = region


def focal_sum(logits: Tensor, mask: Tensor, settings: TrainSettings) -> Tensor:
    """Focal loss (claim 5) for the lesion class, summed over the pixels that are not to be ignored (255 in `mask`)."""
    target = (mask == LESION).to(logits.dtype)
    loss = sigmoid_focal_loss(logits, target, alpha=settings.focal_alpha, gamma=settings.focal_gamma)
    total: Tensor = (loss * (mask != IGNORE)).sum()
    return total


def labelled_pixels(mask: Tensor) -> int:
    """Number of pixels that are not to be ignored (255)."""
    return int((mask != IGNORE).sum())


def check_not_exploded(losses: Sequence[Losses], settings: TrainSettings) -> None:
    """Stop training whose loss stays far above that of a network that gives 0.5 everywhere; warn if it once was.

    Updates that are too large do both: they wipe out what pretrained weights know, at once.

    Parameters
    ----------
    losses : sequence of dict
        Of the regions of an epoch so far, in order; the last :data:`JUDGED_TOGETHER` are looked at.

    Raises
    ------
    TrainingError
        If the median of these losses is above :data:`EXPLODED` times the loss of such a network, at its worst.
    """
    undecided = max(settings.focal_alpha, 1 - settings.focal_alpha) * 0.5**settings.focal_gamma * math.log(2)
    seen = [loss for part in losses[-JUDGED_TOGETHER:] for loss in part.values()]
    if not seen or max(seen) <= EXPLODED * undecided:
        return
    if median(seen) <= EXPLODED * undecided:
        logging.warning("a region's loss was %.3g, and has come down. If maps are poor: %s", max(seen), LARGE_UPDATES)
        return
    raise TrainingError(
        stage="train",
        finding=f"the loss has exploded: its median over the last regions is {median(seen):.3g}, and of a network that "
        f"gives 0.5 everywhere it is {undecided:.2g} at most",
        remedy=LARGE_UPDATES,
    )


def nonfinite_error(region: RegionTensors, path: Path) -> TrainingError:
    """Save the arrays of a region whose loss is not finite; the error names the region and the file."""
    names = ("low", "low_mask", "judged_mask", "tiles", "tile_masks")
    arrays = {name: getattr(region, name).cpu().numpy() for name in names}
    with written_whole(path) as draft:
        np.savez_compressed(draft, name=region.name, row_col=np.array(region.row_col), **arrays)
    return TrainingError(
        stage="train",
        finding=f"the loss is no longer finite at region {region.name}; its arrays are in {path}",
        remedy=f"look at that region; or {LARGE_UPDATES}",
    )
