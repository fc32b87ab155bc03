"""The sliding window: the network's first pass over a whole slide, tile by tile (METHOD.md §5)."""

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lesionmap.errors import SlideError
from lesionmap.geometry.tiling import corners_px, map_size
from lesionmap.inference.seams import seam_measure
from lesionmap.inference.stitching import RowBand, Take, Values, of_logits, scores_of, window
from lesionmap.jobs.log import progress
from lesionmap.jobs.parallel import in_order, map_in_order
from lesionmap.maps.on_disk import on_disk
from lesionmap.maps.probability import Scores
from lesionmap.network.batch_size import fitting_inference_batch
from lesionmap.network.forward import finite_logits
from lesionmap.network.logits import mean_logit
from lesionmap.network.model import LesionFPN
from lesionmap.network.thread_pool import ThreadPool
from lesionmap.slides.damage import check_damage
from lesionmap.slides.slide import Slide, SlideInfo
from lesionmap.stain.table import StainMatch, apply_table
from lesionmap.tissue.mask import TissueMask

STAGE = "map_slide"
UNFLIPPED = ((),)
FLIPS = ((), (2,), (3,), (2, 3))  # axes of (N, C, H, W)


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
    batch_size : int
        Tiles on a GPU at once, if so many fit.
    max_unreadable_fraction : float
        A slide is refused if a larger share of its tiles cannot be read.
    """

    mpp: float
    tile_px: int
    overlap_px: int
    flips: bool
    batch_size: int
    max_unreadable_fraction: float


@dataclass(frozen=True)
class SlideMap:
    """The lesion probability of a slide.

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


class TableOnDevice:
    """A slide's :func:`lesionmap.stain.table.stain_table` on the network's device, where it normalises raw pixels.

    Parameters
    ----------
    table : (2**24, 3) uint8
        The normalised colour of every colour, in order of R · 2**16 + G · 2**8 + B.
    """

    def __init__(self, table: NDArray[np.uint8], device: torch.device) -> None:
        self._table = torch.from_numpy(table).to(device)

    def normalised(self, images: NDArray[np.uint8]) -> Tensor:
        """Images (..., 3) uint8 as a normalised uint8 tensor on the device."""
        if self._table.device.type == "cpu":
            return torch.from_numpy(apply_table(self._table.numpy(), images))  # three times faster than torch's gather
        return gather(self._table, torch.from_numpy(images).to(self._table.device))


def gather(table: Tensor, images: Tensor) -> Tensor:
    """Look up every pixel of `images`, (..., 3) uint8, in `table`, (2**24, 3) uint8, on the same device."""
    red, green, blue = images.to(torch.int32).unbind(-1)  # (...)
    index = (red << 16) | (green << 8) | blue
    return table.index_select(0, index.flatten()).reshape(images.shape)


def sliding_window_map(
    info: SlideInfo,
    tissue: TissueMask,
    stain: StainMatch,
    model: LesionFPN,
    settings: PassSettings,
    *,
    folder: str | Path,
    threads: int,
) -> SlideMap:
    """Map the lesion probability of a whole slide; only a band of tiles is in memory, however large the slide is.

    Parameters
    ----------
    folder : str or Path
        The map lies on the disk of this folder.
    threads : int
        CPU cores to use; the map does not depend on it.

    Raises
    ------
    SlideError
        If too many tiles cannot be read.
    """
    scale, tile_px, stride_px = settings.mpp / info.mpp, settings.tile_px, settings.tile_px - settings.overlap_px
    width, height = map_size(info.size_lv0, scale)
    scores = on_disk((height, width), np.uint16, folder)
    grid = corners_px((width, height), tile_px, stride_px)
    corners = grid[[tissue.any_at(tuple(xy * scale), (tile_px, tile_px), scale) for xy in grid]]
    band = RowBand((height, width), tile_px, _mean_into(scores))
    weights = window(tile_px, settings.overlap_px)
    failed: list[SlideError] = []
    unreadable: list[list[float]] = []
    with progress(len(corners), f"infer {info.slide}", "tile") as bar:
        for xy, tile in _mapped(info, stain, model, corners, settings, threads=threads):
            bar.update()
            if isinstance(tile, SlideError):
                logging.warning("%s", tile)
                failed.append(tile)
                unreadable.append([*(xy * scale).tolist(), tile_px * scale, tile_px * scale])
            else:
                band.add(tuple(xy), *(part * weights for part in of_logits(tile)))
    band.finish()
    check_damage(info.slide, STAGE, failed, len(corners), settings.max_unreadable_fraction)
    seams = seam_measure(scores, tissue, scale, corners, tile_px=tile_px, stride_px=stride_px)
    counts = len(corners) - len(failed), len(grid) - len(corners)
    return SlideMap(scores, settings.mpp, *counts, unreadable, seams)


