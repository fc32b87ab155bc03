"""From a slide to its tile store: read, normalise, cut, draw the masks (METHOD.md §1.3)."""

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesionmap.annotations.classes import IGNORE, MAJORITY_ORDER, STORED_CLASSES
from lesionmap.annotations.masks import Annotation
from lesionmap.errors import SlideError
from lesionmap.files.records import read_json, write_json
from lesionmap.geometry.resampling import area_majority
from lesionmap.geometry.tiling import TileSpec, cut, grid_xy, inside, tiles_with
from lesionmap.jobs.parallel import map_in_order, return_large_blocks
from lesionmap.slides.slide import SlideInfo, check_damage
from lesionmap.stain.table import StainMatch
from lesionmap.tiles.codec import TileCodec, pack
from lesionmap.tiles.region_reader import RegionReader
from lesionmap.tiles.settings import TileSettings
from lesionmap.tiles.store import PackedRegion, TileStore, TileStoreWriter, class_pixels, new_store
from lesionmap.tissue.mask import FOLD, TissueMask
from lesionmap.tissue.quality import SHARES, RegionQuality, is_blurred


@dataclass(frozen=True)
class Extraction:
    """All that decides the tiles of one slide.

    Parameters
    ----------
    spec : TileSpec
    min_tissue_fraction : float
        Regions with less tissue than this are left out, unless they carry an annotation.
    max_unreadable_fraction : float
        Share of those regions that may be unreadable and is left out.
    stain : StainMatch
        How the slide is normalised.
    codec : TileCodec
        How pixels are stored.
    stored : bool
        Whether the tiles' images are; else they are read from the slide whenever they are asked for.
    """

    spec: TileSpec
    min_tissue_fraction: float
    max_unreadable_fraction: float
    stain: StainMatch
    codec: TileCodec
    stored: bool = True

    @classmethod
    def of(cls, tiles: TileSettings, max_unreadable_fraction: float, stain_path: str) -> "Extraction":
        """From the config's settings, and the file of the slide's match."""
        limits = tiles.min_tissue_fraction, max_unreadable_fraction
        return cls(tiles.spec, *limits, StainMatch.of(read_json(stain_path)), tiles.compression, tiles.stored)


def extract_tiles(
    info: SlideInfo,
    tissue_path: str,
    annotation_path: str,
    output: str,
    settings: Extraction,
    provenance: dict[str, Any],
    threads: int = 1,
) -> None:
    """Write the tile store of one slide: the same bytes for any number of threads.

    Parameters
    ----------
    info : SlideInfo
    tissue_path, annotation_path : str
        The slide's tissue mask and canonical annotation.
    output : str
        HDF5 file.
    settings : Extraction
    provenance : dict
    threads : int
        Each works on a row of tiles at a time.

    Raises
    ------
    SlideError
        If too many regions cannot be read, or none has tissue.
    """
    return_large_blocks()
    attributes = {
        "slide": info.slide,
        "identity": info.identity,
        "mpp_lv0": info.mpp,
        "stain": settings.stain.as_record(),
        "provenance": provenance,
    }
    cutter = RegionCutter(info, TissueMask(tissue_path, info), Annotation(annotation_path), settings, threads)
    read_again = None if settings.stored else info
    with cutter, new_store(output, settings.spec, attributes, settings.codec, read_again) as store:
        stored, unreadable = _fill(store, cutter, settings, threads)
        check_damage(info, "extract_tiles", unreadable, stored + len(unreadable), settings.max_unreadable_fraction)
        if not stored:
            raise SlideError(
                slide=info.slide,
                stage="extract_tiles",
                finding=f"no region has {settings.min_tissue_fraction:.0%} tissue or an annotation",
                remedy="look at the tissue mask, or lower tiles.min_tissue_fraction",
            )
    logging.info("%s: %d regions stored, %d unreadable", info.slide, stored, len(unreadable))


def _fill(
    store: TileStoreWriter, cutter: "RegionCutter", settings: Extraction, threads: int
) -> tuple[int, list[SlideError]]:
    """Store regions; how many there are, and the errors of those that cannot be read."""

    def cut_strip(part: tuple[RegionPlan, range]) -> tuple[RegionPlan, RegionStrip | SlideError]:
        try:
            return part[0], cutter.strip(*part)
        except SlideError as error:
            return part[0], error

    stored, unreadable = 0, []
    plans = map_in_order(cutter.plan, cutter.corners(), threads)
    parts = ((plan, rows) for plan in plans if plan for rows in cutter.strips)
    for _, results in groupby(map_in_order(cut_strip, parts, threads), key=lambda result: result[0].xy_lv0):
        plans_again, strips = zip(*results, strict=True)
        plan, errors = plans_again[0], [strip for strip in strips if isinstance(strip, SlideError)]
        if errors:
            logging.warning("%s", errors[0])
            unreadable.append(errors[0])
            store.skip((*plan.xy_lv0, cutter.side_lv0, cutter.side_lv0))
        else:
            store.append(plan.with_pixels(strips, settings.codec))
            stored += 1
    return stored, unreadable


@dataclass(frozen=True)
class RegionStrip:
    """Some rows of tiles of a region, their images and masks compressed; n tiles to a side of the region of side s.

    Parameters
    ----------
    low_image : (rows·s/n, s, 3) uint8
    images, masks : list of bytes
        Of the tiles that are kept, row by row.
    blurred : list of bool
        Which of them are out of focus.
    class_pixels : (4,) int64
        Of those tiles' masks.
    """

    low_image: NDArray[np.uint8]
    images: list[bytes]
    masks: list[bytes]
    blurred: list[bool]
    class_pixels: NDArray[np.int64]


