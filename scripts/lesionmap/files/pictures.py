"""Write small maps as TIFF with their resolution, and pictures as PNG."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from lesionmap.files.atomic import written_whole

TIFF_TILE_PX = 256


def write_tiff(
    path: str | Path, image: NDArray[np.uint8], *, mpp: float, metadata: Mapping[str, Any] | None = None
) -> None:
    """Write (H, W) uint8 as a tiled, losslessly compressed TIFF of one level, with `mpp` (µm/px) as resolution.

    `metadata`, if given, becomes its description, as JSON.
    """
    with written_whole(path) as draft:
        tifffile.imwrite(
            draft,
            image,
            tile=(TIFF_TILE_PX, TIFF_TILE_PX),
            photometric="minisblack",
            compression="zlib",
            resolution=(1e4 / mpp, 1e4 / mpp),
            resolutionunit="CENTIMETER",
            description=json.dumps(metadata) if metadata else None,
            metadata=None,
            software="LesionMap",
        )


def write_png(path: str | Path, image: NDArray[np.uint8]) -> None:
    """Write a (H, W, 3) uint8 picture."""
    with written_whole(path) as draft:
        Image.fromarray(image).save(draft, format="PNG")


def read_png(path: str | Path) -> NDArray[np.uint8]:
    """Read a picture written by :func:`write_png`."""
    with Image.open(path) as image:
        return np.array(image)
