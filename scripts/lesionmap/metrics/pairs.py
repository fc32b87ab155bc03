"""Who is compared with whom where two readers have annotated a slide, and agreement of a pair in pixels."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from lesionmap.metrics.pixels import Confusion

MODEL, FIRST, SECOND = "model", "reader 1", "reader 2"
PAIRS = {f"{one}–{other}": (one, other) for one, other in ((MODEL, FIRST), (MODEL, SECOND), (SECOND, FIRST))}
OF_MODEL, OF_READERS = f"{MODEL}–{FIRST}", f"{SECOND}–{FIRST}"
COUNTS = ("tp", "fp", "fn", "tn")
OF_PIXELS = ("dice", "iou", "precision", "recall", "specificity", "kappa")


def pixel_agreement(counts: Mapping[str, Any]) -> dict[str, float | None]:
    """Metrics of a pair from its numbers of pixels ``tp``, ``fp``, ``fn``, ``tn``; None where undefined."""
    found = Confusion(*(np.asarray(counts[name], dtype=np.float64) for name in COUNTS))
    values = {name: float(getattr(found, name)) for name in OF_PIXELS}
    return {name: None if np.isnan(value) else value for name, value in values.items()}
