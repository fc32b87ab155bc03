"""Write the tile store of a slide: read, normalise, cut into tiles, rasterise the masks (METHOD.md §1.3)."""

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesionmap.annotations.classes import BACKGROUND, IGNORE, MAJORITY_ORDER, STORED_CLASSES, judged
from lesionmap.annotations.masks import Annotation
from lesionmap.errors import SlideError
from lesionmap.files.records import read_json, write_json
from lesionmap.geometry.resampling import area_majority
from lesionmap.geometry.tiling import TileSpec, cut, grid_xy, inside, tiles_with
from lesionmap.jobs.parallel import map_in_order, return_large_blocks
from lesionmap.slides.damage import check_damage
from lesionmap.slides.slide import SlideInfo
from lesionmap.stain.table import StainMatch
from lesionmap.tiles.codec import TileCodec, pack
from lesionmap.tiles.region_reader import RegionReader
from lesionmap.tiles.settings import TileSettings
from lesionmap.tiles.store import PackedRegion, TileStore, TileStoreWriter, class_pixels, new_store
from lesionmap.tissue.mask import FOLD, TissueMask, tiles_with_tissue
from lesionmap.tissue.quality import SHARES, RegionQuality, is_blurred


@dataclass(frozen=True)
class Extraction:
    """All settings that determine the tiles of one slide.

    Parameters
    ----------
    min_tissue_fraction : float
        Regions with a smaller share of tissue are left out, unless they have an annotation. Neither tissue of the class
        ignore nor its outlines count.
    max_unreadable_fraction : float
        Largest share of the remaining regions that may be unreadable. Unreadable regions are left out.
    stain : StainMatch
        How the slide is normalised.
    codec : TileCodec
        How pixels are stored.
    stored : bool
        Whether the tiles' images are stored; otherwise they are read from the slide on demand.
    """

    spec: TileSpec
    min_tissue_fraction: float
    max_unreadable_fraction: float
    stain: StainMatch
    codec: TileCodec
    stored: bool = True

    @classmethod
    def of(cls, tiles: TileSettings, max_unreadable_fraction: float, stain_path: str) -> "Extraction":
        """Build it from the config's settings and the JSON file of the slide's stain match."""
        limits = tiles.min_tissue_fraction, max_unreadable_fraction
        return cls(tiles.spec, *limits, StainMatch.of(read_json(stain_path)), tiles.compression, tiles.stored)


