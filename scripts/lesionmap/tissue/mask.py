"""Look up the tissue of a slide by level-0 coordinates."""

import math
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from lesionmap.slides.slide import SlideInfo

TISSUE, FOLD, INK = 255, 191, 64  # codes of a tissue map; 0 is background


class TissueMask:
    """A slide's tissue map, looked up by level-0 coordinates.

    Parameters
    ----------
    path : str or Path
        TIFF written by :func:`lesionmap.tissue.detection.find_tissue`.
    """

    def __init__(self, path: str | Path, info: SlideInfo) -> None:
        self._codes: NDArray[np.uint8] = tifffile.imread(path)
        self.mask: NDArray[np.bool_] = self._codes >= FOLD
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

    def codes_at(self, xy_lv0: tuple[float, float], size_px: tuple[int, int], scale: float) -> NDArray[np.uint8]:
        """The map's codes at the pixel centres of a box; (height, width) uint8, 0 beyond the slide."""
        columns = np.floor((xy_lv0[0] + (np.arange(size_px[0]) + 0.5) * scale) / self.scale[0]).astype(int)
        rows = np.floor((xy_lv0[1] + (np.arange(size_px[1]) + 0.5) * scale) / self.scale[1]).astype(int)
        height, width = self.mask.shape
        found = self._codes[np.clip(rows, 0, height - 1)[:, None], np.clip(columns, 0, width - 1)[None, :]]
        within = ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))[None, :]
        codes: NDArray[np.uint8] = found * within
        return codes
