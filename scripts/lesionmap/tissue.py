"""Where on the slide there is tissue."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.morphology import remove_small_holes, remove_small_objects

from lesionmap.errors import SlideError
from lesionmap.images import write_pyramid
from lesionmap.slides import Slide, SlideInfo
from lesionmap.tiling import map_size

FAINTEST_TISSUE, STRONGEST_THRESHOLD = 8.0, 40.0  # colour spread (max − min of RGB, 0–255)


@dataclass(frozen=True)
class TissueSettings:
    """How tissue is found: at `mpp` µm/px, specks and holes smaller than the given µm² removed."""

    mpp: float
    min_area_um2: float
    min_hole_um2: float


def find_tissue(info: SlideInfo, output: str, settings: TissueSettings) -> None:
    """Write the tissue mask of a slide: a TIFF, 255 tissue and 0 background, at `settings.mpp`.

    What cannot be read counts as tissue.

    Raises
    ------
    SlideError
        If the slide shows no tissue.
    """
    scale = settings.mpp / info.mpp
    with Slide(info, "find_tissue") as slide:
        overview, found = slide.read_where_possible((0, 0), map_size(info.size_lv0, scale), settings.mpp)
    mask = tissue_mask(overview, settings) | ~found  # so that later stages try to read there and count what they cannot
    if not mask.any():
        raise SlideError(
            slide=info.slide,
            stage="find_tissue",
            finding="no tissue was found",
            remedy="look at the slide; remove it from the sheet if it is blank, grey or hardly stained",
        )
    write_pyramid(output, mask.astype(np.uint8) * 255, mpp=settings.mpp, levels=1)


def tissue_mask(overview: NDArray[np.uint8], settings: TissueSettings) -> NDArray[np.bool_]:
    """Tissue is what is coloured: Otsu's threshold on the smoothed spread of the RGB channels.

    Parameters
    ----------
    overview : (H, W, 3) uint8

    Returns
    -------
    (H, W) bool
    """
    spread = np.ptp(overview, axis=2).astype(np.float32)
    spread = ndimage.gaussian_filter(spread, sigma=1.0)
    otsu = float(threshold_otsu(spread)) if np.ptp(spread) else np.inf  # type: ignore[no-untyped-call]  # no stubs
    threshold = np.clip(otsu, FAINTEST_TISSUE, STRONGEST_THRESHOLD)
    pixel_um2 = settings.mpp**2
    mask = remove_small_objects(spread > threshold, max_size=int(settings.min_area_um2 / pixel_um2))
    filled: NDArray[np.bool_] = remove_small_holes(mask, max_size=int(settings.min_hole_um2 / pixel_um2))
    return filled


class TissueMask:
    """A slide's tissue mask, looked up by level-0 coordinates.

    Parameters
    ----------
    path : str or Path
        TIFF written by :func:`find_tissue`.
    info : SlideInfo
    """

    def __init__(self, path: str | Path, info: SlideInfo) -> None:
        self.mask: NDArray[np.bool_] = tifffile.imread(path) > 0
        self.scale = info.size_lv0[0] / self.mask.shape[1], info.size_lv0[1] / self.mask.shape[0]

    def at(self, xy_lv0: tuple[float, float], size_px: tuple[int, int], scale: float) -> NDArray[np.bool_]:
        """Tissue at the pixel centres of a box; (height, width) bool, False beyond the slide."""
        columns = np.floor((xy_lv0[0] + (np.arange(size_px[0]) + 0.5) * scale) / self.scale[0]).astype(int)
        rows = np.floor((xy_lv0[1] + (np.arange(size_px[1]) + 0.5) * scale) / self.scale[1]).astype(int)
        height, width = self.mask.shape
        found = self.mask[np.clip(rows, 0, height - 1)[:, None], np.clip(columns, 0, width - 1)[None, :]]
        within = ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))[None, :]
        tissue: NDArray[np.bool_] = found & within
        return tissue
