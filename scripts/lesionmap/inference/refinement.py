"""Refinement: regions of a map are read at full resolution, passed as tiles and fused as in training."""

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lesionmap.errors import SlideError
from lesionmap.geometry.resampling import area_matrix
from lesionmap.geometry.tiling import TileSpec, grid_xy
from lesionmap.inference.sliding_window import FLIPS, STAGE, UNFLIPPED, SlideMap
from lesionmap.inference.stitching import RowBand, Take, Values, of_logits, scores_of
from lesionmap.jobs.log import progress
from lesionmap.jobs.parallel import map_in_order
from lesionmap.maps.probability import Scores, as_logits
from lesionmap.network.forward import as_images, finite_logits
from lesionmap.network.logits import mean_logit
from lesionmap.network.model import LesionFPN
from lesionmap.network.region_pass import RegionTensors, TilePasses, fused_map, tile_maps
from lesionmap.network.thread_pool import ThreadPool
from lesionmap.slides.damage import check_damage
from lesionmap.slides.slide import SlideInfo
from lesionmap.stain.table import StainMatch
from lesionmap.tiles.region_reader import RegionReader
from lesionmap.tissue.mask import TissueMask, tiles_with_tissue

ROUNDING = 1e-6  # of a pixel's area


@dataclass(frozen=True)
class RefineSettings:
    """Which regions are refined, and how.

    Parameters
    ----------
    spec : TileSpec
        How the model's training slides were cut.
    looked_at : (int, int)
        A region is refined if one of its tissue pixels has a score in this range, ends included.
    tile_batch : int
        Tiles in the network at once.
    flips : bool
        Whether regions are also passed flipped, and the results averaged.
    max_unreadable_fraction : float
        A slide is refused if more of its refined regions cannot be read.
    """

    spec: TileSpec
    looked_at: tuple[int, int]
    tile_batch: int
    flips: bool
    max_unreadable_fraction: float


@dataclass(frozen=True)
class Refined:
    """What was refined.

    Parameters
    ----------
    regions, tiles : int
        Their numbers.
    unreadable : list of [x, y, width, height]
        Regions that cannot be read at full resolution, level-0 pixels; the map of the first pass stays there.
    """

    regions: int
    tiles: int
    unreadable: list[list[float]]


@dataclass(frozen=True)
class _Place:
    """A region's corner in level-0 pixels, and its tiles with tissue, (n, n) bool."""

    xy_lv0: tuple[float, float]
    kept: NDArray[np.bool_]


def refine_map(
    mapped: SlideMap,
    info: SlideInfo,
    tissue: TissueMask,
    stain: StainMatch,
    model: LesionFPN,
    *,
    settings: RefineSettings,
    threads: int,
) -> Refined:
    """Replace the probability of the first pass by the fused probability, region by region.

    A region is fused as in validation (METHOD.md §4), from its tiles with tissue and its low view. Each pixel of the
    map takes the mean over its own area: of fused maps where there are any, of the first pass elsewhere.

    Parameters
    ----------
    mapped : SlideMap
        The map of the first pass; its `scores` are changed in place.
    threads : int
        CPU cores to use; the map does not depend on it.

    Raises
    ------
    SlideError
        If too many regions cannot be read.
    """
    spec, device = settings.spec, model.mean.device
    places = list(_places(mapped, info, tissue, settings))
    side_lv0, scale = spec.region_side_lv0(info.mpp), mapped.mpp / info.mpp
    readers = 1 if device.type == "cpu" else threads  # a CPU's cores are busy with the network
    band = RowBand(mapped.scores.shape, math.ceil(side_lv0 / scale) + 1, _shares_into(mapped.scores))
    failed: list[SlideError] = []
    unreadable: list[list[float]] = []
    with (
        RegionReader(info, spec, stain, STAGE, threads) as reader,
        ThreadPool(threads, device) as pool,
        progress(len(places), f"refine {info.slide}", "region") as bar,
    ):
        passes = TilePasses(model, settings.tile_batch, pool, lambda: None)

        def read(place: _Place) -> RegionTensors | SlideError:
            try:
                return _tensors(info.slide, place, *reader.region(place.xy_lv0, place.kept))
            except SlideError as error:
                return error

        for place, region in zip(places, map_in_order(read, places, readers), strict=True):
            bar.update()
            if isinstance(region, SlideError):
                logging.warning("%s", region)
                failed.append(region)
                unreadable.append([*place.xy_lv0, side_lv0, side_lv0])
            else:
                fused = _fused(passes, _on(device, region), flips=settings.flips)
                band.add(*_on_map(fused, place.xy_lv0, spec.low_mpp / info.mpp, scale))
    band.finish()
    check_damage(info.slide, STAGE, failed, len(places), settings.max_unreadable_fraction)
    return Refined(len(places) - len(failed), sum(int(place.kept.sum()) for place in places), unreadable)


