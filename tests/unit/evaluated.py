"""Records of evaluated slides, as evaluate_slide writes them."""

from typing import Any

import numpy as np
from lesionmap.metrics.pixels import Histograms, binary_metrics


def lesion(
    extent_um: float = 600, *, pixels: int = 10, predicted_pixels: int = 5, detection_score: int | None = None
) -> dict[str, Any]:
    columns = {"area_mm2": 0.1, "extent_um": extent_um, "pixels": pixels, "predicted_pixels": predicted_pixels}
    return columns | {"peak_score": 200, "detection_score": detection_score}


def record_of(slide: str, probability_u8: np.ndarray, mask: np.ndarray, **changes: Any) -> dict[str, Any]:
    """A record of pixels of 0.01 mm² each, at a threshold of one half; without lesions or detections unless given."""
    counts = Histograms.of(probability_u8, mask)
    called, known = probability_u8 >= 128, mask != 255
    return {
        "slide": slide,
        "split": "test",
        "patient": None,
        "threshold": 0.5,
        "metrics": binary_metrics(counts, 0.5),
        "undefined": {},
        "annotated_mm2": float((mask == 1).sum() / 100),
        "predicted_mm2": float((called & known).sum() / 100),
        "ignored_mm2": 0.0,
        "lesions": [],
        "false_positive_scores": [0] * 256,
        "ignored_detections": 0,
        "histograms": counts.counts.tolist(),
        "provenance": {"identity": f"sha256 of {slide}"},
        **changes,
    }


def scores_at(*probability_u8: int) -> list[int]:
    return np.bincount(probability_u8, minlength=256).tolist()


def random_slide(seed: int, *, has_lesion: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Probability × 255 and classes, (40, 50) uint8 each."""
    rng = np.random.default_rng(seed)
    mask = rng.choice([0, 1 if has_lesion else 0, 2, 3, 255], (40, 50), p=[0.5, 0.2, 0.1, 0.1, 0.1]).astype(np.uint8)
    probability_u8 = np.clip(rng.normal(70, 50, mask.shape) + 90 * (mask == 1), 0, 255).astype(np.uint8)
    return probability_u8, mask
