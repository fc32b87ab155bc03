"""Tiny pyramids with known pixels."""

from pathlib import Path

import numpy as np
import tifffile
from lesionmap.inspection import SlideRow


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


def row(path: Path | str, split: str = "inference", annotation: str = "", mpp: float | None = None) -> SlideRow:
    return SlideRow("s1", str(path), split, annotation, mpp)
