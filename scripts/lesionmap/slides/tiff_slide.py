"""Read TIFF slides that OpenSlide refuses or misreads, with the interface of an OpenSlide handle."""

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import openslide
import tifffile
from defusedxml import ElementTree
from numpy.typing import NDArray
from PIL import Image, ImageCms
from tifffile import COMPRESSION

from lesionmap.slides.tiff_reader import COPY_AGAIN, TiffLevel, Unusable, compression_name

VENDORS = ("ome-tiff", "imagej-tiff", "tiff")
WHY = "lesionmap.why-not-openslide"  # a property
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# What the libtiff of OpenSlide decodes; the numbers are Aperio's JPEG 2000.
KNOWN_TO_OPENSLIDE: set[int] = {COMPRESSION.NONE, COMPRESSION.LZW, COMPRESSION.JPEG, COMPRESSION.ADOBE_DEFLATE}
KNOWN_TO_OPENSLIDE |= {COMPRESSION.DEFLATE, COMPRESSION.PACKBITS, COMPRESSION.ZSTD, 33003, 33005}
MAX_SAMPLE_VALUE, SMAX_SAMPLE_VALUE = 281, 341  # tags
UM_PER_UNIT = {"µm": 1.0, "μm": 1.0, "um": 1.0, "micron": 1.0, "microns": 1.0, "\\u00b5m": 1.0, "nm": 1e-3, "mm": 1e3}
UM_PER_UNIT |= {"cm": 1e4, "m": 1e6, "in": 25_400.0, "inch": 25_400.0}


def why_not_openslide(path: str) -> str | None:
    """What OpenSlide does not know, or misreads, of a TIFF that :class:`TiffSlide` may read.

    Returns
    -------
    str or None
        None for files that OpenSlide reads, that are no TIFF, or that are damaged.
    """
    vendor = openslide.OpenSlide.detect_format(path)
    if vendor not in (None, "generic-tiff", "aperio"):
        return None
    try:
        with open(path, "rb") as stream:
            if stream.read(4) not in TIFF_STARTS:
                return None
        with tifffile.TiffFile(path) as tiff:
            return next(_unknown_to_openslide(tiff, tiff.pages.first, vendor), None)
    except Exception:  # a damaged file can raise anything
        return None


def _unknown_to_openslide(tiff: tifffile.TiffFile, page: Any, vendor: str | None) -> Iterator[str]:
    if page.compression not in KNOWN_TO_OPENSLIDE:
        yield f"the compression {compression_name(page)}"
    if vendor == "aperio":
        return
    if tiff.byteorder == ">":
        yield "the byte order (big-endian)"
    if tiff.is_ome:
        yield "the resolution, channels and levels of OME-TIFF"
    if tiff.is_imagej:
        yield "the resolution of ImageJ's TIFF"
    if not page.is_tiled:
        yield "strips instead of tiles"
    if page.bitspersample != 8:
        yield f"{page.bitspersample} bits per sample"
    if 0 in page.extrasamples:
        yield "a fourth channel without a meaning"


