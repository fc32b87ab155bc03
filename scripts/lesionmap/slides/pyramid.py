"""Find the factors of a pyramid's levels, and compare the levels with level 0, whose area means they should be."""

import math
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesionmap.errors import SlideError
from lesionmap.geometry.resampling import area_resample
from lesionmap.slides.dicom_series import series_of, spacing_factors
from lesionmap.slides.file_checks import kept_levels
from lesionmap.slides.reader_selection import LUMA
from lesionmap.slides.slide import WHITE, Handle, Slide, SlideInfo

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
LARGEST_SIDE_PX = 2**20  # of a level: twice the side of the largest slides
LARGEST_TILE_PX = 2**28  # OpenSlide decodes whole tiles, here to 1 GiB
LARGEST_DISTORTION = 0.1  # a level's aspect ratio relative to level 0's, beyond rounding
MOST_TILES_PADDED = 2  # a padded level has fewer more than level 0 asks for; some scanners make their number even
LEAST_ROUNDING = 0.002  # by which share a factor from stored µm/px may be off, however many decimals they have
EXPORT_ANEW = "copy it again from the scanner or archive, or, if the original is the same, export it anew"
CLEARLY_LESS = 0.9  # share of the difference from level 0 that another factor leaves


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


def level_factors(path: str, handle: Handle) -> list[tuple[float, ...]]:
    """The downsample factors that each level may have; see :func:`factor_candidates`."""
    sizes = handle.level_dimensions
    by_spacing = spacing_factors(series_of(Path(path)), sizes)
    levels = enumerate(zip(sizes, handle.level_downsamples, by_spacing, strict=True))
    return [
        factor_candidates(sizes[0], size, _tile_px(handle, level), reported, spaced)
        for level, (size, reported, spaced) in levels
    ]


def factor_candidates(
    size_lv0: tuple[int, int],
    size: tuple[int, int],
    tile_px: tuple[int, int],
    reported: float,
    by_spacing: tuple[float, float] | None = None,
) -> tuple[float, ...]:
    """Which downsample factors may be a level's, the most probable one first.

    The sizes of a level give its factor, unless the level is padded: some scanners fill each level up to whole tiles.

    Parameters
    ----------
    size, tile_px : (int, int)
        Width and height of the level and of its tiles (zeros if it has none).
    reported : float
        OpenSlide's factor, the mean of the ratios of widths and of heights.
    by_spacing : (float, float) or None
        The factor by the levels' own µm/px, and the share by which their rounding may have changed it.

    Returns
    -------
    tuple of float
        Empty if no factor explains the level's size.
    """
    whole = _whole_factor(size_lv0, size, reported)
    is_power = whole is not None and math.log2(whole).is_integer()
    by_padding = [] if is_power else _padded_factors(size_lv0, size, tile_px)
    by_size = [whole or reported] if whole or distortion(size_lv0, size) <= LARGEST_DISTORTION else []
    by_mpp = []
    if by_spacing:
        rounding = max(
            by_spacing[1], LEAST_ROUNDING, 1 / min(size)
        )  # some writers divide the volume by the level's size
        by_mpp = [_snapped(by_spacing[0], rounding, (*by_padding, *by_size))]
    if set(by_mpp) & set(by_padding):
        return tuple(by_mpp)
    covering = [factor for factor in by_mpp if _covers(size_lv0, size, factor)]
    return tuple(dict.fromkeys([*covering, *by_padding, *by_size]))


def _whole_factor(size_lv0: tuple[int, int], size: tuple[int, int], reported: float) -> float | None:
    """The whole factor that explains the sizes, which are rounded to whole pixels; so OpenSlide's own is a bit off."""
    whole = max(1, round(reported))
    ratios = [(full / whole, part) for full, part in zip(size_lv0, size, strict=True)]
    explained = all(math.floor(exact) <= part <= math.ceil(exact) for exact, part in ratios)
    return float(whole) if explained else None


