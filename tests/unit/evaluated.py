"""Records of evaluated slides, as evaluate_slide writes them."""

from typing import Any

import numpy as np
from lesionmap.metrics.pixels import Histograms, binary_metrics


def lesion(
    extent_um: float = 600, *, pixels: int = 10, marked_pixels: int = 5, hit_level: int | None = None
) -> dict[str, Any]:
    facts = {"area_mm2": 0.1, "extent_um": extent_um, "pixels": pixels, "marked_pixels": marked_pixels}
    return facts | {"peak_level": 200, "hit_level": hit_level}


def record_of(slide: str, levels: np.ndarray, mask: np.ndarray, **facts: Any) -> dict[str, Any]:
    """A record of pixels of 0.01 mm² each, at a threshold of one half; without lesions or detections unless given."""
    counts = Histograms.of(levels, mask)
    called, known = levels >= 128, mask != 255
    return {
        "slide": slide,
        "split": "test",
        "patient": None,
        "threshold": 0.5,
        "metrics": binary_metrics(counts, 0.5),
        "undefined": {},
        "annotated_mm2": float((mask == 1).sum() / 100),
        "marked_mm2": float((called & known).sum() / 100),
        "lesions": [],
        "false_levels": [0] * 256,
        "histograms": counts.counts.tolist(),
        "provenance": {"identity": f"sha256 of {slide}"},
        **facts,
    }


def levels_at(*levels: int) -> list[int]:
    return np.bincount(levels, minlength=256).tolist()


def random_slide(seed: int, *, has_lesion: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Levels and classes, (40, 50) uint8 each."""
    rng = np.random.default_rng(seed)
    mask = rng.choice([0, 1 if has_lesion else 0, 2, 3, 255], (40, 50), p=[0.5, 0.2, 0.1, 0.1, 0.1]).astype(np.uint8)
    levels = np.clip(rng.normal(70, 50, mask.shape) + 90 * (mask == 1), 0, 255).astype(np.uint8)
    return levels, mask
