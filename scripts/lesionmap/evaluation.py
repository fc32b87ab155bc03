"""Lesion maps held against annotations, per slide and over the cohort."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from lesionmap.files import read_json, write_json, write_text, written_whole
from lesionmap.map_files import MapFile
from lesionmap.masks import Annotation
from lesionmap.metrics import Histograms, binary_metrics
from lesionmap.slides import SlideInfo
from lesionmap.strips import strips
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
    """Compare one slide's probability map with its annotation, inside tissue, at the map's resolution, strip by strip.

    Annotated pixels count even where tissue detection missed them; what could not be read does not.

    Parameters
    ----------
    output : str
        JSON: the metrics, and the histograms they come from.
    """
    annotation, tissue, histograms = Annotation(annotation_path), TissueMask(tissue_path, info), Histograms.empty()
    with MapFile(probability_path) as probability:
        scale, (height, width) = probability.mpp / info.mpp, probability.shape
        for part in strips(height):
            place = (0, part.start * scale), (width, part.stop - part.start), scale
            mask = annotation.mask(*place)
            mask[~tissue.at(*place) & (mask == 0)] = IGNORE
            for box in probability.facts["unreadable"]:
                left, top, across, down = (round(length / scale) for length in box)
                rows = slice(max(0, top - part.start), max(0, top + down - part.start))
                mask[rows, left : left + across] = IGNORE
            histograms += Histograms.of(probability.rows(part), mask)
    content = {
        "slide": info.slide,
        "split": split,
        "threshold": threshold,
        "metrics": binary_metrics(histograms, threshold),
        "histograms": histograms.counts.tolist(),
        "provenance": provenance,
    }
    write_json(output, content)


def summarise(metric_paths: Sequence[str], table: str, cohort: str, headline: str) -> None:
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
        columns = ["slide", "split", *binary_metrics(Histograms.empty(), threshold=0.5)]
        pd.DataFrame(rows, columns=columns).to_csv(draft, sep="\t", index=False, float_format="%.6f", na_rep="NA")
    splits = {}
    for split in sorted({record["split"] for record in records}):
        members = [record for record in records if record["split"] == split]
        pooled = Histograms(np.sum([record["histograms"] for record in members], axis=0))
        splits[split] = {"slides": len(members), **binary_metrics(pooled, members[0]["threshold"])}
    write_json(cohort, splits)
    lines = [
        f"lesion, split {split} ({figures['slides']} slides): {_in_words(figures)}" for split, figures in splits.items()
    ]
    lines += [f"  {row['slide']}: {_in_words(row)}" for row in rows]
    write_text(headline, "\n".join(lines or ["no slide was evaluated"]) + "\n")


def _in_words(figures: dict[str, Any]) -> str:
    shown = {name: figures[name.lower()] for name in ("Dice", "AUROC")}
    return ", ".join(f"{name} {'undefined' if value is None else f'{value:.3f}'}" for name, value in shown.items())
