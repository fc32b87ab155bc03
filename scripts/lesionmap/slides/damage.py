"""Parts of a slide that cannot be read: how many are too many, and missing tiles whose content another level shows."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import minimum_filter

from lesionmap.errors import SlideError

BLOCK_PX = 64
FEWEST_PX = 64  # without pixels in a block, but for those that a coarser pixel may share with tissue beside them
LEAST_SHOWN_SHARE = 0.5  # by a level that decides
LEAST_COLOURED_SHARE = 0.3  # of the former; along the block's edge, tissue beside it may reach in
LEAST_COLOUR = 25  # brightest minus darkest channel; glass and JPEG noise have less, pale tissue has about 30

Box = tuple[int, int, int, int]  # left, top, right, bottom


def check_damage(slide: str, stage: str, unreadable: Sequence[SlideError], n_boxes: int, most: float) -> None:
    """Refuse a slide if too many of its boxes cannot be read.

    Parameters
    ----------
    unreadable : sequence of SlideError
        One per box that could not be read.
    n_boxes : int
        Number of boxes tried.
    most : float
        Largest accepted share of unreadable boxes, 0–1.

    Raises
    ------
    SlideError
        If more are unreadable; it names their number and the first of them.
    """
    if len(unreadable) > most * n_boxes:
        raise SlideError(
            slide=slide,
            stage=stage,
            finding=f"{len(unreadable)} of {n_boxes} boxes cannot be read, more than {100 * most:.3g} %; the first: "
            f"{unreadable[0].finding}",
            remedy=unreadable[0].remedy,
        )


def hidden_content(
    rgba: NDArray[np.uint8], levels: Mapping[int, float], read: Callable[[int, Box], NDArray[np.uint8] | None]
) -> tuple[Box, int] | None:
    """Find a part without pixels where another level shows tissue: its tiles are missing there.

    Scanners leave out tiles of blank glass, so a part without pixels alone is no damage.

    Parameters
    ----------
    rgba : (height, width, 4) uint8
        A box of a level; where it has no pixels, it is transparent.
    levels : mapping
        The other levels, in the order in which they are asked (the first that has pixels there decides), and how many
        pixels of the box one of theirs is wide.
    read : callable
        Reads a part of the box, (left, top, right, bottom), from another level, enlarged or reduced to the part's size:
        (height, width, 4) uint8; None if it cannot.

    Returns
    -------
    (box, int) or None
        The part, and the level that shows what is missing.
    """
    for part, missing in _blocks(rgba[..., 3] == 0):
        for level, width_px in levels.items():
            shown = read(level, part)
            if shown is None or (missing & (shown[..., 3] > 0)).sum() < LEAST_SHOWN_SHARE * missing.sum():
                continue
            inner = minimum_filter(missing, 2 * math.ceil(width_px) + 1, mode="nearest")
            coloured = inner & (shown[..., 3] > 0) & (np.ptp(shown[..., :3], axis=2) >= LEAST_COLOUR)
            if inner.sum() >= FEWEST_PX and coloured.sum() >= LEAST_COLOURED_SHARE * inner.sum():
                return part, level
            break
    return None


def _blocks(missing: NDArray[np.bool_]) -> Iterator[tuple[Box, NDArray[np.bool_]]]:
    """The blocks of a box in which something is missing."""
    height, width = missing.shape
    for top in range(0, height, BLOCK_PX):
        for left in range(0, width, BLOCK_PX):
            block = missing[top : top + BLOCK_PX, left : left + BLOCK_PX]
            if block.any():
                yield (left, top, left + block.shape[1], top + block.shape[0]), block
