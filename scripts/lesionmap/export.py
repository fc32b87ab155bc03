"""What is drawn of the lesions for other programs and for the eye: outlines, overlays."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import rasterio.features
from affine import Affine
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, label, maximum, mean
from shapely import transform
from shapely.geometry import mapping, shape
from shapely.geometry.base import BaseGeometry

from lesionmap.files import write_text
from lesionmap.images import write_png
from lesionmap.slides import SlideInfo

LESION_COLOUR = (200, 0, 0)
TINT = (255, 230, 0)


def write_lesions(
    path: str | Path,
    lesions: NDArray[np.bool_],
    probability: NDArray[np.uint8],
    *,
    scale: float,
    info: SlideInfo,
    facts: dict[str, Any],
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
    facts : dict
        Written beside the features: ``unreadable`` (x, y, width, height in level-0 pixels) and ``provenance``.
    """
    labels, areas, means, peaks = _components(lesions, probability)
    mm2 = (scale * info.mpp) ** 2 / 1e6
    features = []
    for geometry, value in rasterio.features.shapes(labels, mask=lesions, transform=Affine.scale(scale)):
        index = int(value) - 1
        outline = transform(shape(geometry), lambda xy: np.clip(xy, 0, info.size_lv0) - info.bounds_xy_lv0)
        measurements = {
            "Area mm^2": round(areas[index] * mm2, 6),
            "Mean probability": round(means[index] / 255, 4),
            "Max probability": round(peaks[index] / 255, 4),
        }
        features.append(_feature(f"Lesion {index + 1}", outline, measurements))
    frame = {"unit": "level-0 pixels", "origin_xy_lv0": info.bounds_xy_lv0, "mpp": info.mpp}
    content = {"type": "FeatureCollection", "slide": info.slide, "frame": frame, **facts, "features": features}
    write_text(path, json.dumps(content) + "\n")
    return len(features)


def _feature(name: str, outline: BaseGeometry, measurements: dict[str, float]) -> dict[str, Any]:
    """One lesion as QuPath's annotation object."""
    properties = {
        "objectType": "annotation",
        "name": name,
        "classification": {"name": "Lesion", "color": list(LESION_COLOUR)},
        "measurements": measurements,
    }
    return {"type": "Feature", "geometry": mapping(outline), "properties": properties}


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
