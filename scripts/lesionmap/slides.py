"""Open a slide, say what it is, and read any box of it at any µm/px."""

import math
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openslide
from numpy.typing import NDArray

from lesionmap.errors import SlideError
from lesionmap.files import read_json
from lesionmap.resampling import area_resample

WHITE = 255
MOST_PIXELS_AT_ONCE = 2**25


@dataclass(frozen=True)
class SlideInfo:
    """What is needed to read a slide and to place what is found on it.

    Parameters
    ----------
    size_lv0 : (int, int)
        Width and height of level 0.
    mpp : float
        µm/px of level 0.
    downsamples : tuple of float
        Level-0 pixels per pixel of each level.
    level_sizes : tuple of (int, int)
        Width and height of each level.
    bounds_xy_lv0 : (int, int)
        Top-left corner of the scanned area (``openslide.bounds-x/y``), which some programs crop to.
    """

    slide: str
    path: str
    identity: str
    vendor: str
    size_lv0: tuple[int, int]
    mpp: float
    downsamples: tuple[float, ...]
    level_sizes: tuple[tuple[int, int], ...]
    bounds_xy_lv0: tuple[int, int]


def load_info(path: str | Path) -> SlideInfo:
    """Read the record that :func:`lesionmap.inspection.inspect_slide` wrote for a readable slide."""
    record = read_json(path)["info"]
    tupled = {key: _as_tuple(value) for key, value in record.items()}
    return SlideInfo(**tupled)


def _as_tuple(value: Any) -> Any:
    return tuple(_as_tuple(item) for item in value) if isinstance(value, list) else value


class Slide(AbstractContextManager["Slide"]):
    """An open slide; a context manager.

    Parameters
    ----------
    info : SlideInfo
    stage : str
        The rule on whose behalf the slide is read, for error messages.
    """

    def __init__(self, info: SlideInfo, stage: str) -> None:
        self.info, self.stage = info, stage
        self._handle = open_slide(info.path, info.slide, stage)

    def __exit__(self, *_: object) -> None:
        self._handle.close()

    def read(self, xy_lv0: tuple[float, float], size_px: tuple[int, int], mpp: float) -> NDArray[np.uint8]:
        """Read a box at any resolution, each pixel the mean of its own area.

        Parameters
        ----------
        xy_lv0 : (float, float)
            Top-left corner in level-0 pixels; need not be whole, may lie outside the slide.
        size_px : (int, int)
            Width and height of the result.
        mpp : float
            Resolution of the result, µm/px.

        Returns
        -------
        (height, width, 3) uint8
            White beyond the slide.

        Raises
        ------
        SlideError
            If the file is damaged there.
        """
        scale = mpp / self.info.mpp  # level-0 pixels per output pixel
        level = self._best_level(scale)
        rows = max(1, int(MOST_PIXELS_AT_ONCE * (self.info.downsamples[level] / scale) ** 2 / size_px[0]))
        strips = []
        for row in range(0, size_px[1], rows):
            corner = (xy_lv0[0], xy_lv0[1] + row * scale)
            strips.append(self._read_strip(corner, (size_px[0], min(rows, size_px[1] - row)), scale, level))
        return strips[0] if len(strips) == 1 else np.concatenate(strips)

    def _read_strip(
        self, xy_lv0: tuple[float, float], size_px: tuple[int, int], scale: float, level: int
    ) -> NDArray[np.uint8]:
        downsample = self.info.downsamples[level]
        step = scale / downsample  # level pixels per output pixel
        start = (xy_lv0[0] / downsample, xy_lv0[1] / downsample)
        low, high = self._level_box(level, start, step, size_px)
        if high[0] <= low[0] or high[1] <= low[1]:
            return np.full((size_px[1], size_px[0], 3), WHITE, dtype=np.uint8)
        pixels, origin = self.read_level(level, low, (high[0] - low[0], high[1] - low[1]))
        offset = (start[0] - origin[0], start[1] - origin[1])
        if step == 1.0 and offset == (0.0, 0.0) and pixels.shape[:2] == (size_px[1], size_px[0]):
            return pixels
        return area_resample(pixels, offset, step, size_px, fill=WHITE)

    def read_level(
        self, level: int, xy_level: tuple[int, int], size_px: tuple[int, int]
    ) -> tuple[NDArray[np.uint8], tuple[float, float]]:
        """Read a box of one level; transparent pixels become white.

        OpenSlide takes whole level-0 coordinates and divides them by its own factor, so on a level of odd size the
        box starts a fraction of a pixel beside `xy_level`.

        Returns
        -------
        pixels : (height, width, 3) uint8
        origin : (float, float)
            Where they start, in pixels of the level.
        """
        factor = self._handle.level_downsamples[level]
        location = (round(xy_level[0] * factor), round(xy_level[1] * factor))
        try:
            rgba = np.asarray(self._handle.read_region(location, level, size_px))
        except openslide.OpenSlideError as error:
            self._handle.close()
            self._handle = open_slide(self.info.path, self.info.slide, self.stage)  # errors are sticky
            raise SlideError(
                slide=self.info.slide,
                stage=self.stage,
                finding=f"level {level}, box x={location[0]} y={location[1]} of {size_px[0]}×{size_px[1]} px "
                f"cannot be read ({error})",
                remedy="copy the file again from the scanner or archive; it is damaged",
            ) from error
        return _on_white(rgba), (location[0] / factor, location[1] / factor)

    def _best_level(self, scale: float) -> int:
        fine_enough = [i for i, factor in enumerate(self.info.downsamples) if factor <= scale * 1.001]
        return max(fine_enough, key=lambda i: self.info.downsamples[i], default=0)

    def _level_box(
        self, level: int, start: tuple[float, float], step: float, size_px: tuple[int, int]
    ) -> tuple[tuple[int, int], tuple[int, int]]:
        width, height = self.info.level_sizes[level]
        margin = 0 if self._handle.level_downsamples[level].is_integer() else 1  # see read_level
        left, top = (math.floor(corner + 1e-6) - margin for corner in start)
        right, bottom = (
            math.ceil(corner + step * length - 1e-6) + margin for corner, length in zip(start, size_px, strict=True)
        )
        return (max(0, left), max(0, top)), (min(width, right), min(height, bottom))


