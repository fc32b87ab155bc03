"""Records of evaluated slides, as evaluate_slide writes them."""

from typing import Any

import numpy as np
from lesionmap.maps.probability import as_scores
from lesionmap.metrics.pixels import Histograms, binary_metrics
from scipy.special import logit


def scores_of(probability: Any) -> np.ndarray:
    """Scores of probabilities from 0 to 1."""
    return as_scores(logit(np.asarray(probability, dtype=float)))


def scores_at(*u8: int) -> list[int]:
    """Ascending scores of probabilities × 255."""
    return sorted(scores_of(np.array(u8) / 255).tolist())


def lesion(
    extent_um: float = 600, *, pixels: int = 10, predicted_pixels: int = 5, detected_at: int | None = None
) -> dict[str, Any]:
    """An annotated lesion, found by a detection of probability `detected_at` / 255."""
    columns = {"area_mm2": 0.1, "extent_um": extent_um, "pixels": pixels, "predicted_pixels": predicted_pixels}
    found = None if detected_at is None else scores_at(detected_at)[0]
    return columns | {"peak_score": scores_at(200)[0], "detection_score": found}


def judged(matched: int = 0, merged: int = 0, false: int = 0, unjudged: int = 0) -> dict[str, Any]:
    """Verdicts on the predicted lesions of a record."""
    return {"verdicts": {"matched": matched, "merged": merged, "false": false, "not judged": unjudged}}


def record_of(slide: str, scores: np.ndarray, mask: np.ndarray, **changes: Any) -> dict[str, Any]:
    """A record of pixels of 0.01 mm² each, at a threshold of one half; without lesions or detections unless given."""
    counts = Histograms.of(scores, mask)
    called, known = scores >= 2**15, mask != 255
    return {
        "slide": slide,
        "split": "test",
        "patient": None,
        "threshold": 0.5,
        "metrics": binary_metrics(counts, 0.5),
        "undefined": {},
        "boundary": {"tolerance_um": 30, "nsd": None, "hd95_um": None},
        "readers": None,
        "annotated_mm2": float((mask == 1).sum() / 100),
        "predicted_mm2": float((called & known).sum() / 100),
        "ignored_mm2": 0.0,
        "lesions": [],
        "false_positive_scores": [],
        **judged(false=len(changes.get("false_positive_scores", []))),
        "highest_score": int(scores[known].max(initial=0)),
        "histograms": counts.record(),
        "provenance": {"identity": f"sha256 of {slide}"},
        **changes,
    }


def random_slide(seed: int, *, has_lesion: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Scores and classes, (40, 50) each."""
    rng = np.random.default_rng(seed)
    mask = rng.choice([0, 1 if has_lesion else 0, 2, 3, 255], (40, 50), p=[0.5, 0.2, 0.1, 0.1, 0.1]).astype(np.uint8)
    return as_scores(rng.normal(-2, 1.5, mask.shape) + 2.7 * (mask == 1)), mask
