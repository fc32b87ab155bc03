"""The pass over a whole slide and what is written of it (METHOD.md §5)."""

import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from lesionmap.errors import ModelError
from lesionmap.files.model_metadata import load_facts
from lesionmap.files.records import read_json, write_json
from lesionmap.inference.refinement import Refined, RefineSettings, refine_map
from lesionmap.inference.settings import NO_REFINEMENT, VALIDATION, InferenceSettings, overlap_px
from lesionmap.inference.sliding_window import PassSettings, SlideMap, map_slide
from lesionmap.lesions.export import LesionFiles, export_lesions
from lesionmap.lesions.find_lesions import lesions_from
from lesionmap.lesions.postprocessing import Tidying, tidied
from lesionmap.maps.probability import first_positive_level
from lesionmap.network.forward import pick_device
from lesionmap.network.model_file import load_model
from lesionmap.network.resources import AUTO, MOST_TILES_ON_CPU
from lesionmap.slides.slide import SlideInfo
from lesionmap.stain.profile import StainProfile
from lesionmap.stain.table import StainMatch
from lesionmap.tissue.mask import TissueMask


def infer_slide(
    info: SlideInfo,
    tissue_path: str,
    stain_path: str,
    model_path: str,
    files: LesionFiles,
    record: str,
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
    record : str
        JSON: how the map was made, and how it came out.
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
    check_tiles(settings, facts)
    settings = replace(settings, threshold=threshold_of(settings, facts))
    mapped, refined = _mapped(info, tissue_path, stain_path, model_path, facts, settings, record, threads)
    provenance = provenance | {"model_training": facts["provenance"]}
    facts_beside = {"unreadable": mapped.unreadable, "threshold": settings.threshold, "provenance": provenance}
    folder = Path(record).parent
    lesions = lesions_from(mapped.levels, first_positive_level(float(settings.threshold)), folder)
    tidying = Tidying(settings.smoothing_um, settings.min_lesion_area_um2)
    lesions, areas = tidied(lesions, tidying, mapped.mpp, folder)
    n, area_mm2 = export_lesions(files, mapped.levels, lesions, info=info, mpp=mapped.mpp, facts=facts_beside)
    facts_of_lesions = {"threshold": settings.threshold, "n": n, **areas}
    _write_record(record, info, mapped, refined, facts_of_lesions, provenance)
    logging.info("%s: %d lesions, %.3f mm²", info.slide, n, area_mm2)


def _mapped(
    info: SlideInfo,
    tissue_path: str,
    stain_path: str,
    model_path: str,
    facts: dict[str, Any],
    settings: InferenceSettings,
    beside: str,
    threads: int,
) -> tuple[SlideMap, Refined | None]:
    """The pass over the slide, and the second look if one is asked for; the map lies on the disk of `beside`."""
    model = load_model(model_path).to(pick_device(), memory_format=torch.channels_last)  # type: ignore[call-overload]
    inputs = (info, TissueMask(tissue_path, info), stain_of(info.slide, stain_path, facts), model)
    mapped = map_slide(*inputs, _pass_settings(settings, facts), Path(beside).parent, threads=threads)
    if settings.refine == NO_REFINEMENT:
        return mapped, None
    return mapped, refine_map(mapped, *inputs, _refine_settings(settings, facts), threads=threads)


def threshold_of(settings: InferenceSettings, facts: dict[str, Any]) -> float:
    """Probability from which a pixel is lesion.

    Raises
    ------
    ModelError
        If the model is to say it, and does not.
    """
    if settings.threshold != VALIDATION:
        return float(settings.threshold)
    found = facts.get("epoch", {}).get(f"val_{settings.view}_threshold")
    if found is None:
        raise ModelError(
            stage="infer_slide",
            finding=f"inference.threshold is {VALIDATION}, but the model does not say which threshold suits the "
            f"{settings.view} view best: it was trained without a validation slide that has a lesion, or without that "
            "view",
            remedy="set inference.threshold to a number such as 0.5, or train with slides of the split val",
        )
    return float(found)


def _refine_settings(settings: InferenceSettings, facts: dict[str, Any]) -> RefineSettings:
    return RefineSettings(
        spec=settings.tiles,
        levels=settings.refined_levels(first_positive_level(float(settings.threshold))),
        tile_batch=tile_batch_of(facts),
        flips=settings.flips,
        max_unreadable_fraction=settings.max_unreadable_fraction,
    )


def tile_batch_of(facts: dict[str, Any]) -> int:
    """Tiles in the network at once: those of training where they share the statistics of batch norm, else few."""
    trained = facts["provenance"].get("train", {}).get("tile_batch", AUTO)
    return trained if facts["architecture"]["norm"] == "batch" and trained != AUTO else MOST_TILES_ON_CPU


def _pass_settings(settings: InferenceSettings, facts: dict[str, Any]) -> PassSettings:
    tile_px = facts["tiles"]["tile_px"]
    return PassSettings(
        mpp=settings.mpp,
        tile_px=tile_px,
        overlap_px=overlap_px(settings.overlap, tile_px),
        flips=settings.flips,
        batch_size=settings.batch_size,
        max_unreadable_fraction=settings.max_unreadable_fraction,
    )


def check_tiles(settings: InferenceSettings, facts: dict[str, Any]) -> None:
    """See that a map which rests on how training slides were cut finds the model cut as the config says.

    Raises
    ------
    ModelError
        If it does not.
    """
    asked = asdict(settings.tiles)
    differing = [key for key, value in asked.items() if facts["tiles"][key] != value]
    if differing and settings.needs_training_tiles:
        raise ModelError(
            stage="infer_slide",
            finding="the model was trained on "
            + ", ".join(f"tiles.{key} {facts['tiles'][key]} (the config has {asked[key]})" for key in differing),
            remedy="set those keys to the model's values, or inference.magnification to patent and inference.refine "
            "to none",
        )


def _write_record(
    path: str,
    info: SlideInfo,
    mapped: SlideMap,
    refined: Refined | None,
    lesions: dict[str, Any],
    provenance: dict[str, Any],
) -> None:
    height, width = mapped.levels.shape
    content = {
        "slide": info.slide,
        "map": {"mpp": mapped.mpp, "width": width, "height": height},
        "tiles": {"read": mapped.n_read, "skipped": mapped.n_skipped, "unreadable": len(mapped.unreadable)},
        "unreadable": mapped.unreadable,
        "seam_measure": mapped.seam_measure,
        "refined": refined and asdict(refined),
        "lesions": lesions,
        "provenance": provenance,
    }
    write_json(path, content)


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
