"""Refinement: regions of a map are read at full resolution, passed as tiles and fused as in training."""

import logging
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lesionmap.errors import SlideError
from lesionmap.geometry.resampling import area_matrix
from lesionmap.geometry.tiling import TileSpec, grid_xy
from lesionmap.inference.engines import Engine, Images
from lesionmap.inference.seams import refined_seam_measure
from lesionmap.inference.sliding_window import STAGE, SlideMap
from lesionmap.inference.stitching import RowBand, Take, scores_of
from lesionmap.jobs.log import progress
from lesionmap.jobs.parallel import in_order, map_in_order
from lesionmap.maps.probability import UNMAPPED, Scores, Values, as_logits, of_logits
from lesionmap.network.settings import TILES
from lesionmap.slides.damage import check_damage
from lesionmap.slides.slide import SlideInfo
from lesionmap.stain.table import StainMatch
from lesionmap.tiles.region_reader import RegionReader
from lesionmap.tissue.mask import TissueMask, tiles_with_tissue

ROUNDING = 1e-6  # of a pixel's area
RegionImages = tuple[Images, Images]  # tiles, (k, s, s, 3), and low view, (s, s, 3)


@dataclass(frozen=True)
class Fusion:
    """How a model fuses T1 and T2.

    Parameters
    ----------
    kind : str
        ``mean``, ``max``, ``learned`` or ``tiles``.
    weight : float
        Of T1 in a mean.
    """

    kind: str = "mean"
    weight: float = 0.5


@dataclass(frozen=True)
class RefineSettings:
    """Which regions are refined, and how.

    Parameters
    ----------
    spec : TileSpec
        How the model's training slides were cut.
    looked_at : (int, int)
        A region is refined if one of its tissue pixels has a score in this range, ends included.
    fusion : Fusion
        How the maps of tiles and low view are fused.
    t2_of_first_pass : bool
        Whether T2 is taken from the first pass, which has its resolution and whose tiles overlap: a region's own T2 is
        less sure at the region's border, which would show.
    flips : bool
        Whether images are also passed flipped, and the results averaged.
    max_unreadable_fraction : float
        A slide is refused if more of its refined regions cannot be read.
    """

    spec: TileSpec
    looked_at: tuple[int, int]
    fusion: Fusion
    t2_of_first_pass: bool
    flips: bool
    max_unreadable_fraction: float

    def asked_by(self, scores: Scores) -> bool:
        """Whether a region is refined that has these scores on its tissue."""
        least, most = self.looked_at
        return bool(((scores >= least) & (scores <= most)).any())


@dataclass(frozen=True)
class Refined:
    """What was refined.

    Parameters
    ----------
    regions, tiles : int
        Their numbers.
    unreadable : list of [x, y, width, height]
        Regions that cannot be read at full resolution, level-0 pixels; the map of the first pass stays there.
    seam_measure : float or None
        See :func:`lesionmap.inference.seams.refined_seam_measure`.
    """

    regions: int
    tiles: int
    unreadable: list[list[float]]
    seam_measure: float | None


@dataclass(frozen=True)
class _Place:
    """A region's corner in level-0 pixels, its tiles with tissue, (n, n) bool, and which maps to refine there."""

    xy_lv0: tuple[float, float]
    kept: NDArray[np.bool_]
    maps: tuple[int, ...]


