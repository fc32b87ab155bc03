"""How well a lesion map agrees with the pathologist, per slide and over the cohort.

Probabilities are levels of 1/255, so a 256-bin histogram per class holds all that any of these figures needs; cohort
figures are exact sums of slides' histograms.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import tifffile
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from lesionmap.annotations import Annotation
from lesionmap.files import read_json, write_json, write_text, written_whole
from lesionmap.slides import SlideInfo
from lesionmap.tiling import CLASS_NAMES, LESION
from lesionmap.tissue import TissueMask

LEVELS = 256
FIGURES = ("dice", "iou", "precision", "recall", "specificity", "auroc", "auprc")


def as_levels(probability: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Probability 0–1 as levels 0–255, rounded to the nearest."""
    levels: NDArray[np.uint8] = np.rint(probability * 255).astype(np.uint8)
    return levels


def first_positive_level(threshold: float) -> int:
    """The lowest level that counts as lesion at `threshold`."""
    return math.ceil(threshold * 255)


@dataclass(frozen=True)
class Histograms:
    """Pixels of each true class at each probability level.

    Parameters
    ----------
    counts : (4, 256) int64
        Rows: background, lesion, vessel, fat.
    """

    counts: NDArray[np.int64]

    @classmethod
    def empty(cls) -> "Histograms":
        """No pixels yet."""
        return cls(np.zeros((len(CLASS_NAMES) + 1, LEVELS), dtype=np.int64))

    @classmethod
    def of(cls, levels: NDArray[np.uint8], mask: NDArray[np.uint8]) -> "Histograms":
        """Count the pixels of a map against a class mask of the same shape; 255 in the mask is left out."""
        known = mask < len(CLASS_NAMES) + 1
        index = mask[known].astype(np.int64) * LEVELS + levels[known]
        counts = np.bincount(index, minlength=(len(CLASS_NAMES) + 1) * LEVELS)
        return cls(counts.reshape(-1, LEVELS))

    def __add__(self, other: "Histograms") -> "Histograms":
        return Histograms(self.counts + other.counts)


def binary_metrics(histograms: Histograms, threshold: float) -> dict[str, float | None]:
    """Pixel metrics of lesion against everything else.

    Parameters
    ----------
    histograms : Histograms
    threshold : float

    Returns
    -------
    dict
        `FIGURES`, and the false-positive rate on ``vessel``, ``fat`` and the ``rest``; None where undefined
        (no such pixels), never NaN.
    """
    cut = first_positive_level(threshold)
    positive = histograms.counts[LESION]
    negative = histograms.counts.sum(axis=0) - positive
    tp, fn = int(positive[cut:].sum()), int(positive[:cut].sum())
    fp, tn = int(negative[cut:].sum()), int(negative[:cut].sum())
    figures = {
        "dice": _ratio(2 * tp, 2 * tp + fp + fn),
        "iou": _ratio(tp, tp + fp + fn),
        "precision": _ratio(tp, tp + fp),
        "recall": _ratio(tp, tp + fn),
        "specificity": _ratio(tn, tn + fp),
        **_ranking_metrics(positive, negative),
    }
    names = {"rest": 0, **{name: label for name, label in CLASS_NAMES.items() if label != LESION}}
    for name, label in names.items():
        counts = histograms.counts[label]
        figures[f"false_positive_rate_{name}"] = _ratio(int(counts[cut:].sum()), int(counts.sum()))
    return figures


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _ranking_metrics(positive: NDArray[np.int64], negative: NDArray[np.int64]) -> dict[str, float | None]:
    if not positive.any() or not negative.any():
        return {"auroc": None, "auprc": None}
    truth = np.repeat([1, 0], LEVELS)
    score = np.tile(np.arange(LEVELS), 2)
    weight = np.concatenate([positive, negative])
    return {
        "auroc": float(roc_auc_score(truth, score, sample_weight=weight)),
        "auprc": float(average_precision_score(truth, score, sample_weight=weight)),
    }


def evaluate_slide(
    info: SlideInfo,
    probability_path: str,
    tissue_path: str,
    annotation_path: str,
    output: str,
    *,
    threshold: float,
    split: str,
    provenance: dict[str, Any],
) -> None:
    """Compare one slide's probability map with its annotation, inside tissue, at the map's resolution.

    Annotated pixels count even where tissue detection missed them.

    Parameters
    ----------
    output : str
        JSON: the metrics, and the histograms they come from.
    """
    levels = tifffile.imread(probability_path, level=0)
    size = (levels.shape[1], levels.shape[0])
    scale = tifffile_mpp(probability_path) / info.mpp
    mask = Annotation(annotation_path).mask((0, 0), size, scale)
    tissue = TissueMask(tissue_path, info).at((0, 0), size, scale)
    mask[~tissue & (mask == 0)] = 255
    histograms = Histograms.of(levels, mask)
    content = {
        "slide": info.slide,
        "split": split,
        "metrics": binary_metrics(histograms, threshold),
        "histograms": histograms.counts.tolist(),
        "provenance": provenance,
    }
    write_json(output, content)


def tifffile_mpp(path: str) -> float:
    """µm/px of level 0 of a TIFF written by :func:`lesionmap.export.write_pyramid`."""
    with tifffile.TiffFile(path) as tiff:
        numerator, denominator = tiff.pages.first.tags["XResolution"].value
    return 1e4 * float(denominator) / float(numerator)


def summarise(metric_paths: Sequence[str], table: str, cohort: str, headline: str, *, threshold: float) -> None:
    """Write the table of all evaluated slides and the figures of each split.

    Parameters
    ----------
    metric_paths : sequence of str
        Files of :func:`evaluate_slide`; may be empty.
    table : str
        TSV, one row per slide.
    cohort : str
        JSON: per split, figures over all its pixels together, and how many slides they rest on.
    headline : str
        Text: Dice and AUROC of each split and of each of its slides.
    """
    records = [read_json(path) for path in metric_paths]
    rows = [{"slide": record["slide"], "split": record["split"], **record["metrics"]} for record in records]
    with written_whole(table) as draft:
        columns = ["slide", "split", *binary_metrics(Histograms.empty(), threshold)]
        pd.DataFrame(rows, columns=columns).to_csv(draft, sep="\t", index=False, float_format="%.6f", na_rep="NA")
    splits = {}
    for split in sorted({record["split"] for record in records}):
        members = [record for record in records if record["split"] == split]
        pooled = Histograms(np.sum([record["histograms"] for record in members], axis=0))
        splits[split] = {"slides": len(members), **binary_metrics(pooled, threshold)}
    write_json(cohort, splits)
    lines = [
        f"lesion, split {split} ({figures['slides']} slides): {_in_words(figures)}" for split, figures in splits.items()
    ]
    lines += [f"  {row['slide']}: {_in_words(row)}" for row in rows]
    write_text(headline, "\n".join(lines or ["no slide was evaluated"]) + "\n")


def _in_words(figures: dict[str, Any]) -> str:
    shown = {name: figures[name.lower()] for name in ("Dice", "AUROC")}
    return ", ".join(f"{name} {'undefined' if value is None else f'{value:.3f}'}" for name, value in shown.items())
