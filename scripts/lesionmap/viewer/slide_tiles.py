"""Tiles of a slide's picture for the deep-zoom view, as JPEG, in the colours of the scan."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from lesionmap.geometry.resampling import block_mean
from lesionmap.geometry.tiling import inside, map_size
from lesionmap.jobs.log import progress
from lesionmap.jobs.parallel import map_in_order
from lesionmap.slides.slide import WHITE, Slide
from lesionmap.tissue.mask import TissueMask
from lesionmap.viewer.pyramid import Tile, ZoomLadder, through_zooms
from lesionmap.viewer.tile_files import write_tile

JPEG_QUALITY = 85
OVERVIEW_PX = 1024
GLASS_BLOCK_PX = 4  # noise is averaged over it before a colour is compared with the glass
GLASS_TOLERANCE = 12  # grey values; real glass varies that much across a slide
Colour = NDArray[np.uint8]


@dataclass
class Content:
    """Where a slide shows more than glass: one flag for each tile of the native zoom, (rows, columns) bool."""

    flags: NDArray[np.bool_]
    native: int

    def __contains__(self, tile: Tile) -> bool:
        zoom, column, row = tile
        n = 2 ** (self.native - zoom)
        return bool(self.flags[row * n : (row + 1) * n, column * n : (column + 1) * n].any())


@dataclass
class CutTiles:
    """The tiles that were written, and how many of the tiles read from the slide have unreadable parts."""

    tiles: list[Tile] = field(default_factory=list)
    damaged: int = 0


class SlideCutter:
    """Cuts a slide's picture into tiles; those that show only glass are left out.

    Pixels beyond the slide and pixels that cannot be read get the colour of the glass.

    Parameters
    ----------
    glass : (3,) uint8
        Colour of the glass, see :func:`glass_colour`.
    """

    def __init__(self, slide: Slide, ladder: ZoomLadder, glass: Colour, folder: Path, threads: int) -> None:
        self._slide, self._ladder, self._glass = slide, ladder, glass
        self._folder, self._threads = folder, threads
        self.cut = CutTiles()

    def whole(self, zoom: int) -> Content:
        """Cut the whole slide at a zoom, and all coarser zooms from its pixels; return where there is content."""
        columns, rows = self._ladder.grid(zoom)
        n = 2 ** (self._ladder.native - zoom)
        content = Content(np.zeros((rows * n, columns * n), dtype=np.bool_), self._ladder.native)
        tiles = [(zoom, column, row) for row in range(rows) for column in range(columns)]

        def write(level: int, row: int, pixels: NDArray[np.uint8]) -> None:
            if level == zoom:
                blocks = _content(pixels, self._glass, self._ladder.tile_px // n)
                content.flags[row * n : (row + 1) * n] = blocks
            for column, tile in enumerate(np.split(pixels, pixels.shape[1] // self._ladder.tile_px, axis=1)):
                if (level, column, row) in content:
                    self._write((level, column, row), tile)

        images = self._read(tiles, "whole slide")
        through_zooms(_rows(images, columns), zoom, self._ladder.tile_px, block_mean, fill=self._glass, write=write)
        return content

    def details(self, tiles: Iterable[Tile]) -> None:
        """Cut tiles of any zoom, each read from the slide."""
        ordered = sorted(tiles, key=lambda tile: (tile[0], tile[2], tile[1]))
        for tile, image in zip(ordered, self._read(ordered, "details"), strict=True):
            self._write(tile, image)

    def _read(self, tiles: list[Tile], what: str) -> Iterator[NDArray[np.uint8]]:
        with progress(len(tiles), f"{self._slide.info.slide}, {what}", "tile") as bar:
            for image, damaged in map_in_order(self._image, tiles, self._threads):
                self.cut.damaged += damaged
                bar.update()
                yield image

    def _image(self, tile: Tile) -> tuple[NDArray[np.uint8], bool]:
        """The pixels of a tile, and whether some of them cannot be read."""
        side, scale, info = self._ladder.tile_px, self._ladder.scale(tile[0]), self._slide.info
        corner = self._ladder.corner(tile)
        image, found = self._slide.read_where_possible(corner, (side, side), info.mpp * scale)
        columns, rows = inside(corner, side, scale, info.size_lv0)
        damaged = not found[:rows, :columns].all()
        found[rows:] = found[:, columns:] = False
        image[~found] = self._glass
        return image, damaged

    def _write(self, tile: Tile, image: NDArray[np.uint8]) -> None:
        pixels = np.ascontiguousarray(image)
        jpeg = simplejpeg.encode_jpeg(pixels, quality=JPEG_QUALITY, colorsubsampling="420")
        write_tile(self._folder, tile, jpeg)
        self.cut.tiles.append(tile)


def _rows(images: Iterator[NDArray[np.uint8]], columns: int) -> Iterator[NDArray[np.uint8]]:
    while row := list(islice(images, columns)):
        yield np.concatenate(row, axis=1)


def _content(pixels: NDArray[np.uint8], glass: Colour, block_px: int) -> NDArray[np.bool_]:
    """Which square blocks of a picture show more than glass or the white of areas that were not scanned."""
    small = min(GLASS_BLOCK_PX, block_px)
    means = block_mean(pixels, small)
    other = (np.abs(means.astype(np.int16) - glass) > GLASS_TOLERANCE).any(axis=2) & (means < WHITE).any(axis=2)
    rows, columns = (length // block_px for length in pixels.shape[:2])
    blocks: NDArray[np.bool_] = other.reshape(rows, block_px // small, columns, block_px // small).any(axis=(1, 3))
    return blocks


def glass_colour(slide: Slide, tissue: TissueMask) -> Colour:
    """The most frequent colour, (3,) uint8, outside tissue and ink; white if there is no such area."""
    scale = max(1.0, max(slide.info.size_lv0) / OVERVIEW_PX)
    size = map_size(slide.info.size_lv0, scale)
    overview, found = slide.read_where_possible((0, 0), size, slide.info.mpp * scale)
    scanned = (tissue.codes_at((0, 0), size, scale) == 0) & found & (overview < WHITE).any(axis=2)
    if not scanned.any():
        return np.full(3, WHITE, dtype=np.uint8)
    return np.array([np.bincount(channel).argmax() for channel in overview[scanned].T], dtype=np.uint8)
