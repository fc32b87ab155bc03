"""Load pretrained weights of a torchvision ResNet from a file, without running code from it."""

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import torchvision
from safetensors.torch import load_file
from torch import Tensor

from lesionmap.errors import ModelError
from lesionmap.files.atomic import written_whole
from lesionmap.network.model import LesionFPN

# torchvision's layer names → those of lesionmap.network.model.LesionFPN
LAYERS = {"conv1": "stem.0", "bn1": "stem.1", **{f"layer{i + 1}": f"stages.{i}" for i in range(4)}}
KEYS_SHOWN = 3
EXPECTED = "give a .pth, .pt or .safetensors file of a torchvision ResNet's model.state_dict()"
# Of batch norm: old versions of torchvision count no batches, and statistics of tiles are this project's own.
NOT_IN_FILES = ("num_batches_tracked", "tile_mean", "tile_var")


def read_backbone(path: str | Path) -> dict[str, Tensor]:
    """Tensors of a state dict, with the names that :class:`lesionmap.network.model.LesionFPN` uses.

    The dict may be stored under the key ``state_dict``. The classifier (``fc``) and any other entries are left out.

    Parameters
    ----------
    path : str or Path
        ``.safetensors`` file, or a file from :func:`torch.save`.

    Raises
    ------
    ModelError
        If the file is missing, empty, truncated or not a state dict, or has none of the backbone's layers.
    """
    content = _load(path)
    if not isinstance(content, dict):
        raise refused(f"{path} is not a state dict but a {type(content).__name__}")
    wrapped = content.get("state_dict")
    state = wrapped if isinstance(wrapped, dict) else content
    tensors = {str(key): value for key, value in state.items() if isinstance(value, Tensor)}
    found = {_own_name(key): value for key, value in tensors.items() if key.split(".")[0] in LAYERS}
    if not found:
        keys = ", ".join(f"'{key}'" for key in list(state)[:KEYS_SHOWN]) or "none"
        raise refused(f"{path} has none of the backbone's layers ({', '.join(LAYERS)}); its first keys are {keys}")
    return found


def refused(finding: str, remedy: str = EXPECTED) -> ModelError:
    """An error for weights that cannot be used."""
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
        return refused(f"{path} is not a state dict: it holds objects other than tensors, which were not loaded")
    reason = f"{type(error).__name__}: {error}".splitlines()[0]
    return refused(f"{path} is cut short, or is not a state dict ({reason})", f"copy or download it again; {EXPECTED}")


def fetch_backbone(backbone: str, output: str | Path) -> None:
    """Download torchvision's ImageNet weights (IMAGENET1K_V1) and verify their checksum.

    Raises
    ------
    ModelError
        If the download fails; the message tells how to place the file by hand.
    """
    weights = torchvision.models.get_model_weights(backbone)["IMAGENET1K_V1"]
    checksum = weights.url.rsplit("-", 1)[1].removesuffix(".pth")
    try:
        with written_whole(output) as draft:
            torch.hub.download_url_to_file(weights.url, str(draft), hash_prefix=checksum)
    except (OSError, RuntimeError) as error:
        raise ModelError(
            stage="fetch_backbone",
            finding=f"{weights.url} cannot be downloaded ({error})",
            remedy=f"download it on another machine, place it at {output} and run again",
        ) from error


def load_backbone(model: LesionFPN, path: str | Path) -> None:
    """Copy a torchvision ResNet state dict (without its classifier) into the bottom-up path.

    Raises
    ------
    ModelError
        If the file cannot be used (:func:`read_backbone`), or if a tensor is missing or has the wrong shape; the
        message names the first such tensor.
    """
    found, own = read_backbone(path), model.state_dict()
    for key in (key for key in own if key.startswith(("stem.", "stages.")) and not key.endswith(NOT_IN_FILES)):
        if key not in found or found[key].shape != own[key].shape:
            raise refused(
                f"{path}: layer {key} is {'missing' if key not in found else tuple(found[key].shape)}; "
                f"the backbone needs {tuple(own[key].shape)}",
                "give weights with the running statistics of batch norm, or set model.norm to group"
                if "running_" in key
                else "give the state dict of the torchvision backbone named in model.backbone",
            )
    model.load_state_dict(own | {key: value for key, value in found.items() if key in own})
