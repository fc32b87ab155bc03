"""Which network: the config section ``model``. Readable without torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelSettings:
    """Which network: a torchvision `backbone`, its `norm` (``frozen``, ``batch``, ``group``), and the `fusion` of maps.

    Files of models from before there was a choice of fusion do not name it.
    """

    backbone: str
    norm: str
    fusion: str = "mean"
