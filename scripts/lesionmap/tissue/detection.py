"""Find the tissue on a slide, and where it is folded or covered with ink."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.morphology import remove_small_holes, remove_small_objects

from lesionmap.errors import SlideError
from lesionmap.files.pictures import write_tiff
from lesionmap.geometry.tiling import map_size
from lesionmap.slides.slide import Slide, SlideInfo
from lesionmap.tissue.mask import FOLD, INK, TISSUE

STRONGEST_THRESHOLD = 40.0  # colour spread (max − min of RGB, 0–255) above which a pixel is tissue on any slide
LEAST_ABOVE_GLASS = 3.0  # colour spread of fat cell membranes above glass, at 8 µm/px
NOISE_FACTOR = 6.0
INK_MARGIN_PX = 2  # at its edge, ink mixes with what lies beneath
FOLD_DENSITY = 1.6  # times the median density of the slide's tissue
SMALLEST_FOLD_UM2 = 10_000.0


@dataclass(frozen=True)
class TissueSettings:
    """How tissue is found: at `mpp` µm/px; specks and holes smaller than the given areas (µm²) are removed."""

    mpp: float
    min_area_um2: float
    min_hole_um2: float


def find_tissue(info: SlideInfo, output: str, settings: TissueSettings) -> None:
    """Write the tissue map of a slide: a TIFF of the codes of :func:`tissue_map`, at `settings.mpp`.

    Unreadable areas count as tissue, so that later stages try to read them and count the failures.

    Raises
    ------
    SlideError
        If the slide shows no tissue.
    """
    scale = settings.mpp / info.mpp
    with Slide(info, "find_tissue") as slide:
        overview, found = slide.read_where_possible((0, 0), map_size(info.size_lv0, scale), settings.mpp)
    codes = tissue_map(overview, settings)
    codes[~found] = TISSUE
    if not (codes >= FOLD).any():
        raise SlideError(
            slide=info.slide,
            stage="find_tissue",
            finding="no tissue was found",
            remedy="look at the slide; remove it from the sheet if it is blank, grey or covered with ink",
        )
    write_tiff(output, codes, mpp=settings.mpp)


def tissue_map(overview: NDArray[np.uint8], settings: TissueSettings) -> NDArray[np.uint8]:
    """Find tissue, folds and ink: tissue is coloured but not ink; folds are tissue of about double thickness.

    Parameters
    ----------
    overview : (H, W, 3) uint8
        The whole slide at `settings.mpp`.

    Returns
    -------
    (H, W) uint8
        ``TISSUE``, ``FOLD`` (which is also tissue), ``INK`` or 0 (background).
    """
    pixel_um2 = settings.mpp**2
    smallest_px = int(settings.min_area_um2 / pixel_um2)
    inked = remove_small_objects(ink(overview), max_size=smallest_px)
    inked = ndimage.binary_dilation(inked, iterations=INK_MARGIN_PX)
    spread = ndimage.gaussian_filter(np.ptp(overview, axis=2).astype(np.float32), sigma=0.7)
    coloured = (spread > _least_spread(spread, inked | (overview.min(axis=2) == 255))) & ~inked
    tissue = remove_small_objects(coloured, max_size=smallest_px)
    tissue = remove_small_holes(tissue, max_size=int(settings.min_hole_um2 / pixel_um2)) & ~inked
    folded = remove_small_objects(_thick(overview, tissue), max_size=int(SMALLEST_FOLD_UM2 / pixel_um2))
    codes = np.where(tissue, np.where(folded, FOLD, TISSUE), np.where(inked, INK, 0))
    return codes.astype(np.uint8)


def _least_spread(spread: NDArray[np.float32], no_glass: NDArray[np.bool_]) -> float:
    """Colour spread above which a pixel is tissue: clearly above glass of any tint and noise.

    Otsu's threshold alone would lose pale tissue and fat beside dense tissue, so it is only an upper limit. On a slide
    without glass, `STRONGEST_THRESHOLD` is the limit. Ink and pixels that were not scanned (pure white) are not used.
    """
    asked = spread[~no_glass]
    if asked.size == 0 or not np.ptp(spread):
        return math.inf
    otsu = float(threshold_otsu(asked)) if np.ptp(asked) else math.inf  # type: ignore[no-untyped-call]  # no stubs
    paler = asked[asked <= otsu]
    glass = float(np.bincount(paler.round().astype(int)).argmax())
    noise = float(np.sqrt(np.mean((paler[paler <= glass + 0.5] - glass) ** 2)))
    return min(otsu, glass + max(NOISE_FACTOR * noise, LEAST_ABOVE_GLASS), STRONGEST_THRESHOLD)


def ink(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels in the blue, green, red or black of a pen, colours that H&E does not have; (H, W) bool."""
    red, green, blue = (image[..., channel].astype(np.int16) for channel in range(3))
    cold_pen = (green > red + 10) | (blue > red + 90)
    red_pen = (red > 150) & (green < 70) & (blue < 80)
    black_pen = (red + green + blue < 240) & (np.ptp(image, axis=-1) < 10)
    found: NDArray[np.bool_] = cold_pen | red_pen | black_pen
    return found


def _thick(overview: NDArray[np.uint8], tissue: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Tissue far denser than the slide's median, and more saturated than bright (Palokangas et al., EMBC 2007)."""
    if not tissue.any():
        return tissue
    transmitted = ndimage.gaussian_filter(np.maximum(overview, 1) / 255, sigma=(1, 1, 0))
    density = -np.log(transmitted).mean(axis=2)
    dense = density > FOLD_DENSITY * np.median(density[tissue])
    brightness = transmitted.max(axis=2)
    saturation = 1 - transmitted.min(axis=2) / brightness
    thick: NDArray[np.bool_] = tissue & dense & (saturation > brightness)
    return thick
