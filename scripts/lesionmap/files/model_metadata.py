"""Read the metadata of a model file without torch."""

import json
from pathlib import Path
from typing import Any

from safetensors import safe_open

from lesionmap.errors import ModelError


def load_metadata(path: str | Path) -> dict[str, Any]:
    """The metadata that :func:`lesionmap.network.model_file.save_model` wrote, including ``architecture``.

    Raises
    ------
    ModelError
        If the file is not a LesionMap model.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata: dict[str, Any] = json.loads((file.metadata() or {})["lesionmap"])
            return metadata
    except Exception as error:
        raise ModelError(
            stage="model",
            finding=f"{path} is not a LesionMap model ({type(error).__name__}: {error})",
            remedy="give the lesionmap.safetensors of a training run as model.path",
        ) from error
