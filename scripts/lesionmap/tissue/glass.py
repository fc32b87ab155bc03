"""Find the bare glass of a slide, and its colour: the light that no tissue has weakened."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

NEIGHBOURS = 3  # side of the square within which glass hardly changes, pixels
SMOOTH_RANGE = 8  # largest change of any channel within that square
DARKEST_GLASS = 120  # scanners show glass at 180 to 250
FILLER_ALONE = 0.75  # share of a filler's pixels whose neighbours all have its colour; on real glass at most 0.57
LEAST_FILLER = 0.001  # of the image
MOST_FILLER_SPREAD = 32  # max − min of RGB; fillers are white, grey, black or about the colour of glass
LEAST_GLASS = 0.002  # of what was scanned
FEWEST_PIXELS, MOST_PIXELS = 16, 1_000_000  # with which the colour is measured
MODE_WIDTH = 1.5  # standard deviation with which the histogram of brightness is smoothed
LEAST_MODE = 0.1  # of the highest mode
DIMMEST_MODE = 0.85  # of the brightest mode's light
DIMMEST_SHADE = 0.95  # of the commonest mode's light, where glass is lit unevenly
SAME_HUE = 0.03  # largest difference between channels of the optical density of one glass relative to another
STRONGEST_TINT = 0.13  # the same, of glass relative to grey
BRIGHTEST = 99.5  # percentile of brightness taken for the light where there is no glass
MODE_REACH = 3  # grey levels around a mode that count as glass


@dataclass(frozen=True)
class Glass:
    """The glass of an image.

    Parameters
    ----------
    colour : (3,) float64 or None
        Its median colour; None if the image shows no glass.
    pixels : (H, W) bool
        Pixels of that colour with smooth surroundings.
    filler : (H, W) bool
        Pixels of one exact colour, with which a program filled what was not scanned.
    """

    colour: NDArray[np.float64] | None
    pixels: NDArray[np.bool_]
    filler: NDArray[np.bool_]

    def light(self, image: NDArray[np.uint8]) -> NDArray[np.float64]:
        """The colour of the glass, (3,), or of the brightest that the image shows if it shows no glass."""
        if self.colour is not None:
            return self.colour
        scanned = image[~self.filler]
        return np.maximum(np.percentile(scanned, BRIGHTEST, axis=0), 1) if len(scanned) else np.full(3, 255.0)


def find_glass(image: NDArray[np.uint8]) -> Glass:
    """Find the glass of an overview of a slide, (H, W, 3) uint8.

    Glass is bright and smooth, but never of one exact colour over large areas. Of several kinds of glass, e.g. beside
    and under the cover slip, the most frequent one is taken.
    """
    change = change_around(image, NEIGHBOURS)
    filler = _filler(image, change == 0)
    smooth = (change <= SMOOTH_RANGE) & ~ndimage.binary_dilation(filler, np.ones((3, 3), bool))
    least, step = max(FEWEST_PIXELS, LEAST_GLASS * (~filler).sum()), 1 + int(smooth.sum()) // MOST_PIXELS
    colour = _commonest_glass(image[smooth][::step], least / step)
    if colour is None:
        return Glass(None, np.zeros_like(filler), filler)
    near = np.abs(image.mean(axis=2, dtype=np.float32) - colour.mean()) <= MODE_REACH
    return Glass(colour, smooth & near, filler)


def white_balanced(image: NDArray[np.uint8], white: Sequence[float] | NDArray[np.float64]) -> NDArray[np.uint8]:
    """Scale the channels of an image (..., 3) so that `white`, (3,), becomes white."""
    balanced = np.empty_like(image)
    for channel, light in enumerate(white):
        levels = np.minimum(np.rint(np.arange(256) * (255 / light)), 255).astype(np.uint8)
        balanced[..., channel] = levels[image[..., channel]]
    return balanced


def change_around(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Largest change of any channel in the square of `side` pixels around each pixel, (H, W)."""
    changes = [
        ndimage.maximum_filter(channel, side) - ndimage.minimum_filter(channel, side)
        for channel in np.moveaxis(image, 2, 0)
    ]
    change: NDArray[np.uint8] = np.maximum.reduce(changes)
    return change


