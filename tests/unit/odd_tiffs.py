"""TIFF files of the kinds that OpenSlide refuses or misreads, with known pixels."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

UM_PER_UNIT = {"CENTIMETER": 1e4, "INCH": 25_400.0}
Level = Callable[[np.ndarray], np.ndarray]
Levels = Mapping[int, np.ndarray]


def write_odd_tiff(
    path: Path,
    image: np.ndarray | Levels,
    mpp: float = 0.25,
    *,
    as_stored: Level = lambda level: level,
    byteorder: str = "<",
    factors: tuple[int, ...] = (1, 2, 4),
    unit: str = "CENTIMETER",
    **options: Any,
) -> Path:
    """Write a pyramid; `as_stored` turns RGB into what the file holds.

    Parameters
    ----------
    image : array or mapping
        Level 0, of which coarser levels have every second pixel, every fourth, and so on; or each factor's level.
    """
    options = {"photometric": "rgb", "compression": "deflate", "tile": (64, 96)} | options
    with tifffile.TiffWriter(path, byteorder=byteorder) as tiff:
        for factor, level in _levels(image, factors).items():
            resolution = (UM_PER_UNIT[unit] / (mpp * factor),) * 2
            written = as_stored(level)
            where = {"subfiletype": int(factor > 1), "resolution": resolution, "resolutionunit": unit}
            tiff.write(written, metadata=None, **where, **options)
    return path


def write_ome_tiff(
    path: Path,
    image: np.ndarray | Levels,
    mpp: float = 0.25,
    *,
    planes: str = "",
    factors: tuple[int, ...] = (1, 2, 4),
    **options,
) -> Path:
    """Write an OME-TIFF whose coarser levels are SubIFDs, and whose µm/px are in its XML alone.

    Parameters
    ----------
    image : array or mapping
        As for :func:`write_odd_tiff`.
    planes : str
        Empty for one RGB directory, else the order of three one-channel directories, such as ``BGR``, which are named.
    """
    stored = "CYX" if planes else "YXS"
    metadata = {"axes": stored, "PhysicalSizeX": mpp * 1000, "PhysicalSizeXUnit": "nm"}
    metadata |= {"PhysicalSizeY": mpp * 1e-3, "PhysicalSizeYUnit": "mm"}
    if planes:
        metadata["Channel"] = {"Name": [{"R": "Red", "G": "Green", "B": "Blue"}[name] for name in planes]}
    options = {"tile": (64, 96), "compression": "deflate", "photometric": "minisblack" if planes else "rgb"} | options
    with tifffile.TiffWriter(path, ome=True) as tiff:
        levels = _levels(image, factors)
        for factor, level in levels.items():
            if planes:
                level = np.stack([level[..., "RGB".index(name)] for name in planes])
            first = {"subifds": len(levels) - 1, "metadata": metadata} if factor == 1 else {"subfiletype": 1}
            tiff.write(level, **first, **options)
    return path


def _levels(image: np.ndarray | Levels, factors: tuple[int, ...]) -> Levels:
    return image if isinstance(image, Mapping) else {factor: image[::factor, ::factor] for factor in factors}


def scaled(dtype: str, most: float) -> Level:
    """Levels of another type, in which `most` is white."""
    return lambda level: (level / 255 * most + (0.0 if dtype[0] == "f" else 0.5)).astype(dtype)


def four_channels(fourth: int) -> Level:
    """Levels with a fourth channel of one value."""
    return lambda level: np.dstack([level, np.full(level.shape[:2], fourth, dtype=np.uint8)])


def in_planes(level: np.ndarray) -> np.ndarray:
    """A level with its channels one after the other."""
    return np.moveaxis(level, 2, 0)


def stated(most: int) -> dict[str, Any]:
    """The option that states the largest sample value."""
    return {"extratags": [(281, "H", 3, (most,) * 3, True)]}
