"""Focal loss on logits (METHOD.md §3)."""

from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from lesionmap.annotations.classes import IGNORE, LESION
from lesionmap.network.region_pass import RegionTensors
from lesionmap.training.settings import TrainSettings

Losses = dict[str, float]


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
