"""Read the tiles of TIFF slides without OpenSlide.

- :class:`TiffReader`: what OpenSlide reads, with the same pixels, several times as fast
- :class:`TiffLevel`: what OpenSlide does not know
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import openslide
import simplejpeg
import tifffile
from numpy.typing import NDArray
from tifffile import COMPRESSION, PHOTOMETRIC

VENDORS = ("aperio", "generic-tiff")  # as OpenSlide names them: their levels are plain grids of tiles
JPEG_AS_RGB = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"  # APP14 marker: RGB inside, not YCbCr
READABLE = ("JPEG", "APERIO_JP2000_YCBC", "APERIO_JP2000_RGB", "ADOBE_DEFLATE", "LZW", "NONE")  # tifffile's names
MAKES_RGB_OF_YCBCR: set[int] = {
    COMPRESSION.JPEG,
    COMPRESSION.JPEG2000,
    COMPRESSION.WEBP,
    COMPRESSION.JPEGXL,
    33003,
    33005,
}
COLOURS = {PHOTOMETRIC.MINISWHITE: 1, PHOTOMETRIC.MINISBLACK: 1, PHOTOMETRIC.PALETTE: 1}
COLOURS |= {PHOTOMETRIC.RGB: 3, PHOTOMETRIC.YCBCR: 3}
COPY_AGAIN = "copy it again from the scanner or archive, to its end"
CONVERT = "convert it: vips tiffsave IN.tif OUT.tif --tile --pyramid --bigtiff --compression jpeg --Q 90"
LARGEST_CHUNK_PX = 2**28  # a tile or strip; it is decoded as a whole
CACHE_BYTES = 2**24  # of a level's decoded chunks
ROWS_AT_ONCE = 64  # of uncompressed images, whose strips may be the whole image
OPAQUE = 255
ASSOCIATED, UNASSOCIATED = 1, 2  # kinds of alpha among extra samples
Part = tuple[slice, slice]  # rows and columns
Chunk = tuple[NDArray[np.uint8], NDArray[np.uint8] | None]  # RGB, and alpha if there is any


class Unusable(openslide.OpenSlideError):
    """A TIFF that cannot be read as a slide: a finding that follows the file's name, and a remedy."""

    def __init__(self, finding: str, remedy: str = CONVERT) -> None:
        super().__init__(finding)
        self.finding, self.remedy = finding, remedy


class TiffReader(AbstractContextManager["TiffReader"]):
    """An open TIFF whose levels are grids of tiles; a context manager. Threads may share it.

    OpenSlide spends most of its time on composing decoded tiles. This reader decodes the tiles with the same libraries
    (libjpeg-turbo, OpenJPEG) and only places them side by side.

    Parameters
    ----------
    level_sizes : sequence of (int, int)
        Width and height of each level, as OpenSlide lists them.

    Raises
    ------
    ValueError
        If a level is not a grid of RGB tiles in a known compression.
    Exception
        Any that tifffile raises, if it cannot parse the file.
    """

    def __init__(self, path: str, level_sizes: Sequence[tuple[int, int]]) -> None:
        self._tiff = tifffile.TiffFile(path)
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115  # read by position, which is thread-safe
        try:
            pages = [_page_of(self._tiff, size) for size in level_sizes]
            self._levels = [
                TiffLevel([page], size, 255.0, self._file.fileno())
                for page, size in zip(pages, level_sizes, strict=True)
            ]
        except Exception:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; nothing can be read any more."""
        self._tiff.close()
        self._file.close()

    def read(self, level: int, xy_level: tuple[int, int], size_px: tuple[int, int]) -> NDArray[np.uint8]:
        """Read a box that lies entirely on a level; see :meth:`TiffLevel.read`."""
        return self._levels[level].read(xy_level, size_px)

    def fullest(self, level: int, n: int) -> list[tuple[int, int]]:
        """Top-left corners, in pixels of a level, of its `n` tiles with the most bytes: these show the most detail."""
        page = self._levels[level].page
        order = np.argsort(page.databytecounts, kind="stable")[::-1][:n]
        places = [divmod(int(index), page.chunked[1]) for index in order]
        return [(column * page.tilewidth, row * page.tilelength) for row, column in places]


def decode_jpeg(page: Any, data: bytes) -> NDArray[np.uint8]:
    """Decode strictly: a warning of libjpeg (e.g. about a truncated tile) is an error, as in OpenSlide."""
    tables = page.jpegtables[2:-2] if page.jpegtables else b""
    colours = JPEG_AS_RGB if page.photometric == tifffile.PHOTOMETRIC.RGB else b""
    tile: NDArray[np.uint8] = simplejpeg.decode_jpeg(data[:2] + colours + tables + data[2:], "RGB", strict=True)
    return tile


def _page_of(tiff: tifffile.TiffFile, size: tuple[int, int]) -> Any:
    """The TIFF directory of the level with this size."""
    for directory in tiff.pages:
        page: Any = directory  # tifffile's types do not declare a page's attributes
        if (page.imagewidth, page.imagelength) == size and page.is_tiled:
            if page.compression.name not in READABLE or page.shape[2:] != (3,) or page.dtype != np.uint8:
                break
            return page
    raise ValueError(f"no directory of {size[0]}×{size[1]} px holds RGB tiles in a known compression")


def compression_name(page: Any) -> str:
    """Name of a page's compression, or its number if tifffile has no name for it."""
    return getattr(page.compression, "name", str(page.compression))