def _mean_into(scores: Scores) -> Take:
    """A function that writes the weighted mean of tiles into a map."""

    def take(top: int, lesion: Values, other: Values) -> None:
        scores[top : top + len(lesion)] = scores_of(lesion, other)

    return take


@dataclass(frozen=True)
class TileReader:
    """Reads tiles of `tile_px` at `mpp` µm/px from `slide`."""

    slide: Slide
    tile_px: int
    mpp: float

    def read(self, xy_px: NDArray[np.int64]) -> NDArray[np.uint8] | SlideError:
        """The tile with its top-left corner at map pixel (x, y); the error if it cannot be read."""
        x, y = (xy_px * (self.mpp / self.slide.info.mpp)).tolist()
        try:
            return self.slide.read((x, y), (self.tile_px, self.tile_px), self.mpp)
        except SlideError as error:
            return error


def _mapped(
    info: SlideInfo,
    stain: StainMatch,
    model: LesionFPN,
    corners: NDArray[np.int64],
    settings: PassSettings,
    *,
    threads: int,
) -> Iterator[tuple[NDArray[np.int64], Values | SlideError]]:
    """Corner and logits of each tile, in order; an error for tiles that cannot be read.

    On a CPU, each thread reads a tile and passes it through the network, so no core waits. A GPU works on one batch
    while the next is read.
    """
    device = model.mean.device
    step = fitting_inference_batch(model, settings.tile_px, settings.batch_size)
    batches = [corners[first : first + step] for first in range(0, len(corners), step)]
    table = TableOnDevice(stain.table(threads), device)
    with Slide(info, STAGE) as slide, ThreadPool(threads, device) as pool, ThreadPoolExecutor(threads) as readers:
        reader = TileReader(slide, settings.tile_px, settings.mpp)

        def read(batch: NDArray[np.int64]) -> list[NDArray[np.uint8] | SlideError]:
            return list(in_order(readers, reader.read, batch, len(batch)))

        def passed(tiles: list[NDArray[np.uint8] | SlideError]) -> list[Values | SlideError]:
            images = [tile for tile in tiles if not isinstance(tile, SlideError)]
            maps = iter(logits_of_tiles(model, table, images, flips=settings.flips) if images else ())
            return [tile if isinstance(tile, SlideError) else next(maps) for tile in tiles]

        if device.type == "cpu":
            results = pool.map(lambda batch: passed(read(batch)), batches)
        else:
            results = map(passed, map_in_order(read, batches, 1))
        for batch, tiles in zip(batches, results, strict=True):
            yield from zip(batch, tiles, strict=True)


@torch.no_grad()
def logits_of_tiles(
    model: LesionFPN, table: TableOnDevice, images: Sequence[NDArray[np.uint8]], *, flips: bool
) -> NDArray[np.float32]:
    """Lesion logits, (N, H, W), of images (H, W, 3) uint8 that are not normalised yet."""
    batch = table.normalised(np.stack(images)).permute(0, 3, 1, 2)  # (N, 3, H, W)
    turns = FLIPS if flips else UNFLIPPED
    flipped = [finite_logits(model, batch.flip(axes)).flip(axes) for axes in turns]  # (N, 1, H, W) each
    logits: NDArray[np.float32] = mean_logit(torch.stack(flipped), 0)[:, 0].cpu().numpy()
    return logits
