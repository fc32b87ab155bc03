"""Read sample boxes of the levels of a slide once, for every check that needs pixels; tell how it was illuminated."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lesionmap.errors import SlideError
from lesionmap.geometry.tiling import map_size
from lesionmap.slides.damage import check_damage
from lesionmap.slides.pyramid import Place, richest_places
from lesionmap.slides.slide import Slide, SlideInfo

BOX_PX = 512
FEWEST_BOXES = 64
SAMPLED_EVERY_PX = 8  # along both sides
FEWEST_PIXELS = 300  # with fewer, nothing is decided
WHITE = 240  # darkest channel of pixels that may be the edge of white filler, and say nothing of colour
DIMMEST = 64  # the slide's light; less is an image of more than 8 bits whose file does not state its scale, or none
# Shares of the slide's light, which is the 99.9th percentile of the brightest channel:
DARK = 0.25  # a pixel's brightest channel in the background of dark-field images
LEAST_IN_DARKEST_CHANNEL = 0.4  # of bright pixels, 95th percentile. H&E, IHC: 0.54 and more; fluorescence: up to 0.30
MOST_IN_DIM_QUARTILE = 0.7  # of bright pixels, brightest channel. Glass beside black: 0.81 and more; grey: up to 0.66
# Grey images: shares of pixels, and the darkest channel relative to the brightest.
LEAST_DARK_SHARE = 0.2
LEAST_COLOURLESS, LEAST_COLOURLESS_SHARE = 0.85, 0.9  # H&E beside black has 10 % of its pixels below 0.75
OTHER_SCALE = (
    "if its values have 10 to 14 bits, state the largest in its TIFF tag MaxSampleValue (for 12 bits: tiffset -s 281 3 "
    "4095 4095 4095 FILE) or in its OME-XML (SignificantBits), or export it with 8 bits"
)
REMEDY = "LesionMap reads H&E in brightfield: export such a scan of the slide, or remove it from the slide sheet"


@dataclass
class LevelSample:
    """What the sample boxes of one level show.

    Parameters
    ----------
    n_boxes : int
        Number of boxes tried.
    unreadable : list of SlideError
        One per box that cannot be read.
    tones : (256, 256) int64
        Sum of :func:`count_tones`.
    places, edges : list of Place
        The places with the most detail, of their content and with its edges; see
        :func:`lesionmap.slides.pyramid.richest_places`.
    """

    n_boxes: int = 0
    unreadable: list[SlideError] = field(default_factory=list)
    tones: NDArray[np.int64] = field(default_factory=lambda: np.zeros((256, 256), dtype=np.int64))
    places: list[Place] = field(default_factory=list)
    edges: list[Place] = field(default_factory=list)


def sample_level(slide: Slide, level: int, read_share: float) -> LevelSample:
    """Read sample boxes of a level, spread evenly over it.

    Parameters
    ----------
    read_share : float
        Share of the level's area, 0 to 1; at least 64 boxes of 512 px.
    """
    sample, (width, height) = LevelSample(), slide.info.filled_size(level)
    for x, y in _sampled_boxes(width, height, read_share):
        sample.n_boxes += 1
        try:
            pixels, _ = slide.read_level(level, (x, y), (min(BOX_PX, width - x), min(BOX_PX, height - y)))
        except SlideError as error:
            sample.unreadable.append(error)
            continue
        sample.tones += count_tones(pixels)
        sample.places = richest_places(slide.info, level, pixels, (x, y), sample.places)
        sample.edges = richest_places(slide.info, level, pixels, (x, y), sample.edges, content_only=False)
    return sample


def _sampled_boxes(width: int, height: int, share: float) -> Iterator[tuple[int, int]]:
    columns, rows = map_size((width, height), BOX_PX)
    wanted = min(columns * rows, max(FEWEST_BOXES, math.ceil(share * columns * rows)))
    for index in np.unique(np.linspace(0, columns * rows - 1, wanted).round().astype(int)):
        yield int(index % columns) * BOX_PX, int(index // columns) * BOX_PX


def check_readable(info: SlideInfo, level: int, sample: LevelSample, most: float, stage: str) -> list[str]:
    """What is damaged on a level, in words.

    Parameters
    ----------
    most : float
        Share of the level's boxes that may be unreadable, 0 to 1.

    Raises
    ------
    SlideError
        If more are unreadable.
    """
    check_damage(info.slide, stage, sample.unreadable, sample.n_boxes, most)
    if not sample.unreadable:
        return []
    return [f"{len(sample.unreadable)} of {sample.n_boxes} sampled boxes of level {level} cannot be read"]


def sum_tones(samples: Sequence[LevelSample]) -> NDArray[np.int64]:
    """The tones of several levels together, (256, 256)."""
    total: NDArray[np.int64] = np.sum([sample.tones for sample in samples], axis=0)
    return total


def count_tones(pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Count the brightest and darkest channel of every 8th pixel along both sides of an image.

    Filler of one colour is left out: pixels that equal both the next one in their row and the next in their column.

    Parameters
    ----------
    pixels : (height, width, 3) uint8

    Returns
    -------
    (256, 256) int64
        Number of pixels by brightest channel (row) and darkest channel (column).
    """
    step = SAMPLED_EVERY_PX
    at = pixels[:-1:step, :-1:step]
    beside, below = pixels[:-1:step, 1::step], pixels[1::step, :-1:step]
    live = at[((at != beside) | (at != below)).any(axis=2)]  # (N, 3)
    pairs = live.max(axis=1).astype(np.int64) * 256 + live.min(axis=1)
    return np.bincount(pairs, minlength=256 * 256).reshape(256, 256)


