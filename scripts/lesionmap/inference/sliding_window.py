"""The sliding window: the networks' first pass over a whole slide, tile by tile (METHOD.md §5)."""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesionmap.errors import SlideError
from lesionmap.geometry.tiling import corners_px, map_size
from lesionmap.inference.engines import Engine, Images
from lesionmap.inference.seams import seam_measure
from lesionmap.inference.stitching import RowBand, Take, scores_of, window
from lesionmap.jobs.log import progress
from lesionmap.jobs.parallel import in_order, map_in_order
from lesionmap.maps.on_disk import on_disk, strips
from lesionmap.maps.probability import Scores, Values
from lesionmap.slides.damage import check_damage
from lesionmap.slides.slide import Slide, SlideInfo
from lesionmap.stain.table import apply_table
from lesionmap.tissue.mask import TissueMask

STAGE = "map_slide"
BATCHES_READ = 2  # for a GPU at a time: while one is stacked, the next is decoded
ROWS_AT_ONCE = 16  # their scores are computed in half of the time, since they stay in the cache


@dataclass(frozen=True)
class PassSettings:
    """Settings of the first pass.

    Parameters
    ----------
    mpp : float
        Resolution of tiles and map, µm/px.
    tile_px, overlap_px : int
        Side of a tile, and its overlap with the next tile.
    flips : bool
        Whether tiles are also passed flipped, and the four probabilities averaged.
    max_unreadable_fraction : float
        A slide is refused if a larger share of its tiles cannot be read.
    """

    mpp: float
    tile_px: int
    overlap_px: int
    flips: bool
    max_unreadable_fraction: float


@dataclass(frozen=True)
class SlideMap:
    """The lesion probability of a slide, by one model.

    Parameters
    ----------
    scores : (H, W) uint16
        Its scores (:mod:`lesionmap.maps.probability`); 0 without tissue and where the slide cannot be read. On disk.
    mpp : float
        Its resolution, µm/px.
    n_read, n_skipped : int
        Number of tiles that were passed through the network, and of tiles without tissue.
    unreadable : list of [x, y, width, height]
        Tiles that cannot be read, level-0 pixels.
    seam_measure : float or None
        See :func:`lesionmap.inference.seams.seam_measure`.
    """

    scores: Scores
    mpp: float
    n_read: int
    n_skipped: int
    unreadable: list[list[float]]
    seam_measure: float | None


def sliding_window_maps(
    info: SlideInfo,
    tissue: TissueMask,
    table: NDArray[np.uint8],
    engines: Sequence[Engine],
    settings: PassSettings,
    *,
    folder: str | Path,
    threads: int,
) -> list[SlideMap]:
    """Map the lesion probability of a whole slide by each engine; each tile is read once.

    Only a band of tiles is in memory, however large the slide is.

    Parameters
    ----------
    table : (2**24, 3) uint8
        The slide's :func:`lesionmap.stain.table.stain_table`.
    folder : str or Path
        The maps lie on the disk of this folder.
    threads : int
        CPU cores to use; the maps do not depend on it.

    Raises
    ------
    SlideError
        If too many tiles cannot be read.
    """
    scale, tile_px, stride_px = settings.mpp / info.mpp, settings.tile_px, settings.tile_px - settings.overlap_px
    width, height = map_size(info.size_lv0, scale)
    maps = [on_disk((height, width), np.uint16, folder) for _ in engines]
    grid = corners_px((width, height), tile_px, stride_px)
    corners = grid[[tissue.any_at(tuple(xy * scale), (tile_px, tile_px), scale) for xy in grid]]
    weights = window(tile_px, settings.overlap_px)
    failed: list[SlideError] = []
    unreadable: list[list[float]] = []
    with progress(len(corners), f"infer {info.slide}", "tile") as bar, ThreadPoolExecutor(threads) as pool:
        bands = [RowBand((height, width), tile_px, _mean_into(scores, pool)) for scores in maps]
        for xy, tiles in _mapped(info, table, engines, corners, settings, threads=threads):
            bar.update()
            if isinstance(tiles, SlideError):
                logging.warning("%s", tiles)
                failed.append(tiles)
                unreadable.append([*(xy * scale).tolist(), tile_px * scale, tile_px * scale])
                continue
            for band, tile in zip(bands, tiles, strict=True):
                band.add(tuple(xy), *(tile * weights if settings.overlap_px else tile))
        for band in bands:
            band.finish()
    check_damage(info.slide, STAGE, failed, len(corners), settings.max_unreadable_fraction)
    seams = (seam_measure(one, tissue, scale, corners, tile_px=tile_px, stride_px=stride_px) for one in maps)
    counts = len(corners) - len(failed), len(grid) - len(corners)
    return [SlideMap(scores, settings.mpp, *counts, unreadable, seam) for scores, seam in zip(maps, seams, strict=True)]


