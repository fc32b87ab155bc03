"""The pass over a whole slide and what is written of it (METHOD.md §5)."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lesionmap.errors import ModelError, SlideError
from lesionmap.export import LesionFiles, export_lesions, lesions_from
from lesionmap.files import read_json
from lesionmap.logs import progress
from lesionmap.metrics import as_levels, first_positive_level
from lesionmap.model import LesionFPN, load_model, mixed_precision, pick_device
from lesionmap.model_facts import load_facts
from lesionmap.slides import Slide, SlideInfo, check_damage
from lesionmap.stain import StainMatch, StainProfile
from lesionmap.stain_torch import TableOnDevice
from lesionmap.tiling import grid_xy, map_size
from lesionmap.tissue import TissueMask
from lesionmap.workers import Workers


@dataclass(frozen=True)
class InferenceSettings:
    """The pass: at `mpp` µm/px, `batch_size` tiles at a time, lesion from probability `threshold`.

    A slide of whose tiles more than `max_unreadable_fraction` cannot be read is refused.
    """

    mpp: float
    batch_size: int
    threshold: float
    max_unreadable_fraction: float


def infer_slide(
    info: SlideInfo,
    tissue_path: str,
    stain_path: str,
    model_path: str,
    files: LesionFiles,
    settings: InferenceSettings,
    provenance: dict[str, Any],
    *,
    threads: int,
) -> None:
    """Map the lesions of one slide.

    Parameters
    ----------
    info : SlideInfo
    tissue_path, stain_path : str
        The slide's tissue mask and how it is brought to the reference's stain.
    model_path : str
        Model file; it carries the tile side and the stain reference it was trained with.
    files : LesionFiles
    settings : InferenceSettings
    provenance : dict
    threads : int
        CPU cores to use; the maps do not depend on it.

    Raises
    ------
    SlideError
        If too many tiles cannot be read.
    """
    facts = load_facts(model_path)
    levels, unreadable = probability_map(
        info,
        TissueMask(tissue_path, info),
        stain_of(info.slide, stain_path, facts),
        load_model(model_path).to(pick_device(), memory_format=torch.channels_last),  # type: ignore[call-overload]
        tile_px=facts["tiles"]["tile_px"],
        settings=settings,
        threads=threads,
    )
    provenance = provenance | {"model_training": facts["provenance"]}
    facts_beside = {"unreadable": unreadable, "provenance": provenance}
    lesions = lesions_from(levels, first_positive_level(settings.threshold), Path(files.lesions).parent)
    n, area_mm2 = export_lesions(files, levels, lesions, info=info, mpp=settings.mpp, facts=facts_beside)
    logging.info("%s: %d lesions, %.3f mm²", info.slide, n, area_mm2)


def probability_map(
    info: SlideInfo,
    tissue: TissueMask,
    stain: StainMatch,
    model: LesionFPN,
    *,
    tile_px: int,
    settings: InferenceSettings,
    threads: int,
) -> tuple[NDArray[np.uint8], list[list[float]]]:
    """Lesion probability of the whole slide at `settings.mpp`.

    Returns
    -------
    levels : (H, W) uint8
        Probability × 255; 0 without tissue and where the slide cannot be read.
    unreadable : list of [x, y, width, height]
        Tiles that cannot be read, level-0 pixels.
    """
    scale = settings.mpp / info.mpp
    width, height = map_size(info.size_lv0, scale)
    result = np.zeros((height, width), dtype=np.uint8)
    corners = [
        xy for xy in grid_xy(info.size_lv0, tile_px * scale) if tissue.at(tuple(xy), (tile_px, tile_px), scale).any()
    ]
    failed: list[SlideError] = []
    unreadable: list[list[float]] = []
    with (
        Slide(info, "infer_slide") as slide,
        Workers(threads, model.mean.device) as workers,
        progress(len(corners), f"infer {info.slide}", "tile") as bar,
    ):
        reader = TileReader(slide, tile_px, settings)
        tiles = _map_tiles(reader, TableOnDevice(stain.table(), model.mean.device), model, corners, workers)
        for xy, tile in tiles:
            bar.update()
            if isinstance(tile, SlideError):
                failed.append(tile)
                unreadable.append([*map(float, xy), tile_px * scale, tile_px * scale])
                continue
            left, top = (round(float(part) / scale) for part in xy)
            place = result[top : top + tile_px, left : left + tile_px]
            place[:] = tile[: place.shape[0], : place.shape[1]]
    check_damage(info, "infer_slide", failed, len(corners), settings.max_unreadable_fraction)
    return result, unreadable


def stain_of(slide: str, path: str, facts: dict[str, Any]) -> StainMatch:
    """How a slide is brought to the stain that the model with these facts was trained on.

    Raises
    ------
    ModelError
        If the slide was matched to another stain.
    """
    match = StainMatch.of(read_json(path))
    if match.reference != StainProfile.of(facts["stain_reference"]):
        raise ModelError(
            stage="infer_slide",
            finding=f"{slide} is matched to another stain than the model was trained on ({path})",
            remedy="run the workflow again from its start with this model as model.path",
        )
    return match


@dataclass(frozen=True)
class TileReader:
    """Reads the tiles of one pass from `slide`, `tile_px` wide."""

    slide: Slide
    tile_px: int
    settings: InferenceSettings

    def read(self, xy_lv0: NDArray[np.float64]) -> NDArray[np.uint8] | SlideError:
        """The tile with its top-left corner at `xy_lv0`; the error if it cannot be read."""
        try:
            return self.slide.read(tuple(xy_lv0), (self.tile_px, self.tile_px), self.settings.mpp)
        except SlideError as error:
            return error


def _map_tiles(
    reader: TileReader,
    table: TableOnDevice,
    model: LesionFPN,
    corners: list[NDArray[np.float64]],
    workers: Workers,
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.uint8] | SlideError]]:
    """Corner and probability × 255 of each tile, in order; the error of those that cannot be read."""

    def run(batch: list[NDArray[np.float64]]) -> list[NDArray[np.uint8] | SlideError]:
        tiles = [reader.read(xy) for xy in batch]
        images = [tile for tile in tiles if not isinstance(tile, SlideError)]
        maps = iter(_probabilities(model, table.normalised(np.stack(images))) if images else ())
        return [tile if isinstance(tile, SlideError) else next(maps) for tile in tiles]

    step = reader.settings.batch_size
    batches = [corners[first : first + step] for first in range(0, len(corners), step)]
    for batch, tiles in zip(batches, workers.map(run, batches), strict=True):
        yield from zip(batch, tiles, strict=True)


@torch.no_grad()
def _probabilities(model: LesionFPN, images: torch.Tensor) -> NDArray[np.uint8]:
    """(N, H, W, 3) uint8 → (N, H, W) uint8 levels; tile by tile on a CPU, where a batch only takes memory."""
    batch = images.permute(0, 3, 1, 2)  # (N, 3, H, W)
    step = 1 if batch.device.type == "cpu" else len(batch)
    with mixed_precision(batch.device):
        logits = torch.cat([model(batch[first : first + step]) for first in range(0, len(batch), step)])
    return as_levels(torch.sigmoid(logits.float())[:, 0].cpu().numpy())
