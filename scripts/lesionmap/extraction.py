"""From a slide to its tile store: read, normalise, cut, draw the masks (METHOD.md §1.3)."""

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np

from lesionmap.errors import SlideError
from lesionmap.files import read_json
from lesionmap.masks import Annotation
from lesionmap.parallel import map_in_order, return_large_blocks
from lesionmap.quality import RegionQuality
from lesionmap.region_reader import RegionReader
from lesionmap.resampling import area_majority
from lesionmap.slides import SlideInfo, check_damage
from lesionmap.stain import StainMatch
from lesionmap.store import PackedRegion, Region, TileStoreWriter, new_store, packed
from lesionmap.tile_codec import TileCodec
from lesionmap.tiling import IGNORE, TileSpec, cut, grid_xy, inside
from lesionmap.tissue import FOLD, TissueMask


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
    def of(cls, tiles: Mapping[str, Any], max_unreadable_fraction: float, stain_path: str) -> "Extraction":
        """From the config's :func:`lesionmap.settings.tile_settings`, a limit of ``slides``, and the slide's match."""
        spec = TileSpec(tiles["region_px"], tiles["tile_px"], tiles["mpp"])
        limits = tiles["min_tissue_fraction"], max_unreadable_fraction
        codec = TileCodec(tiles["codec"], tiles["quality"])
        return cls(spec, *limits, StainMatch.of(read_json(stain_path)), codec, tiles["stored"])


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
        Each works on one region at a time, which takes about 150 MB with regions of 4096 px.

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

    def cut_and_pack(xy: tuple[float, float]) -> PackedRegion | SlideError | None:
        try:
            region = cutter.region(xy)
        except SlideError as error:
            return error
        return packed(region, settings.codec, with_images=settings.stored) if region else None

    stored, unreadable = 0, []
    corners = cutter.corners()
    for xy, region in zip(corners, map_in_order(cut_and_pack, corners, threads), strict=True):
        if isinstance(region, SlideError):
            logging.warning("%s", region)
            unreadable.append(region)
            store.skip((*xy, cutter.side_lv0, cutter.side_lv0))
        elif region:
            store.append(region)
            stored += 1
    return stored, unreadable


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

    def __exit__(self, *error: object) -> None:
        self._reader.__exit__(*error)

    def corners(self) -> list[tuple[float, float]]:
        """Top-left corners of all regions in level-0 pixels, row by row."""
        return [(float(x), float(y)) for x, y in grid_xy(self._info.size_lv0, self.side_lv0)]

    def region(self, xy_lv0: tuple[float, float]) -> Region | None:
        """The region at a corner; None if it has neither tissue nor annotation. Tiles without either are left out.

        Tissue is looked up at the pixels of the low-resolution view, as it is known no finer than that.

        Raises
        ------
        SlideError
            If the file is damaged there.
        """
        spec, scale = self._settings.spec, self._settings.spec.mpp / self._info.mpp
        side = (spec.region_px, spec.region_px)
        codes = self._tissue.codes_at(xy_lv0, (spec.tile_px, spec.tile_px), scale * spec.tiles_per_side)
        covered = codes >= FOLD
        mask = self._annotation.mask(xy_lv0, side, scale)
        if not mask.any() and covered.mean() < max(self._settings.min_tissue_fraction, 1e-9):
            return None
        low_side = spec.tile_px // spec.tiles_per_side
        kept = np.asarray(cut(covered.view(np.uint8), low_side).any(axis=(2, 3)))  # (n, n)
        kept |= cut(mask, spec.tile_px).any(axis=(2, 3))
        if any(corner + self.side_lv0 > end for corner, end in zip(xy_lv0, self._info.size_lv0, strict=True)):
            mask[~inside(xy_lv0, spec.region_px, scale, self._info.size_lv0)] = IGNORE
        images, low_image = self._reader.region(xy_lv0, kept)
        return Region(
            xy_lv0=xy_lv0,
            low_image=low_image,
            low_mask=area_majority(mask, spec.tiles_per_side),
            row_col=np.argwhere(kept).astype(np.uint8),
            images=images,
            masks=cut(mask, spec.tile_px)[kept],
            quality=RegionQuality.of(codes, kept, images, spec.mpp),
        )
