"""Pretrained weights of a torchvision ResNet, from a file; nothing in it is run."""

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from lesionmap.errors import ModelError

# torchvision's names of the layers, and those of lesionmap.model.LesionFPN
LAYERS = {"conv1": "stem.0", "bn1": "stem.1", **{f"layer{i + 1}": f"stages.{i}" for i in range(4)}}
KEYS_SHOWN = 3
EXPECTED = "give a .pth, .pt or .safetensors file of a torchvision ResNet's model.state_dict()"


def read_backbone(path: str | Path) -> dict[str, Tensor]:
    """Tensors of a state dict, by the names that :class:`lesionmap.model.LesionFPN` gives them.

    The dict may lie under the key ``state_dict``. The classifier (``fc``) and what else the file has are left out.

    Parameters
    ----------
    path : str or Path
        ``.safetensors``, or a file that :func:`torch.save` wrote.

    Raises
    ------
    ModelError
        If the file is absent, empty, cut short or no state dict, or has none of the backbone's layers.
    """
    content = _load(path)
    if not isinstance(content, dict):
        raise refused(f"{path} is not a state dict; it holds one {type(content).__name__}")
    wrapped = content.get("state_dict")
    state = wrapped if isinstance(wrapped, dict) else content
    tensors = {str(key): value for key, value in state.items() if isinstance(value, Tensor)}
    found = {_own_name(key): value for key, value in tensors.items() if key.split(".")[0] in LAYERS}
    if not found:
        keys = ", ".join(f"'{key}'" for key in list(state)[:KEYS_SHOWN]) or "none"
        raise refused(f"{path} has none of the backbone's layers ({', '.join(LAYERS)}); its first keys are {keys}")
    return found


def refused(finding: str, remedy: str = EXPECTED) -> ModelError:
    """The error that says why these weights cannot be used."""
    return ModelError(stage="train", finding=finding, remedy=remedy)


def _own_name(key: str) -> str:
    layer, _, rest = key.partition(".")
    return f"{LAYERS[layer]}.{rest}"


def _load(path: str | Path) -> Any:
    try:
        if Path(path).suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise _unreadable(Path(path), error) from error


def _unreadable(path: Path, error: Exception) -> ModelError:
    if not path.exists():
        return refused(f"{path} does not exist", "correct model.weights")
    if not path.stat().st_size:
        return refused(f"{path} is empty", "copy or download it again")
    if isinstance(error, UnpicklingError):
        return refused(f"{path} is not a state dict: it holds other things than tensors, which were not run")
    reason = f"{type(error).__name__}: {error}".splitlines()[0]
    return refused(f"{path} is cut short, or is not a state dict ({reason})", f"copy or download it again; {EXPECTED}")
