"""Look up the tissue of a slide by level-0 coordinates."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from lesionmap.geometry.tiling import cut
from lesionmap.maps.on_disk import strips
from lesionmap.slides.slide import SlideInfo

TISSUE, GAP, FOLD, INK = 255, 223, 191, 64  # codes of a tissue map; all from FOLD upwards are tissue, 0 is background
LEAST_STAINED = 0.01  # of a tile's area


class TissueMask:
    """A slide's tissue map, looked up by level-0 coordinates.

    Parameters
    ----------
    tissue : str, Path or (H, W) uint8
        TIFF written by :func:`lesionmap.tissue.detection.find_tissue`; or the map itself, of which no glass is known.

    Attributes
    ----------
    codes : (H, W) uint8
        The map itself.
    scale : (float, float)
        Level-0 pixels per pixel of the map, along x and y.
    glass : (float, float, float) or None
        Colour of the slide's glass; None if it shows none.
    """

    def __init__(self, tissue: str | Path | NDArray[np.uint8], info: SlideInfo) -> None:
        if isinstance(tissue, np.ndarray):
            self.codes, glass = tissue, None
        else:
            with tifffile.TiffFile(tissue) as tiff:
                self.codes = tiff.asarray()
                glass = json.loads(tiff.pages.first.description or "{}").get("glass")
        self.glass: tuple[float, float, float] | None = tuple(glass) if glass else None
        self.mask: NDArray[np.bool_] = self.codes >= FOLD
        self.scale = info.size_lv0[0] / self.mask.shape[1], info.size_lv0[1] / self.mask.shape[0]

    def at(self, xy_lv0: tuple[float, float], size_px: tuple[int, int], scale: float) -> NDArray[np.bool_]:
        """Tissue at the pixel centres of a box; (height, width) bool, False beyond the slide."""
        tissue: NDArray[np.bool_] = self.codes_at(xy_lv0, size_px, scale) >= FOLD
        return tissue

    def any_at(self, xy_lv0: tuple[float, float], size_px: tuple[int, int], scale: float) -> bool:
        """Whether there is tissue between the first and the last pixel centre of a box that starts on the slide.

        Gives the same answer as ``at(…).any()`` in a hundredth of the time. Only if the box is coarser than the map,
        it can also find tissue between the pixel centres.
        """
        ranges = []
        for corner, length, per_px in zip(xy_lv0, size_px, self.scale, strict=True):
            first, last = (math.floor((corner + centre * scale) / per_px) for centre in (0.5, length - 0.5))
            ranges.append(slice(first, last + 1))
        return bool(self.mask[ranges[1], ranges[0]].any())

    def area_mm2(self, mpp: float) -> float:
        """Area of tissue on a slide of `mpp` µm/px, mm²."""
        return float(np.count_nonzero(self.mask) * self.scale[0] * self.scale[1] * mpp**2 / 1e6)

    def clear_background(self, image: NDArray[Any], scale: float) -> None:
        """Set to 0 what is not tissue.

        Parameters
        ----------
        image : (H, W)
            A map of the whole slide, in memory or on disk; changed in place.
        scale : float
            Level-0 pixels per pixel of `image`.
        """
        height, width = image.shape
        for part in strips(height):
            if image[part].any():
                size = width, part.stop - part.start
                image[part][~self.at((0, part.start * scale), size, scale)] = 0

    def codes_at(self, xy_lv0: tuple[float, float], size_px: tuple[int, int], scale: float) -> NDArray[np.uint8]:
        """The map's codes at the pixel centres of a box; (height, width) uint8, 0 beyond the slide."""
        return self._at(self.codes, xy_lv0, size_px, scale)

    def _at(
        self, values: NDArray[Any], xy_lv0: tuple[float, float], size_px: tuple[int, int], scale: float
    ) -> NDArray[Any]:
        """`values`, an array like the map, at the pixel centres of a box; 0 beyond the slide."""
        columns = np.floor((xy_lv0[0] + (np.arange(size_px[0]) + 0.5) * scale) / self.scale[0]).astype(int)
        rows = np.floor((xy_lv0[1] + (np.arange(size_px[1]) + 0.5) * scale) / self.scale[1]).astype(int)
        height, width = values.shape
        found = values[np.clip(rows, 0, height - 1)[:, None], np.clip(columns, 0, width - 1)[None, :]]
        within = ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))[None, :]
        looked_up: NDArray[Any] = found * within
        return looked_up


def tiles_with_tissue(codes: NDArray[np.uint8], n: int) -> NDArray[np.bool_]:
    """Which of the (n, n) tiles of a region, codes (S, S), show stained tissue, not only a gap or the edge of some."""
    stained = (codes >= FOLD) & (codes != GAP)
    found: NDArray[np.bool_] = cut(stained, len(codes) // n).mean(axis=(2, 3)) >= LEAST_STAINED
    return found
