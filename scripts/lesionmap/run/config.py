"""Check the config, with messages that say what to change, and select the settings of each rule."""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

from lesionmap.errors import SettingsError
from lesionmap.files.schema import listed, problems_of, read_schema
from lesionmap.geometry.tiling import TileSpec
from lesionmap.inference.settings import LESION_REFINEMENT, NO_REFINEMENT, REFINED_EVERYWHERE, map_mpp, view_of
from lesionmap.network.settings import TILES
from lesionmap.servers.urls import is_remote
from lesionmap.slides.sheet import SlideRow
from lesionmap.tiles.codec import LOSSLESS
from lesionmap.training.settings import fusion_of

NOT_INSPECTED = ("sheet", "ignored_columns", "roots", "copies")
MACHINE_SETTINGS = ("device", "checkpoint_minutes", "batch_size")


def inference_mpp(config: Mapping[str, Any]) -> float:
    """Resolution of the lesion maps, µm/px."""
    return map_mpp(config["inference"]["magnification"], TileSpec(**cut_of(config)))


def cut_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """How a config cuts slides for training: the fields of :class:`lesionmap.geometry.tiling.TileSpec`."""
    return {key: config["tiles"][key] for key in ("region_px", "tile_px", "mpp")}


def check_config(config: dict[str, Any], schema_path: str | Path) -> None:
    """Check a config against its schema, and its keys against each other.

    Raises
    ------
    SettingsError
        Names every wrong key, its value, and the allowed values.
    """
    problems = list(problems_of(config, read_schema(schema_path))) or list(_contradictions(config))
    if problems:
        raise SettingsError(stage="config", finding=listed(problems), remedy="correct the keys named above")
    TileSpec(**cut_of(config))


def as_typed(value: Any, schema: Mapping[str, Any]) -> Any:
    """Give values the types that a schema wants: Snakemake's ``--config 'train={epochs: 3}'`` hands on 3 as text.

    A text that the schema accepts as it is stays, except that null is no text where there may be none. What it does not
    accept either way stays, too, for :func:`check_config` to name.
    """
    if isinstance(value, dict) and schema.get("type") == "object":
        known, others = schema.get("properties", {}), schema.get("additionalProperties")
        return {key: as_typed(item, known.get(key, others or {})) for key, item in value.items()}
    if not (isinstance(value, str | list) and schema):
        return value
    fits = Draft202012Validator(schema).is_valid
    read = _read_anew(value)
    return read if fits(read) and (read is None or not fits(value)) else value


def _read_anew(value: Any) -> Any:
    """Texts as YAML, also in a list."""
    if isinstance(value, list):
        return [_read_anew(item) for item in value]
    try:
        return yaml.safe_load(value) if isinstance(value, str) else value
    except yaml.YAMLError:
        return value


def check_files(config: Mapping[str, Any]) -> None:
    """Check that the files and folders exist that a config names, but for the stain reference and those of the sheet.

    Raises
    ------
    SettingsError
        Names every key whose file or folder is missing.
    """
    model, weights = config["model"]["path"], config["model"]["weights"]
    own_weights = None if model or weights in ("imagenet", "none") else weights
    files = {"model.path": model, "model.weights": own_weights}
    missing = [f"{key}: there is no file {path}" for key, path in files.items() if path and not Path(path).is_file()]
    missing += [
        f"evaluation.compare: there is no folder {path} ({name})"
        for name, path in config["evaluation"]["compare"].items()
        if not Path(path).is_dir()
    ]
    if missing:
        remedy = f"correct those paths; relative ones start at the working directory, {Path.cwd()}"
        raise SettingsError(stage="config", finding=listed(missing), remedy=remedy)


def _contradictions(config: Mapping[str, Any]) -> Iterator[str]:
    if config["model"]["norm"] == "frozen" and config["model"]["weights"] == "none":
        yield "model.norm: frozen statistics need pretrained weights; take group or batch with weights: none"
    if (
        config["model"]["fusion"] == TILES
        and config["train"]["schedule"] != "high_only"
        and not config["model"]["path"]
    ):
        yield "model.fusion: tiles goes with train.schedule: high_only, which sets it; take mean, max or learned"
    if config["tiles"]["store"] == "none" and config["tiles"]["codec"] != LOSSLESS:
        codec = config["tiles"]["codec"]
        yield f"tiles.codec: {codec} has no effect with store: none, which stores no tiles; set lossless"
    if config["tiles"]["store"] == "none" and config["slides"]["copies"]["of"] == "all":
        yield "slides.copies.of: all has no effect with tiles.store: none, as training reads the slides; set remote"
    device, processes = config["train"]["device"], config["train"]["processes"]
    if processes > 1 and device.startswith("cuda:"):
        yield f"train.device: {device} is one GPU, and processes: {processes} need one each; take cuda or auto"
    for section, key in (("stain", "ratio_limits"), ("inference", "unsure")):
        least, most = config[section][key]
        if least > most:
            yield f"{section}.{key}: the least, {least}, is above the largest, {most}; take [{most}, {least}]"


