"""How lesion probability is stored (whole numbers from 0 to 255), and the threshold for lesion."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesionmap.errors import ModelError

N_VALUES = 256
VALIDATION = "validation"


def as_u8(probability: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Probability × 255, rounded to the nearest whole number."""
    probability_u8: NDArray[np.uint8] = np.rint(probability * 255).astype(np.uint8)
    return probability_u8


def first_positive(threshold: float) -> int:
    """The lowest probability × 255 that is lesion at `threshold`."""
    return math.ceil(threshold * 255)


def chosen_threshold(asked: float | str, validated: float | None, stage: str) -> float:
    """Probability from which a pixel counts as lesion.

    Parameters
    ----------
    asked : float or "validation"
        The config's ``inference.threshold``.
    validated : float or None
        The best threshold on the model's validation slides, if the model file has one.
    stage : str
        Stage that the error names.

    Raises
    ------
    ModelError
        If the model should provide the threshold, but has none.
    """
    if asked != VALIDATION:
        return float(asked)
    if validated is None:
        raise ModelError(
            stage=stage,
            finding=f"inference.threshold is {VALIDATION}, but the model file has no threshold for maps of this kind: "
            "it was trained without a validation slide that has a lesion, or without that view",
            remedy="set inference.threshold to a number such as 0.5, or train with slides of the split val",
        )
    return validated
