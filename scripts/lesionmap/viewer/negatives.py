"""A sample of tissue without lesion, which the viewer shows in full resolution, too."""

from collections.abc import Sequence

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from lesionmap.geometry.tiling import cut
from lesionmap.slides.slide import SlideInfo
from lesionmap.tissue.mask import FOLD, GAP, TissueMask

SAMPLES = 5
SIDE_UM = 256.0
LEAST_STAINED = 0.5  # of a square's area
ACROSS = 16  # points of each square at which its tissue is looked up


def negative_squares(tissue: TissueMask, lesions: Sequence[BaseGeometry], info: SlideInfo) -> list[BaseGeometry]:
    """Squares of a grid that show stained tissue and touch no lesion, drawn by the slide's identity; at most `SAMPLES`.

    Parameters
    ----------
    lesions : sequence of Polygon
        Predicted and annotated lesions, level-0 pixels.
    """
    side = SIDE_UM / info.mpp
    columns, rows = (int(length // side) for length in info.size_lv0)
    codes = tissue.codes_at((0, 0), (columns * ACROSS, rows * ACROSS), side / ACROSS)
    stained = cut((codes >= FOLD) & (codes != GAP), ACROSS).mean(axis=(2, 3)) >= LEAST_STAINED
    y, x = np.nonzero(stained)
    squares = shapely.box(x * side, y * side, (x + 1) * side, (y + 1) * side)
    touched = shapely.STRtree(squares).query(np.array(lesions, dtype=object), predicate="intersects")[1]
    free = np.delete(squares, touched)
    order = np.random.default_rng(list(info.identity.encode())).permutation(len(free))
    return list(free[order[:SAMPLES]])