def _places(mapped: SlideMap, info: SlideInfo, tissue: TissueMask, settings: RefineSettings) -> Iterator[_Place]:
    """The regions to refine, row by row."""
    spec, scale, (least, most) = settings.spec, mapped.mpp / info.mpp, settings.looked_at
    low_scale, side_lv0 = spec.low_mpp / info.mpp, spec.region_side_lv0(info.mpp)
    for x, y in grid_xy(info.size_lv0, side_lv0).tolist():
        if not tissue.any_at((x, y), (spec.tile_px, spec.tile_px), low_scale):
            continue
        (left, right), (top, bottom) = _covering(x, side_lv0, scale), _covering(y, side_lv0, scale)
        first_pass = mapped.scores[top:bottom, left:right]
        on_tissue = tissue.at((left * scale, top * scale), (first_pass.shape[1], first_pass.shape[0]), scale)
        codes = tissue.codes_at((x, y), (spec.tile_px, spec.tile_px), low_scale)
        kept = tiles_with_tissue(codes, spec.tiles_per_side)
        if kept.any() and (on_tissue & (first_pass >= least) & (first_pass <= most)).any():
            yield _Place((x, y), kept)


def _covering(start_lv0: float, length_lv0: float, scale: float) -> tuple[int, int]:
    """The map pixels that an interval along an axis covers: the first, and the one after the last."""
    return math.floor(start_lv0 / scale + 1e-9), math.ceil((start_lv0 + length_lv0) / scale - 1e-9)


def _tensors(slide: str, place: _Place, tiles: NDArray[np.uint8], low: NDArray[np.uint8]) -> RegionTensors:
    """The tensors of a region, without masks."""
    return RegionTensors(
        name=f"{slide} at x={place.xy_lv0[0]:.0f} y={place.xy_lv0[1]:.0f}",
        tiles_per_side=len(place.kept),
        low=as_images(low[None]),
        low_mask=torch.empty(0),
        judged_mask=torch.empty(0),
        tiles=as_images(tiles),
        row_col=[(int(row), int(column)) for row, column in np.argwhere(place.kept)],
        tile_masks=torch.empty(0),
    )


def _on(device: torch.device, region: RegionTensors) -> RegionTensors:
    return replace(region, low=region.low.to(device), tiles=region.tiles.to(device))


@torch.no_grad()
def _fused(passes: TilePasses, region: RegionTensors, *, flips: bool) -> NDArray[np.float32]:
    """The fused logits of a region, (s, s): T1 of its tiles and T2 of its low view."""
    maps: list[Tensor] = []
    for axes in FLIPS if flips else UNFLIPPED:
        part = _flipped(region, axes)
        t2 = finite_logits(passes.model, part.low)
        maps.append(fused_map(passes.model, part, tile_maps(passes, part), t2).flip(axes))  # (1, 1, s, s)
    fused: NDArray[np.float32] = mean_logit(torch.stack(maps), 0)[0, 0].cpu().numpy()
    return fused


def _flipped(region: RegionTensors, axes: tuple[int, ...]) -> RegionTensors:
    """A region mirrored along some axes of (N, C, H, W)."""
    last = region.tiles_per_side - 1
    places = [
        (last - row if 2 in axes else row, last - column if 3 in axes else column) for row, column in region.row_col
    ]
    return replace(region, low=region.low.flip(axes), tiles=region.tiles.flip(axes), row_col=places)


def _on_map(
    fused: NDArray[np.float32], xy_lv0: tuple[float, float], low_scale: float, scale: float
) -> tuple[tuple[int, int], NDArray[np.float32], NDArray[np.float32]]:
    """A region's map on the grid of the slide's map: corner, and shares of lesion and of no lesion in a pixel's area.

    Together, they are the share of the pixel that the region covers.

    Parameters
    ----------
    fused : (s, s) float32
        Fused logits of the region.
    xy_lv0 : (float, float)
        Top-left corner of the region.
    low_scale, scale : float
        Level-0 pixels per pixel of the region's map and of the slide's map.
    """
    starts, shares = [], []
    for corner in xy_lv0:
        first, stop = _covering(corner, len(fused) * low_scale, scale)
        start = (first * scale - corner) / low_scale
        starts.append(first)
        shares.append(area_matrix(start, scale / low_scale, stop - first, len(fused)))
    across, down = shares
    lesion, other = ((down @ part @ across.T).astype(np.float32, copy=False) for part in of_logits(fused))
    return (starts[0], starts[1]), lesion, other


def _shares_into(scores: Scores) -> Take:
    """A function that writes sums into a map; each pixel keeps its value for the share that is not covered."""

    def take(top: int, lesion: Values, other: Values) -> None:
        rows, kept = scores[top : top + len(lesion)], np.clip(1 - lesion - other, 0, 1)
        kept[kept < ROUNDING] = 0
        changed = kept < 1
        before = of_logits(as_logits(rows).astype(np.float32))
        sums = (part + kept * old for part, old in zip((lesion, other), before, strict=True))
        rows[...] = np.where(changed, scores_of(*sums), rows)

    return take
