"""Tiny pyramids with known pixels."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import tifffile
from lesionmap.slides.inspection import InspectionSettings, examine
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
    needed_mpp={"tiles": 0.25, "inference": 2.5, "first_pass": 2.5},
)


def info_of(path: Path | str, **changes) -> SlideInfo:
    """What is known of a slide that suits any role."""
    return examine(row(path, **changes), replace(INSPECTION, needed_mpp=dict.fromkeys(INSPECTION.needed_mpp, 1000.0)))[
        "info"
    ]


def row(path: Path | str, split: str = "inference", **changes) -> SlideRow:
    return SlideRow("s1", str(path), split, **changes)
