"""The overlay: a picture of a whole slide with its lesion map, for print and for pages without JavaScript."""

from pathlib import Path

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion

from lesionmap.files.pictures import write_png
from lesionmap.geometry.resampling import block_max, block_mean
from lesionmap.maps.on_disk import Rows, shrunk
from lesionmap.slides.slide import Slide
from lesionmap.viewer.assets import COLOURS

OVERLAY_SIDE_PX = 1600


def draw_overlay(path: str | Path, slide: Slide, probability_u8: Rows, lesions: Rows, mpp: float) -> None:
    """Write the overlay of a whole slide, its longer side at most `OVERLAY_SIDE_PX`.

    Each of its pixels is a block of map pixels and shows their mean probability. It is lesion if any of them is, so no
    lesion is too small to be seen.

    Parameters
    ----------
    probability_u8, lesions : (H, W) uint8
        Probability × 255, and a map that is not 0 where there is lesion; both at `mpp` µm/px.
    """
    factor = -(-max(lesions.shape) // OVERLAY_SIDE_PX)
    folder = Path(path).parent
    probability = shrunk(probability_u8, factor, block_mean, folder)
    overview, _ = slide.read_where_possible((0, 0), probability.shape[::-1], mpp * factor)
    write_overlay(path, overview, probability, shrunk(lesions, factor, block_max, folder) > 0)


def write_overlay(
    path: str | Path, overview: NDArray[np.uint8], probability_u8: NDArray[np.uint8], lesions: NDArray[np.bool_]
) -> None:
    """Write a PNG: the slide, its lesion probability in the viewer's colours, the outlines of lesions in black.

    The lower the probability, the paler the colour. Black is visible on the colours of lesions, from green to yellow.

    Parameters
    ----------
    overview : (H, W, 3) uint8
        The slide at the size of the maps.
    probability_u8 : (H, W) uint8
        Probability × 255.
    lesions : (H, W) bool
        True inside lesions.
    """
    weight = 0.6 * (probability_u8.astype(np.float32) / 255)[..., None]
    blended = overview * (1 - weight) + colormaps[COLOURS](probability_u8, bytes=True)[..., :3] * weight
    outline = lesions & ~binary_erosion(lesions, iterations=2, border_value=1)
    blended[outline] = 0
    write_png(path, np.rint(blended).astype(np.uint8))