def extract_tiles(
    info: SlideInfo,
    tissue_path: str,
    annotation_path: str,
    output: str,
    settings: Extraction,
    *,
    provenance: dict[str, Any],
    threads: int = 1,
    location: str = "",
) -> None:
    """Write the tile store of one slide; the bytes do not depend on the number of threads.

    Parameters
    ----------
    tissue_path, annotation_path : str
        The slide's tissue mask and canonical annotation.
    output : str
        HDF5 file.
    threads : int
        Each works on one strip of a region at a time.
    location : str
        The file that says where the slide is (:class:`lesionmap.slides.inspection.InspectionFiles`), if images are not
        stored.

    Raises
    ------
    SlideError
        If too many regions cannot be read, or no region has enough tissue or an annotation.
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
    read_again = None if settings.stored else (info, location)
    with cutter, new_store(output, settings.spec, attributes, settings.codec, read_again) as store:
        stored, unreadable = _fill(store, cutter, settings, threads)
        check_damage(
            info.slide, "extract_tiles", unreadable, stored + len(unreadable), settings.max_unreadable_fraction
        )
        if not stored:
            raise SlideError(
                slide=info.slide,
                stage="extract_tiles",
                finding=f"no region has {settings.min_tissue_fraction:.0%} tissue or an annotation, besides what is of "
                "the class ignore",
                remedy="look at the tissue mask and the annotation, or lower tiles.min_tissue_fraction",
            )
    logging.info("%s: %d regions stored, %d unreadable", info.slide, stored, len(unreadable))


def _fill(
    store: TileStoreWriter, cutter: "RegionCutter", settings: Extraction, threads: int
) -> tuple[int, list[SlideError]]:
    """Store the readable regions; return their number, and the errors of the unreadable ones."""

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
    """Some rows of tiles of a region, compressed; s is the side of a tile in pixels, n the tiles per side of a region.

    Parameters
    ----------
    low_image : (h, s, 3) uint8
        Rows of the low-resolution view, not compressed (:meth:`lesionmap.tiles.region_reader.RegionReader.strip`).
    images, masks : list of bytes
        Compressed images and masks of the kept tiles, row by row.
    blurred : list of bool
        Whether each kept tile is out of focus.
    class_pixels : (4,) int64
        Pixels of each class in the masks of the kept tiles.
    """

    low_image: NDArray[np.uint8]
    images: list[bytes]
    masks: list[bytes]
    blurred: list[bool]
    class_pixels: NDArray[np.int64]


@dataclass(frozen=True)
class RegionPlan:
    """What is known of a region before its pixels are read; s and n as in :class:`RegionStrip`.

    Parameters
    ----------
    xy_lv0 : (float, float)
        Top-left corner in level-0 pixels.
    codes : (s, s) uint8
        Tissue map (:func:`lesionmap.tissue.detection.tissue_map`) at the pixels of the low-resolution view; 0 where the
        annotation says ignore.
    mask : (n·s, n·s) uint8
        Class codes.
    kept : (n, n) bool
        True for the tiles to store.
    """

    xy_lv0: tuple[float, float]
    codes: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    kept: NDArray[np.bool_]

    def with_pixels(self, strips: Sequence[RegionStrip], codec: TileCodec) -> PackedRegion:
        """The region in its stored form; `strips` are all its strips from the top."""
        blurred = [flag for strip in strips for flag in strip.blurred]
        low_mask = area_majority(self.mask, len(self.kept), MAJORITY_ORDER)
        return PackedRegion(
            xy_lv0=self.xy_lv0,
            low_image=codec.encode(np.concatenate([strip.low_image for strip in strips])),
            low_mask=pack(low_mask),
            judged_mask=pack(judged(low_mask, self.codes >= FOLD)),
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
    threads : int
        Threads used to make the stain table.
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
        """Plan the region at a corner; None if it has too little tissue and no annotation.

        Tiles with neither stained tissue nor annotation are left out. Tissue is looked up at the pixels of the
        low-resolution view, because the tissue map is no finer. What is of the class ignore counts as neither: nothing
        could be learned from it.
        """
        spec, scale = self._settings.spec, self._settings.spec.mpp / self._info.mpp
        side = (spec.region_px, spec.region_px)
        codes = self._tissue.codes_at(xy_lv0, (spec.tile_px, spec.tile_px), scale * spec.tiles_per_side)
        mask = self._annotation.mask(xy_lv0, side, scale)
        centres = slice(spec.tiles_per_side // 2, None, spec.tiles_per_side)
        codes[mask[centres, centres] == IGNORE] = 0
        annotated = tiles_with((mask != BACKGROUND) & (mask != IGNORE), spec.tiles_per_side)
        kept = kept_tiles(codes, annotated, self._settings.min_tissue_fraction)
        if kept is None:
            return None
        columns, rows = inside(xy_lv0, spec.region_px, scale, self._info.size_lv0)
        mask[rows:] = mask[:, columns:] = IGNORE
        return RegionPlan(xy_lv0, codes, mask, kept)

    def strip(self, plan: RegionPlan, rows: range) -> RegionStrip:
        """Read, normalise and compress some rows of a region's tiles; `rows` is one of `strips`.

        Raises
        ------
        SlideError
            If the file is damaged there.
        """
        settings, spec = self._settings, self._settings.spec
        low_image, tiles = self._reader.strip(plan.xy_lv0, rows)
        masks = cut(plan.mask, spec.tile_px)  # a view
        strip = RegionStrip(low_image, [], [], [], np.zeros(len(STORED_CLASSES), dtype=np.int64))
        for (row, column), image in tiles:
            if plan.kept[row, column]:
                strip.images.extend([settings.codec.encode(image)] if settings.stored else [])
                strip.masks.append(pack(masks[row, column]))
                strip.blurred.append(is_blurred(image, spec.mpp))
                strip.class_pixels[:] += class_pixels(masks[row, column])
        return strip


def kept_tiles(
    codes: NDArray[np.uint8], annotated: NDArray[np.bool_], min_tissue_fraction: float
) -> NDArray[np.bool_] | None:
    """Which of a region's (n, n) tiles are cut; None if the region is left out.

    Parameters
    ----------
    codes : (S, S) uint8
        The region's tissue, 0 where it is of the class ignore.
    annotated : (n, n) bool
        The tiles with an outline of another class.
    """
    if not annotated.any() and (codes >= FOLD).mean() < max(min_tissue_fraction, 1e-9):
        return None
    return tiles_with_tissue(codes, len(annotated)) | annotated


def write_record(store_path: str, output: str) -> None:
    """Write a summary of a store as JSON; it stays when the store is deleted.

    Areas are of the stored tiles; ``blur``, ``pen`` and ``fold`` are means over the regions.
    """
    with TileStore(store_path) as store:
        mm2 = store.class_pixels().sum(axis=0) * store.spec.mpp**2 / 1e6
        areas = {f"{name}_mm2": round(float(area), 6) for name, area in zip(STORED_CLASSES, mm2, strict=True)}
        shares = {name: round(float(store.quality(name).mean()), 4) for name in SHARES}
        counts = {"slide": store.slide, "regions": len(store), "tiles": store.n_tiles}
        unreadable = store.unreadable
    write_json(output, counts | areas | shares | {"bytes": Path(store_path).stat().st_size, "unreadable": unreadable})
