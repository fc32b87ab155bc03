"""Open a slide, say what it is, and read any box of it at any µm/px."""

import hashlib
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openslide
from numpy.typing import NDArray

from lesionmap.errors import SlideError
from lesionmap.files import read_json, write_json
from lesionmap.resampling import area_resample
from lesionmap.tiling import map_size

WHITE = 255
MOST_PIXELS_AT_ONCE = 2**25
INSPECTED_BOX_PX = 512
FEWEST_INSPECTED_BOXES = 64
NEEDED_BY = {"train": "tiles", "val": "tiles", "test": "inference", "inference": "inference"}


@dataclass(frozen=True)
class SlideRow:
    """One row of the slide sheet.

    Parameters
    ----------
    slide : str
        Id: letters, digits, ``._-``.
    path : str
        The slide file.
    split : str
        ``train``, ``val``, ``test`` or ``inference``.
    annotation : str
        The annotation file; empty for inference.
    mpp : float or None
        µm/px of level 0 that overrides the file's own.
    """

    slide: str
    path: str
    split: str
    annotation: str
    mpp: float | None


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
    """Read the record that :func:`inspect_slide` wrote for a readable slide."""
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


def inspect_slide(
    row: SlideRow, output: str, *, read_share: float, mpp_tolerance: float, needed_mpp: dict[str, float]
) -> None:
    """Write the record of one slide: what it is, or why it is in quarantine.

    Parameters
    ----------
    row : SlideRow
    output : str
        JSON with the keys ``slide``, ``split``, ``verdict`` (``ok`` or ``quarantined``), and either ``info`` or
        ``stage``, ``finding`` and ``remedy``.
    read_share : float
        Share of each level's area that is read to find damage, 0 to 1; at least 64 boxes of 512 px a level.
    mpp_tolerance : float
        By how much a slide may be coarser than its role needs, e.g. 0.1 for 10 %.
    needed_mpp : dict
        ``{"tiles": µm/px of training, "inference": µm/px of the pass over the whole slide}``.
    """
    record: dict[str, Any] = {"slide": row.slide, "split": row.split}
    try:
        info = describe(row)
        _check_resolution(info, row.split, needed_mpp[NEEDED_BY[row.split]], mpp_tolerance)
        _check_annotation(row)
        _check_readable(info, read_share)
        record |= {"verdict": "ok", "info": vars(info)}
    except SlideError as error:
        record |= {
            "verdict": "quarantined",
            "stage": error.stage,
            "finding": error.finding,
            "remedy": error.remedy,
        }
    write_json(output, record)


def describe(row: SlideRow) -> SlideInfo:
    """What the slide's file says of itself, with the sheet's µm/px taking precedence.

    Raises
    ------
    SlideError
        If it cannot be opened or its µm/px is unknown.
    """
    with open_slide(row.path, row.slide, "inspect_slide") as handle:
        properties = handle.properties
        size = handle.dimensions
        return SlideInfo(
            slide=row.slide,
            path=row.path,
            identity=content_digest(row.path),
            vendor=properties.get(openslide.PROPERTY_NAME_VENDOR, "unknown"),
            size_lv0=size,
            mpp=row.mpp or _vendor_mpp(properties, row.slide),
            downsamples=tuple(
                _true_downsample(size, level, factor)
                for level, factor in zip(handle.level_dimensions, handle.level_downsamples, strict=True)
            ),
            level_sizes=tuple(handle.level_dimensions),
            bounds_xy_lv0=(
                int(properties.get(openslide.PROPERTY_NAME_BOUNDS_X, 0)),
                int(properties.get(openslide.PROPERTY_NAME_BOUNDS_Y, 0)),
            ),
        )


def _vendor_mpp(properties: Any, slide: str) -> float:
    try:
        mpp_x, mpp_y = float(properties["openslide.mpp-x"]), float(properties["openslide.mpp-y"])
    except (KeyError, ValueError):
        mpp_x = mpp_y = math.nan
    if not (mpp_x > 0 and mpp_y > 0 and math.isfinite(mpp_x + mpp_y)):
        raise SlideError(
            slide=slide,
            stage="inspect_slide",
            finding="the file does not say its resolution (no µm/px)",
            remedy="write the scanner's µm/px of level 0 into the column mpp of the slide sheet",
        )
    return (mpp_x + mpp_y) / 2


def _true_downsample(size_lv0: tuple[int, int], size: tuple[int, int], reported: float) -> float:
    # A level of an odd-sized slide loses a fraction of a pixel to rounding, which OpenSlide folds into its factor;
    # the pyramid was made with the whole number.
    whole = round(reported)
    ratios = [(full / whole, part) for full, part in zip(size_lv0, size, strict=True)]
    rounded = all(math.floor(exact) <= part <= math.ceil(exact) for exact, part in ratios)
    return float(whole) if rounded else float(reported)


def _check_resolution(info: SlideInfo, split: str, needed_mpp: float, tolerance: float) -> None:
    if info.mpp > needed_mpp * (1 + tolerance):
        raise SlideError(
            slide=info.slide,
            stage="inspect_slide",
            finding=f"{info.mpp:.4g} µm/px is coarser than the {needed_mpp:g} µm/px that the split '{split}' needs",
            remedy="use a finer scan, or split 'inference' if it is fine enough for that"
            if split in ("train", "val")
            else "use a finer scan",
        )


def _check_annotation(row: SlideRow) -> None:
    if row.annotation and not Path(row.annotation).is_file():
        raise SlideError(
            slide=row.slide,
            stage="inspect_slide",
            finding=f"its annotation {row.annotation} does not exist",
            remedy="correct the path in the slide sheet",
        )


def _check_readable(info: SlideInfo, read_share: float) -> None:
    with Slide(info, "inspect_slide") as slide:
        for level, (width, height) in enumerate(info.level_sizes):
            for x, y in _sampled_boxes(width, height, read_share):
                box = (min(INSPECTED_BOX_PX, width - x), min(INSPECTED_BOX_PX, height - y))
                slide.read_level(level, (x, y), box)


def _sampled_boxes(width: int, height: int, share: float) -> Iterator[tuple[int, int]]:
    columns, rows = map_size((width, height), INSPECTED_BOX_PX)
    wanted = min(columns * rows, max(FEWEST_INSPECTED_BOXES, math.ceil(share * columns * rows)))
    for index in np.unique(np.linspace(0, columns * rows - 1, wanted).round().astype(int)):
        yield int(index % columns) * INSPECTED_BOX_PX, int(index // columns) * INSPECTED_BOX_PX


def content_digest(path: str | Path) -> str:
    """SHA-256 of a slide's bytes; of all its files, by name, where the format spreads over several."""
    digest = hashlib.sha256()
    for part in _slide_files(Path(path)):
        with open(part, "rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _slide_files(path: Path) -> list[Path]:
    if path.suffix.lower() == ".dcm":
        return sorted(path.parent.glob("*.dcm"))
    companion = path.with_suffix("")
    beside = sorted(part for part in companion.rglob("*") if part.is_file()) if companion.is_dir() else []
    return [path, *(beside if path.suffix.lower() in (".mrxs", ".vms", ".vmu") else [])]
