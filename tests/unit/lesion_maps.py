"""Lesion maps in files, and what is written from them."""

from pathlib import Path
from typing import Any

import numpy as np
from lesionmap.geometry.resampling import block_max
from lesionmap.lesions.export import write_lesions
from lesionmap.maps.ome_tiff import MapNotes, write_map
from lesionmap.slides.slide import SlideInfo

FACTS = {"unreadable": [], "provenance": {"code": "abc"}}


def write_outlines(
    path: Path,
    lesions: np.ndarray,
    scores: np.ndarray,
    scale: float,
    info: SlideInfo,
    metadata: dict[str, Any] = FACTS,
    uncertainty: np.ndarray | None = None,
) -> tuple[int, float]:
    """Write a map's lesions as GeoJSON, and beside it the table and the map; say how many there are, and their mm²."""
    mapped = path.with_suffix(".tif")
    write_map(mapped, lesions, MapNotes(info.slide, "lesion", scale * info.mpp, metadata), block_max)
    return write_lesions(path, path.with_suffix(".tsv"), mapped, scores, uncertainty, info=info, metadata=metadata)


def accept(path: Path) -> None:
    """Give the lesions of a GeoJSON file the class that says that a person has found them right."""
    path.write_text(path.read_text().replace('{"name": "Lesion"', '{"name": "Accepted"'))