def refine_maps(
    maps: Sequence[SlideMap],
    info: SlideInfo,
    tissue: TissueMask,
    stain: StainMatch,
    engines: Sequence[Engine],
    *,
    settings: Sequence[RefineSettings],
    threads: int,
) -> list[Refined]:
    """Replace the probability of the first pass by the fused probability, region by region.

    Each map is refined by its own engine, where its own settings ask for that; each region is read once.

    A region is fused as in validation (METHOD.md §4), from its tiles with tissue and its low view, or the first pass
    (`RefineSettings.t2_of_first_pass`) if that has looked at all of its tissue. Each pixel of the map takes the mean
    over its own area: of fused maps where there are any, of the first pass elsewhere.

    Parameters
    ----------
    maps : sequence of SlideMap
        The maps of the first pass; their `scores` are changed in place.
    settings : sequence of RefineSettings
        Of each map; they may differ in `looked_at` and `fusion`.
    threads : int
        CPU cores to use; the maps do not depend on it.

    Raises
    ------
    SlideError
        If too many regions of a map cannot be read.
    """
    spec = settings[0].spec
    places = list(_places(maps, info, tissue, settings))
    side_lv0, scale = spec.region_side_lv0(info.mpp), maps[0].mpp / info.mpp
    readers = 1 if engines[0].device == "cpu" else threads  # a CPU's cores are busy with the network
    rows = math.ceil(side_lv0 / scale) + 1
    bands = [RowBand(mapped.scores.shape, rows, _shares_into(mapped.scores)) for mapped in maps]
    failed: list[tuple[_Place, SlideError]] = []
    with (
        RegionReader(info, spec, stain, STAGE, threads) as reader,
        ThreadPoolExecutor(engines[0].threads) as pool,
        progress(len(places), f"refine {info.slide}", "region") as bar,
    ):

        def read(place: _Place) -> RegionImages | SlideError:
            try:
                return reader.region(place.xy_lv0, place.kept)
            except SlideError as error:
                return error

        for place, region in zip(places, map_in_order(read, places, readers), strict=True):
            bar.update()
            if isinstance(region, SlideError):
                logging.warning("%s", region)
                failed.append((place, region))
                continue
            for number in place.maps:
                of_first = settings[number].t2_of_first_pass
                t2 = _first_pass(maps[number].scores, place.xy_lv0, scale, spec.tile_px, tissue) if of_first else None
                fused = _fused(engines[number], pool, region, place.kept, settings[number], t2)
                bands[number].add(*_on_map(fused, place.xy_lv0, spec.low_mpp / info.mpp, scale))
    for band in bands:
        band.finish()
    return _outcomes(maps, info, tissue, places, failed, settings)


def _outcomes(
    maps: Sequence[SlideMap],
    info: SlideInfo,
    tissue: TissueMask,
    places: Sequence[_Place],
    failed: Sequence[tuple[_Place, SlideError]],
    settings: Sequence[RefineSettings],
) -> list[Refined]:
    """What was refined in each map, unless too many of its regions cannot be read."""
    found = []
    for number, (one, mapped) in enumerate(zip(settings, maps, strict=True)):
        asked = [place for place in places if number in place.maps]
        lost = [(place, error) for place, error in failed if number in place.maps]
        check_damage(info.slide, STAGE, [error for _, error in lost], len(asked), one.max_unreadable_fraction)
        side_lv0 = one.spec.region_side_lv0(info.mpp)
        unreadable = [[*place.xy_lv0, side_lv0, side_lv0] for place, _ in lost]
        left_out = {place.xy_lv0 for place, _ in lost}
        corners = [place.xy_lv0 for place in asked if place.xy_lv0 not in left_out]
        of_map = (mapped.scores, tissue, mapped.mpp / info.mpp, corners, side_lv0)
        seams = [refined_seam_measure(*of_map, part) for part in (side_lv0 / one.spec.tiles_per_side, side_lv0)]
        worst = max((seam for seam in seams if seam is not None), default=None)
        n_tiles = sum(int(place.kept.sum()) for place in asked)
        found.append(Refined(len(corners), n_tiles, unreadable, worst))
    return found


def _places(
    maps: Sequence[SlideMap], info: SlideInfo, tissue: TissueMask, settings: Sequence[RefineSettings]
) -> Iterator[_Place]:
    """The regions to refine in any of the maps, row by row."""
    spec, scale = settings[0].spec, maps[0].mpp / info.mpp
    low_scale, side_lv0 = spec.low_mpp / info.mpp, spec.region_side_lv0(info.mpp)
    for x, y in grid_xy(info.size_lv0, side_lv0).tolist():
        if not tissue.any_at((x, y), (spec.tile_px, spec.tile_px), low_scale):
            continue
        (left, right), (top, bottom) = _covering(x, side_lv0, scale), _covering(y, side_lv0, scale)
        first_passes = [mapped.scores[top:bottom, left:right] for mapped in maps]
        height, width = first_passes[0].shape
        on_tissue = tissue.at((left * scale, top * scale), (width, height), scale)
        codes = tissue.codes_at((x, y), (spec.tile_px, spec.tile_px), low_scale)
        kept = tiles_with_tissue(codes, spec.tiles_per_side)
        asking = [number for number, one in enumerate(settings) if one.asked_by(first_passes[number][on_tissue])]
        if kept.any() and asking:
            yield _Place((x, y), kept, tuple(asking))