class TiffSlide(AbstractContextManager["TiffSlide"]):
    """An open TIFF; a context manager. Threads may share it.

    It has the parts of :class:`openslide.OpenSlide` that are used here, with the same meaning. Samples of more than
    8 bits are scaled to 0–255: by the maximum that the file states, else by that of their type (1 for floats).

    Attributes
    ----------
    dimensions, level_dimensions, level_downsamples : as in OpenSlide
    properties : dict of str
        Vendor, µm/px and tile sizes by OpenSlide's names, and :data:`WHY`.

    Raises
    ------
    Unusable
        If the file is no RGB or grey image of a kind that can be decoded; it says why, and what works.
    """

    def __init__(self, path: str, why: str = "") -> None:
        self._tiff = tifffile.TiffFile(path)
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115  # read by position, which is thread-safe
        try:
            _check_directories(self._tiff)
            series = _main_series(self._tiff)
            self._levels = [_opened(self._tiff, series, level, self._file.fileno()) for level in series.levels]
            self.level_dimensions = tuple(level.size for level in self._levels)
            self.dimensions = self.level_dimensions[0]
            self.properties = {WHY: why, openslide.PROPERTY_NAME_VENDOR: _vendor(self._tiff)} | self._described(series)
        except Unusable:
            self.close()
            raise
        except Exception as error:
            self.close()
            raise Unusable(f"is a TIFF that cannot be parsed ({type(error).__name__}: {error})") from error
        ratios = [
            [full / part for full, part in zip(self.dimensions, size, strict=True)] for size in self.level_dimensions
        ]
        self.level_downsamples = tuple(sum(ratio) / 2 for ratio in ratios)

    def _described(self, series: Any) -> dict[str, str]:
        found: dict[str, str] = {}
        for number, level in enumerate(self._levels):
            found |= {
                f"openslide.level[{number}].tile-width": str(level.chunk[1]),
                f"openslide.level[{number}].tile-height": str(level.chunk[0]),
            }
        if mpp := _microns_per_pixel(self._tiff, series):
            names = openslide.PROPERTY_NAME_MPP_X, openslide.PROPERTY_NAME_MPP_Y
            found |= dict(zip(names, map(repr, mpp), strict=True))
        return found

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; nothing can be read any more."""
        self._tiff.close()
        self._file.close()

    @property
    def color_profile(self) -> ImageCms.ImageCmsProfile | None:
        """The ICC profile; None without one."""
        tag = self._levels[0].page.tags.get("InterColorProfile")
        return ImageCms.ImageCmsProfile(io.BytesIO(tag.value)) if tag else None

    def read(self, level: int, xy_level: tuple[int, int], size_px: tuple[int, int]) -> NDArray[np.uint8]:
        """Read a box that lies entirely on a level and has no transparent parts; see :meth:`TiffLevel.read`."""
        return self._levels[level].read(xy_level, size_px)

    def read_region(self, location: tuple[int, int], level: int, size: tuple[int, int]) -> Image.Image:
        """Read a box of a level as RGBA; missing tiles, and what is beyond the level, are transparent.

        Parameters
        ----------
        location : (int, int)
            Top-left corner in level-0 pixels; the nearest whole pixel of the level is taken.

        Raises
        ------
        openslide.OpenSlideError
            If a tile cannot be decoded.
        """
        left, top = (round(at / self.level_downsamples[level]) for at in location)
        try:
            return Image.fromarray(self._levels[level].read_rgba((left, top), size))
        except MemoryError:
            raise
        except Exception as error:  # decoders raise what they want
            raise openslide.OpenSlideError(str(error)) from error


def _vendor(tiff: tifffile.TiffFile) -> str:
    return "ome-tiff" if tiff.is_ome else "imagej-tiff" if tiff.is_imagej else "tiff"


def _check_directories(tiff: tifffile.TiffFile) -> None:
    """Refuse directories in a circle, which tifffile follows without end."""
    seen: set[int] = set()
    for page in tiff.pages:
        if page.offset in seen:
            raise Unusable("is damaged: a directory repeats an earlier one", COPY_AGAIN)
        seen.add(page.offset)


def _main_series(tiff: tifffile.TiffFile) -> Any:
    """The largest image; labels and thumbnails are smaller."""
    images = [series for series in tiff.series if {"Y", "X"} <= set(series.axes)]
    if not images:
        raise Unusable("is a TIFF without an image")
    return max(images, key=lambda series: series.shape[series.axes.index("X")] * series.shape[series.axes.index("Y")])


def _microns_per_pixel(tiff: tifffile.TiffFile, series: Any) -> tuple[float, float] | None:
    """µm/px along x and y: from the OME-XML, Aperio's or ImageJ's description, or the resolution tags."""
    page, pixels = series.keyframe, _ome_pixels(tiff, series)
    if pixels is not None and pixels.get("PhysicalSizeX"):
        along_x, along_y = (
            float(pixels.get(f"PhysicalSize{axis}")) * UM_PER_UNIT[pixels.get(f"PhysicalSize{axis}Unit", "µm").lower()]
            for axis in "XY"
        )
        return along_x, along_y
    if stated := re.match(r"(?s)Aperio.*\|\s*MPP\s*=\s*([\d.]+)", page.description):
        return float(stated[1]), float(stated[1])
    unit = {2: "inch", 3: "cm"}.get(page.resolutionunit, "")
    if tiff.is_imagej:
        unit = str((tiff.imagej_metadata or {}).get("unit", unit)).lower()
    if unit not in UM_PER_UNIT or not all(page.resolution):
        return None
    return UM_PER_UNIT[unit] / page.resolution[0], UM_PER_UNIT[unit] / page.resolution[1]


def _ome_pixels(tiff: tifffile.TiffFile, series: Any) -> Any:
    """The element Pixels of a series in the OME-XML; None if there is none."""
    if not tiff.ome_metadata:
        return None
    images = list(ElementTree.fromstring(tiff.ome_metadata).iterfind("{*}Image"))
    number = tiff.series.index(series) if len(images) == len(tiff.series) else 0
    return images[number].find("{*}Pixels")


def _rgb_order(tiff: tifffile.TiffFile, series: Any) -> list[int]:
    """Which of three planes are red, green and blue: by their names, if they have these, else in their order."""
    pixels = _ome_pixels(tiff, series)
    channels = [] if pixels is None else pixels.iterfind("{*}Channel")
    names = [channel.get("Name", "-")[:1].lower() for channel in channels]
    return [names.index(colour) for colour in "rgb"] if sorted(names) == sorted("rgb") else [0, 1, 2]


def _full_scale(tiff: tifffile.TiffFile, series: Any, page: Any) -> float:
    """The sample value that is 255: of more than 8 bits, the least that the file states; 1 for floats."""
    if page.bitspersample <= 8:
        return float(2**page.bitspersample - 1)
    tags = (page.tags.get(number) for number in (MAX_SAMPLE_VALUE, SMAX_SAMPLE_VALUE))
    stated = [float(np.max(tag.value)) for tag in tags if tag]
    if tiff.is_imagej and (most := (tiff.imagej_metadata or {}).get("max")):
        stated.append(float(most))
    pixels = _ome_pixels(tiff, series)
    if pixels is not None and pixels.get("SignificantBits"):
        stated.append(2.0 ** int(pixels.get("SignificantBits")) - 1)
    usual = 1.0 if page.dtype.kind == "f" else float(2**page.bitspersample - 1)
    return min([value for value in stated if value > 0], default=usual)


def _opened(tiff: tifffile.TiffFile, series: Any, level: Any, file: int) -> TiffLevel:
    sizes = dict(zip(level.axes, level.shape, strict=True))
    _check_axes(sizes)
    pages = list(level.pages)
    if any(page is None or page.parent is not tiff for page in pages):
        raise Unusable("is an OME-TIFF whose pixels lie in several files", "export it as one file")
    if "C" in sizes:
        pages = [pages[plane] for plane in _rgb_order(tiff, series)]
    return TiffLevel(pages, (int(sizes["X"]), int(sizes["Y"])), _full_scale(tiff, series, pages[0].keyframe), file)


def _check_axes(sizes: Mapping[str, int]) -> None:
    for axis, size in sizes.items():
        if axis in "ZTQI" and size > 1:
            raise Unusable(f"is a TIFF of {size} images (focal planes or times), of which a slide has one")
    n_channels = sizes.get("C", 1) * sizes.get("S", 1)
    if n_channels > 4 or n_channels == 2 or sizes.get("C", 3) != 3:
        raise Unusable(
            f"is a TIFF of {n_channels} channels; a brightfield slide has red, green and blue",
            "export it as RGB, or remove it from the slide sheet if it is a fluorescence image",
        )
