"""Open a slide, hold its metadata, and read any box of it at any µm/px."""

import logging
import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openslide
from numpy.typing import NDArray
from PIL import Image, ImageCms

from lesionmap.errors import SlideError
from lesionmap.files.records import read_json
from lesionmap.geometry.resampling import area_resample
from lesionmap.jobs.quarantine import quarantined
from lesionmap.slides.damage import hidden_content
from lesionmap.slides.tiff_reader import CONVERT, TiffReader, Unusable
from lesionmap.slides.tiff_slide import TiffSlide, why_not_openslide

WHITE = OPAQUE = 255
MOST_PIXELS_AT_ONCE = 2**25
OPENSLIDE, TIFF, TIFFFILE = "openslide", "tiff", "tifffile"  # readers
Handle = openslide.OpenSlide | TiffSlide
SMALLEST_RETRIED_BOX_PX = 128  # of the level read: a smaller box mostly lies in the same tile and fails too


@dataclass(frozen=True)
class SlideInfo:
    """The metadata needed to read a slide and to place results on it.

    Parameters
    ----------
    identity : str
        Digest of the slide's content.
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
    apply_icc : bool
        Whether colours are converted to sRGB with the slide's own profile.
    reader : str
        ``tiff`` if :class:`lesionmap.slides.tiff_reader.TiffReader` can read the slide and agrees with OpenSlide;
        ``tifffile`` if only :class:`lesionmap.slides.tiff_slide.TiffSlide` reads it; else ``openslide``.
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
    apply_icc: bool = False
    reader: str = OPENSLIDE

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "SlideInfo":
        """Make it from its JSON form, in which tuples are lists."""
        return cls(**{key: _as_tuple(value) for key, value in record.items()})

    def filled_size(self, level: int) -> tuple[int, int]:
        """Width and height of the part of a level that shows level 0: some scanners pad levels to whole tiles."""
        factor, (width, height) = self.downsamples[level], self.level_sizes[level]
        most = [math.ceil(length / factor - 1e-6) for length in self.size_lv0]
        return min(width, most[0]), min(height, most[1])

    def level_for(self, mpp: float) -> int:
        """The level that :meth:`Slide.read` reads for a resolution: the coarsest that is fine enough, else level 0."""
        fine_enough = [i for i, factor in enumerate(self.downsamples) if factor <= mpp / self.mpp * 1.001]
        return max(fine_enough, key=lambda i: self.downsamples[i], default=0)


def load_info(path: str | Path, location: str | Path | None = None) -> SlideInfo:
    """Read ``info`` and ``location`` of :class:`lesionmap.slides.inspection.InspectionFiles`.

    Jobs that do not read the slide need no location; `path` of the result is then empty.

    Raises
    ------
    SlideError
        The inspection's own error, if it refused the slide.
    """
    if reason := quarantined(str(path)):
        raise reason
    return SlideInfo.of({"path": read_json(location)["path"] if location else ""} | read_json(path))


def _as_tuple(value: Any) -> Any:
    return tuple(_as_tuple(item) for item in value) if isinstance(value, list) else value


class Slide(AbstractContextManager["Slide"]):
    """An open slide; a context manager.

    Parameters
    ----------
    stage : str
        The rule that reads the slide, for error messages.
    """

    def __init__(self, info: SlideInfo, stage: str) -> None:
        self.info, self.stage = info, stage
        self._handle = open_slide(info.path, info.slide, stage)
        self._factors = self._handle.level_downsamples  # stored, as a handle that has failed no longer gives them
        self._to_srgb = srgb_transform(self._handle) if info.apply_icc else None
        self._tiff: TiffReader | TiffSlide | None = self._handle if isinstance(self._handle, TiffSlide) else None
        if info.reader == TIFF:
            with suppress(Exception):  # the file has changed since its inspection; OpenSlide will report it
                self._tiff = TiffReader(info.path, info.level_sizes)

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; nothing can be read any more."""
        self._handle.close()
        if self._tiff:
            self._tiff.close()

    def level_factor(self, level: int) -> float:
        """OpenSlide's own downsample factor of a level."""
        return float(self._factors[level])

    def read(self, xy_lv0: tuple[float, float], size_px: tuple[int, int], mpp: float) -> NDArray[np.uint8]:
        """Read a box at any resolution; each pixel is the mean of its own area.

        Parameters
        ----------
        xy_lv0 : (float, float)
            Top-left corner in level-0 pixels; may be fractional or outside the slide.
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
        level = self.info.level_for(mpp)
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
        if step == 1.0 and all(part == int(part) for part in offset):
            return _placed(pixels, (int(-offset[0]), int(-offset[1])), size_px)
        return area_resample(pixels, offset, step, size_px, fill=WHITE)

    def read_level(
        self, level: int, xy_level: tuple[int, int], size_px: tuple[int, int]
    ) -> tuple[NDArray[np.uint8], tuple[float, float]]:
        """Read a box of one level; transparent pixels become white.

        OpenSlide takes whole level-0 coordinates and divides them by its own factor. So on a level of odd size, its
        box starts a fraction of a pixel away from `xy_level`; on a Leica slide, up to a pixel.

        Returns
        -------
        pixels : (height, width, 3) uint8
        origin : (float, float)
            Where the pixels start, in pixels of the level.
        """
        if self._tiff:
            # If this fails, OpenSlide tries: it handles missing tiles differently, and it raises the error for damage.
            with suppress(Exception):
                return self._in_srgb(self._tiff.read(level, xy_level, size_px)), xy_level
        return self.read_by_openslide(level, xy_level, size_px), self._origin(self._location(level, xy_level), level)

    def read_by_openslide(self, level: int, xy_level: tuple[int, int], size_px: tuple[int, int]) -> NDArray[np.uint8]:
        """Read a box of one level with OpenSlide (or TiffSlide); transparent pixels become white.

        Raises
        ------
        SlideError
            If the box cannot be decoded, or tiles are missing whose content another level shows.
        """
        location = self._location(level, xy_level)
        place = f"level {level}, box x={location[0]} y={location[1]} of {size_px[0]}×{size_px[1]} px"
        try:
            region = self._read_region(location, level, size_px)
        except openslide.OpenSlideError as error:
            remedy = "copy the file again from the scanner or archive; it is damaged"
            raise self._error(f"{place} cannot be read ({error})", remedy) from error
        rgba = np.asarray(region)
        if rgba[..., 3].min(initial=OPAQUE) == 0 and (hidden := self._hidden_content(level, xy_level, rgba)):
            finding = f"{place} lacks tiles: level {hidden} shows tissue there"
            raise self._error(finding, "copy the file again from the scanner or archive, or export it anew")
        if self._to_srgb:
            ImageCms.applyTransform(region, self._to_srgb, inPlace=True)
        return _on_white(np.asarray(region))

    def _error(self, finding: str, remedy: str) -> SlideError:
        return SlideError(slide=self.info.slide, stage=self.stage, finding=finding, remedy=remedy)

    def _hidden_content(self, level: int, xy_level: tuple[int, int], rgba: NDArray[np.uint8]) -> int | None:
        """The level that shows tissue where a box has no pixels; None if there is none."""
        own = self.info.downsamples
        asked = [*range(level + 1, len(own)), *([level - 1] if level else [])]  # the coarser ones, then the next finer

        def read(other: int, box: tuple[int, int, int, int]) -> NDArray[np.uint8] | None:
            left, top, right, bottom = box
            step = own[level] / own[other]
            corner = round((xy_level[0] + left) * step), round((xy_level[1] + top) * step)
            columns, rows = (np.floor((np.arange(n) + 0.5) * step).astype(int) for n in (right - left, bottom - top))
            size_px = int(columns[-1]) + 1, int(rows[-1]) + 1
            try:
                region = np.asarray(self._read_region(self._location(other, corner), other, size_px))
            except openslide.OpenSlideError:
                return None
            return region[np.ix_(rows, columns)]

        found = hidden_content(rgba, {other: own[other] / own[level] for other in asked}, read)
        return found[1] if found else None

    def _location(self, level: int, xy_level: tuple[int, int]) -> tuple[int, int]:
        factor = self._factors[level]
        return round(xy_level[0] * factor), round(xy_level[1] * factor)

    def _in_srgb(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if not self._to_srgb:
            return pixels
        region = Image.fromarray(pixels).convert("RGBA")
        ImageCms.applyTransform(region, self._to_srgb, inPlace=True)
        return np.ascontiguousarray(np.asarray(region)[..., :3])

    def _origin(self, location: tuple[int, int], level: int) -> tuple[float, float]:
        """Where a box read by OpenSlide starts, in pixels of the level.

        OpenSlide's Leica driver uses whole pixels of a level, both for the image's position on the slide and for a
        box's position in the image. The other drivers keep fractions.
        """
        factor = self._factors[level]
        if isinstance(self._handle, TiffSlide):
            return round(location[0] / factor), round(location[1] / factor)
        if self.info.vendor != "leica":
            return location[0] / factor, location[1] / factor
        corner = [part / self.info.downsamples[level] for part in self.info.bounds_xy_lv0]
        x, y = (
            math.trunc(at / factor - math.floor(start + 1e-6)) + start
            for at, start in zip(location, corner, strict=True)
        )
        return x, y

    def _read_region(self, location: tuple[int, int], level: int, size_px: tuple[int, int]) -> Image.Image:
        """Read a region; if the handle fails, read it with a fresh one.

        After an error, an OpenSlide handle keeps failing, and the error may come from an earlier or another thread's
        box. The fresh handle is shared after its first successful read. Failed handles are dropped, not closed:
        another thread may be reading from them.
        """
        try:
            return self._handle.read_region(location, level, size_px)
        except openslide.OpenSlideError:
            fresh = open_slide(self.info.path, self.info.slide, self.stage)
        region = fresh.read_region(location, level, size_px)
        self._handle = fresh
        return region

    def read_where_possible(
        self, xy_lv0: tuple[float, float], size_px: tuple[int, int], mpp: float
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Like :meth:`read`, but damaged parts become white; for overviews.

        These parts are boxes of at most 128 px of the level that is read.

        Returns
        -------
        pixels : (height, width, 3) uint8
        found : (height, width) bool
            True where pixels could be read.
        """
        pixels, found = self._read_or_halve(xy_lv0, size_px, mpp)
        if not found.all():
            lost = 1 - found.mean()
            logging.warning(
                "slide %s, %s: %.1f %% of an overview cannot be read", self.info.slide, self.stage, 100 * lost
            )
        return pixels, found

    def _read_or_halve(
        self, xy_lv0: tuple[float, float], size_px: tuple[int, int], mpp: float
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        with suppress(SlideError):
            return self.read(xy_lv0, size_px, mpp), np.ones(size_px[::-1], dtype=bool)
        if max(size_px) <= max(1, SMALLEST_RETRIED_BOX_PX / self._step(mpp)):
            return np.full((*size_px[::-1], 3), WHITE, dtype=np.uint8), np.zeros(size_px[::-1], dtype=bool)
        axis = int(size_px[1] >= size_px[0])  # 0 cuts the width, 1 the height
        half = size_px[axis] // 2
        first, second, corner = list(size_px), list(size_px), list(xy_lv0)
        first[axis], second[axis] = half, size_px[axis] - half
        corner[axis] += half * mpp / self.info.mpp
        parts = [
            self._read_or_halve(xy_lv0, (first[0], first[1]), mpp),
            self._read_or_halve((corner[0], corner[1]), (second[0], second[1]), mpp),
        ]
        pixels, found = (np.concatenate(part, axis=1 - axis) for part in zip(*parts, strict=True))
        return pixels, found

    def _step(self, mpp: float) -> float:
        """Pixels of the level that is read, per pixel of the result at `mpp`."""
        return mpp / self.info.mpp / self.info.downsamples[self.info.level_for(mpp)]

    def _level_box(
        self, level: int, start: tuple[float, float], step: float, size_px: tuple[int, int]
    ) -> tuple[tuple[int, int], tuple[int, int]]:
        width, height = self.info.filled_size(level)
        exact = self._factors[level].is_integer() and self.info.vendor != "leica"
        margin = 0 if exact else 1  # see read_level
        left, top = (math.floor(corner + 1e-6) - margin for corner in start)
        right, bottom = (
            math.ceil(corner + step * length - 1e-6) + margin for corner, length in zip(start, size_px, strict=True)
        )
        return (max(0, left), max(0, top)), (min(width, right), min(height, bottom))


def _placed(pixels: NDArray[np.uint8], xy_px: tuple[int, int], size_px: tuple[int, int]) -> NDArray[np.uint8]:
    """A white box with the pixels' top-left corner placed at (x, y); pixels outside the box are cut off."""
    if xy_px == (0, 0) and pixels.shape[1::-1] == size_px:
        return pixels
    box = np.full((size_px[1], size_px[0], 3), WHITE, dtype=np.uint8)
    (x, y), (height, width) = xy_px, pixels.shape[:2]
    part = pixels[max(0, -y) : size_px[1] - y, max(0, -x) : size_px[0] - x]
    box[max(0, y) : y + height, max(0, x) : x + width] = part
    return box


def _on_white(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    alpha = rgba[..., 3:]
    if alpha.min(initial=OPAQUE) == OPAQUE:
        return np.ascontiguousarray(rgba[..., :3])
    blended = rgba[..., :3].astype(np.uint16) * alpha + WHITE * (OPAQUE - alpha.astype(np.uint16))
    return ((blended + 127) // 255).astype(np.uint8)


def srgb_transform(handle: Handle) -> ImageCms.ImageCmsTransform | None:
    """The transform of RGBA to sRGB by the slide's own colour profile; None if it has no profile."""
    profile = handle.color_profile
    if profile is None:
        return None
    intent = ImageCms.Intent(ImageCms.getDefaultIntent(profile))
    return ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), "RGBA", "RGBA", intent)


def open_slide(path: str, slide: str, stage: str) -> Handle:
    """Open `path` with OpenSlide, or with TiffSlide if OpenSlide does not know this kind of TIFF.

    Raises
    ------
    SlideError
        If neither can open it; :func:`lesionmap.slides.file_checks.why_unopened` may find a better reason.
    """
    try:
        if why := why_not_openslide(path):
            return TiffSlide(path, why)
        return openslide.OpenSlide(path)
    except Unusable as error:
        finding, remedy = f"{path} {error.finding}", error.remedy
        raise SlideError(slide=slide, stage=stage, finding=finding, remedy=remedy) from error
    except (openslide.OpenSlideError, OSError) as error:
        unknown = "unsupported" in str(error).lower()
        raise SlideError(
            slide=slide,
            stage=stage,
            finding=f"OpenSlide cannot open {path}: {error}",
            remedy=CONVERT if unknown else "copy it again from the scanner or archive; it is damaged",
        ) from error
