"""Map the lesion probability of one slide, and record how (METHOD.md §5)."""

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from scipy.special import expit

from lesionmap.errors import ModelError
from lesionmap.files.model_metadata import FOR_MAPS, load_metadata
from lesionmap.files.records import read_json, write_json
from lesionmap.geometry.resampling import block_mean
from lesionmap.inference.engines import Engine, EngineFiles, EngineSettings, open_engine
from lesionmap.inference.recalibration import Recalibration
from lesionmap.inference.refinement import Fusion, Refined, RefineSettings, refine_map
from lesionmap.inference.settings import LESION_REFINEMENT, NO_REFINEMENT, MapSettings, overlap_px, view_of
from lesionmap.inference.sliding_window import PassSettings, SlideMap, sliding_window_map
from lesionmap.maps.ome_tiff import MapNotes, map_frame, write_map
from lesionmap.maps.on_disk import on_disk, strips
from lesionmap.maps.probability import EVEN, PER_LOGIT, as_u8, chosen_threshold
from lesionmap.slides.slide import SlideInfo
from lesionmap.stain.reference import reference_of
from lesionmap.stain.table import StainMatch
from lesionmap.tissue.mask import TissueMask

STAGE = "map_slide"
CHANNEL = "lesion probability x 255"
SCORES_CHANNEL = f"lesion logit x {PER_LOGIT} + {EVEN}, 0 without tissue"
START_AGAIN = "run the workflow again from its start with this model as model.path"


@dataclass(frozen=True)
class MapInputs:
    """Paths of the slide's tissue mask, its stain match to the reference, and the model.

    Parameters
    ----------
    model : str
        The model file, with the tile size and the stain reference that it was trained with.
    onnx, check : str
        The same model for engines, and its logits on the check image (:mod:`lesionmap.network.onnx_export`).
    """

    tissue: str
    stain: str
    model: str
    onnx: str
    check: str


@dataclass(frozen=True)
class MapFiles:
    """Where a map is written.

    Parameters
    ----------
    probability : str
        OME-TIFF pyramid of probability × 255, for viewers.
    scores : str
        OME-TIFF of the scores (:mod:`lesionmap.maps.probability`), with which all later stages compute.
    record : str
        JSON: size and resolution of the map, tiles, unreadable parts, seam measure, refined regions, recalibration.
    """

    probability: str
    scores: str
    record: str


def map_slide(
    info: SlideInfo,
    inputs: MapInputs,
    files: MapFiles,
    settings: MapSettings,
    engine: EngineSettings,
    *,
    provenance: dict[str, Any],
    threads: int,
) -> None:
    """Write the probability map of one slide, its scores, and a record of how it was made.

    Parameters
    ----------
    threads : int
        CPU cores to use; the map does not depend on it.

    Raises
    ------
    ModelError
        If the model cannot be used, does not fit the settings or the slide's stain, cannot be recalibrated, gives a
        probability that is not a number, or if no engine can run it. That stops the job: no slide is to blame.
    SettingsError
        If this machine does not have the engine or the precision that is asked for.
    SlideError
        If too many tiles cannot be read.
    """
    model, folder = load_metadata(inputs.model, FOR_MAPS), Path(files.record).parent
    check_tiles(settings, model)
    recalibration = recalibration_of(settings, inputs.model, model)
    stain = stain_of(info.slide, inputs, model)
    table, network, chosen = _made_ready(inputs, stain, engine, model["tiles"]["tile_px"], threads)
    tissue, refined = TissueMask(inputs.tissue, info), None
    try:
        first = _pass_settings(settings, model)
        mapped = sliding_window_map(info, tissue, table, network, first, folder=folder, threads=threads)
        if settings.refine != NO_REFINEMENT:
            refining = _refine_settings(settings, model, inputs.model)
            refined = refine_map(mapped, info, tissue, stain, network, settings=refining, threads=threads)
    except FloatingPointError as error:
        raise _not_finite(info.slide, inputs.model, error) from error
    tissue.clear_background(mapped.scores, mapped.mpp / info.mpp)
    if recalibration:
        recalibration.apply(mapped.scores)
    provenance = provenance | {"engine": chosen, "model_training": model["provenance"]}
    threshold = validated_threshold(settings, model)
    if recalibration and threshold is not None:
        threshold = recalibration.of_threshold(threshold)
    facts = {"view": _view(settings, model), "validated_threshold": threshold, "provenance": provenance}
    _write_maps(files, info, mapped, facts)
    _write_record(files.record, info, mapped, refined, recalibration, provenance)
    logging.info("%s: %d tiles mapped, %d without tissue", info.slide, mapped.n_read, mapped.n_skipped)


def _made_ready(
    inputs: MapInputs, stain: StainMatch, engine: EngineSettings, tile_px: int, threads: int
) -> tuple[NDArray[np.uint8], Engine, dict[str, Any]]:
    """The slide's table of colours, the engine and a record of its choice; side by side, as each takes its time."""
    with ThreadPoolExecutor(1) as beside:
        table = beside.submit(stain.table, threads)
        network, chosen = open_engine(EngineFiles(inputs.model, inputs.onnx, inputs.check), engine, tile_px, threads)
    return table.result(), network, chosen


