"""Tiny pyramids with known pixels."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from lesionmap.slides import SlideInfo, SlideRow, describe


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


@pytest.fixture
def noise() -> np.ndarray:
    """An asymmetric image of odd size, (333, 517, 3)."""
    return np.random.default_rng(0).integers(0, 255, (333, 517, 3), dtype=np.uint8)


@pytest.fixture
def noise_info(tmp_path: Path, noise: np.ndarray) -> SlideInfo:
    """The same as a slide with three levels."""
    return describe(row(write_tiff(tmp_path / "noise.tif", noise, factors=(1, 2, 4))))
