"""Image files that the workflow writes: pyramids with their resolution, and pictures."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from lesionmap.files import written_whole
from lesionmap.resampling import area_mean

TIFF_TILE_PX = 256


def write_pyramid(
    path: str | Path, image: NDArray[np.uint8], *, mpp: float, levels: int, provenance: dict[str, Any] | None = None
) -> None:
    """Write a tiled, losslessly compressed TIFF that OpenSlide, tifffile and QuPath open.

    Parameters
    ----------
    image : (H, W) uint8
    mpp : float
        µm/px of `image`, written as the TIFF's resolution.
    levels : int
        Levels to write, each half as large as the one before (fewer if the image gets smaller than a tile).
    provenance : dict, optional
        Written as JSON into the image description.
    """
    with written_whole(path) as draft, tifffile.TiffWriter(draft) as tiff:
        for level in range(levels):
            tiff.write(
                image,
                tile=(TIFF_TILE_PX, TIFF_TILE_PX),
                photometric="minisblack",
                compression="zlib",
                subfiletype=int(level > 0),
                resolution=(1e4 / (mpp * 2**level), 1e4 / (mpp * 2**level)),
                resolutionunit="CENTIMETER",
                description=json.dumps(provenance) if provenance and level == 0 else None,
                metadata=None,
                software="LesionMap",
            )
            if max(image.shape) <= TIFF_TILE_PX:
                break
            image = _halved(image)


def _halved(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    even = np.pad(image, [(0, length % 2) for length in image.shape], mode="edge")
    return area_mean(even[..., None], 2)[..., 0]


def pyramid_mpp(path: str) -> float:
    """µm/px of level 0 of a TIFF written by :func:`write_pyramid`."""
    with tifffile.TiffFile(path) as tiff:
        numerator, denominator = tiff.pages.first.tags["XResolution"].value
    return 1e4 * float(denominator) / float(numerator)


def pyramid_provenance(path: str) -> dict[str, Any]:
    """The provenance that :func:`write_pyramid` was given."""
    with tifffile.TiffFile(path) as tiff:
        content: dict[str, Any] = json.loads(tiff.pages.first.description)
    return content


def write_png(path: str | Path, image: NDArray[np.uint8]) -> None:
    """Write a (H, W, 3) uint8 picture."""
    with written_whole(path) as draft:
        Image.fromarray(image).save(draft, format="PNG")


def read_png(path: str | Path) -> NDArray[np.uint8]:
    """Read a picture written by :func:`write_png`."""
    with Image.open(path) as image:
        return np.array(image)
