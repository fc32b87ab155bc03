"""The pixels of a slide's regions as the network sees them: read, normalised, cut, and seen from afar."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lesionmap.resampling import area_mean
from lesionmap.slides import Slide, SlideInfo
from lesionmap.stain import StainMatch, apply_table
from lesionmap.tiling import TileSpec, cut


class RegionReader(AbstractContextManager["RegionReader"]):
    """Reads normalised regions of a slide; a context manager. Threads may share it.

    Parameters
    ----------
    info : SlideInfo
    spec : TileSpec
    stain : StainMatch
        How the slide is normalised.
    stage : str
        The rule on whose behalf the slide is read, for error messages.
    threads : int
        To make the stain table with.
    """

    def __init__(self, info: SlideInfo, spec: TileSpec, stain: StainMatch, stage: str, threads: int = 1) -> None:
        self._spec = spec
        self._slide = Slide(info, stage)
        self._stain, self._threads = stain, threads

    def __exit__(self, *_: object) -> None:
        self._slide.close()

    @cached_property
    def _table(self) -> NDArray[np.uint8]:
        return self._stain.table(self._threads)  # 48 MB that who only asks for facts does not need

    def region(
        self, xy_lv0: tuple[float, float], kept: NDArray[np.bool_]
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Read the region at a corner.

        Tile by tile, so that each is normalised and averaged while it is in the processor's cache.

        Parameters
        ----------
        xy_lv0 : (float, float)
            Top-left corner in level-0 pixels.
        kept : (n, n) bool
            The tiles that are wanted.

        Returns
        -------
        images : (k, s, s, 3) uint8
            The wanted tiles, row by row.
        low_image : (s, s, 3) uint8
            The whole region at low resolution.

        Raises
        ------
        SlideError
            If the file is damaged there.
        """
        spec, n = self._spec, self._spec.tiles_per_side
        images = np.empty((kept.sum(), spec.tile_px, spec.tile_px, 3), dtype=np.uint8)
        left_out, low_image = np.empty((2, *images.shape[1:]), dtype=np.uint8)
        targets = iter(images)
        low_blocks = cut(low_image, spec.tile_px // n)  # a view
        for place, tile in self._tiles(xy_lv0):
            normalised = apply_table(self._table, tile, out=next(targets) if kept[place] else left_out)
            low_blocks[place] = area_mean(normalised, n)
        return images, low_image

    def _tiles(self, xy_lv0: tuple[float, float]) -> Iterator[tuple[tuple[int, int], NDArray[np.uint8]]]:
        """Row and column of each tile, and its pixels as they are in the slide.

        A row of tiles is read at a time where pixels are taken as they are. Where they are resampled the whole region
        is, as each read decodes what lies around its edges once more.
        """
        spec, n = self._spec, self._spec.tiles_per_side
        scale = spec.mpp / self._slide.info.mpp
        height = spec.tile_px if scale == 1 else spec.region_px
        for top in range(0, spec.region_px, height):
            strip = self._slide.read((xy_lv0[0], xy_lv0[1] + top * scale), (spec.region_px, height), spec.mpp)
            for row, column in np.ndindex(height // spec.tile_px, n):
                y, x = row * spec.tile_px, column * spec.tile_px
                place = (top // spec.tile_px + row, column)
                yield place, strip[y : y + spec.tile_px, x : x + spec.tile_px]
