"""The white point of a slide: the colour of its bare glass, which is I0 of all optical densities (METHOD.md §1.2).

Scanners show glass anywhere from 180 to 250, with a tint. Measured against 255, grey glass would be stain.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lesionmap.stain.profile import WHITE, Colour
from lesionmap.tissue.glass import brightest_glass, change_around

AUTO = "auto"
NEIGHBOURS, SMOOTH_RANGE = 9, 10  # at level 0: wider gaps than the lumens of cells, despite the noise of scanners
LEAST_GLASS, FEWEST_PIXELS = 0.0001, 64  # of the pixels of the boxes
SET, GLASS, GAPS, NOT_FOUND = "settings", "glass", "gaps in the tissue", "not found"


@dataclass(frozen=True)
class WhitePoint:
    """A slide's white point, R, G, B, and where it comes from: one of ``SET``, ``GLASS``, ``GAPS``, ``NOT_FOUND``."""

    colour: Colour
    source: str

    @property
    def flags(self) -> list[str]:
        """What is unusual about it, in words."""
        said = "white point {:.0f}, {:.0f}, {:.0f}".format(*self.colour)
        return {
            GAPS: [f"{said}: the slide shows no glass but in gaps of its tissue"],
            NOT_FOUND: [f"{said} assumed, as the slide shows no glass: see stain.white_point"],
        }.get(self.source, [])


def find_white_point(
    asked: str | Sequence[float], glass: Colour | None, boxes: Sequence[NDArray[np.uint8]]
) -> WhitePoint:
    """Take the white point from the settings, else from glass around the tissue, else from gaps in it.

    Parameters
    ----------
    asked : "auto" or (float, float, float)
        The config's ``stain.white_point``, or that of the slide's row.
    glass : (float, float, float) or None
        Colour of the glass that was found together with the tissue.
    boxes : sequence of (H, W, 3) uint8
        Boxes of tissue at level 0.

    Returns
    -------
    WhitePoint
        255 if the slide shows no glass. It is never taken from a filler of one exact colour, nor from tissue.
    """
    if not isinstance(asked, str):
        return WhitePoint(_colour(asked), SET)
    if glass is not None:
        return WhitePoint(_colour(glass), GLASS)
    in_gaps = _glass_in_gaps(boxes)
    return WhitePoint(WHITE, NOT_FOUND) if in_gaps is None else WhitePoint(_colour(in_gaps), GAPS)


def _colour(parts: Sequence[float] | NDArray[np.float64]) -> Colour:
    red, green, blue = (float(part) for part in parts)
    return red, green, blue


def _glass_in_gaps(boxes: Sequence[NDArray[np.uint8]]) -> NDArray[np.float64] | None:
    smooth = [np.empty((0, 3), np.uint8)]
    for box in boxes:
        change = change_around(box, NEIGHBOURS)
        smooth.append(box[(change > 0) & (change <= SMOOTH_RANGE)])
    return brightest_glass(
        np.concatenate(smooth), max(FEWEST_PIXELS, LEAST_GLASS * sum(box[..., 0].size for box in boxes))
    )