def _padded_factors(size_lv0: tuple[int, int], size: tuple[int, int], tile_px: tuple[int, int]) -> list[float]:
    """The powers of two, at most two, that explain the size of a level of whole tiles."""
    if min(tile_px) <= 0 or any(part % tile for part, tile in zip(size, tile_px, strict=True)):
        return []
    largest_ratio = max(full / part for full, part in zip(size_lv0, size, strict=True))
    least = 2.0 ** math.ceil(math.log2(largest_ratio) - 1e-9)
    sides = list(zip(size_lv0, size, tile_px, strict=True))
    return [
        factor
        for factor in (least, 2 * least)
        if all(part < full / factor + MOST_TILES_PADDED * tile for full, part, tile in sides)
    ]


def _snapped(factor: float, rounding: float, others: Sequence[float]) -> float:
    """The nearest of the other candidates within rounding, else a power of two or a whole number, else itself."""
    near = [
        *sorted(others, key=lambda other: abs(factor / other - 1)),
        2.0 ** round(math.log2(factor)),
        float(max(1, round(factor))),
    ]
    return next((one for one in near if abs(factor / one - 1) <= rounding), factor)


def _covers(size_lv0: tuple[int, int], size: tuple[int, int], factor: float) -> bool:
    return all(math.floor(full / factor) <= part for full, part in zip(size_lv0, size, strict=True))


def distortion(size_lv0: tuple[int, int], size: tuple[int, int]) -> float:
    """By how much the downsample factors along x and y differ, beyond the rounding of sizes to whole pixels."""
    along_x, along_y = (full / part for full, part in zip(size_lv0, size, strict=True))
    return max(0.0, max(along_x, along_y) / min(along_x, along_y) - 1 - 2 / min(size))


def check_levels(path: str, handle: Handle, factors: Sequence[tuple[float, ...]], slide: str, stage: str) -> list[str]:
    """Refuse sizes that only a damaged file has; reading it could use up the memory, or misplace results.

    Parameters
    ----------
    factors : sequence of tuple of float
        Those of :func:`level_factors`.

    Returns
    -------
    list of str
        Which levels are out of proportion, in words.

    Raises
    ------
    SlideError
        If a level cannot be one of this slide.
    """
    flags = []
    for level, size in enumerate(handle.level_dimensions):
        distorted = distortion(handle.dimensions, size)
        said, remedy = f"level {level} of {size[0]}×{size[1]} px", EXPORT_ANEW
        if max(size) > LARGEST_SIDE_PX:
            finding = f"{said} is larger than any slide"
        elif math.prod(_tile_px(handle, level)) > LARGEST_TILE_PX:
            finding = f"{said} has tiles of {math.prod(_tile_px(handle, level)):.3g} px"
        elif not factors[level]:
            finding = "{} has other proportions than level 0 of {}×{} px".format(said, *handle.dimensions)
            finding, remedy = f"{finding}, or is a label that is marked as a level", remedy + kept_levels(path)
        else:
            if distorted > 0 and factors[level] == (handle.level_downsamples[level],):
                flags.append(f"{said} is not in proportion to level 0: {distorted:.1%} off")
            continue
        raise SlideError(slide=slide, stage=stage, finding=f"{path} is damaged: {finding}", remedy=remedy)
    return flags


def _tile_px(handle: Handle, level: int) -> tuple[int, int]:
    """Width and height of a level's tiles; zeros if it has none."""
    width, height = (
        int(handle.properties.get(f"openslide.level[{level}].tile-{side}", 0)) for side in ("width", "height")
    )
    return width, height


def settle_factors(
    slide: Slide, factors: Sequence[tuple[float, ...]], places: Sequence[Sequence[Place]]
) -> tuple[tuple[float, ...], list[str]]:
    """Where a level may have several factors, take the one by which it shows what level 0 shows.

    Parameters
    ----------
    factors, places : sequences
        Of each level, those of :func:`level_factors`, and of :func:`richest_places` by the smallest of them, which the
        slide's own `info` has.

    Returns
    -------
    factors : tuple of float
    flags : list of str
        What the pixels decide otherwise than expected, or do not decide.
    """
    chosen, flags = [candidates[0] for candidates in factors], []
    for level, candidates in enumerate(factors):
        if len(candidates) < 2:
            continue
        chosen[level], decided = choose_factor(slide, level, candidates, places[level])
        if not decided:
            flags.append(f"{_said(level, candidates)}, and its pixels do not tell; {chosen[level]:.4g} is used")
        elif chosen[level] != candidates[0]:
            flags.append(f"{_said(level, candidates)}; {chosen[level]:.4g} is used, as its pixels show")
    return tuple(chosen), flags


