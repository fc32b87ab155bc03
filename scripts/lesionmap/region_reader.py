"""The pixels of a slide's regions as the network sees them: read, normalised, cut, and seen from afar."""

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
        tiles = cut(self._slide.read(xy_lv0, (spec.region_px, spec.region_px), spec.mpp), spec.tile_px)
        images = np.empty((kept.sum(), spec.tile_px, spec.tile_px, 3), dtype=np.uint8)
        left_out, low_image = np.empty((2, *images.shape[1:]), dtype=np.uint8)
        targets = iter(images)
        low_blocks = cut(low_image, spec.tile_px // n)  # a view
        for place in np.ndindex(n, n):
            tile = apply_table(self._table, tiles[place], out=next(targets) if kept[place] else left_out)
            low_blocks[place] = area_mean(tile, n)
        return images, low_image
