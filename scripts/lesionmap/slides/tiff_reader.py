"""Read the tiles of a TIFF slide without OpenSlide: the same pixels, several times as fast."""

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import simplejpeg
import tifffile
from numpy.typing import NDArray

JPEG = tifffile.COMPRESSION.JPEG
VENDORS = ("aperio", "generic-tiff")  # as OpenSlide names them: their levels are plain grids of tiles
JPEG_AS_RGB = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"  # APP14 marker: RGB inside, not YCbCr
READABLE = ("JPEG", "APERIO_JP2000_YCBC", "APERIO_JP2000_RGB", "ADOBE_DEFLATE", "LZW", "NONE")  # tifffile's names


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
        try:
            self._pages = [_page_of(self._tiff, size) for size in level_sizes]
        except Exception:
            self._tiff.close()
            raise
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115  # read by position, which is thread-safe

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; nothing can be read any more."""
        self._tiff.close()
        self._file.close()

    def read(self, level: int, xy_level: tuple[int, int], size_px: tuple[int, int]) -> NDArray[np.uint8]:
        """Read a box that lies entirely on a level.

        Parameters
        ----------
        xy_level : (int, int)
            Top-left corner in pixels of the level.
        size_px : (int, int)
            Width and height.

        Returns
        -------
        (height, width, 3) uint8

        Raises
        ------
        Exception
            Any that the decoder raises, if a tile is missing or damaged.
        """
        page, (left, top) = self._pages[level], xy_level
        right, bottom = left + size_px[0], top + size_px[1]
        side_x, side_y = page.tilewidth, page.tilelength
        box = np.empty((size_px[1], size_px[0], 3), dtype=np.uint8)
        for row in range(top // side_y, -(-bottom // side_y)):
            for column in range(left // side_x, -(-right // side_x)):
                x, y = column * side_x, row * side_y
                x0, x1, y0, y1 = max(left, x), min(right, x + side_x), max(top, y), min(bottom, y + side_y)
                tile = self._tile(page, row, column)
                box[y0 - top : y1 - top, x0 - left : x1 - left] = tile[y0 - y : y1 - y, x0 - x : x1 - x]
        return box

    def fullest(self, level: int, n: int) -> list[tuple[int, int]]:
        """Top-left corners, in pixels of a level, of its `n` tiles with the most bytes: these show the most detail."""
        page = self._pages[level]
        order = np.argsort(page.databytecounts, kind="stable")[::-1][:n]
        places = [divmod(int(index), page.chunked[1]) for index in order]
        return [(column * page.tilewidth, row * page.tilelength) for row, column in places]

    def _tile(self, page: Any, row: int, column: int) -> NDArray[np.uint8]:
        index = row * page.chunked[1] + column
        length, start = page.databytecounts[index], page.dataoffsets[index]
        if not length:
            raise ValueError(f"tile {index} is missing")
        data = os.pread(self._file.fileno(), length, start)
        tile: NDArray[np.uint8] = (
            decode_jpeg(page, data) if page.compression == JPEG else page.decode(data, index)[0][0]
        )
        if tile.shape != (page.tilelength, page.tilewidth, 3):
            raise ValueError(f"tile {index} has the shape {tile.shape}")
        return tile


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
