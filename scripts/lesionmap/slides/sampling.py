"""Read sample boxes of the levels of a slide once, for every check that needs pixels."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lesionmap.errors import SlideError
from lesionmap.geometry.tiling import map_size
from lesionmap.slides.damage import check_damage
from lesionmap.slides.illumination import count_tones
from lesionmap.slides.pyramid import Place, richest_places
from lesionmap.slides.slide import Slide, SlideInfo

BOX_PX = 512
FEWEST_BOXES = 64


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
        Sum of :func:`lesionmap.slides.illumination.count_tones`.
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