def _write_maps(files: MapFiles, info: SlideInfo, mapped: SlideMap, metadata: dict[str, Any]) -> None:
    """Write the map as probability and as scores, with the same metadata."""
    facts = {"frame": map_frame(mapped.mpp, info.mpp), "unreadable": mapped.unreadable} | metadata
    probability_u8 = on_disk(mapped.scores.shape, np.uint8, Path(files.record).parent)
    for part in strips(len(mapped.scores)):
        probability_u8[part] = as_u8(mapped.scores[part])
    write_map(files.probability, probability_u8, MapNotes(info.slide, CHANNEL, mapped.mpp, facts), block_mean)
    write_map(files.scores, mapped.scores, MapNotes(info.slide, SCORES_CHANNEL, mapped.mpp, facts))


def _not_finite(slide: str, model: str, error: FloatingPointError) -> ModelError:
    """About the model: with the slide as its subject, the slide would go into quarantine."""
    return ModelError(
        stage=STAGE,
        finding=f"the model {model} gives no probability on slide {slide} ({error}); its weights are unusable",
        remedy="train it anew with a lower train.learning_rate, or give another model as model.path",
    )


def validated_threshold(settings: MapSettings, model: dict[str, Any]) -> float | None:
    """The best threshold on the model's validation slides, for such maps before recalibration; None if it has none."""
    found = model.get("epoch", {}).get(f"val_{_view(settings, model)}_threshold")
    return None if found is None else float(found)


def recalibration_of(settings: MapSettings, path: str, model: dict[str, Any]) -> Recalibration | None:
    """How the maps of a model are recalibrated; None if they are not.

    Raises
    ------
    ModelError
        If they are to be, and the model file does not say how.
    """
    return Recalibration.of(path, model, _view(settings, model)) if settings.recalibrate else None


def _view(settings: MapSettings, model: dict[str, Any]) -> str:
    return view_of(settings.refine, model["architecture"].get("fusion", ""))


def _refine_settings(settings: MapSettings, model: dict[str, Any], path: str) -> RefineSettings:
    asked = settings.threshold if settings.refine == LESION_REFINEMENT and settings.threshold is not None else 0.0
    threshold = chosen_threshold(asked, validated_threshold(settings, model), STAGE)
    return RefineSettings(
        spec=settings.tiles,
        looked_at=settings.refined_range(threshold),
        fusion=fusion_of_model(path, model["architecture"].get("fusion", "mean")),
        flips=settings.flips,
        max_unreadable_fraction=settings.max_unreadable_fraction,
    )


def fusion_of_model(path: str, kind: str) -> Fusion:
    """How a model fuses maps; the weight of a learned fusion is in its file."""
    if kind != "learned":
        return Fusion(kind)
    with safe_open(path, framework="numpy") as file:
        return Fusion(kind, float(expit(file.get_tensor("fusion.a"))))


def _pass_settings(settings: MapSettings, model: dict[str, Any]) -> PassSettings:
    tile_px = model["tiles"]["tile_px"]
    return PassSettings(
        mpp=settings.mpp,
        tile_px=tile_px,
        overlap_px=overlap_px(settings.overlap, tile_px),
        flips=settings.flips,
        max_unreadable_fraction=settings.max_unreadable_fraction,
    )


def check_tiles(settings: MapSettings, model: dict[str, Any]) -> None:
    """Check that config and model cut slides into the same tiles, if the map depends on that.

    The config of a run has the model's, so that they differ only if the file has been exchanged since the run began.

    Raises
    ------
    ModelError
        If they do not.
    """
    asked = asdict(settings.tiles)
    differing = [key for key, value in asked.items() if model["tiles"][key] != value]
    if differing and settings.needs_training_tiles:
        raise ModelError(
            stage=STAGE,
            finding="the model was trained on "
            + ", ".join(f"tiles.{key} {model['tiles'][key]} (the config has {asked[key]})" for key in differing),
            remedy=START_AGAIN,
        )


def _write_record(
    path: str,
    info: SlideInfo,
    mapped: SlideMap,
    refined: Refined | None,
    recalibration: Recalibration | None,
    provenance: dict[str, Any],
) -> None:
    height, width = mapped.scores.shape
    content = {
        "slide": info.slide,
        "map": {"mpp": mapped.mpp, "width": width, "height": height},
        "tiles": {"read": mapped.n_read, "skipped": mapped.n_skipped, "unreadable": len(mapped.unreadable)},
        "unreadable": mapped.unreadable,
        "seam_measure": mapped.seam_measure,
        "refined": refined and asdict(refined),
        "recalibration": recalibration and asdict(recalibration),
        "provenance": provenance,
    }
    write_json(path, content)


def stain_of(slide: str, inputs: MapInputs, model: dict[str, Any]) -> StainMatch:
    """How a slide's stain is matched to the reference that the model was trained with.

    Raises
    ------
    ModelError
        If the slide was matched to another reference.
    """
    match = StainMatch.of(read_json(inputs.stain))
    if match.reference != reference_of(inputs.model, model):
        raise ModelError(
            stage=STAGE,
            finding=f"{slide} is matched to another stain than the model was trained on ({inputs.stain})",
            remedy=START_AGAIN,
        )
    return match
