"""Settings of the network: the config section ``model``. Can be imported without torch."""

from dataclasses import dataclass

TILES = "tiles"


@dataclass(frozen=True)
class ModelSettings:
    """A torchvision `backbone`, its `norm` (``frozen``, ``batch``, ``group``) and the `fusion` of maps.

    `fusion` is ``mean``, ``max``, ``learned``, or ``tiles``: the tiles' maps alone. It has a default because older
    model files do not name it.
    """

    backbone: str
    norm: str
    fusion: str = "mean"
