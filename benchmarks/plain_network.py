"""The network as METHOD.md writes it, which is what one gets who builds it from torchvision's parts."""

import torch
from lesionmap.network.model import FoldedConv2d, LesionFPN
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import FrozenBatchNorm2d


class PlainFPN(LesionFPN):
    """Each norm after its convolution, every step of the top-down path in full; the weights are another model's."""

    @classmethod
    def of(cls, model: LesionFPN) -> "PlainFPN":
        """The same network; `model` is changed."""
        for module in list(model.modules()):
            for name, part in list(module.named_children()):
                if isinstance(part, FoldedConv2d):
                    setattr(module, name, unfolded(part))
        model.__class__ = cls
        return model

    def forward(self, images: Tensor, readers: object = None) -> Tensor:
        """(N, 3, H, W) uint8 → (N, 1, H, W)."""
        x = self.stem(((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last))
        skips = []
        for stage in self.stages:
            x = stage(x)
            skips.append(x)
        for step, skip in zip((self.to_p4, self.to_p3, self.to_p2), skips[2::-1], strict=True):
            x = skip + step.smooth(functional.interpolate(step.reduce(x), scale_factor=2, mode="bilinear"))
        return functional.interpolate(self.head(x), scale_factor=4, mode="bilinear")


def unfolded(folded: FoldedConv2d) -> nn.Sequential:
    """A convolution, then its frozen batch norm."""
    conv = nn.Conv2d(
        folded.in_channels, folded.out_channels, folded.kernel_size, folded.stride, folded.padding, bias=False
    )
    conv.weight = folded.weight
    norm = FrozenBatchNorm2d(folded.out_channels)
    norm.load_state_dict(folded.norm[0].state_dict())
    return nn.Sequential(conv, norm.to(folded.weight.device))
