"""Tiles of a slide's lesion probability for the deep-zoom view, as greyscale PNG."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lesionmap.geometry.resampling import block_max
from lesionmap.maps.map_file import MapFile
from lesionmap.maps.on_disk import strips
from lesionmap.viewer.pyramid import Tile, ZoomLadder, nearest, through_zooms
from lesionmap.viewer.tile_files import write_tile

N_VALUES = 256  # of a published map


def cut_probability(mapped: MapFile, mpp: float, ladder: ZoomLadder, folder: Path) -> tuple[int, list[Tile]]:
    """Write the tiles of a map; those that are 0 everywhere are left out.

    The finest zoom is no coarser than the map. Each of its pixels has the value of the map pixel that its centre lies
    in; values are not interpolated. A pixel of a coarser zoom has the largest value of the four pixels that it covers,
    so nothing vanishes in an overview.

    Parameters
    ----------
    mapped : MapFile
        Probability × 255.
    mpp : float
        µm/px of the slide's level 0.

    Returns
    -------
    zoom : int
        The finest zoom.
    tiles : list of Tile
        The tiles that were written.
    """
    per_map_px = mapped.mpp / mpp
    zoom, side = ladder.zoom_of(per_map_px), ladder.tile_px
    written: list[Tile] = []

    def write(level: int, row: int, pixels: NDArray[np.uint8]) -> None:
        for column in range(pixels.shape[1] // side):
            tile = pixels[:, column * side : (column + 1) * side]
            if tile.any():
                write_tile(folder, (level, column, row), _png(tile))
                written.append((level, column, row))

    through_zooms(_rows(mapped, per_map_px, ladder, zoom), zoom, side, block_max, fill=0, write=write)
    return zoom, written


def _rows(mapped: MapFile, per_map_px: float, ladder: ZoomLadder, zoom: int) -> Iterator[NDArray[np.uint8]]:
    (height, width), side, scale = mapped.shape, ladder.tile_px, ladder.scale(zoom)
    columns, rows = ladder.grid(zoom)
    x = nearest(columns * side, 0, scale, per_map_px, width)
    for row in range(rows):
        y = nearest(side, row * side, scale, per_map_px, height)
        pixels = np.zeros((side, columns * side), dtype=np.uint8)
        pixels[: len(y), : len(x)] = mapped[int(y[0]) : int(y[-1]) + 1][(y - y[0])[:, None], x]
        yield pixels


def _png(tile: NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(tile).save(stream, format="PNG")
    return stream.getvalue()


def value_counts(mapped: MapFile) -> NDArray[np.int64]:
    """Number of a map's pixels with each value, (256,)."""
    counts = np.zeros(N_VALUES, dtype=np.int64)
    for part in strips(mapped.shape[0]):
        counts += np.bincount(mapped[part].ravel(), minlength=N_VALUES)
    return counts
