"""Choose one of two readers for a slide: the faster one is used only if its pixels agree with OpenSlide's."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lesionmap.slides import tiff_slide
from lesionmap.slides.slide import OPENSLIDE, TIFF, TIFFFILE, Slide, SlideInfo
from lesionmap.slides.tiff_reader import VENDORS, TiffReader

BOX_PX = 256
RANDOM_BOXES, FULL_BOXES = 6, 4  # per level
LARGEST_LUMA_DIFFERENCE = 2.0  # of any pixel, on the scale 0–255
LARGEST_COLOUR_DIFFERENCE = 1.5  # of a box's mean in any channel, on the scale 0–255
LUMA = np.array([0.299, 0.587, 0.114])  # weights of R, G, B (ITU-R BT.601, as in JPEG)
WHOLE = 0.02  # tolerance, level-0 pixels: OpenSlide resamples boxes that start between two pixels of a level


@dataclass(frozen=True)
class ReaderChoice:
    """The reader of a slide, and the reason if it is not the faster one (else empty)."""

    reader: str
    reason: str


def choose_reader(info: SlideInfo, wanted: str, stage: str) -> ReaderChoice:
    """Read some boxes of every level with both readers, and choose the faster one if they agree.

    Parameters
    ----------
    wanted : str
        ``auto``, or ``openslide`` to skip the comparison.
    stage : str
        For error messages.
    """
    if info.vendor in tiff_slide.VENDORS:
        return ReaderChoice(TIFFFILE, f"OpenSlide does not know {tiff_slide.why_not_openslide(info.path)}")
    if wanted == OPENSLIDE:
        return ReaderChoice(OPENSLIDE, "as the config wants")
    if info.vendor not in VENDORS:
        return ReaderChoice(OPENSLIDE, f"the only one that knows {info.vendor}")
    try:
        tiff = TiffReader(info.path, info.level_sizes)
    except Exception as error:  # an odd file can raise anything; OpenSlide is the fallback
        return ReaderChoice(OPENSLIDE, str(error))
    with tiff, Slide(replace(info, reader=OPENSLIDE, apply_icc=False), stage) as slide:
        disagreement = _disagreement(info, slide, tiff)
    if disagreement:
        logging.warning("%s: read by OpenSlide, as %s", info.slide, disagreement)
        return ReaderChoice(OPENSLIDE, disagreement)
    return ReaderChoice(TIFF, "")


def _disagreement(info: SlideInfo, slide: Slide, tiff: TiffReader) -> str:
    """What differs between the readers; empty if nothing does."""
    for level, size in enumerate(info.level_sizes):
        generator = np.random.default_rng(level)
        side = (min(BOX_PX, size[0]), min(BOX_PX, size[1]))
        factor = slide.level_factor(level)
        starts = [_whole_starts(length - part, factor) for length, part in zip(size, side, strict=True)]
        corners = [(int(generator.choice(starts[0])), int(generator.choice(starts[1]))) for _ in range(RANDOM_BOXES)]
        # On a slide with little tissue, all random boxes may show glass, where readers hardly differ.
        for corner in tiff.fullest(level, FULL_BOXES):
            x, y = (int(start[start <= at][-1]) for start, at in zip(starts, corner, strict=True))
            corners.append((x, y))
        for xy in corners:
            boxes = [_read(reader, level, xy, side) for reader in (slide.read_by_openslide, tiff.read)]
            if boxes[1] is None:
                continue  # OpenSlide reads the boxes that the TIFF reader cannot
            place = f"level {level}, box x={xy[0]} y={xy[1]} of that level"
            if boxes[0] is None:
                return f"only one reader finds damage at {place}"
            luma, colour = difference(boxes[0], boxes[1])
            if luma > LARGEST_LUMA_DIFFERENCE or colour > LARGEST_COLOUR_DIFFERENCE:
                return f"readers differ at {place}: luma by up to {luma:.3g}, mean colour by {colour:.3g} grey levels"
    return ""


def _whole_starts(last: int, factor: float) -> NDArray[np.int64]:
    """Pixel positions of a level, 0 to `last`, that fall on whole level-0 pixels; 0 always does."""
    starts = np.arange(last + 1)
    whole: NDArray[np.int64] = starts[np.abs(starts * factor - np.rint(starts * factor)) <= WHOLE]
    return whole


def _read(
    read: Callable[[int, tuple[int, int], tuple[int, int]], NDArray[np.uint8]],
    level: int,
    xy_level: tuple[int, int],
    size_px: tuple[int, int],
) -> NDArray[np.uint8] | None:
    try:
        return read(level, xy_level, size_px)
    except Exception:
        return None


def difference(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> tuple[float, float]:
    """Largest luma difference of a pixel, and largest mean difference of a channel, of two (H, W, 3) images (0–255)."""
    differences = one.astype(np.float64) - other
    return float(np.abs(differences @ LUMA).max()), float(np.abs(differences.mean(axis=(0, 1))).max())
