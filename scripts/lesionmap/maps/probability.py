"""Lesion probability as it is stored: whole numbers from 0 to 255."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEVELS = 256


def as_levels(probability: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Probability 0–1 as levels 0–255, rounded to the nearest."""
    levels: NDArray[np.uint8] = np.rint(probability * 255).astype(np.uint8)
    return levels


def first_positive_level(threshold: float) -> int:
    """The lowest level that counts as lesion at `threshold`."""
    return math.ceil(threshold * 255)