def _filler(image: NDArray[np.uint8], constant: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of a filler's colour; `constant` are those whose neighbours all have the same colour."""
    red, green, blue = np.moveaxis(image, 2, 0).astype(np.int32)
    coded = red << 16 | green << 8 | blue
    grey = np.ptp(image[constant], axis=1) <= MOST_FILLER_SPREAD
    colours, alone = np.unique(coded[constant][grey], return_counts=True)
    filler = np.zeros_like(constant)
    for colour, n in zip(colours, alone, strict=True):
        if n >= LEAST_FILLER * coded.size:
            same = coded == colour
            if n >= FILLER_ALONE * same.sum():
                filler |= same
    return filler


def brightest_glass(pixels: NDArray[np.uint8], least: float) -> NDArray[np.float64] | None:
    """Colour of the brightest glass among pixels with smooth surroundings, (3,); None if they show no glass.

    Parameters
    ----------
    pixels : (N, 3) uint8
        Glass, and tissue as smooth as glass; dark ones do not count.
    least : float
        Fewer pixels of one brightness are no glass.
    """
    modes = _modes(pixels[pixels.max(axis=1) >= DARKEST_GLASS], least)
    return modes[-1].colour if modes and _is_glass(modes[-1].colour) else None


def _commonest_glass(pixels: NDArray[np.uint8], least: float) -> NDArray[np.float64] | None:
    """The same of the commonest glass, averaged over its shades where it is lit unevenly."""
    bright = pixels[pixels.max(axis=1) >= DARKEST_GLASS]
    modes = _modes(bright, least)
    of_glass = [mode for mode in modes if _weaker_light(mode.colour, modes[-1].colour, DIMMEST_MODE)]
    if not of_glass:
        return None
    commonest = max(of_glass, key=lambda mode: mode.height)
    found: NDArray[np.float64] = np.median(bright[_weaker_light(bright, commonest.colour, DIMMEST_SHADE)], axis=0)
    return found if _is_glass(found) else None


class _Mode(NamedTuple):
    """A peak of the histogram of brightness: its height, and the median colour of its pixels."""

    height: float
    colour: NDArray[np.float64]


def _modes(pixels: NDArray[np.uint8], least: float) -> list[_Mode]:
    """The modes of brightness with enough pixels, the brightest last."""
    light = pixels.mean(axis=1, dtype=np.float32)
    counts = np.bincount(light.round().astype(np.int64), minlength=256).astype(float)
    counts = np.pad(ndimage.gaussian_filter1d(counts, MODE_WIDTH, mode="constant"), 1)
    peaks = (counts[1:-1] >= counts[:-2]) & (counts[1:-1] > counts[2:]) & (counts[1:-1] > LEAST_MODE * counts.max())
    near = [(counts[1 + peak], pixels[np.abs(light - peak) <= MODE_REACH]) for peak in np.flatnonzero(peaks)]
    return [_Mode(height, np.median(part, axis=0)) for height, part in near if len(part) >= least]


def _is_glass(colour: NDArray[np.float64]) -> bool:
    return bool(np.ptp(np.log(colour)) <= STRONGEST_TINT)


def _weaker_light(colours: NDArray[Any], glass: NDArray[np.float64], least: float) -> NDArray[np.bool_]:
    """Whether colours, (..., 3), are those of glass in weaker light (at least a share of it), not of pale tissue."""
    weaker = np.log(glass / colours)
    weak: NDArray[np.bool_] = (np.ptp(weaker, axis=-1) <= SAME_HUE) & (weaker.mean(axis=-1) <= -np.log(least))
    return weak