def check_illumination(tones: NDArray[np.int64], slide: str, stage: str) -> None:
    """Refuse fluorescence and dark-field images; a slide without enough pixels to decide passes.

    Parameters
    ----------
    tones : (256, 256) int64
        Sum of :func:`count_tones` over the slide.

    Raises
    ------
    SlideError
        If the slide's background is dark and its structures are of one colour, of several pure ones, or grey.
    """
    light = _percentile(tones.sum(axis=1), 99.9)
    if tones.sum() < FEWEST_PIXELS or not light:
        return
    if light < DIMMEST:
        dark = f"it is dark: only 1 pixel in 1000 has more than {light} of 255 in its brightest channel"
        raise SlideError(slide=slide, stage=stage, finding=dark, remedy=OTHER_SCALE)
    bright = np.arange(256) >= DARK * light
    if finding := _pure_colours(tones[bright], light) or _grey_on_black(tones, bright, light):
        raise SlideError(slide=slide, stage=stage, finding=f"it is no brightfield image: {finding}", remedy=REMEDY)


def _pure_colours(bright: NDArray[np.int64], light: int) -> str | None:
    """Structures of pure colours: even between them, light of some colour is missing."""
    coloured = bright[:, :WHITE].sum(axis=0)
    darkest = _percentile(coloured, 95) / light
    if not coloured.any() or darkest >= LEAST_IN_DARKEST_CHANNEL:
        return None
    return (
        "its structures shine in pure colours (95 % of the bright pixels have at most "
        f"{100 * darkest:.0f} % of the slide's light in their darkest channel; H&E lets more than "
        f"{100 * LEAST_IN_DARKEST_CHANNEL:.0f} % through)"
    )


def _grey_on_black(tones: NDArray[np.int64], bright: NDArray[np.bool_], light: int) -> str | None:
    """Grey structures on black; beside black edges, an H&E slide shows colours or bright glass."""
    dark_share = tones[~bright].sum() / tones.sum()
    quartile = _percentile(tones.sum(axis=1) * bright, 25) / light
    brightest, darkest = np.indices(tones.shape)
    colourless = (darkest >= LEAST_COLOURLESS * brightest) & bright[:, None]
    colourless_share = tones[colourless].sum() / tones[bright].sum()
    if dark_share < LEAST_DARK_SHARE or quartile > MOST_IN_DIM_QUARTILE or colourless_share < LEAST_COLOURLESS_SHARE:
        return None
    return (
        f"it is grey on a dark background ({100 * dark_share:.0f} % of the pixels are dark; of the others "
        f"{100 * colourless_share:.0f} % are colourless, and a quarter have at most {100 * quartile:.0f} % of the "
        "slide's light)"
    )


def _percentile(counts: NDArray[np.int64], percent: float) -> int:
    """The least value, of 0 to 255, up to which that percentage of the counted values lies."""
    summed = counts.cumsum()
    return int(np.searchsorted(summed, percent / 100 * summed[-1]))
