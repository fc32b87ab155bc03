"""Class codes of masks, as tile stores hold them (METHOD.md §1.1), and what of a mask is judged."""

import numpy as np
from numpy.typing import NDArray

BACKGROUND, LESION, VESSEL, FAT, IGNORE = 0, 1, 2, 3, 255
CLASS_NAMES = {"lesion": LESION, "vessel": VESSEL, "fat": FAT}
OUTLINED = {"ignore": IGNORE, **CLASS_NAMES}  # classes of outlines; where they overlap, the first wins
STORED_CLASSES = ("background", *CLASS_NAMES)  # in the order of their codes
MAJORITY_ORDER = (LESION, VESSEL, FAT, BACKGROUND, IGNORE)  # in a tie for one pixel, the first wins
CORRECTIONS = ("accepted", "edited", "rejected", "deleted", "new")  # of lesions that come back from a review


def judged(mask: NDArray[np.uint8], tissue: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The pixels of a mask that metrics count, in validation as in evaluation; all others become 255 (ignore).

    They are on tissue, or annotated: tissue detection may have missed that.

    Parameters
    ----------
    mask : (H, W) uint8
        Class codes; 255 where the annotation says to ignore, and beyond the slide.
    tissue : (H, W) bool
    """
    return np.where(tissue | (mask != BACKGROUND), mask, np.uint8(IGNORE))
