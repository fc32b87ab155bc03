"""Find the tissue on a slide, and where it is folded or covered with ink."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.morphology import isotropic_closing, isotropic_opening, remove_small_holes, remove_small_objects

from lesionmap.errors import SlideError
from lesionmap.files.pictures import write_tiff
from lesionmap.geometry.tiling import map_size
from lesionmap.slides.slide import Slide, SlideInfo
from lesionmap.tissue.glass import Glass, find_glass, white_balanced
from lesionmap.tissue.mask import FOLD, GAP, INK, TISSUE

LEAST_COLOUR = 0.08  # difference between channels of the optical density of stained tissue
LEAST_HUE = 0.3  # the same, as a share of the density: greys have less, stains at least twice as much
LEAST_CONTRAST = 0.015  # optical density by which cell membranes of fat stand out, at 12 µm/px
NOISE_PERCENTILE, MOST_NOISE = 95, 1.6  # of colour and contrast on glass; tissue has this many times more
FAINT = 0.15  # mean optical density up to which JPEG may have taken the colour
MEMBRANE_UM = 20.0  # wider things are no membranes
THICK_UM = 32.0  # stained things wider than this, blurred as they are, are no membranes
CROWD_UM, LEAST_CROWD = 200.0, 0.08  # in a square of this side, this share must be stained
CLEFT_UM = 50.0  # widest gap that belongs to the tissue around it
CELL_UM = 150.0  # the same in fat: the largest of its cells
MEMBRANES = 0.5  # share of membranes in what is stained, in the square above, that makes it fat
STRAND_UM = 64.0  # narrower strands without colour are no tissue: edges of cover slips, scratches
INK_DENSITY = 0.6  # mean optical density of black ink; grey dirt has less
SMALLEST_INK_UM2 = 2_000.0
PALEST_PEN = 220  # darkest channel; tinted glass is paler
INK_MARGIN_PX = 2  # at its edge, ink mixes with what lies beneath
FOLD_DENSITY = 1.6  # times the mean density of its surroundings
FOLD_HUE = 0.985  # cosine of the angle between its optical density and that of its surroundings
SURROUNDINGS_UM = 800.0  # side of the square that counts as surroundings
SMALLEST_FOLD_UM2 = 10_000.0
BLUR_PX = 0.7  # against noise
DENSITY = -np.log(np.maximum(np.arange(256, dtype=np.float32), 1) / 255)  # optical density of a grey level


@dataclass(frozen=True)
class TissueSettings:
    """How tissue is found: at `mpp` µm/px; specks and holes smaller than the given areas (µm²) are removed."""

    mpp: float
    min_area_um2: float
    min_hole_um2: float


def find_tissue(info: SlideInfo, output: str, settings: TissueSettings) -> None:
    """Write the tissue map of a slide: a TIFF of the codes of :func:`tissue_map`, at `settings.mpp`.

    Unreadable areas count as tissue, so that later stages try to read them and count the failures. The colour of the
    slide's glass is stored with the map.

    Raises
    ------
    SlideError
        If the slide shows no tissue.
    """
    scale = settings.mpp / info.mpp
    with Slide(info, "find_tissue") as slide:
        overview, found = slide.read_where_possible((0, 0), map_size(info.size_lv0, scale), settings.mpp)
    glass = find_glass(overview)
    codes = tissue_map(overview, settings, glass)
    codes[~found] = TISSUE
    if not (codes >= FOLD).any():
        raise SlideError(
            slide=info.slide,
            stage="find_tissue",
            finding="no tissue was found",
            remedy="look at the slide; remove it from the sheet if it is blank, grey or covered with ink",
        )
    colour = None if glass.colour is None else glass.colour.tolist()
    write_tiff(output, codes, mpp=settings.mpp, metadata={"glass": colour})


def tissue_map(overview: NDArray[np.uint8], settings: TissueSettings, glass: Glass | None = None) -> NDArray[np.uint8]:
    """Find tissue, the gaps in it, folds and ink.

    Tissue is coloured like a stain, or has fine structure such as the cell membranes of fat, with a crowd of such
    pixels around it. Smooth tints of glass are neither. Everything is measured relative to the slide's glass.

    Parameters
    ----------
    overview : (H, W, 3) uint8
        The whole slide at `settings.mpp`.
    glass : Glass, optional
        The glass of `overview`, if it is known.

    Returns
    -------
    (H, W) uint8
        ``TISSUE``; ``GAP`` (tissue, but glass shows through: lumens, fat cells); ``FOLD`` (tissue of about double
        thickness); ``INK``; 0 (background).
    """
    glass = glass or find_glass(overview)
    balanced = white_balanced(overview, glass.light(overview))
    density = np.where(glass.filler, 0, DENSITY[np.moveaxis(balanced, 2, 0)])  # (3, H, W)
    grey, colour = density.mean(axis=0), _blurred(np.ptp(density, axis=0))
    inked = _ink(balanced, _blurred(grey), colour, settings.mpp) & ~glass.filler
    coloured, structured = (part & ~inked for part in _stained(grey, colour, glass.pixels, settings.mpp))
    tissue = _filled(coloured, structured, settings.mpp) & ~inked & ~glass.filler
    smallest_px, smallest_hole_px = (
        int(area_um2 / settings.mpp**2) for area_um2 in (settings.min_area_um2, settings.min_hole_um2)
    )
    tissue = remove_small_objects(tissue, max_size=smallest_px)
    if tissue.any():  # else a small slide would be one hole
        tissue = remove_small_holes(tissue, max_size=smallest_hole_px) & ~inked & ~glass.filler
    stained = tissue & (coloured | structured)
    folded = _folded(density, stained, settings.mpp)
    codes = np.select([folded, stained, tissue, inked], [FOLD, TISSUE, GAP, INK], 0)
    return codes.astype(np.uint8)


def _ink(
    balanced: NDArray[np.uint8], grey: NDArray[np.float32], colour: NDArray[np.float32], mpp: float
) -> NDArray[np.bool_]:
    """Ink of any colour with a margin; black is also found where it is mixed with glass.

    `grey` is the mean optical density of the channels, `colour` their largest difference.
    """
    inked = ink(balanced) | ((grey > INK_DENSITY) & (colour < LEAST_HUE * grey))
    inked = remove_small_objects(inked, max_size=int(SMALLEST_INK_UM2 / mpp**2))
    margin: NDArray[np.bool_] = ndimage.binary_dilation(inked, iterations=INK_MARGIN_PX)
    return margin


def ink(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels in the blue, green, red or black of a pen, colours that H&E does not have; (H, W) bool.

    `image` must be white-balanced (:func:`lesionmap.tissue.glass.white_balanced`).
    """
    red, green, blue = (image[..., channel].astype(np.int16) for channel in range(3))
    brightest, darkest = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    cold_pen = ((green > red + 10) | (blue > red + 90)) & (darkest < PALEST_PEN)
    red_pen = (red > 150) & (green < 70) & (blue < 80)
    black_pen = (red + green + blue < 240) & (brightest - darkest < 10)
    found: NDArray[np.bool_] = cold_pen | red_pen | black_pen
    return found


