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

    def tiles(
        self, xy_lv0: tuple[float, float], rows: range
    ) -> Iterator[tuple[tuple[int, int], NDArray[np.uint8], NDArray[np.uint8]]]:
        """Read some rows of tiles of the region at a corner; s is the side of a tile, n the tiles per side of a region.

        Parameters
        ----------
        xy_lv0 : (float, float)
            Top-left corner of the region in level-0 pixels.
        rows : range
            One of `strips`.

        Yields
        ------
        place : (int, int)
            Row and column of a tile in the region.
        image : (s, s, 3) uint8
            The normalised tile, while it is still in the processor's cache.
        low_image : (s/n, s/n, 3) uint8
            The same tile at low resolution.

        Raises
        ------
        SlideError
            If the file is damaged there.
        """
        spec, side = self._spec, self._spec.tile_px
        top_lv0 = rows.start * side * spec.mpp / self._slide.info.mpp
        strip = self._slide.read((xy_lv0[0], xy_lv0[1] + top_lv0), (spec.region_px, len(rows) * side), spec.mpp)
        blocks = cut(strip, side)
        for row, column in np.ndindex(blocks.shape[:2]):
            image = apply_table(self._table, blocks[row, column])
            yield (rows[row], column), image, block_mean(image, spec.tiles_per_side)

    def region(
        self, xy_lv0: tuple[float, float], kept: NDArray[np.bool_]
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Read the region at a corner; s and n as in :meth:`tiles`.

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
        low_image = np.empty((side, side, 3), dtype=np.uint8)
        targets, low_blocks = iter(images), cut(low_image, side // self._spec.tiles_per_side)  # a view
        for rows in self.strips:
            for place, image, low in self.tiles(xy_lv0, rows):
                low_blocks[place] = low
                if kept[place]:
                    next(targets)[...] = image
        return images, low_image
