"""Compare the levels of a slide's pyramid with level 0, whose area means they should be."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesionmap.errors import SlideError
from lesionmap.geometry.resampling import area_resample
from lesionmap.slides.reader_selection import LUMA
from lesionmap.slides.slide import Slide, SlideInfo

BOXES_PER_LEVEL = 8
BOX_PX = 64  # of the level, but no more than the next of level 0
BOX_PX_LV0 = 512
SAMPLES_PER_SIDE = 8  # of a box, when the boxes with most detail are sought
BLACK, GLASS = 15, 240  # mean grey level: content is between them
# A level is no average if it differs from the mean of level 0 by more than this share of what neighbouring pixels of
# that mean differ by. On real tissue, area means and Lanczos, in JPEG of quality 50 or better, have up to 0.53; every
# 4th pixel has 0.67 and more (less if it is the middle one and level 0 is blurred); a shift by one pixel of the level
# has 1. Smooth images show little but JPEG noise: less than these grey levels.
LARGEST_SHARE_OF_DETAIL, NOTICED_DIFFERENCE = 0.6, 4.0


@dataclass(frozen=True, order=True)
class Place:
    """A box of a level with content: standard deviation of its grey levels, and its corner in pixels of the level."""

    detail: float
    x: int
    y: int


@dataclass(frozen=True)
class LevelDifference:
    """How a level's luma differs from the area mean of level 0, and how neighbouring pixels of that mean differ.

    Both are mean absolute differences in grey levels (0–255).
    """

    level: int
    mean_difference: float
    neighbour_difference: float

    @property
    def is_average(self) -> bool:
        """Whether it differs no more than JPEG makes averages differ."""
        limit = max(NOTICED_DIFFERENCE, LARGEST_SHARE_OF_DETAIL * self.neighbour_difference)
        return self.mean_difference <= limit


def richest_places(
    info: SlideInfo, level: int, pixels: NDArray[np.uint8], xy_level: tuple[int, int], known: Sequence[Place] = ()
) -> list[Place]:
    """The boxes of a level with the most detail, among those already known and those in new pixels.

    Parameters
    ----------
    pixels : (height, width, 3) uint8
        A part of the level.
    xy_level : (int, int)
        Its corner in pixels of the level.
    """
    side, factor = _box_px(info, level), info.downsamples[level]
    # The last row and column of a level may reach beyond level 0.
    width, height = (
        max(0, min(length, math.floor(full / factor) - at)) // side * side
        for length, full, at in zip(pixels.shape[1::-1], info.size_lv0, xy_level, strict=True)
    )
    detail = _detail(pixels[:height, :width], side)
    rows, columns = np.nonzero(detail)
    found = [
        Place(float(detail[row, column]), xy_level[0] + int(column) * side, xy_level[1] + int(row) * side)
        for row, column in zip(rows, columns, strict=True)
    ]
    return sorted([*known, *found], reverse=True)[:BOXES_PER_LEVEL]


def _box_px(info: SlideInfo, level: int) -> int:
    side = BOX_PX
    while side > 2 and (side * info.downsamples[level] > BOX_PX_LV0 or side > min(info.level_sizes[level])):
        side //= 2
    return side


def _detail(pixels: NDArray[np.uint8], side_px: int) -> NDArray[np.float64]:
    """Standard deviation of the content of each box; 0 where less than half of a box is content."""
    step = max(1, side_px // SAMPLES_PER_SIDE)
    grey = pixels[::step, ::step].mean(axis=2)
    n = side_px // step
    rows, columns = (length // n for length in grey.shape)
    boxes = grey.reshape(rows, n, columns, n).swapaxes(1, 2).reshape(rows, columns, n * n)
    content = (boxes > BLACK) & (boxes < GLASS)
    n_content = content.sum(axis=2)
    mean = (boxes * content).sum(axis=2) / np.maximum(n_content, 1)
    variance = (content * (boxes - mean[..., None]) ** 2).sum(axis=2) / np.maximum(n_content, 1)
    return np.where(2 * n_content >= n * n, np.sqrt(variance), 0.0)


def compare_levels(slide: Slide, places: Mapping[int, Sequence[Place]]) -> list[LevelDifference]:
    """Read boxes of coarser levels, and of level 0 under them; what cannot be read is left out.

    Parameters
    ----------
    places : mapping
        By level, the boxes found by :func:`richest_places`.
    """
    found = (_difference(slide, level, places[level]) for level in sorted(places))
    return [one for one in found if one]


def _difference(slide: Slide, level: int, places: Sequence[Place]) -> LevelDifference | None:
    """None if no box with content can be read."""
    differences, neighbours = [], []
    for place in places:
        try:
            pixels, mean = _luma_of_both(slide, level, (place.x, place.y))
        except SlideError:
            continue
        content = (mean > BLACK) & (mean < GLASS)
        differences.append(np.abs(pixels - mean)[content])
        neighbours.append(np.abs(np.diff(mean, axis=1))[content[:, 1:] & content[:, :-1]])
    if not sum(part.size for part in neighbours):
        return None
    of_level, of_neighbours = (round(float(np.concatenate(parts).mean()), 2) for parts in (differences, neighbours))
    return LevelDifference(level, of_level, of_neighbours)


def _luma_of_both(
    slide: Slide, level: int, xy_level: tuple[int, int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Luma of a box of a level, and of the area means of level 0, on the same grid."""
    factor, side = slide.info.downsamples[level], _box_px(slide.info, level)
    pixels, origin = slide.read_level(level, xy_level, (side, side))
    corner = [at * factor for at in origin]
    left, top = (max(0, math.floor(at + 1e-6)) for at in corner)
    right, bottom = (
        min(full, math.ceil(at + side * factor - 1e-6)) for at, full in zip(corner, slide.info.size_lv0, strict=True)
    )
    fine, origin_lv0 = slide.read_level(0, (left, top), (right - left, bottom - top))
    start = (corner[0] - origin_lv0[0], corner[1] - origin_lv0[1])
    return pixels @ LUMA, area_resample(fine, start, factor, (side, side)) @ LUMA


def pyramid_record(found: Sequence[LevelDifference]) -> list[dict[str, Any]]:
    """Its JSON form."""
    return [asdict(one) for one in found]


def pyramid_flags(found: Sequence[LevelDifference], read: Collection[int]) -> list[str]:
    """Which of the levels that are read are no averages of level 0, in words."""
    return [
        f"level {one.level} is no average of level 0: its luma differs from it by {one.mean_difference:.3g} grey "
        f"levels, where neighbouring pixels differ by {one.neighbour_difference:.3g}"
        for one in found
        if one.level in read and not one.is_average
    ]