def _mean_into(scores: Scores, pool: ThreadPoolExecutor) -> Take:
    """A function that writes the weighted mean of tiles into a map."""

    def take(top: int, lesion: Values, other: Values) -> None:
        def strip(part: slice) -> None:
            scores[top + part.start : top + part.stop] = scores_of(lesion[part], other[part])

        deque(pool.map(strip, strips(len(lesion), ROWS_AT_ONCE)), maxlen=0)

    return take


@dataclass(frozen=True)
class TileReader:
    """Reads tiles of `tile_px` at `mpp` µm/px from `slide`."""

    slide: Slide
    tile_px: int
    mpp: float

    def read(self, xy_px: NDArray[np.int64]) -> Images | SlideError:
        """The tile with its top-left corner at map pixel (x, y); the error if it cannot be read."""
        x, y = (xy_px * (self.mpp / self.slide.info.mpp)).tolist()
        try:
            return self.slide.read((x, y), (self.tile_px, self.tile_px), self.mpp)
        except SlideError as error:
            return error


def _mapped(
    info: SlideInfo,
    table: NDArray[np.uint8],
    engines: Sequence[Engine],
    corners: NDArray[np.int64],
    settings: PassSettings,
    *,
    threads: int,
) -> Iterator[tuple[NDArray[np.int64], tuple[Values, ...] | SlideError]]:
    """Corner of each tile, in order, and its shares by each engine, (2, s, s); an error for one that cannot be read.

    On a CPU, each thread reads a tile and passes it through the networks, so no core waits. A GPU works on one batch
    while the next two are read and copied to pinned memory, and the one before is stitched.
    """
    step = min(engine.batch_size for engine in engines)
    batches = [corners[first : first + step] for first in range(0, len(corners), step)]
    normalised, kept = normaliser(table, engines[0])
    with Slide(info, STAGE) as slide, ThreadPoolExecutor(threads) as readers:
        reader = TileReader(slide, settings.tile_px, settings.mpp)

        def stacked(tiles: Iterable[Images | SlideError]) -> tuple[Any, list[SlideError | None]]:
            found = list(tiles)
            images = [tile for tile in found if not isinstance(tile, SlideError)]
            return kept(np.stack(images)) if images else None, [
                tile if isinstance(tile, SlideError) else None for tile in found
            ]

        def passed(batch: tuple[Any, list[SlideError | None]]) -> list[tuple[Values, ...] | SlideError]:
            images, errors = batch
            shares = iter(() if images is None else _by_each(engines, normalised(images), settings.flips))
            return [error or next(shares) for error in errors]

        if engines[0].device == "cpu":
            results = map_in_order(lambda batch: passed(stacked(map(reader.read, batch))), batches, threads)
        else:
            ready = map_in_order(
                lambda batch: stacked(in_order(readers, reader.read, batch, len(batch))), batches, BATCHES_READ
            )
            results = map_in_order(passed, ready, 1)
        for batch, tiles in zip(batches, results, strict=True):
            yield from zip(batch, tiles, strict=True)


def _by_each(engines: Sequence[Engine], images: Any, flips: bool) -> Iterator[tuple[Values, ...]]:
    """Shares of each image by each engine, (2, s, s)."""
    return zip(*(engine.shares(images, flips=flips).swapaxes(0, 1) for engine in engines), strict=True)


def normaliser(table: NDArray[np.uint8], engine: Engine) -> tuple[Callable[[Any], Any], Callable[[Images], Any]]:
    """How raw images become normalised where the engine takes them, and how they wait for that."""
    if engine.device == "cpu":
        return partial(apply_table, table), np.asarray
    from lesionmap.inference.torch_engine import TableOnGpu, pinned

    return TableOnGpu(table, engine.device), pinned
