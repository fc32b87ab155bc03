"""From a slide to its tile store: read, normalise, cut, draw the masks (METHOD.md §1.3)."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesionmap.errors import SlideError
from lesionmap.files import read_json
from lesionmap.masks import Annotation
from lesionmap.slides import Slide, SlideInfo, check_damage
from lesionmap.stain import StainMatch, apply_table
from lesionmap.store import Region, TileStoreWriter, new_store
from lesionmap.tiling import IGNORE, TileSpec, area_majority, area_mean, cut, grid_xy, inside
from lesionmap.tissue import TissueMask


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
    """

    spec: TileSpec
    min_tissue_fraction: float
    max_unreadable_fraction: float
    stain: StainMatch

    @classmethod
    def of(cls, tiles: Mapping[str, Any], max_unreadable_fraction: float, stain_path: str) -> "Extraction":
        """From the config section ``tiles``, a limit of ``slides``, and the slide's match."""
        spec = TileSpec(tiles["region_px"], tiles["tile_px"], tiles["mpp"])
        limits = tiles["min_tissue_fraction"], max_unreadable_fraction
        return cls(spec, *limits, StainMatch.of(read_json(stain_path)))


def extract_tiles(
    info: SlideInfo,
    tissue_path: str,
    annotation_path: str,
    output: str,
    settings: Extraction,
    provenance: dict[str, Any],
) -> None:
    """Write the tile store of one slide.

    Parameters
    ----------
    info : SlideInfo
    tissue_path, annotation_path : str
        The slide's tissue mask and canonical annotation.
    output : str
        HDF5 file.
    settings : Extraction
    provenance : dict

    Raises
    ------
    SlideError
        If too many regions cannot be read, or none has tissue.
    """
    attributes = {
        "slide": info.slide,
        "identity": info.identity,
        "mpp_lv0": info.mpp,
        "stain": settings.stain.as_record(),
        "provenance": provenance,
    }
    regions = cut_slide(info, TissueMask(tissue_path, info), Annotation(annotation_path), settings)
    with new_store(output, settings.spec, attributes) as store:
        stored, unreadable = _fill(store, regions, settings.spec.region_side_lv0(info.mpp))
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
    store: TileStoreWriter, regions: Iterator[tuple[tuple[float, float], Region | SlideError]], side_lv0: float
) -> tuple[int, list[SlideError]]:
    """Store regions; how many there are, and the errors of those that cannot be read."""
    stored, unreadable = 0, []
    for xy, region in regions:
        if isinstance(region, SlideError):
            logging.warning("%s", region)
            unreadable.append(region)
            store.skip((*xy, side_lv0, side_lv0))
        else:
            store.append(region)
            stored += 1
    return stored, unreadable


def cut_slide(
    info: SlideInfo, tissue: TissueMask, annotation: Annotation, settings: Extraction
) -> Iterator[tuple[tuple[float, float], Region | SlideError]]:
    """Corner and content of the regions that have tissue or an annotation, row by row; the error of unreadable ones.

    Tiles without either are left out of a region.
    """
    spec = settings.spec
    table = settings.stain.table()
    scale = spec.mpp / info.mpp
    side = (spec.region_px, spec.region_px)
    with Slide(info, "extract_tiles") as slide:
        for x, y in grid_xy(info.size_lv0, spec.region_side_lv0(info.mpp)):
            covered = tissue.at((x, y), side, scale)
            mask = annotation.mask((x, y), side, scale)
            if not mask.any() and covered.mean() < max(settings.min_tissue_fraction, 1e-9):
                continue
            mask[~inside((x, y), spec.region_px, scale, info.size_lv0)] = IGNORE
            try:
                image = apply_table(table, slide.read((x, y), side, spec.mpp))
            except SlideError as error:
                yield (x, y), error
                continue
            outlined = (mask != 0) & (mask != IGNORE)
            yield (x, y), _region((x, y), image, mask, (covered | outlined).view(np.uint8), spec)


def _region(
    xy_lv0: tuple[float, float],
    image: NDArray[np.uint8],
    mask: NDArray[np.uint8],
    wanted: NDArray[np.uint8],
    spec: TileSpec,
) -> Region:
    kept = cut(wanted, spec.tile_px).any(axis=(2, 3))  # (n, n)
    return Region(
        xy_lv0=(float(xy_lv0[0]), float(xy_lv0[1])),
        low_image=area_mean(image, spec.tiles_per_side),
        low_mask=area_majority(mask, spec.tiles_per_side),
        row_col=np.argwhere(kept).astype(np.uint8),
        images=cut(image, spec.tile_px)[kept],
        masks=cut(mask, spec.tile_px)[kept],
    )