@dataclass(frozen=True)
class RegionPlan:
    """What is known of a region before its pixels are read.

    Parameters
    ----------
    xy_lv0 : (float, float)
        Top-left corner in level-0 pixels.
    codes : (s, s) uint8
        Tissue (:func:`lesionmap.tissue.detection.tissue_map`) at the pixels of the low-resolution view.
    mask : (n·s, n·s) uint8
        Classes.
    kept : (n, n) bool
        The tiles that are stored.
    """

    xy_lv0: tuple[float, float]
    codes: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    kept: NDArray[np.bool_]

    def with_pixels(self, strips: Sequence[RegionStrip], codec: TileCodec) -> PackedRegion:
        """The region as it is stored; `strips` are all of it from the top."""
        blurred = [flag for strip in strips for flag in strip.blurred]
        return PackedRegion(
            xy_lv0=self.xy_lv0,
            low_image=codec.encode(np.concatenate([strip.low_image for strip in strips])),
            low_mask=pack(area_majority(self.mask, len(self.kept), MAJORITY_ORDER)),
            row_col=np.argwhere(self.kept).astype(np.uint8),
            images=[image for strip in strips for image in strip.images],
            masks=[mask for strip in strips for mask in strip.masks],
            quality=RegionQuality.of(self.codes, self.kept, blurred),
            class_pixels=np.sum([strip.class_pixels for strip in strips], axis=0),
        )


class RegionCutter(AbstractContextManager["RegionCutter"]):
    """Cuts a slide into normalised regions; a context manager. Threads may share it.

    Parameters
    ----------
    info : SlideInfo
    tissue : TissueMask
    annotation : Annotation
    settings : Extraction
    threads : int
        To make the stain table with.
    """

    def __init__(
        self, info: SlideInfo, tissue: TissueMask, annotation: Annotation, settings: Extraction, threads: int = 1
    ) -> None:
        self._info, self._tissue, self._annotation, self._settings = info, tissue, annotation, settings
        self._reader = RegionReader(info, settings.spec, settings.stain, "extract_tiles", threads)
        self.side_lv0 = settings.spec.region_side_lv0(info.mpp)
        self.strips = self._reader.strips

    def __exit__(self, *error: object) -> None:
        self._reader.__exit__(*error)

    def corners(self) -> list[tuple[float, float]]:
        """Top-left corners of all regions in level-0 pixels, row by row."""
        return [(float(x), float(y)) for x, y in grid_xy(self._info.size_lv0, self.side_lv0)]

    def plan(self, xy_lv0: tuple[float, float]) -> RegionPlan | None:
        """The region at a corner; None if it has neither tissue nor annotation. Tiles without either are left out.

        Tissue is looked up at the pixels of the low-resolution view, as it is known no finer than that.
        """
        spec, scale = self._settings.spec, self._settings.spec.mpp / self._info.mpp
        side = (spec.region_px, spec.region_px)
        codes = self._tissue.codes_at(xy_lv0, (spec.tile_px, spec.tile_px), scale * spec.tiles_per_side)
        covered = codes >= FOLD
        mask = self._annotation.mask(xy_lv0, side, scale)
        annotated = tiles_with(mask, spec.tiles_per_side)
        if not annotated.any() and covered.mean() < max(self._settings.min_tissue_fraction, 1e-9):
            return None
        kept = tiles_with(covered, spec.tiles_per_side) | annotated
        columns, rows = inside(xy_lv0, spec.region_px, scale, self._info.size_lv0)
        mask[rows:] = mask[:, columns:] = IGNORE
        return RegionPlan(xy_lv0, codes, mask, kept)

    def strip(self, plan: RegionPlan, rows: range) -> RegionStrip:
        """Read, normalise and compress some rows of a region's tiles, one of `strips`.

        Raises
        ------
        SlideError
            If the file is damaged there.
        """
        settings, spec = self._settings, self._settings.spec
        side = spec.tile_px // spec.tiles_per_side
        low_image = np.empty((len(rows) * side, spec.tile_px, 3), dtype=np.uint8)
        low_blocks, masks = cut(low_image, side), cut(plan.mask, spec.tile_px)  # views
        strip = RegionStrip(low_image, [], [], [], np.zeros(len(STORED_CLASSES), dtype=np.int64))
        for (row, column), image, low in self._reader.tiles(plan.xy_lv0, rows):
            low_blocks[rows.index(row), column] = low
            if plan.kept[row, column]:
                strip.images.extend([settings.codec.encode(image)] if settings.stored else [])
                strip.masks.append(pack(masks[row, column]))
                strip.blurred.append(is_blurred(image, spec.mpp))
                strip.class_pixels[:] += class_pixels(masks[row, column])
        return strip


def write_record(store_path: str, output: str) -> None:
    """Write what a store holds as JSON, which stays when the store is dropped.

    Areas are those of the stored tiles; ``blur``, ``pen`` and ``fold`` are means over the regions.
    """
    with TileStore(store_path) as store:
        mm2 = store.class_pixels().sum(axis=0) * store.spec.mpp**2 / 1e6
        areas = {f"{name}_mm2": round(float(area), 6) for name, area in zip(STORED_CLASSES, mm2, strict=True)}
        shares = {name: round(float(store.quality(name).mean()), 4) for name in SHARES}
        counts = {"slide": store.slide, "regions": len(store), "tiles": store.n_tiles}
        unreadable = store.unreadable
    write_json(output, counts | areas | shares | {"bytes": Path(store_path).stat().st_size, "unreadable": unreadable})