def _stained(
    grey: NDArray[np.float32], colour: NDArray[np.float32], glass: NDArray[np.bool_], mpp: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Pixels in the colour of a stain, and pixels that stand out against their surroundings as cell membranes do.

    JPEG takes the colour of membranes, not their contrast; so faint structures may be grey. Parameters as of
    :func:`_ink`.
    """
    contrast = grey - ndimage.grey_opening(grey, size=(_odd(MEMBRANE_UM, mpp),) * 2)
    mean = _blurred(grey)
    least_contrast, least_colour = LEAST_CONTRAST, LEAST_COLOUR
    if glass.any():
        least_contrast = max(least_contrast, MOST_NOISE * float(np.percentile(contrast[glass], NOISE_PERCENTILE)))
        least_colour = max(least_colour, MOST_NOISE * float(np.percentile(colour[glass], NOISE_PERCENTILE)))
    hued = colour > LEAST_HUE * mean
    return (colour > least_colour) & hued, (contrast > least_contrast) & (hued | (mean < FAINT))


def _filled(coloured: NDArray[np.bool_], structured: NDArray[np.bool_], mpp: float) -> NDArray[np.bool_]:
    """Tissue with its gaps: crowds of stained pixels, closed; strands narrower than tissue must be coloured."""
    stained = coloured | structured
    side = _odd(CROWD_UM, mpp)
    crowded = ndimage.uniform_filter(stained.astype(np.float32), side) >= LEAST_CROWD
    stained &= crowded
    thick = _opened(stained, THICK_UM / mpp)
    membranes, all_stained = (
        ndimage.uniform_filter(part.astype(np.float32), side) for part in (stained & ~thick, stained)
    )
    fat = membranes > MEMBRANES * all_stained
    closed = _closed(stained, CLEFT_UM / mpp) | (_closed(stained, CELL_UM / mpp) & fat)
    filled: NDArray[np.bool_] = _opened(closed, STRAND_UM / mpp) | (coloured & crowded)
    return filled


def _closed(mask: NDArray[np.bool_], diameter_px: float) -> NDArray[np.bool_]:
    closed: NDArray[np.bool_] = isotropic_closing(mask, diameter_px / 2)  # type: ignore[no-untyped-call]  # no stubs
    return closed


def _opened(mask: NDArray[np.bool_], diameter_px: float) -> NDArray[np.bool_]:
    opened: NDArray[np.bool_] = isotropic_opening(mask, diameter_px / 2)  # type: ignore[no-untyped-call]  # no stubs
    return opened


def _folded(density: NDArray[np.float32], stained: NDArray[np.bool_], mpp: float) -> NDArray[np.bool_]:
    """Tissue of the same hue as its surroundings, but far denser; and more saturated than bright.

    The last criterion is that of Palokangas et al., EMBC 2007. Dense lymphoid tissue has another hue than what is
    around it, or is itself the surroundings.
    """
    side = _odd(SURROUNDINGS_UM, mpp)
    weight = np.maximum(ndimage.uniform_filter(stained.astype(np.float32), side), 1e-6)
    products, sums = np.zeros((3, *stained.shape), np.float32), np.zeros((2, *stained.shape), np.float32)
    least, most = np.full(stained.shape, np.inf, np.float32), np.zeros(stained.shape, np.float32)
    for channel in density:  # one by one, as slides are large
        here = ndimage.gaussian_filter(channel, 1)
        around = ndimage.uniform_filter(channel * stained, side) / weight
        products += np.stack([here * here, here * around, around * around])
        sums += np.stack([here, around])
        np.minimum(least, here, out=least)
        np.maximum(most, here, out=most)
    same_hue = products[1] > FOLD_HUE * np.sqrt(products[0] * products[2])
    saturated = 1 - np.exp(least - most) > np.exp(-least)
    thick = stained & (sums[0] > FOLD_DENSITY * sums[1]) & same_hue & saturated
    folded: NDArray[np.bool_] = remove_small_objects(thick, max_size=int(SMALLEST_FOLD_UM2 / mpp**2))
    return folded


def _blurred(image: NDArray[np.float32]) -> NDArray[np.float32]:
    blurred: NDArray[np.float32] = ndimage.gaussian_filter(image, sigma=BLUR_PX)
    return blurred


def _odd(length_um: float, mpp: float) -> int:
    """The odd number of pixels nearest to a length, at least 3."""
    return max(3, 2 * round((length_um / mpp - 1) / 2) + 1)
