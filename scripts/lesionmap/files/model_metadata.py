"""Read the metadata of a model file without torch."""

import hashlib
import json
import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

from safetensors import safe_open

from lesionmap.errors import ModelError
from lesionmap.files.schema import listed, problems_of, read_schema

SCHEMA = Path(__file__).with_suffix(".yaml")
REMEDY = "give the lesionmap.safetensors of a training run as model.path"
MOST_CHARACTERS = 300  # of a problem, which quotes what it found
FOR_MAPS = ("tiles", "stain_reference", "provenance")  # what a map needs


def load_metadata(path: str | Path, needed: Collection[str] = ()) -> dict[str, Any]:
    """The metadata that :func:`lesionmap.network.model_file.save_model` wrote, including ``architecture``.

    Parameters
    ----------
    needed : collection of str
        Further keys that must be there, such as :data:`FOR_MAPS`; files of older versions have fewer.

    Raises
    ------
    ModelError
        If the file is not a LesionMap model, or its metadata are not what one has.
    """
    if not Path(path).exists():
        raise ModelError(stage="model", finding=f"the model file {path} does not exist", remedy="correct model.path")
    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {})["lesionmap"]
        metadata: dict[str, Any] = json.loads(text, parse_constant=_finite, parse_float=_finite)
    except Exception as error:
        raise ModelError(
            stage="model", finding=f"{path} is not a LesionMap model ({type(error).__name__}: {error})", remedy=REMEDY
        ) from error
    schema = read_schema(SCHEMA)
    found = problems_of(metadata, schema | {"required": [*schema["required"], *needed]})
    problems = [problem[:MOST_CHARACTERS] for problem in found]
    if problems:
        finding = f"{path} is not a LesionMap model that can be used; its metadata:{listed(problems)}"
        raise ModelError(stage="model", finding=finding, remedy=f"copy the file again, or {REMEDY}")
    return metadata


def patient_digest(patient: str) -> str:
    """SHA-256 of a patient's id (UTF-8), in hexadecimal: what a model file holds of a patient."""
    return hashlib.sha256(patient.encode()).hexdigest()


def _finite(text: str) -> float:
    """A number of JSON, which Python also reads if it is NaN or infinite."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no finite number")
    return value
