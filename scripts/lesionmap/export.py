"""What leaves the workflow for other programs: pyramids, outlines, pictures."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import rasterio.features
import tifffile
from affine import Affine
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import binary_erosion, label, maximum, mean
from shapely import transform
from shapely.geometry import mapping, shape

from lesionmap.files import write_text, written_whole
from lesionmap.slides import SlideInfo

TIFF_TILE_PX = 256
LESION_COLOUR = (200, 0, 0)
TINT = (255, 230, 0)


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
    even = np.pad(image, [(0, length % 2) for length in image.shape], mode="edge").astype(np.uint16)
    total = even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]
    return ((total + 2) // 4).astype(np.uint8)


def write_lesions(
    path: str | Path,
    lesions: NDArray[np.bool_],
    probability: NDArray[np.uint8],
    *,
    scale: float,
    info: SlideInfo,
    provenance: dict[str, Any],
) -> int:
    """Write the lesions' outlines as GeoJSON for QuPath (0.4 or later); return how many there are.

    Parameters
    ----------
    lesions : (H, W) bool
    probability : (H, W) uint8
        Probability × 255 on the same grid.
    scale : float
        Level-0 pixels per map pixel.
    info : SlideInfo
        Level-0 coordinates are written relative to its bounds' corner, to which QuPath crops.
    """
    um2 = (scale * info.mpp) ** 2
    features = []
    labels, areas, means, peaks = _components(lesions, probability)
    for geometry, value in rasterio.features.shapes(labels, mask=lesions, transform=Affine.scale(scale)):
        index = int(value) - 1
        outline = transform(shape(geometry), lambda xy: np.clip(xy, 0, info.size_lv0) - info.bounds_xy_lv0)
        measurements = {
            "Area mm^2": round(areas[index] * um2 / 1e6, 6),
            "Mean probability": round(means[index] / 255, 4),
            "Max probability": round(peaks[index] / 255, 4),
        }
        features.append(
            {
                "type": "Feature",
                "geometry": mapping(outline),
                "properties": {
                    "objectType": "annotation",
                    "name": f"Lesion {index + 1}",
                    "classification": {"name": "Lesion", "color": list(LESION_COLOUR)},
                    "measurements": measurements,
                },
            }
        )
    content = {"type": "FeatureCollection", "provenance": provenance, "features": features}
    write_text(path, json.dumps(content) + "\n")
    return len(features)


def _components(
    lesions: NDArray[np.bool_], probability: NDArray[np.uint8]
) -> tuple[NDArray[np.int32], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Label 4-connected lesions from 1; their areas in pixels, and mean and maximum of probability × 255."""
    labels = np.empty(lesions.shape, dtype=np.int32)
    count = label(lesions, output=labels)
    index = np.arange(1, count + 1)
    areas = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    return labels, areas, mean(probability, labels, index), maximum(probability, labels, index)


def write_overlay(
    path: str | Path, overview: NDArray[np.uint8], probability: NDArray[np.uint8], lesions: NDArray[np.bool_]
) -> None:
    """Write a PNG: the slide, its lesion probability as a yellow tint, the lesions' outlines in black.

    Yellow on purple is told apart with any colour vision.

    Parameters
    ----------
    overview : (H, W, 3) uint8
    probability : (H, W) uint8
    lesions : (H, W) bool
    """
    weight = 0.6 * (probability.astype(np.float32) / 255)[..., None]
    blended = overview * (1 - weight) + np.array(TINT, dtype=np.float32) * weight
    outline = lesions & ~binary_erosion(lesions, iterations=2, border_value=1)
    blended[outline] = 0
    write_png(path, np.rint(blended).astype(np.uint8))


def write_png(path: str | Path, image: NDArray[np.uint8]) -> None:
    """Write a (H, W, 3) uint8 picture."""
    with written_whole(path) as draft:
        Image.fromarray(image).save(draft, format="PNG")
