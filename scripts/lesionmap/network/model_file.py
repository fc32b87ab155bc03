"""Model files: weights and metadata in one safetensors file."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from lesionmap.files.atomic import written_whole
from lesionmap.files.model_metadata import load_metadata
from lesionmap.network.model import LesionFPN
from lesionmap.network.settings import ModelSettings


def save_model(path: str | Path, model: LesionFPN, settings: ModelSettings, metadata: dict[str, Any]) -> None:
    """Write the weights with all the metadata that another facility needs to use them.

    Parameters
    ----------
    metadata : dict
        JSON-serialisable: stain reference, tile settings, provenance, …
    """
    # a single metadata key: safetensors writes several keys in random order
    metadata = {"lesionmap": json.dumps({"architecture": asdict(settings), **metadata}, sort_keys=True)}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with written_whole(path) as draft:
        save_file(tensors, draft, metadata=metadata)


def load_model(path: str | Path) -> LesionFPN:
    """Load the network from a model file, in evaluation mode."""
    with torch.device("meta"):  # skip the random initialisation: the file's weights would replace it
        model = LesionFPN(ModelSettings(**load_metadata(path)["architecture"]))
    model.load_state_dict(load_file(path), assign=True)
    model.set_scale()
    return model.eval()
