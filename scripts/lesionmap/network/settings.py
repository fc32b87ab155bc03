"""Settings of the network: the config section ``model``. Can be imported without torch."""

from dataclasses import dataclass

TILES = "tiles"


@dataclass(frozen=True)
class ModelSettings:
    """A torchvision `backbone`, its `norm` (``frozen``, ``batch``, ``group``) and the `fusion` of maps.

    Besides those of the config, `fusion` may be ``tiles``: the tiles' maps alone, as the network was trained on tiles
    alone. It has a default because older model files do not name it.
    """

    backbone: str
    norm: str
    fusion: str = "mean"
