"""Map the lesion probability of one slide, by one model or an ensemble, and record how (METHOD.md §5)."""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import zip_longest
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from scipy.special import expit

from lesionmap.errors import ModelError
from lesionmap.files.model_metadata import FOR_MAPS, load_metadata
from lesionmap.files.records import read_json, sha256, write_json
from lesionmap.geometry.resampling import block_mean
from lesionmap.inference.engines import Engine, EngineFiles, EngineSettings, open_engine
from lesionmap.inference.ensemble import Ensemble, check_members, mean_of
from lesionmap.inference.recalibration import Recalibration
from lesionmap.inference.refinement import Fusion, Refined, RefineSettings, refine_maps
from lesionmap.inference.settings import (
    LESION_REFINEMENT,
    NO_REFINEMENT,
    REFINED_EVERYWHERE,
    MapSettings,
    overlap_px,
    view_of,
)
from lesionmap.inference.sliding_window import PassSettings, SlideMap, sliding_window_maps
from lesionmap.maps.ome_tiff import MapNotes, map_frame, write_map
from lesionmap.maps.on_disk import on_disk, strips
from lesionmap.maps.probability import EVEN, PER_LOGIT, SPREAD_PER_SD, as_u8, chosen_threshold
from lesionmap.slides.slide import SlideInfo
from lesionmap.stain.reference import reference_of
from lesionmap.stain.table import StainMatch
from lesionmap.tissue.mask import TissueMask

STAGE = "map_slide"
CHANNEL = "lesion probability x 255"
SCORES_CHANNEL = f"lesion logit x {PER_LOGIT} + {EVEN}, 0 without tissue"
SPREAD_CHANNEL = f"standard deviation of the models' lesion probabilities x {SPREAD_PER_SD}, 0 without tissue"
START_AGAIN = "run the workflow again from its start with this model as model.path"


@dataclass(frozen=True)
class MapInputs:
    """Paths of the slide's tissue mask, its stain match to the reference, and the model.

    Parameters
    ----------
    models : sequence of EngineFiles
        The model; or several, trained with the same tiles and stain reference, of which the mean is mapped.
    """

    tissue: str
    stain: str
    models: Sequence[EngineFiles]

    @property
    def paths(self) -> list[str]:
        """The model files."""
        return [one.model for one in self.models]


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
    uncertainty : str, optional
        OME-TIFF pyramid of the spread between the models (:class:`lesionmap.inference.ensemble.Ensemble`).
    """

    probability: str
    scores: str
    record: str
    uncertainty: str | None = None


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

    The map of several models is the mean of the maps that each of them makes alone; the slide is read once.

    Parameters
    ----------
    threads : int
        CPU cores to use; the map does not depend on it.

    Raises
    ------
    ModelError
        If a model cannot be used, does not fit the settings, the other models or the slide's stain, cannot be
        recalibrated, gives a probability that is not a number, or if no engine can run it. That stops the job: no slide
        is to blame.
    SettingsError
        If this machine does not have the engine or the precision that is asked for.
    SlideError
        If too many tiles cannot be read.
    """
    models, folder = _loaded(inputs, files, settings), Path(files.record).parent
    recalibrations = [recalibration_of(settings, *one) for one in zip(inputs.paths, models, strict=True)]
    stain = stain_of(info.slide, inputs, models[0])
    table, engines, chosen = _made_ready(inputs, stain, engine, models[0]["tiles"]["tile_px"], threads)
    tissue, refined = TissueMask(inputs.tissue, info), []
    try:
        first = _pass_settings(settings, models[0])
        maps = sliding_window_maps(info, tissue, table, engines, first, folder=folder, threads=threads)
        if settings.refine != NO_REFINEMENT:
            refining = [_refine_settings(settings, *one) for one in zip(models, inputs.paths, strict=True)]
            refined = refine_maps(maps, info, tissue, stain, engines, settings=refining, threads=threads)
    except FloatingPointError as error:
        raise _not_finite(info.slide, error) from error
    for one, recalibration in zip(maps, recalibrations, strict=True):
        tissue.clear_background(one.scores, one.mpp / info.mpp)
        if recalibration:
            recalibration.apply(one.scores)
    ensemble = mean_of([one.scores for one in maps], folder) if len(maps) > 1 else None
    mapped = replace(maps[0], scores=ensemble.scores) if ensemble else maps[0]
    provenance = provenance | _origins(inputs.paths, models, chosen)
    thresholds = [_threshold(settings, *one) for one in zip(models, recalibrations, strict=True)]
    facts = {"view": _views(settings, models), "validated_threshold": mean_threshold(thresholds)}
    _write_maps(files, info, mapped, ensemble, facts | {"provenance": provenance})
    passes = [_pass_record(settings.refine, *one) for one in zip_longest(maps, refined, recalibrations)]
    how = ensemble.record(inputs.paths, thresholds, passes) if ensemble else passes[0]
    _write_record(files.record, info, mapped, how | {"provenance": provenance})
    logging.info("%s: %d tiles mapped, %d without tissue", info.slide, mapped.n_read, mapped.n_skipped)


def _loaded(inputs: MapInputs, files: MapFiles, settings: MapSettings) -> list[dict[str, Any]]:
    """Metadata of the models, which fit each other and the settings."""
    models = [load_metadata(path, FOR_MAPS) for path in inputs.paths]
    check_members(inputs.paths, models, least=2 if files.uncertainty else 1)
    check_tiles(settings, models[0])
    return models


def _made_ready(
    inputs: MapInputs, stain: StainMatch, engine: EngineSettings, tile_px: int, threads: int
) -> tuple[NDArray[np.uint8], list[Engine], list[dict[str, Any]]]:
    """The slide's table of colours, the engines and records of their choice; side by side, as each takes its time."""
    with ThreadPoolExecutor(1) as beside:
        table = beside.submit(stain.table, threads)
        opened = [open_engine(files, engine, tile_px, threads) for files in inputs.models]
    return table.result(), [network for network, _ in opened], [chosen for _, chosen in opened]