def _on_white(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    alpha = rgba[..., 3:]
    if alpha.min(initial=255) == 255:
        return np.ascontiguousarray(rgba[..., :3])
    blended = rgba[..., :3].astype(np.uint16) * alpha + WHITE * (255 - alpha.astype(np.uint16))
    return ((blended + 127) // 255).astype(np.uint8)


def open_slide(path: str, slide: str, stage: str) -> openslide.OpenSlide:
    """Open `path` with OpenSlide.

    Raises
    ------
    SlideError
        If the file is missing, empty, of an unknown format or broken.
    """
    if not Path(path).exists():
        finding, remedy = f"the file {path} does not exist", "correct its path in the slide sheet"
    elif Path(path).is_file() and Path(path).stat().st_size == 0:
        finding, remedy = f"the file {path} is empty (0 bytes)", "copy it again from the scanner or archive"
    else:
        try:
            return openslide.OpenSlide(path)
        except openslide.OpenSlideUnsupportedFormatError:
            finding = f"OpenSlide does not recognise {path} as a slide (first bytes: {_first_bytes(path)})"
            remedy = "check that it is a whole-slide image and was copied to its end; else convert it to tiled TIFF"
        except openslide.OpenSlideError as error:
            finding, remedy = f"OpenSlide cannot open {path}: {error}", "copy the file again; it is damaged"
    raise SlideError(slide=slide, stage=stage, finding=finding, remedy=remedy)


def _first_bytes(path: str) -> str:
    if Path(path).is_dir():
        return "a folder"
    with open(path, "rb") as stream:
        return repr(stream.read(12))[1:]