def _said(level: int, candidates: Sequence[float]) -> str:
    factors = " or ".join(f"{factor:.4g}" for factor in candidates)
    return f"level {level} may be padded: its factor is {factors} by its size and µm/px"


def choose_factor(slide: Slide, level: int, candidates: Sequence[float], places: Sequence[Place]) -> tuple[float, bool]:
    """Of several factors, the one by which a level agrees best with level 0.

    Parameters
    ----------
    candidates : sequence of float
        The first is taken if the pixels do not decide.
    places : sequence of Place
        Boxes of the level.

    Returns
    -------
    float
        The factor.
    bool
        Whether the pixels have decided.
    """
    misfits = [_misfit(slide, level, factor, places) for factor in candidates]
    best, second = sorted(misfits)[:2]
    if not best < CLEARLY_LESS * second:
        return candidates[0], False
    return candidates[misfits.index(best)], True


def _misfit(slide: Slide, level: int, factor: float, places: Sequence[Place]) -> float:
    """Mean difference in luma of a level's boxes from level 0, which is white beyond its edges; 0 without boxes."""
    differences = []
    for place in places:
        with suppress(SlideError):
            pixels, mean = _luma_of_both(slide, level, (place.x, place.y), factor)
            differences.append(np.abs(pixels - mean).mean())
    return float(np.mean(differences)) if differences else 0.0


def richest_places(
    info: SlideInfo,
    level: int,
    pixels: NDArray[np.uint8],
    xy_level: tuple[int, int],
    known: Sequence[Place] = (),
    *,
    content_only: bool = True,
) -> list[Place]:
    """The boxes of a level with the most detail, among those already known and those in new pixels.

    Parameters
    ----------
    pixels : (height, width, 3) uint8
        A part of the level.
    xy_level : (int, int)
        Its corner in pixels of the level.
    content_only : bool
        Whether glass does not count, as a flat part of a box; else the edges of tissue count most.
    """
    side, factor = _box_px(info, level), info.downsamples[level]
    # The last row and column of a level may reach beyond level 0.
    width, height = (
        max(0, min(length, math.floor(full / factor) - at)) // side * side
        for length, full, at in zip(pixels.shape[1::-1], info.size_lv0, xy_level, strict=True)
    )
    detail = _detail(pixels[:height, :width], side, content_only=content_only)
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


def _detail(pixels: NDArray[np.uint8], side_px: int, *, content_only: bool) -> NDArray[np.float64]:
    """Standard deviation of the content of each box; 0 where less than half of a box is content."""
    step = max(1, side_px // SAMPLES_PER_SIDE)
    grey = pixels[::step, ::step].mean(axis=2)
    n = side_px // step
    rows, columns = (length // n for length in grey.shape)
    boxes = grey.reshape(rows, n, columns, n).swapaxes(1, 2).reshape(rows, columns, n * n)
    content = ((boxes > BLACK) & (boxes < GLASS)) | (not content_only)
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
            pixels, mean = _luma_of_both(slide, level, (place.x, place.y), slide.info.downsamples[level])
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
    slide: Slide, level: int, xy_level: tuple[int, int], factor: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Luma of a box of a level, and of the area means of level 0 by a factor, on the same grid."""
    side = _box_px(slide.info, level)
    pixels, origin = slide.read_level(level, xy_level, (side, side))
    corner = [at * factor for at in origin]
    left, top = (max(0, math.floor(at + 1e-6)) for at in corner)
    right, bottom = (
        min(full, math.ceil(at + side * factor - 1e-6)) for at, full in zip(corner, slide.info.size_lv0, strict=True)
    )
    if right <= left or bottom <= top:
        return pixels @ LUMA, np.full((side, side), float(WHITE))
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
