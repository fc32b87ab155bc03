"""Read the regions of a slide as the network sees them: normalised, as tiles and at low resolution."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from lesionmap.geometry.resampling import block_mean
from lesionmap.geometry.tiling import TileSpec, cut
from lesionmap.slides.slide import Slide, SlideInfo
from lesionmap.stain.table import StainMatch, apply_table


class RegionReader(AbstractContextManager["RegionReader"]):
    """Reads normalised regions of a slide; a context manager. Threads may share it.

    Parameters
    ----------
    stain : StainMatch
        How the slide is normalised.
    stage : str
        The rule that reads the slide, for error messages.
    threads : int
        Threads used to make the stain table.
    """

    def __init__(self, info: SlideInfo, spec: TileSpec, stain: StainMatch, stage: str, threads: int = 1) -> None:
        self._spec = spec
        self._slide = Slide(info, stage)
        self._stain, self._threads = stain, threads
        self._table_made: NDArray[np.uint8] | None = None
        self._table_lock = Lock()

    def __exit__(self, *_: object) -> None:
        self._slide.close()

    @property
    def _table(self) -> NDArray[np.uint8]:
        """The stain table (48 MB), made when a thread first needs it: reading metadata does not need it."""
        with self._table_lock:
            if self._table_made is None:
                self._table_made = self._stain.table(self._threads)
            return self._table_made

    @property
    def strips(self) -> list[range]:
        """The rows of tiles to read together, from the top.

        One row if the pixels are not resampled. Otherwise all rows of the region, because each read decodes the
        pixels around its edges again.
        """
        n = self._spec.tiles_per_side
        step = 1 if self._spec.mpp == self._slide.info.mpp else n
        return [range(row, row + step) for row in range(0, n, step)]

    def strip(
        self, xy_lv0: tuple[float, float], rows: range
    ) -> tuple[NDArray[np.uint8], Iterator[tuple[tuple[int, int], NDArray[np.uint8]]]]:
        """Read some rows of tiles of the region at a corner; s is the side of a tile.

        Parameters
        ----------
        xy_lv0 : (float, float)
            Top-left corner of the region in level-0 pixels.
        rows : range
            One of `strips`.

        Returns
        -------
        low_image : (h, s, 3) uint8
            The rows of the low-resolution view that were read with it; those of all strips make up the view, (s, s, 3).
        tiles : iterator of (int, int) and (s, s, 3) uint8
            Row and column of each tile in the region, and the tile, normalised when it is asked for.

        Raises
        ------
        SlideError
            If the file is damaged there.
        """
        spec, side = self._spec, self._spec.tile_px
        top_lv0 = rows.start * side * spec.mpp / self._slide.info.mpp
        pixels = self._slide.read((xy_lv0[0], xy_lv0[1] + top_lv0), (spec.region_px, len(rows) * side), spec.mpp)
        blocks = cut(pixels, side)
        tiles = (
            ((rows[row], column), apply_table(self._table, blocks[row, column]))
            for row, column in np.ndindex(blocks.shape[:2])
        )
        return apply_table(self._table, self._low_rows(xy_lv0, rows, pixels)), tiles

    def _low_rows(self, xy_lv0: tuple[float, float], rows: range, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Rows of the low-resolution view as inference would read them, not normalised yet.

        If inference would read a coarser level of the file, so does this: the whole view with the first strip.
        Otherwise they are the mean of the strip's `pixels`.
        """
        spec = self._spec
        if self._slide.info.level_for(spec.low_mpp) == self._slide.info.level_for(spec.mpp):
            return block_mean(pixels, spec.tiles_per_side)
        if rows.start:
            return np.empty((0, spec.tile_px, 3), np.uint8)
        return self._slide.read(xy_lv0, (spec.tile_px, spec.tile_px), spec.low_mpp)

    def region(
        self, xy_lv0: tuple[float, float], kept: NDArray[np.bool_]
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Read the region at a corner; s is the side of a tile, n the tiles per side.

        Parameters
        ----------
        xy_lv0 : (float, float)
            Top-left corner in level-0 pixels.
        kept : (n, n) bool
            True for the tiles to return.

        Returns
        -------
        images : (k, s, s, 3) uint8
            Those tiles, normalised, row by row.
        low_image : (s, s, 3) uint8
            The whole region at low resolution.

        Raises
        ------
        SlideError
            If the file is damaged there.
        """
        side = self._spec.tile_px
        images = np.empty((kept.sum(), side, side, 3), dtype=np.uint8)
        targets, low_images = iter(images), []
        for rows in self.strips:
            low_image, tiles = self.strip(xy_lv0, rows)
            low_images.append(low_image)
            for place, image in tiles:
                if kept[place]:
                    next(targets)[...] = image
        return images, np.concatenate(low_images)
