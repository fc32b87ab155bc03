"""The network (METHOD.md §2): ResNet bottom-up, top-down pathway with skip additions, one-logit head."""

import copy
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import FrozenBatchNorm2d

from lesionmap.geometry.tiling import FINEST_STRIDE
from lesionmap.network.logits import mixed_logit
from lesionmap.network.settings import TILES, ModelSettings
from lesionmap.network.top_down import TopDownStep, bias_of, merged, read_out

STAGE_CHANNELS = {
    "resnet18": (64, 128, 256, 512),
    "resnet34": (64, 128, 256, 512),
    "resnet50": (256, 512, 1024, 2048),
    "resnet101": (256, 512, 1024, 2048),
}
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RARE_LESION_PRIOR = 0.1


class FoldedNorm(FrozenBatchNorm2d):  # type: ignore[misc]  # torchvision is untyped
    """Frozen batch norm that the convolution before it includes (:class:`FoldedConv2d`)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` as it is."""
        return x


class FoldedConv2d(nn.Conv2d):
    """A convolution that includes the frozen batch norm behind it: the same result in one pass over the image.

    In bf16, training then takes six tenths of the time and four tenths of the memory.
    """

    norm: tuple[FoldedNorm]

    @classmethod
    def of(cls, conv: nn.Conv2d, norm: FoldedNorm) -> "FoldedConv2d":
        """From a convolution without bias; its weights and the norm's buffers are shared."""
        folded = cls(conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, bias=False)  # type: ignore[arg-type]
        folded.weight = conv.weight
        folded.norm = (norm,)  # in a tuple, it does not become a part of this module, too
        return folded

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, channels, H', W')."""
        scale, bias = scale_and_bias(self.norm[0])
        return functional.conv2d(x, self.weight * scale[:, None, None, None], bias, self.stride, self.padding)


def scale_and_bias(norm: Any) -> tuple[Tensor, Tensor]:
    """What batch norm with running or frozen statistics multiplies each channel by, and what it adds to it."""
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return scale, norm.bias - norm.running_mean * scale


def _fold_norms(network: nn.Module) -> None:
    """Replace each convolution before a :class:`FoldedNorm` by one that includes it."""
    for module in list(network.modules()):
        for (name, conv), (_, norm) in pairwise(list(module.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, FoldedNorm):
                setattr(module, name, FoldedConv2d.of(conv, norm))


class ViewNorm(nn.BatchNorm2d):
    """Batch norm with running statistics for each view: those of the low view, and `tile_mean`, `tile_var` of tiles.

    Statistics over both scales would fit neither (METHOD.md §4). In training, each batch is normalised by its own.
    """

    tile_mean: Tensor
    tile_var: Tensor
    on_tiles = False  # set by lesionmap.network.region_pass.passing_tiles

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.register_buffer("tile_mean", torch.zeros(channels))
        self.register_buffer("tile_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) → the same shape; tiles leave running statistics as they are."""
        if not self.on_tiles:
            return super().forward(x)
        mean, var = (None, None) if self.training else (self.tile_mean, self.tile_var)
        return functional.batch_norm(x, mean, var, self.weight, self.bias, self.training, eps=self.eps)

    def keep_for_tiles(self) -> None:
        """Take the low view's statistics as those of tiles, too."""
        self.tile_mean.copy_(self.get_buffer("running_mean"))
        self.tile_var.copy_(self.get_buffer("running_var"))


