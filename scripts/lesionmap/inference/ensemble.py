"""An ensemble: the mean of several models' maps of a slide, and how far these models differ."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesionmap.errors import ModelError
from lesionmap.files.records import sha256
from lesionmap.geometry.tiling import TileSpec
from lesionmap.inference.sliding_window import ROWS_AT_ONCE, STAGE
from lesionmap.inference.stitching import scores_of
from lesionmap.maps.on_disk import on_disk, strips
from lesionmap.maps.probability import SPREAD_PER_SD, Scores, as_logits, of_logits
from lesionmap.stain.reference import reference_of

RECORD_DECIMALS = 6


@dataclass(frozen=True)
class Ensemble:
    """The mean of its members' maps.

    Parameters
    ----------
    scores : (H, W) uint16
        Of the mean of the members' probabilities, where one that has no score counts as 0; 0 where none has a score.
        On disk.
    spread : (H, W) uint8
        Standard deviation of the members' probabilities (over all members, not one less) × 510; 0 where none has a
        score. On disk.
    mean_sd : float
        Mean of that standard deviation over all pixels with a score.
    mean_differences : list of float
        Mean absolute difference of each member's probability from the mean, over the same pixels.
    """

    scores: Scores
    spread: NDArray[np.uint8]
    mean_sd: float
    mean_differences: list[float]

    def record(
        self, paths: Sequence[str], thresholds: Sequence[float | None], passes: Sequence[dict[str, Any]]
    ) -> dict[str, Any]:
        """How far the members agree, and who they are.

        Parameters
        ----------
        paths : sequence of str
            Model files.
        thresholds : sequence of float or None
            The best threshold on each member's validation slides.
        passes : sequence of dict
            What is recorded of each member's passes over the slide.
        """
        members = [
            {
                "model": path,
                "sha256": sha256(path),
                "validated_threshold": threshold,
                "mean_difference": round(difference, RECORD_DECIMALS),
                **passed,
            }
            for path, threshold, difference, passed in zip(
                paths, thresholds, self.mean_differences, passes, strict=True
            )
        ]
        return {"mean_uncertainty": round(self.mean_sd, RECORD_DECIMALS), "members": members}


def mean_of(members: Sequence[Scores], folder: str | Path) -> Ensemble:
    """The mean of maps, and their spread; a few rows at a time.

    Parameters
    ----------
    members : sequence of (H, W) uint16
        Scores.
    folder : str or Path
        The result lies on the disk of this folder.
    """
    scores, spread = (on_disk(members[0].shape, dtype, folder) for dtype in (np.uint16, np.uint8))
    sums, n = np.zeros(1 + len(members)), 0
    for part in strips(len(scores), ROWS_AT_ONCE):
        rows = np.stack([member[part] for member in members])  # (k, rows, W)
        mapped = rows.any(axis=0)
        lesion, other = of_logits(as_logits(rows[:, mapped]).astype(np.float32))  # (k, N)
        scores[part][mapped] = scores_of(lesion.sum(axis=0), other.sum(axis=0))
        sd = lesion.std(axis=0)
        spread[part][mapped] = np.rint(sd * SPREAD_PER_SD)
        differences = np.abs(lesion - lesion.mean(axis=0))
        sums += [sd.sum(dtype=float), *differences.sum(axis=1, dtype=float)]
        n += int(mapped.sum())
    mean_sd, *mean_differences = (sums / max(1, n)).tolist()
    return Ensemble(scores, spread, mean_sd, mean_differences)


def check_members(paths: Sequence[str], models: Sequence[dict[str, Any]], least: int) -> None:
    """Check that models can be one ensemble: they see the same tiles, in the same stain.

    Parameters
    ----------
    paths : sequence of str
        Model files.
    models : sequence of dict
        Their metadata.
    least : int
        How many models there must be.

    Raises
    ------
    ModelError
        If they do not, or are fewer.
    """
    if len(paths) < least:
        raise ModelError(
            stage=STAGE,
            finding=f"there are {len(paths)} models to map with, and {least} or more are needed",
            remedy="give more model files (one alone has a map, but no uncertainty)",
        )
    for path, model in zip(paths, models, strict=True):
        differing = _differing(paths[0], models[0], path, model)
        if differing:
            raise ModelError(
                stage=STAGE,
                finding=f"the models {paths[0]} and {path} cannot be one ensemble, as they were trained on other "
                + " and ".join(differing),
                remedy="leave one of them out, or train both with the same tiles and the same stain.reference",
            )


def _differing(first: str, known: dict[str, Any], path: str, model: dict[str, Any]) -> list[str]:
    found = [
        f"tiles.{key} ({known['tiles'][key]} and {model['tiles'][key]})"
        for key in (field.name for field in fields(TileSpec))
        if known["tiles"][key] != model["tiles"][key]
    ]
    return found + ["stain references"] * (reference_of(first, known) != reference_of(path, model))
