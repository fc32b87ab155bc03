"""Settings that a model brings: a run with ``model.path`` adopts them, and refuses a config that contradicts."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from lesionmap.errors import ModelError, SettingsError
from lesionmap.files.schema import listed, read_schema
from lesionmap.network.settings import ModelSettings
from lesionmap.run.config import check_config, cut_of, judged_view, mapped_as_trained, notes_on_maps
from lesionmap.stain.profile import StainProfile

# What decides the images that the network sees, besides `tiles`. `slides.reader` is not among it, because all readers
# give the same pixels. Neither is `inference`, which says where, and how fine, a model looks: no weight depends on it.
INPUT_KEYS = {
    "slides": ("apply_icc", "mpp_from_objective"),
    "tissue": ("mpp", "min_area_um2", "min_hole_um2"),
    "stain": ("method", "fallback", "ratio_limits", "n_pixels", "seed", "white_point"),
}
# Facts about the slides at hand, as in the slide sheet: those of the training slides need not hold for others.
OF_SLIDES = {("slides", "mpp_from_objective"), ("stain", "white_point")}
Key = tuple[str, str]  # section and name
Values = dict[Key, Any]


@dataclass(frozen=True)
class RunConfig:
    """The config of a run with the settings of its model, and notes on what has come from it and on how it is used."""

    config: dict[str, Any]
    notes: tuple[str, ...] = ()


def input_settings(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Settings that decide the images that the network sees, besides those of tiles; a model file records them."""
    return {section: {key: config[section][key] for key in keys} for section, keys in INPUT_KEYS.items()}


def adopt_model(config: dict[str, Any], schema_path: str | Path) -> RunConfig:
    """The settings of a run: those of a checked config, and of the model of ``model.path``, if it names one.

    A key that has the default of the schema takes the model's value. Any other value must be the model's.

    Raises
    ------
    SettingsError
        If the config contradicts the model; the message has all such keys, and both values.
    ModelError
        If the file is no model, its settings are impossible, or its maps cannot be recalibrated as the config asks.
    """
    path = config["model"]["path"]
    if path is None:
        return RunConfig(mapped_as_trained(config), tuple(notes_on_maps(config, config["train"]["schedule"])))
    from lesionmap.files.model_metadata import FOR_MAPS, load_metadata  # most jobs do without
    from lesionmap.inference.recalibration import Recalibration
    from lesionmap.stain.reference import reference_of

    model = load_metadata(path, FOR_MAPS)
    theirs = _settings_of(path, model)
    differing = {place: value for place, value in theirs.items() if config[place[0]][place[1]] != value}
    adopted = {place: value for place, value in differing.items() if place not in OF_SLIDES}
    _check_agreement(path, adopted, config, read_schema(schema_path), reference_of(path, model))
    settings = {
        section: content | {key: value for (part, key), value in adopted.items() if part == section}
        if isinstance(content, dict)
        else content
        for section, content in config.items()
    }
    _check(path, settings, schema_path)
    schedule = model["provenance"].get("train", {}).get("schedule")
    notes = (*_notes(theirs, differing, config), *notes_on_maps(settings, schedule))
    settings = mapped_as_trained(settings)
    if settings["inference"]["recalibrate"]:
        Recalibration.of(path, model, judged_view(settings))
    return RunConfig(settings, notes)


def _settings_of(path: str, model: Mapping[str, Any]) -> Values:
    """The settings that a model file brings; an older one has no ``input``."""
    recorded = model.get("input", {})
    unknown = [
        f"{part}.{key}" for part, keys in recorded.items() for key in keys if key not in INPUT_KEYS.get(part, ())
    ]
    if unknown:
        raise ModelError(
            stage="model",
            finding=f"{path} was trained with settings that this version does not know: {', '.join(unknown)}",
            remedy=f"use the version that trained it ({model['provenance'].get('software', 'not recorded')})",
        )
    sections = recorded | {"tiles": cut_of(model), "model": asdict(ModelSettings(**model["architecture"]))}
    return {(section, key): value for section, content in sections.items() for key, value in content.items()}


def _check_agreement(
    path: str, differing: Values, config: Mapping[str, Any], schema: Mapping[str, Any], reference: StainProfile
) -> None:
    """Refuse a config in which a key has neither the model's value nor the default."""
    asked = {place: config[place[0]][place[1]] for place in differing}
    changed = {place: value for place, value in differing.items() if asked[place] != _default(schema, place)}
    lines = [
        f"{'.'.join(place)}: {value} in the model, {asked[place]} in the config" for place, value in changed.items()
    ]
    named = config["stain"]["reference"]
    if named.endswith(".json") and _profile(named) != reference:
        changed[("stain", "reference")] = "auto"
        lines.append(f"stain.reference: another stain in the model than in {named}")
    if lines:
        raise SettingsError(
            stage="config",
            finding=f"the model {path} was trained with other settings than the config has:{listed(lines)}",
            remedy="remove these keys from the config, since a model brings its own, or set them to\n\n"
            f"{_as_yaml(changed)}\nTo use your settings, train a model with them (model.path: null)",
        )


def _profile(path: str) -> StainProfile:
    from lesionmap.stain.reference import read_candidate

    return read_candidate(path).profile


def _default(schema: Mapping[str, Any], place: Key) -> Any:
    """The shipped value of a key. It is in the schema, too, because people change config.yaml itself."""
    section, key = place
    return schema["properties"][section]["properties"][key]["default"]


def _as_yaml(values: Values) -> str:
    sections: dict[str, dict[str, Any]] = {}
    for (section, key), value in values.items():
        sections.setdefault(section, {})[key] = value
    return yaml.safe_dump(sections, sort_keys=False, default_flow_style=None)


def _check(path: str, settings: dict[str, Any], schema_path: str | Path) -> None:
    """Refuse impossible settings of a model; those of the config have been checked before."""
    try:
        check_config(settings, schema_path)
    except SettingsError as error:
        from lesionmap.files.model_metadata import REMEDY

        raise ModelError(
            stage="model",
            finding=f"{path} brings settings that are impossible: {error.finding}",
            remedy=f"copy the file again, or {REMEDY}",
        ) from error


def _notes(theirs: Values, differing: Values, config: Mapping[str, Any]) -> Iterator[str]:
    """What of the run's settings has come from the model, and what has not although it may matter."""
    for place, value in differing.items():
        if place in OF_SLIDES:
            own = config[place[0]][place[1]]
            yield f"{'.'.join(place)}: {own}, as the config says of its slides; that of the training slides was {value}"
        else:
            yield f"{'.'.join(place)}: {value}, from the model"
    if (named := config["stain"]["reference"]) != "auto":
        yield f"stain.reference: that of the model, whatever {named} is"
    recorded = [(section, key) for section, keys in INPUT_KEYS.items() for key in keys]
    if unknown := [".".join(place) for place in recorded if place not in theirs]:
        yield (
            f"UNKNOWN: {', '.join(unknown)}; the model file, of an older version, does not say how its training slides "
            "were read. The config's values are used; if they differ from those in training, the maps are wrong"
        )
