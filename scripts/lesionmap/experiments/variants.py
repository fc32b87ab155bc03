"""The variants of a config that experiments compare: each changes some of its keys, and none that tiles depend on."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lesionmap.errors import SettingsError
from lesionmap.files.records import sha256_of
from lesionmap.files.schema import listed, read_schema
from lesionmap.run.config import (
    MACHINE_SETTINGS,
    as_typed,
    check_config,
    judged_view,
    mapped_as_trained,
    train_settings,
)

AS_CONFIGURED = "config"  # the name of the only variant if none is named
VARIED = ("model", "train", "inference")
ELSEWHERE = {  # keys of these sections that no variant may change, and what to do instead
    "model.path": "experiments train their own models; remove it",
    "train.seed": "set experiments.seeds",
    "train.processes": "set it for the whole run",
    **{
        f"{section}.{key}": "set it for the whole run" for section in ("train", "inference") for key in MACHINE_SETTINGS
    },
}


@dataclass(frozen=True)
class Variant:
    """One variant.

    Parameters
    ----------
    name : str
        Names its folder.
    config : dict
        The whole config, with the keys that the variant changes.
    """

    name: str
    config: dict[str, Any]

    @cached_property
    def training(self) -> dict[str, Any]:
        """All that decides its weights, but slides, tiles and seed."""
        model = self.config["model"]
        return {
            "model": {key: model[key] for key in ("backbone", "norm", "fusion")},
            "weights": model["weights"],
            "train": {key: value for key, value in train_settings(self.config).items() if key != "seed"},
        }

    @cached_property
    def recipe(self) -> str:
        """Names its models. Variants that differ in their maps alone share them."""
        return sha256_of(self.training)[:8]

    @property
    def view(self) -> str:
        """The view by which its epoch and threshold are chosen."""
        return judged_view(self.config)


def changes_in_words(changes: Mapping[str, Any], before: str = "") -> str:
    """The keys that a variant changes, with their values."""
    parts = []
    for key, value in changes.items():
        deeper = isinstance(value, Mapping) and value
        parts.append(changes_in_words(value, f"{before}{key}.") if deeper else f"{before}{key}: {value}")
    return ", ".join(parts) or "the config as it is"


def variants_of(config: Mapping[str, Any], schema_path: str | Path) -> dict[str, Variant]:
    """The variants that a checked config asks for, by name; itself if it names none.

    Raises
    ------
    SettingsError
        Names every key that a variant may not change, and every wrong value.
    """
    asked = config["experiments"]["variants"] or {AS_CONFIGURED: {}}
    schema, problems, found = read_schema(schema_path), [], {}
    for name, changes in asked.items():
        refused = list(_refused(name, changes, config))
        problems += refused
        if not refused:
            changed: dict[str, Any] = as_typed(_merged(config, changes), schema)
            try:
                check_config(changed, schema_path)
            except SettingsError as error:
                problems.append(f"experiments.variants.{name}: {error.finding.strip()}")
            found[name] = Variant(name, mapped_as_trained(changed))
    if problems:
        raise SettingsError(stage="config", finding=listed(problems), remedy="correct the keys named above")
    return found


def ensembles_of(asked: bool | str, variants: Collection[str]) -> list[str]:
    """Variants whose models map other slides together: all, none, or the one that is named.

    Raises
    ------
    SettingsError
        If there is no such variant.
    """
    if isinstance(asked, bool):
        return list(variants) if asked else []
    if asked not in variants:
        raise SettingsError(
            stage="config",
            finding=f"experiments.ensemble is {asked}, but the variants are {', '.join(variants)}",
            remedy="name one of them, or set true or false",
        )
    return [asked]


def _refused(name: str, changes: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[str]:
    """Keys that a variant may not change."""
    for section, keys in changes.items():
        place = f"experiments.variants.{name}.{section}"
        if section not in VARIED:
            yield (
                f"{place}: variants share slides and tiles, and may change {', '.join(VARIED)} alone; run other "
                "settings in a folder of their own, and compare them with evaluation.compare"
            )
            continue
        if not isinstance(keys, Mapping):
            yield f"{place}: write the keys that it changes, e.g. {section}: {{key: value}}"
            continue
        for key in keys:
            if instead := ELSEWHERE.get(f"{section}.{key}"):
                yield f"{place}.{key}: {instead}"
            elif key not in config[section]:
                yield f"{place}.{key}: there is no such key; the config has {', '.join(config[section])}"


def _merged(config: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A config with some keys changed; mappings are merged, as Snakemake merges configs."""
    merged = dict(config)
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merged(merged[key], value) if both else value
    return merged
