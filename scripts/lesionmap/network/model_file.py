"""Model files: weights and metadata in one safetensors file."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lesionmap.errors import ModelError
from lesionmap.files.atomic import written_whole
from lesionmap.files.model_metadata import REMEDY, load_metadata
from lesionmap.network.model import STAGE_CHANNELS, LesionFPN
from lesionmap.network.settings import ModelSettings


def save_model(path: str | Path, model: LesionFPN, settings: ModelSettings, metadata: dict[str, Any]) -> None:
    """Write the weights with all the metadata that another facility needs to use them.

    Parameters
    ----------
    metadata : dict
        JSON-serialisable: stain reference, tile settings, provenance, …

    Raises
    ------
    ModelError
        If a weight is NaN or infinite.
    """
    # a single metadata key: safetensors writes several keys in random order
    metadata = {"lesionmap": json.dumps({"architecture": asdict(settings), **metadata}, sort_keys=True)}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    if name := _not_finite(tensors):
        raise ModelError(
            stage="train",
            finding=f"tensor {name} of the network holds NaN or infinity, and {path} is not written",
            remedy="lower train.learning_rate, and train again",
        )
    with written_whole(path) as draft:
        save_file(tensors, draft, metadata=metadata)


def load_model(path: str | Path) -> LesionFPN:
    """Load the network from a model file, in evaluation mode.

    Raises
    ------
    ModelError
        If the file is no model, if its tensors are not those of its backbone, or if a weight is NaN or infinite.
    """
    settings = ModelSettings(**load_metadata(path)["architecture"])
    if settings.backbone not in STAGE_CHANNELS:
        known = ", ".join(STAGE_CHANNELS)
        raise _unusable(path, f"its backbone is '{settings.backbone}', but this version knows {known}")
    with torch.device("meta"):  # skip the random initialisation: the file's weights would replace it
        model = LesionFPN(settings)
    tensors = load_file(path)
    _complete(tensors, model.state_dict())
    problems = list(_misfits(model.state_dict(), tensors))
    if problems:
        said = f"its tensors are not those of {settings.backbone}, norm {settings.norm}, fusion {settings.fusion}"
        raise _unusable(path, f"{said}: {problems[0]}{f' and {len(problems) - 1} more' if problems[1:] else ''}")
    if name := _not_finite(tensors):
        raise _unusable(path, f"its tensor {name} holds NaN or infinity")
    model.load_state_dict(tensors, assign=True)
    model.set_scale()
    return model.eval()


def _complete(tensors: dict[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Let batch norm of older files normalise tiles by the low view's statistics, as their versions did."""
    for name in (name for name in wanted if "tile_" in name and name not in tensors):
        if (of_low := name.replace("tile_", "running_")) in tensors:
            tensors[name] = tensors[of_low].clone()


def _misfits(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> Iterator[str]:
    """What is wrong with tensors of a file, one by one."""
    for name in sorted({*wanted, *found}):
        if name not in found:
            yield f"{name} is missing"
        elif name not in wanted:
            yield f"{name} does not belong there"
        elif (own := _form(wanted[name])) != (other := _form(found[name])):
            yield f"{name} is {other} instead of {own}"


def _form(tensor: Tensor) -> str:
    """Type and shape: ``float32 (64, 3, 7, 7)``."""
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """Name of the first tensor with a NaN or an infinity; None if there is none."""
    return next((name for name, tensor in sorted(tensors.items()) if not torch.isfinite(tensor).all()), None)


def _unusable(path: str | Path, finding: str) -> ModelError:
    said = f"the model {path} cannot be used: {finding}"
    return ModelError(stage="model", finding=said, remedy=f"copy the file again, or {REMEDY}")
