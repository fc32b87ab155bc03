"""Which of two readers a slide's pixels come from: held against each other before the faster one is trusted."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lesionmap.slides.slide import OPENSLIDE, TIFF, Slide, SlideInfo
from lesionmap.slides.tiff_reader import VENDORS, TiffReader

BOX_PX = 256
RANDOM_BOXES, FULL_BOXES = 6, 4  # of each level
LARGEST_LUMA_DIFFERENCE = 2.0  # grey levels, of any pixel
LARGEST_COLOUR_DIFFERENCE = 1.5  # grey levels, of a box's mean in any channel
LUMA = np.array([0.299, 0.587, 0.114])  # of R, G, B (ITU-R BT.601, JPEG's)
WHOLE = 0.02  # level-0 pixels: OpenSlide resamples boxes that start between two pixels of a level


@dataclass(frozen=True)
class ReaderChoice:
    """The reader of a slide and, if it is not the faster one, why."""

    reader: str
    reason: str


def choose_reader(info: SlideInfo, wanted: str, stage: str) -> ReaderChoice:
    """Read some boxes of every level by both readers, and take the faster one if they agree.

    Parameters
    ----------
    info : SlideInfo
    wanted : str
        ``auto``, or ``openslide`` not to ask.
    stage : str
        For error messages.
    """
    if wanted == OPENSLIDE:
        return ReaderChoice(OPENSLIDE, "as the config wants")
    if info.vendor not in VENDORS:
        return ReaderChoice(OPENSLIDE, f"the only one that knows {info.vendor}")
    try:
        tiff = TiffReader(info.path, info.level_sizes)
    except Exception as error:  # whatever an odd file does to that reader, the other one is there
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
        # Random boxes of a slide with little tissue may all be of glass, where readers can hardly differ.
        for corner in tiff.fullest(level, FULL_BOXES):
            x, y = (int(start[start <= at][-1]) for start, at in zip(starts, corner, strict=True))
            corners.append((x, y))
        for xy in corners:
            boxes = [_read(reader, level, xy, side) for reader in (slide.read_by_openslide, tiff.read)]
            if boxes[1] is None:
                continue  # a box that one reader cannot read is left to OpenSlide
            place = f"level {level}, box x={xy[0]} y={xy[1]} of that level"
            if boxes[0] is None:
                return f"only one reader finds damage at {place}"
            luma, colour = difference(boxes[0], boxes[1])
            if luma > LARGEST_LUMA_DIFFERENCE or colour > LARGEST_COLOUR_DIFFERENCE:
                return f"readers differ at {place}: luma by up to {luma:.3g}, mean colour by {colour:.3g} grey levels"
    return ""


def _whole_starts(last: int, factor: float) -> NDArray[np.int64]:
    """Pixels of a level, up to `last`, that lie on whole level-0 pixels; 0 always does."""
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
    """Largest difference in luma of any pixel, and in any channel's mean, of two (H, W, 3) images; grey levels."""
    differences = one.astype(np.float64) - other
    return float(np.abs(differences @ LUMA).max()), float(np.abs(differences.mean(axis=(0, 1))).max())