def inspection_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the slide inspection: the fields of :class:`lesionmap.slides.inspection.InspectionSettings`."""
    asked = {key: value for key, value in config["slides"].items() if key not in NOT_INSPECTED}
    first_pass, tiles = inference_mpp(config), config["tiles"]["mpp"]
    inference = first_pass if config["inference"]["refine"] == NO_REFINEMENT else min(first_pass, tiles)
    low_view = TileSpec(**cut_of(config)).low_mpp
    needed = {"tiles": tiles, "low_view": low_view, "inference": inference, "first_pass": first_pass}
    return asked | {"needed_mpp": needed}


def tile_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of tiles that results depend on; deleting the tile stores at the end is not one of them."""
    tiles = config["tiles"]
    return {key: value for key, value in tiles.items() if key != "store"} | {"stored": tiles["store"] != "none"}


def map_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that decide a probability map: neither batch size nor postprocessing."""
    later = () if config["inference"]["refine"] == LESION_REFINEMENT else ("threshold",)
    left_out = (*MACHINE_SETTINGS, *later, "smoothing_um", "min_lesion_area_um2")
    asked = {key: value for key, value in config["inference"].items() if key not in left_out}
    return asked | {"tiles": cut_of(config)}


def judged_view(config: Mapping[str, Any]) -> str:
    """The view in training that corresponds to the run's maps: by it, the epoch and the threshold are chosen."""
    return view_of(config["inference"]["refine"], _fusion(config))


def _fusion(config: Mapping[str, Any]) -> str:
    """How the network fuses maps: one of ``model.path`` as it says itself, another as its schedule allows."""
    asked: str = config["model"]["fusion"]
    return asked if config["model"]["path"] else fusion_of(config["train"]["schedule"], asked)


def mapped_as_trained(config: dict[str, Any]) -> dict[str, Any]:
    """The config; for a network that is trained on tiles alone, with maps that are made from tiles everywhere."""
    if _fusion(config) != TILES:
        return config
    return config | {"inference": config["inference"] | {"refine": REFINED_EVERYWHERE}}


def notes_on_maps(config: dict[str, Any], schedule: str | None) -> Iterator[str]:
    """What users should know of maps that a config asks for, from a network of a schedule; None: it is not known."""
    asked, made = config["inference"]["refine"], mapped_as_trained(config)["inference"]["refine"]
    if made != asked:
        yield (
            f"inference.refine: {made} instead of {asked}, since the network was trained on tiles alone "
            "(train.schedule: high_only) and has learned nothing of the low-resolution view"
        )
    elif schedule in ("joint", "sequential") and asked == NO_REFINEMENT:
        yield (
            f"inference.refine: {NO_REFINEMENT} makes maps from the low-resolution view alone, as the method does, but "
            f"the network was trained to have it fused with its tiles (train.schedule: {schedule}); in a trial it did "
            "worse so than one that was trained on that view alone. Try inference.refine: all or unsure"
        )


def lesion_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that decide the lesions of a probability map."""
    return {key: config["inference"][key] for key in ("threshold", "smoothing_um", "min_lesion_area_um2")}


def train_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of training that results depend on: neither the device nor how often it saves."""
    return {key: value for key, value in config["train"].items() if key not in MACHINE_SETTINGS}


def check_remote(config: Mapping[str, Any], rows: Mapping[str, SlideRow]) -> None:
    """Check that training would not read slides from a server.

    Raises
    ------
    SettingsError
        If it would.
    """
    read_in_training = [row.slide for row in rows.values() if row.split in ("train", "val") and is_remote(row.path)]
    if config["tiles"]["store"] == "none" and read_in_training:
        raise SettingsError(
            stage="config",
            finding="with tiles.store: none, training reads the slides themselves, and "
            f"{', '.join(read_in_training[:3])} are on a server",
            remedy="set tiles.store to keep, or copy the slides for training to a folder of your own",
        )


def reference_file(config: Mapping[str, Any], rows: Mapping[str, SlideRow]) -> str | None:
    """The file with the stain reference (model or profile); None if the reference is a slide or ``auto``.

    Raises
    ------
    SettingsError
        If `stain.reference` is neither a slide of the sheet, nor ``auto``, nor a file.
    """
    named, model = config["stain"]["reference"], config["model"]["path"]
    if model or named in rows or named == "auto":
        return str(model) if model else None
    if named.endswith(".json") and Path(named).is_file():
        return str(named)
    near = get_close_matches(named, rows) or list(rows)[:3]
    missing = f" that exists in {Path.cwd()}" if named.endswith(".json") else ""
    raise SettingsError(
        stage="config",
        finding=f"stain.reference is '{named}', which is neither a slide of the sheet nor a profile (.json){missing}",
        remedy=f"name one of its slides, e.g. {', '.join(near)}, or set auto",
    )
