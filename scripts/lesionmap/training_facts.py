"""What a model file records of its training from the start: all that another facility needs to use it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lesionmap.files import sha256
from lesionmap.tiling import IGNORE, LESION, STORED_CLASSES, TileSpec

THRESHOLD = 0.5  # claim 8; that of the figures on validation slides, and of the config's inference.threshold
LICENCE = (
    "LesionMap itself is under the MIT licence. These weights are not covered by it: they derive from the training "
    "slides and, where the backbone was pretrained, from its weights (torchvision's were trained on ImageNet, which is "
    "licensed for research). Whoever trained the model decides, within those terms, how it may be passed on."
)
INTENDED_USE = (
    "Research only: reference data that show where on a slide of haematoxylin and eosin to look. "
    "Not a diagnostic device."
)


def training_facts(tiles: Mapping[str, Any], weights: str | None, provenance: dict[str, Any]) -> dict[str, Any]:
    """What is known of a model before its first epoch; JSON-able, the same for the same inputs.

    Parameters
    ----------
    tiles : mapping
        :func:`lesionmap.settings.tile_settings`.
    weights : str or None
        File that the backbone starts from.
    provenance : dict
        Of :func:`lesionmap.provenance.provenance`, with the config sections ``model`` and ``train``.
    """
    spec = TileSpec(tiles["region_px"], tiles["tile_px"], tiles["mpp"])
    return {
        "classes": {name: code for code, name in enumerate(STORED_CLASSES)} | {"ignore": IGNORE},
        "target": STORED_CLASSES[LESION],
        "threshold": THRESHOLD,
        "tiles": dict(tiles),
        "mpp": {"high": spec.mpp, "low": spec.low_mpp},
        "backbone_weights": {"file": Path(weights).name, "sha256": sha256(weights)} if weights else None,
        "licence": LICENCE,
        "intended_use": INTENDED_USE,
        "provenance": provenance,
    }