COPY_AGAIN = "copy it again from the scanner or archive, to its end"


def _check_samples(page: Any, n_planes: int) -> None:
    if page.photometric not in COLOURS or (n_planes > 1 and page.samplesperpixel > 1):
        raise Unusable(f"is a TIFF in the colour space {getattr(page.photometric, 'name', page.photometric)}")
    if page.photometric == PHOTOMETRIC.YCBCR and page.compression not in MAKES_RGB_OF_YCBCR:
        raise Unusable(f"is a TIFF in YCbCr with the compression {compression_name(page)}")
    if page.compression not in tifffile.TIFF.DECOMPRESSORS:
        raise Unusable(f"is a TIFF with the compression {compression_name(page)}, which cannot be decoded")
    if page.dtype is None or page.dtype.kind not in "buf":
        raise Unusable(f"is a TIFF with samples of the type {page.dtype}")


class TiffLevel:
    """A level of any kind that tifffile decodes: pixels as RGBA, transparent where tiles are missing.

    Parameters
    ----------
    pages : sequence of tifffile pages
        Three for the planes of red, green and blue, or one that holds all colours.
    size : (int, int)
        Width and height.
    scale : float
        The sample value that becomes 255.
    file : int
        Descriptor of the open file; it is read by position, which is thread-safe.

    Raises
    ------
    Unusable
        If it is no RGB or grey image of a kind that can be decoded.
    """

    def __init__(self, pages: Sequence[Any], size: tuple[int, int], scale: float, file: int) -> None:
        self.page, self._pages, self.size = pages[0].keyframe, pages, size
        self._scale, self._file = scale, file
        _check_samples(self.page, n_planes=len(pages))
        self._in_rows = self.page.is_contiguous and not self.page.is_tiled and self.page.compression == COMPRESSION.NONE
        self._strict_jpeg = (self.page.compression, self.page.bitspersample, self.page.samplesperpixel) == (
            *(COMPRESSION.JPEG, 8, 3),
        )
        self.chunk = self._chunk_size()
        if self.chunk[0] * self.chunk[1] > LARGEST_CHUNK_PX:
            raise Unusable(f"is a TIFF in pieces of {self.chunk[1]}×{self.chunk[0]} px, too large to decode")
        # Boxes side by side share strips; of tiles they share few, and keeping those takes a sixth of JPEG's time.
        n_kept = 0 if self.page.is_tiled else max(2, CACHE_BYTES // (4 * self.chunk[0] * self.chunk[1]))
        self._decoded = lru_cache(maxsize=n_kept)(self._decode)

    def _chunk_size(self) -> tuple[int, int]:
        if self._in_rows:
            return min(ROWS_AT_ONCE, self.size[1]), self.size[0]
        if self.page.is_tiled:
            return self.page.tilelength, self.page.tilewidth
        return min(self.page.rowsperstrip, self.size[1]), self.size[0]

    def read(self, xy: tuple[int, int], size_px: tuple[int, int]) -> NDArray[np.uint8]:
        """Read a box that lies entirely on the level, (height, width, 3) uint8.

        Parameters
        ----------
        xy : (int, int)
            Top-left corner in pixels of the level.

        Raises
        ------
        Exception
            Any that the decoder raises; also if a tile is missing or has transparent parts.
        """
        box = np.empty((size_px[1], size_px[0], 3), dtype=np.uint8)
        for place, part, chunk in self._parts(xy, size_px):
            if chunk is None or chunk[1] is not None:
                raise ValueError("a tile is missing or transparent")
            box[place] = chunk[0][part]
        return box

    def read_rgba(self, xy: tuple[int, int], size_px: tuple[int, int]) -> NDArray[np.uint8]:
        """Like :meth:`read`, (height, width, 4) uint8; transparent where tiles are missing, and beyond the level."""
        box = np.zeros((size_px[1], size_px[0], 4), dtype=np.uint8)
        for place, part, chunk in self._parts(xy, size_px):
            if chunk is not None:
                rgb, alpha = chunk
                box[place][..., :3] = rgb[part]
                box[place][..., 3] = OPAQUE if alpha is None else alpha[part]
        return box

    def _parts(self, xy: tuple[int, int], size_px: tuple[int, int]) -> Iterator[tuple[Part, Part, Chunk | None]]:
        """For each chunk under a box: where it is in the box, which part of the chunk that is, and the chunk."""
        (left, top), (height, width) = xy, self.chunk
        right, bottom = min(left + size_px[0], self.size[0]), min(top + size_px[1], self.size[1])
        for row in range(max(0, top) // height, -(-bottom // height)):
            for column in range(max(0, left) // width, -(-right // width)):
                x, y = column * width, row * height
                x0, x1, y0, y1 = max(left, x), min(right, x + width), max(top, y), min(bottom, y + height)
                place = slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)
                yield place, (slice(y0 - y, y1 - y), slice(x0 - x, x1 - x)), self._decoded(row, column)

    def _decode(self, row: int, column: int) -> Chunk | None:
        samples = self._samples(row, column)
        if samples is None:
            return None
        colours = COLOURS[self.page.photometric] if len(self._pages) == 1 else 3
        rgb, kind = self._as_rgb(samples[..., :colours]), self.page.extrasamples[:1]
        if kind not in ((ASSOCIATED,), (UNASSOCIATED,)):
            return rgb, None
        alpha = self._as_u8(samples[..., colours])
        if kind == (ASSOCIATED,):  # the colours are multiplied by alpha
            share = np.maximum(alpha, 1)[..., None].astype(np.float32) / OPAQUE
            rgb = np.rint(np.minimum(rgb / share, 255)).astype(np.uint8)
        return rgb, alpha

    def _as_rgb(self, samples: NDArray[Any]) -> NDArray[np.uint8]:
        if self.page.photometric == PHOTOMETRIC.PALETTE:
            shown: NDArray[np.uint8] = (self.page.colormap.T >> 8).astype(np.uint8)[samples[..., 0]]
            return shown
        values = self._as_u8(samples)
        if self.page.photometric == PHOTOMETRIC.MINISWHITE:
            values = np.invert(values)
        rgb: NDArray[np.uint8] = np.broadcast_to(values, (*values.shape[:2], 3))  # of grey, three times the same
        return rgb

    def _samples(self, row: int, column: int) -> NDArray[Any] | None:
        """(height, width, samples) as stored; None if a plane of the chunk is missing."""
        if self._in_rows:
            return self._rows(row)
        across = -(-self.size[0] // self.chunk[1])
        down = -(-self.size[1] // self.chunk[0])
        index = row * across + column
        if len(self._pages) > 1:
            found = [self._chunk(page, index) for page in self._pages]
        elif self.page.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
            found = [self._chunk(self.page, index + n * across * down) for n in range(self.page.samplesperpixel)]
        else:
            return self._chunk(self.page, index)
        planes = [plane for plane in found if plane is not None]
        return np.concatenate(planes, axis=2) if len(planes) == len(found) else None

    def _chunk(self, page: Any, index: int) -> NDArray[Any] | None:
        start, length = page.dataoffsets[index], page.databytecounts[index]
        if not start or not length:
            return None
        data = os.pread(self._file, length, start)
        if len(data) < length:
            raise ValueError("the file ends before its data")
        if (
            self.page.compression == COMPRESSION.JPEG
            and self.page.bitspersample == 8
            and self.page.samplesperpixel == 3
        ):
            return decode_jpeg(self.page, data)
        decoded: NDArray[Any] = self.page.decode(data, index, jpegtables=page.jpegtables)[0][0]
        n_samples = 1 if self.page.planarconfig == tifffile.PLANARCONFIG.SEPARATE else self.page.samplesperpixel
        if decoded.shape[1:] != (self.chunk[1], n_samples) or decoded.shape[0] > self.chunk[0]:
            raise ValueError(f"a tile has the shape {decoded.shape}")
        return decoded

    def _rows(self, row: int) -> NDArray[Any]:
        shape = (min(self.chunk[0], self.size[1] - row * self.chunk[0]), self.size[0], self.page.samplesperpixel)
        dtype = self.page.dtype.newbyteorder(self.page.parent.byteorder)
        row_bytes = self.size[0] * self.page.samplesperpixel * dtype.itemsize
        data = os.pread(self._file, shape[0] * row_bytes, self.page.dataoffsets[0] + row * self.chunk[0] * row_bytes)
        return np.frombuffer(data, dtype).reshape(shape)

    def _as_u8(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        """Scale values of 0 to the full scale to 0 to 255; what is beyond is clipped, and no number is 0."""
        if values.dtype == np.uint8 and self._scale == 255:
            return values
        if values.dtype.kind != "f" and values.dtype.itemsize <= 2:
            shown: NDArray[np.uint8] = self._u8_of_integers[values]
            return shown
        return _scaled(values, self._scale)

    @cached_property
    def _u8_of_integers(self) -> NDArray[np.uint8]:
        return _scaled(np.arange(2**16), self._scale)


def _scaled(values: NDArray[Any], scale: float) -> NDArray[np.uint8]:
    wanted = np.nan_to_num(values.astype(np.float64) * (255 / scale), nan=0.0)
    scaled: NDArray[np.uint8] = np.rint(np.clip(wanted, 0, 255)).astype(np.uint8)
    return scaled