def _write_maps(
    files: MapFiles, info: SlideInfo, mapped: SlideMap, ensemble: Ensemble | None, metadata: dict[str, Any]
) -> None:
    """Write the map as probability and as scores, and the models' spread, with the same metadata."""
    facts = {"frame": map_frame(mapped.mpp, info.mpp), "unreadable": mapped.unreadable} | metadata
    probability_u8 = on_disk(mapped.scores.shape, np.uint8, Path(files.record).parent)
    for part in strips(len(mapped.scores)):
        probability_u8[part] = as_u8(mapped.scores[part])
    write_map(files.probability, probability_u8, MapNotes(info.slide, CHANNEL, mapped.mpp, facts), block_mean)
    write_map(files.scores, mapped.scores, MapNotes(info.slide, SCORES_CHANNEL, mapped.mpp, facts))
    if ensemble and files.uncertainty:
        notes = MapNotes(info.slide, SPREAD_CHANNEL, mapped.mpp, facts)
        write_map(files.uncertainty, ensemble.spread, notes, block_mean)


def _not_finite(slide: str, error: FloatingPointError) -> ModelError:
    """About the model: with the slide as its subject, the slide would go into quarantine."""
    return ModelError(
        stage=STAGE,
        finding=f"the model {error} gives no probability on slide {slide} (a logit is NaN or infinite); its weights "
        "are unusable",
        remedy="train it anew with a lower train.learning_rate, or give another model as model.path",
    )


def validated_threshold(settings: MapSettings, model: dict[str, Any]) -> float | None:
    """The best threshold on the model's validation slides, for such maps before recalibration; None if it has none."""
    found = model.get("epoch", {}).get(f"val_{_view(settings, model)}_threshold")
    return None if found is None else float(found)


def mean_threshold(validated: Sequence[float | None]) -> float | None:
    """The mean of the models' validated thresholds; None if one has none."""
    found = [threshold for threshold in validated if threshold is not None]
    return fmean(found) if len(found) == len(validated) else None


def _origins(
    paths: Sequence[str], models: Sequence[dict[str, Any]], chosen: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """The engine, the SHA-256 and the training of the model; of several, those of each in a list."""
    training = [model["provenance"] for model in models]
    origins: dict[str, list[Any]] = {"engine": [*chosen], "model": [*map(sha256, paths)], "model_training": training}
    return dict(origins) if len(models) > 1 else {name: of_each[0] for name, of_each in origins.items()}


def recalibration_of(settings: MapSettings, path: str, model: dict[str, Any]) -> Recalibration | None:
    """How the maps of a model are recalibrated; None if they are not.

    Raises
    ------
    ModelError
        If they are to be, and the model file does not say how.
    """
    return Recalibration.of(path, model, _view(settings, model)) if settings.recalibrate else None


def _threshold(settings: MapSettings, model: dict[str, Any], recalibration: Recalibration | None) -> float | None:
    """The validated threshold of a map as it is written."""
    found = validated_threshold(settings, model)
    return found if found is None or not recalibration else recalibration.of_threshold(found)


def _view(settings: MapSettings, model: dict[str, Any]) -> str:
    return view_of(settings.refine, model["architecture"].get("fusion", ""))


def _views(settings: MapSettings, models: Sequence[dict[str, Any]]) -> str:
    return " and ".join(sorted({_view(settings, model) for model in models}))


def _refine_settings(settings: MapSettings, model: dict[str, Any], path: str) -> RefineSettings:
    asked = settings.threshold if settings.refine == LESION_REFINEMENT and settings.threshold is not None else 0.0
    threshold = chosen_threshold(asked, validated_threshold(settings, model), STAGE)
    return RefineSettings(
        spec=settings.tiles,
        looked_at=settings.refined_range(threshold),
        fusion=fusion_of_model(path, model["architecture"].get("fusion", "mean")),
        t2_of_first_pass=settings.t2_of_first_pass,
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


def _pass_record(
    refine: str, mapped: SlideMap, refined: Refined | None, recalibration: Recalibration | None
) -> dict[str, Any]:
    """How one model's map was made; its seams are those of the tiles that the map shows."""
    first = [] if refine == REFINED_EVERYWHERE else [mapped.seam_measure]
    seams = [*first, *([refined.seam_measure] if refined else [])]
    return {
        "seam_measure": max((seam for seam in seams if seam is not None), default=None),
        "refined": refined and asdict(refined),
        "recalibration": recalibration and asdict(recalibration),
    }


def _write_record(path: str, info: SlideInfo, mapped: SlideMap, how: dict[str, Any]) -> None:
    height, width = mapped.scores.shape
    content = {
        "slide": info.slide,
        "map": {"mpp": mapped.mpp, "width": width, "height": height},
        "tiles": {"read": mapped.n_read, "skipped": mapped.n_skipped, "unreadable": len(mapped.unreadable)},
        "unreadable": mapped.unreadable,
    }
    write_json(path, content | how)


def stain_of(slide: str, inputs: MapInputs, model: dict[str, Any]) -> StainMatch:
    """How a slide's stain is matched to the reference that the model was trained with.

    Raises
    ------
    ModelError
        If the slide was matched to another reference.
    """
    match = StainMatch.of(read_json(inputs.stain))
    if match.reference != reference_of(inputs.paths[0], model):
        raise ModelError(
            stage=STAGE,
            finding=f"{slide} is matched to another stain than the model was trained on ({inputs.stain})",
            remedy=START_AGAIN,
        )
    return match