def _covering(start_lv0: float, length_lv0: float, scale: float) -> tuple[int, int]:
    """The map pixels that an interval along an axis covers: the first, and the one after the last."""
    return math.floor(start_lv0 / scale + 1e-9), math.ceil((start_lv0 + length_lv0) / scale - 1e-9)


def _first_pass(
    scores: Scores, xy_lv0: tuple[float, float], scale: float, side: int, tissue: TissueMask
) -> Values | None:
    """The first pass in a region, as shares (2, side, side); None if it has not looked everywhere at its tissue."""
    left, top = (round(part / scale) for part in xy_lv0)
    block = scores[top : top + side, left : left + side]
    height, width = block.shape
    if (block[tissue.at(xy_lv0, (width, height), scale)] == UNMAPPED).any():
        return None
    whole = np.pad(block, ((0, side - height), (0, side - width)))  # beyond the slide, where the map ends
    return np.stack(of_logits(as_logits(whole).astype(np.float32)))


def _fused(
    engine: Engine,
    pool: ThreadPoolExecutor,
    region: RegionImages,
    kept: NDArray[np.bool_],
    settings: RefineSettings,
    t2: Values | None,
) -> Values:
    """The fused shares of a region, (2, s, s): T1 of its tiles and, where there is none, T2 (else: of its low view)."""
    tiles, low = region
    n, step = len(kept), engine.batch_size
    batches = (tiles[first : first + step] for first in range(0, len(tiles), step))
    parts = [*([(low[None], False)] if t2 is None else []), *((batch, True) for batch in batches)]

    def shares(part: tuple[Images, bool]) -> Values:
        images, are_tiles = part
        return engine.shares(images, factor=n if are_tiles else 1, flips=settings.flips, tiles=are_tiles)

    passed = in_order(pool, shares, parts, engine.threads)
    fused = next(passed)[:, 0] if t2 is None else t2
    blocks = (block for shares in passed for block in shares.swapaxes(0, 1))
    side = fused.shape[1] // n
    for (row, column), t1 in zip(np.argwhere(kept).tolist(), blocks, strict=True):
        place = fused[:, row * side : (row + 1) * side, column * side : (column + 1) * side]
        place[...] = fuse(settings.fusion, t1, place)
    return fused


def fuse(fusion: Fusion, t1: Values, t2: Values) -> Values:
    """Fuse shares of lesion and of no lesion, (2, h, w), as in training (:mod:`lesionmap.network.model`)."""
    if fusion.kind == TILES:
        return t1
    if fusion.kind == "max":
        return np.where(t1[0] * t2[1] > t2[0] * t1[1], t1, t2)
    mixed: Values = fusion.weight * t1 + (1 - fusion.weight) * t2
    return mixed


def _on_map(
    fused: Values, xy_lv0: tuple[float, float], low_scale: float, scale: float
) -> tuple[tuple[int, int], Values, Values]:
    """A region's map on the grid of the slide's map: corner, and shares of lesion and of no lesion in a pixel's area.

    Together, they are the share of the pixel that the region covers.

    Parameters
    ----------
    fused : (2, s, s) float32
        Fused shares of the region.
    xy_lv0 : (float, float)
        Top-left corner of the region.
    low_scale, scale : float
        Level-0 pixels per pixel of the region's map and of the slide's map.
    """
    starts, shares = [], []
    for corner in xy_lv0:
        first, stop = _covering(corner, fused.shape[1] * low_scale, scale)
        start = (first * scale - corner) / low_scale
        starts.append(first)
        shares.append(area_matrix(start, scale / low_scale, stop - first, fused.shape[1]))
    across, down = shares
    lesion, other = ((down @ part @ across.T).astype(np.float32, copy=False) for part in fused)
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
