"""Read class masks (TIFF, PNG) as outlines that follow the edges of their pixels."""

import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import rasterio.features
import tifffile
from affine import Affine
from numpy.typing import NDArray
from PIL import Image
from shapely.geometry import shape

from lesionmap.annotations.content import AnnotatedOutline, AnnotationFile, ForeignFileError
from lesionmap.slides.slide import SlideInfo

LARGEST_MASK_PX = 2**28  # of a larger mask, a coarser pyramid level is read
ONE_CHANNEL_REMEDY = "save it with one channel of 8 bits whose values are the classes, such as 0 background, 1 lesion"
PNG_DEPTH, PNG_COLOURS = 24, 25  # where the header has bits per channel and the type of colours
PNG_GREY = 0


def read_mask(source: str, info: SlideInfo, mask_mpp: float | None) -> AnnotationFile:
    """Read a class mask.

    Parameters
    ----------
    mask_mpp : float, optional
        µm/px of a mask that does not cover the whole slide.

    Raises
    ------
    ValueError
        If it is no class mask, or does not fit the slide.
    """
    mask, full_size = _mask_pixels(source)
    scale = mask_scale(full_size, info, mask_mpp)
    reduced = full_size[0] / mask.shape[1], full_size[1] / mask.shape[0]
    transform = Affine.scale(scale[0] * reduced[0], scale[1] * reduced[1])
    content = AnnotationFile("class mask", mask_scale=(transform.a, transform.e))
    for geometry, value in rasterio.features.shapes(mask, mask=mask > 0, transform=transform):
        content.outlines.append(AnnotatedOutline(str(int(value)), shape(geometry)))
    return content


def _mask_pixels(source: str) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """Pixels of the mask (of a coarser level if it is huge), and the full size of the mask (width, height)."""
    mask, size = (_png if source.lower().endswith(".png") else _tiff)(source)
    if mask.ndim == 3:
        mask = _one_channel(mask)
    if mask.ndim != 2:
        raise ForeignFileError(
            f"the mask has shape {mask.shape}; it needs one page of class values", ONE_CHANNEL_REMEDY
        )
    if mask.dtype.kind not in "bui":
        raise ValueError(f"the mask has values of type {mask.dtype}; class values are whole numbers")
    if mask.max(initial=0) > 255 or mask.min(initial=0) < 0:
        raise ValueError(f"the mask has values from {mask.min()} to {mask.max()}; class values are 0 to 255")
    return mask.astype(np.uint8), size


def _one_channel(mask: NDArray[Any]) -> NDArray[Any]:
    """Grey of a mask of grey, grey and alpha, RGB or RGBA, (H, W, channels); what is transparent is background."""
    n_channels = mask.shape[2]
    colours = mask[:, :, : n_channels - (n_channels in (2, 4))]
    if colours.shape[2] > 3 or (colours != colours[:, :, :1]).any():
        raise ForeignFileError(f"the mask has {n_channels} channels of different values: colours", ONE_CHANNEL_REMEDY)
    grey = colours[:, :, 0]
    return np.where(mask[:, :, -1] == 0, 0, grey) if n_channels in (2, 4) else grey


def _png(source: str) -> tuple[NDArray[Any], tuple[int, int]]:
    header = Path(source).read_bytes()[: PNG_COLOURS + 1]
    with Image.open(source, formats=["PNG"]) as picture:
        mask = np.asarray(picture)
        depth, colours = header[PNG_DEPTH], header[PNG_COLOURS]
        if depth == 16 and picture.mode[:2] != "I;" and picture.mode != "I":
            raise ForeignFileError(f"the mask has several channels of 16 bits ({picture.mode})", ONE_CHANNEL_REMEDY)
        if colours == PNG_GREY and depth in (2, 4):  # Pillow stretches these to 255
            mask = mask // (255 // (2**depth - 1))
        return mask, picture.size


def _tiff(source: str) -> tuple[NDArray[Any], tuple[int, int]]:
    with tifffile.TiffFile(source) as tiff:
        levels = tiff.series[0].levels
        small = next((level for level in levels if math.prod(level.shape) <= LARGEST_MASK_PX), None)
        if small is None:
            raise ValueError(
                f"its smallest level has {math.prod(levels[-1].shape)} pixels, more than {LARGEST_MASK_PX}"
            )
        if small is not levels[0]:
            logging.warning("%s: the level of %d×%d px is used", source, *_size(small))
        mask = small.asarray()
        if small.axes == "SYX":
            mask = np.moveaxis(mask, 0, 2)
        elif small.ndim == 3 and small.axes != "YXS":
            raise ForeignFileError(
                f"the mask has shape {mask.shape}, so several pages; it needs one", ONE_CHANNEL_REMEDY
            )
        return _as_shown(mask, small.keyframe), _size(levels[0])


def _size(level: Any) -> tuple[int, int]:
    return level.keyframe.imagewidth, level.keyframe.imagelength


def _as_shown(mask: NDArray[Any], page: Any) -> NDArray[Any]:
    """Turn a picture of black and white over if its TIFF says that 0 is white.

    In 8 bits this is a picture only if it has white and black alone (0 and 255); other values are classes as stored.
    """
    if page.photometric != tifffile.PHOTOMETRIC.MINISWHITE:
        return mask
    white = 2**page.bitspersample - 1
    if page.bitspersample > 1 and not (mask.max(initial=0) == white and np.isin(mask, (0, white)).all()):
        return mask
    return mask.astype(np.uint8) ^ 1 if white == 1 else white - mask


def mask_scale(size_px: tuple[int, int], info: SlideInfo, mask_mpp: float | None) -> tuple[float, float]:
    """Level-0 pixels per mask pixel along x and y.

    Follows from `mask_mpp` if given. Otherwise the mask covers the slide: the scale is a whole factor if rounding
    explains the mask's size (1001 px halve to 500 or 501, and the factor is 2, not 2.002), else the ratio of the sizes.

    Raises
    ------
    ValueError
        If the mask's proportions differ from the slide's, or it is larger than the slide at `mask_mpp`.
    """
    ratios = [full / part for full, part in zip(info.size_lv0, size_px, strict=True)]
    if mask_mpp:
        stated = mask_mpp / info.mpp
        if any(part * stated > full + stated for full, part in zip(info.size_lv0, size_px, strict=True)):
            raise ValueError(f"at {mask_mpp:g} µm/px the mask of {size_px[0]}×{size_px[1]} px is larger than the slide")
        return stated, stated
    whole = round(ratios[0])
    fits = (full // whole <= part <= -(-full // whole) for full, part in zip(info.size_lv0, size_px, strict=True))
    if whole >= 1 and all(fits):
        return float(whole), float(whole)
    if abs(ratios[0] - ratios[1]) > max(ratios) / min(size_px):
        raise ValueError(
            f"the mask of {size_px[0]}×{size_px[1]} px has other proportions than the slide of "
            f"{info.size_lv0[0]}×{info.size_lv0[1]} px"
        )
    return ratios[0], ratios[1]