class LesionFPN(nn.Module):
    """Feature pyramid network that gives one lesion logit per pixel.

    Examples
    --------
    >>> LesionFPN(ModelSettings("resnet18", "batch"))(torch.zeros(1, 3, 64, 96, dtype=torch.uint8)).shape
    torch.Size([1, 1, 64, 96])
    """

    mean: Tensor
    std: Tensor

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        resnet = getattr(torchvision.models, settings.backbone)(weights=None, norm_layer=_norm_layer(settings.norm))
        _fold_norms(resnet)
        self.stem = nn.Sequential(resnet.conv1, resnet.bn1, resnet.relu, resnet.maxpool)
        self.stages = nn.ModuleList([resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4])
        c2, c3, c4, c5 = STAGE_CHANNELS[settings.backbone]
        self.to_p4, self.to_p3, self.to_p2 = TopDownStep(c5, c4), TopDownStep(c4, c3), TopDownStep(c3, c2)
        self.head = nn.Conv2d(c2, 1, kernel_size=1)
        nn.init.normal_(self.head.weight, std=0.01)
        self.fusion = FUSIONS[settings.fusion]()
        # the prior of a rare class makes early training with focal loss stable (Lin et al., ICCV 2017, §4.1)
        self.head.bias = nn.Parameter(torch.tensor([RARE_LESION_PRIOR]).logit())
        self.set_scale()

    def set_scale(self) -> None:
        """Create the buffers for image mean and standard deviation, which model files do not contain."""
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            self.register_buffer(name, 255 * torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    def for_tiles(self) -> "LesionFPN":
        """The network to pass tiles through: itself, or one of the same weights with the tiles' statistics."""
        if not any(isinstance(module, ViewNorm) for module in self.modules()):
            return self
        twin = copy.deepcopy(self, {id(weight): weight for weight in self.parameters()})
        for norm in (module for module in twin.modules() if isinstance(module, ViewNorm)):
            norm.running_mean, norm.running_var = norm.tile_mean, norm.tile_var
        return twin

    def tops(self) -> tuple[nn.Module, ...]:
        """The parts that :meth:`readers` merges."""
        return self.to_p2, self.to_p3, self.to_p4, self.head

    def readers(self) -> list[tuple[Tensor, Tensor]]:
        """How the head reads C2 to C5, for :meth:`forward`."""
        steps = (self.to_p2, self.to_p3, self.to_p4)
        return merged(self.head.weight[..., 0, 0], bias_of(self.head), steps)

    def forward(self, images: Tensor, readers: Sequence[tuple[Tensor, Tensor]] | None = None) -> Tensor:
        """Lesion logits of RGB images.

        Parameters
        ----------
        images : (N, 3, H, W) uint8
            RGB, 0 to 255; H and W are multiples of 32.
        readers : sequence of (Tensor, Tensor), optional
            Those of :meth:`readers`, if they are known.

        Returns
        -------
        (N, 1, H, W) float
        """
        x = ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        c1 = self.stem(x)  # (N, 64, H/4, W/4)
        c2 = self.stages[0](c1)  # (N, c2, H/4, W/4)
        c3 = self.stages[1](c2)  # (N, c3, H/8, W/8)
        c4 = self.stages[2](c3)  # (N, c4, H/16, W/16)
        c5 = self.stages[3](c4)  # (N, c5, H/32, W/32)
        logits = read_out((c2, c3, c4, c5), readers or self.readers())  # (N, 1, H/4, W/4)
        return functional.interpolate(logits, scale_factor=FINEST_STRIDE, mode="bilinear")


def _norm_layer(norm: str) -> Callable[[int], nn.Module]:
    layers: dict[str, Callable[[int], nn.Module]] = {
        "frozen": FoldedNorm,
        "batch": ViewNorm,
        "group": lambda channels: nn.GroupNorm(32, channels),
    }
    return layers[norm]


class MeanFusion(nn.Module):
    """Fuse T1 and T2 by the mean of their probabilities."""

    def forward(self, t1: Tensor, t2: Tensor) -> Tensor:
        """Maps of one shape, in logits → the same."""
        return mixed_logit(t1, t2, t1.new_zeros(()))


class MaxFusion(nn.Module):
    """Fuse T1 and T2 by the larger value."""

    def forward(self, t1: Tensor, t2: Tensor) -> Tensor:
        """Maps of one shape, in logits → the same."""
        return torch.maximum(t1, t2)


class LearnedFusion(nn.Module):
    """Fuse T1 and T2 by the mean of their probabilities in training, by a weighted mean in maps.

    The weight of T1, sigmoid(a), is chosen on validation slides after each epoch
    (:func:`lesionmap.training.validation.validate`). If it were trained, it would hardly move at the learning rate that
    the network's weights bear.
    """

    a: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("a", torch.zeros(()))

    def forward(self, t1: Tensor, t2: Tensor) -> Tensor:
        """Maps of one shape, in logits → the same."""
        return mixed_logit(t1, t2, torch.zeros_like(self.a) if self.training else self.a)


class TilesAlone(nn.Module):
    """Take T1 where there is a tile: for networks that were trained on tiles alone."""

    def forward(self, t1: Tensor, t2: Tensor) -> Tensor:
        """Maps of one shape, in logits → the first."""
        return t1


FUSIONS: dict[str, type[nn.Module]] = {
    "mean": MeanFusion,
    "max": MaxFusion,
    "learned": LearnedFusion,
    TILES: TilesAlone,
}
