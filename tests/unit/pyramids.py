"""Tiny pyramids with known pixels."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from lesionmap.slides.cache import CacheSettings
from lesionmap.slides.inspection import InspectionFiles, InspectionSettings, examine
from lesionmap.slides.sheet import SlideRow
from lesionmap.slides.slide import SlideInfo


def write_tiff(path: Path, image: np.ndarray, mpp: float | None = 0.25, factors: tuple[int, ...] = (1,)) -> Path:
    """Write a lossless tiled pyramid whose levels are area means (of the part that divides)."""
    with tifffile.TiffWriter(path) as tiff:
        for index, factor in enumerate(factors):
            height, width = (length // factor for length in image.shape[:2])
            blocks = image[: height * factor, : width * factor].reshape(height, factor, width, factor, 3)
            level = np.rint(blocks.mean(axis=(1, 3))).astype(np.uint8)
            resolution = (1e4 / (mpp * factor),) * 2 if mpp else None
            tiff.write(
                level,
                tile=(64, 64),
                photometric="rgb",
                compression="zlib",
                subfiletype=int(index > 0),
                resolution=resolution,
                resolutionunit="CENTIMETER" if mpp else None,
                metadata=None,
            )
    return path


def write_jpeg(path: Path, image: np.ndarray, subsampling=(2, 2), factors=(1, 2)) -> Path:
    """Write a pyramid of JPEG tiles, 96 × 64 px, whose levels are every second pixel, and so on."""
    with tifffile.TiffWriter(path) as tiff:
        for factor in factors:
            tiff.write(
                image[::factor, ::factor],
                tile=(64, 96),
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": 90},
                subsampling=subsampling,
                subfiletype=int(factor > 1),
                resolution=(40000 / factor,) * 2,
                resolutionunit="CENTIMETER",
                metadata=None,
            )
    return path


def smooth_image(height: int = 301, width: int = 427) -> np.ndarray:
    """Smooth colours that differ along x and y, with a hard edge; no tile divides its size."""
    y, x = np.mgrid[:height, :width]
    channels = [120 + 80 * np.sin(x / 9), 100 + 90 * np.cos(y / 7), 60 + x / 4 + y / 5]
    picture = np.stack(channels, axis=2)
    picture[40:200, 100:103] = (20, 30, 200)
    return picture.clip(0, 255).astype(np.uint8)


def damage(path: Path, *spots: tuple[int, int]) -> Path:
    """Make the level-0 tiles of :func:`write_tiff` that hold some pixels (x, y) unreadable."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        tiles = [y // 64 * page.chunked[1] + x // 64 for x, y in spots]
        places = [(page.dataoffsets[tile], page.databytecounts[tile]) for tile in tiles]
    content = bytearray(path.read_bytes())
    for start, length in places:
        content[start : start + length] = b"\xff" * length
    path.write_bytes(content)
    return path


INSPECTION = InspectionSettings(
    read_share=1.0,
    max_unreadable_fraction=0.05,
    mpp_tolerance=0.1,
    mpp_from_objective=None,
    apply_icc=False,
    reader="auto",
    needed_mpp={"tiles": 0.25, "low_view": 2.0, "inference": 2.5, "first_pass": 2.5},
)


def info_of(path: Path | str, **changes) -> SlideInfo:
    """What is known of a slide that suits any role."""
    return examine(row(path, **changes), replace(INSPECTION, needed_mpp=dict.fromkeys(INSPECTION.needed_mpp, 1000.0)))[
        "info"
    ]


def row(path: Path | str, split: str = "inference", **changes) -> SlideRow:
    return SlideRow("s1", str(path), split, **changes)


def slides_config(settings: CacheSettings) -> dict[str, Any]:
    """The config's ``slides`` with these settings."""
    copies = vars(settings).copy()
    return {"sheet": "slides.tsv", "roots": copies.pop("roots"), "copies": copies}


def inspection_files(folder: Path) -> InspectionFiles:
    """Where an inspection writes in a test's folder."""
    return InspectionFiles(*(str(folder / f"{name}.json") for name in ("record", "info", "location")))
