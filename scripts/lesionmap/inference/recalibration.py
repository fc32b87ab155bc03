"""Bring a map's probabilities to what was observed on the model's validation slides (``inference.recalibrate``)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit, logit

from lesionmap.errors import ModelError
from lesionmap.maps.on_disk import strips
from lesionmap.maps.probability import N_SCORES, UNMAPPED, Scores, as_logits, as_scores

STAGE = "map_slide"


@dataclass(frozen=True)
class Recalibration:
    """Replaces each logit by intercept + slope · logit (Cox, Biometrika 1958); the slope is above 0, so ranks stay."""

    intercept: float
    slope: float

    @classmethod
    def of(cls, path: str, model: Mapping[str, Any], view: str) -> "Recalibration":
        """The fit on a model's validation slides, for maps of a view (:func:`lesionmap.inference.settings.view_of`).

        Parameters
        ----------
        path, model : str, mapping
            The model file, and its metadata.

        Raises
        ------
        ModelError
            If the model file has none, or a slope that would turn the map upside down.
        """
        intercept, slope = (
            model.get("epoch", {}).get(f"val_{view}_calibration_{name}") for name in ("intercept", "slope")
        )
        if intercept is None or slope is None:
            raise _refused(
                f"the model {path} has no calibration for maps of the {view} view: it is of an older version, or was "
                "trained without validation slides that have lesion, or without that view"
            )
        if slope <= 0:
            raise _refused(f"on validation slides of the model {path} lesion ranks below the rest (slope {slope:.3g})")
        return cls(float(intercept), float(slope))

    def of_threshold(self, threshold: float) -> float:
        """The threshold that calls the same pixels lesion as `threshold` did before."""
        return float(expit(self.intercept + self.slope * logit(threshold)))

    def apply(self, scores: Scores) -> None:
        """Recalibrate a map in place; what has no score keeps none."""
        table = as_scores(self.intercept + self.slope * as_logits(np.arange(N_SCORES)))
        table[UNMAPPED] = UNMAPPED
        for part in strips(len(scores)):
            scores[part] = table[scores[part]]


def _refused(finding: str) -> ModelError:
    return ModelError(
        stage=STAGE,
        finding=f"inference.recalibrate is true, but {finding}",
        remedy="set inference.recalibrate: false, or train a model with annotated slides of the split val",
    )
