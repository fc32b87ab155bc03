"""A backbone of a twentieth of resnet18's weights, of the same modules, for tests that are not about its size.

Importing this module makes it known to torchvision and to the network by the name ``narrow``.
"""

import torchvision
from lesionmap.network.model import STAGE_CHANNELS
from lesionmap.network.settings import ModelSettings
from torchvision.models.resnet import BasicBlock, ResNet

WIDTHS = {64: 32, 128: 64, 256: 96, 512: 128}  # different ones, and groups of 32 divide them


class NarrowResNet(ResNet):
    def _make_layer(self, block, planes, *arguments, **more):
        return super()._make_layer(block, WIDTHS[planes], *arguments, **more)

    def __init__(self, **options):
        super().__init__(BasicBlock, [1, 1, 1, 1], num_classes=1, **options)
        self.fc = None  # is of 512 features, and the network has a head of its own


def narrow(weights=None, **options):
    assert weights is None
    return NarrowResNet(**options)


torchvision.models.narrow = narrow
STAGE_CHANNELS["narrow"] = tuple(WIDTHS.values())
NARROW = ModelSettings("narrow", "group")
