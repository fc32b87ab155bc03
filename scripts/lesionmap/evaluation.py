"""Lesion maps held against annotations, per slide and over the cohort."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import tifffile

from lesionmap.files import read_json, write_json, write_text, written_whole
from lesionmap.images import pyramid_mpp, pyramid_provenance
from lesionmap.masks import Annotation
from lesionmap.metrics import Histograms, binary_metrics
from lesionmap.slides import SlideInfo
from lesionmap.tiling import IGNORE
from lesionmap.tissue import TissueMask


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

    Annotated pixels count even where tissue detection missed them; what could not be read does not.

    Parameters
    ----------
    output : str
        JSON: the metrics, and the histograms they come from.
    """
    levels = tifffile.imread(probability_path, level=0)
    size = (levels.shape[1], levels.shape[0])
    scale = pyramid_mpp(probability_path) / info.mpp
    mask = Annotation(annotation_path).mask((0, 0), size, scale)
    tissue = TissueMask(tissue_path, info).at((0, 0), size, scale)
    mask[~tissue & (mask == 0)] = IGNORE
    for box in pyramid_provenance(probability_path)["unreadable"]:
        left, top, width, height = (round(part / scale) for part in box)
        mask[top : top + height, left : left + width] = IGNORE
    histograms = Histograms.of(levels, mask)
    content = {
        "slide": info.slide,
        "split": split,
        "metrics": binary_metrics(histograms, threshold),
        "histograms": histograms.counts.tolist(),
        "provenance": provenance,
    }
    write_json(output, content)


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
