"""The results of a small cohort, and the report made of them."""

from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
from lesionmap.evaluation.plots import MetricPlots, plot_metrics
from lesionmap.evaluation.summary import SummaryFiles, summarise
from lesionmap.files.records import write_json, write_text
from lesionmap.report.inputs import ReportInputs
from lesionmap.run.quarantine_tables import RunFiles, list_quarantine
from lesionmap.stain.comparison import compare_stains
from lesionmap.training.learning_curves import plot_learning_curves
from report_parts import (
    CHARTS,
    HISTORY,
    SPLITS,
    TABLES,
    list_again,
    make_metrics,
    make_model,
    make_slide,
    render,
    summarise_into,
)


@pytest.fixture(scope="session")
def charts(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What the report copies as it is: curves of HISTORY, and figures of a cohort without evaluated slide."""
    folder = tmp_path_factory.mktemp("charts")
    HISTORY.to_csv(folder / "history.csv", index=False)
    plot_learning_curves(str(folder / "history.csv"), str(folder / "learning_curves.svg"))
    names = ("slides.tsv", "cohort.tsv", "summary.json", "headline.txt", "readers.tsv", "groups.tsv")
    files = SummaryFiles(*(str(folder / name) for name in names))
    summarise([], files, min_lesion_um=200)
    drawn = MetricPlots(*(str(folder / f"{name}.svg") for name in CHARTS))
    plot_metrics(files.summary, files.slides, drawn)
    return [str(folder / "learning_curves.svg"), *astuple(drawn)]


@pytest.fixture
def inputs(charts: list[str], tmp_path: Path) -> ReportInputs:
    folder = tmp_path / "inputs"
    lesions = np.zeros((300, 400), dtype=np.bool_)
    lesions[10:26, 20:40] = True  # level 0: x 200–400, y 100–260; 0.002 mm²
    lesions[100:148, 50:70] = True  # level 0: x 500–700, y 1000–1480; 0.006 mm²
    for slide, split in SPLITS.items():
        make_slide(folder, slide, split, lesions if split == "test" else np.zeros_like(lesions))
    bad = {"slide": "bad_1", "split": "train", "verdict": "quarantined", "stage": "inspect_slide"}
    advice = {"finding": "<script>alert(1)</script>", "remedy": "copy & try again"}
    write_json(folder / "bad_1.json", bad | advice)
    records = [str(folder / f"{slide}.json") for slide in [*SPLITS, "bad_1"]]
    others = ("summary.json", "slides.tsv", "readers.tsv", "groups.tsv", "spread.json")
    written = (str(folder / name) for name in ("quarantine.tsv", "failed_exports.tsv", *others))
    quarantine, failed, summary, slide_table, readers, groups, stain_spread = written
    list_quarantine(RunFiles(records), quarantine, str(folder / "unreadable.tsv"), failed)
    HISTORY.to_csv(folder / "history.csv", index=False)
    kinds = ("json", "stain.json", "stain.png", "stain_thumbnails.png", "geojson", "tsv")
    per_slide = [[str(folder / f"{slide}.{kind}") for slide in SPLITS] for kind in kinds]
    compare_stains(per_slide[1], str(folder / "stain.tsv"), stain_spread)
    learning_curves, *metric_plots = charts
    training = (make_model(folder / "m.safetensors"), str(folder / "history.csv"), learning_curves)
    tables = [str(folder / name) for name in TABLES]
    for table in tables[6:]:
        write_text(table, "as it is")
    overlays = [str(folder / f"{slide}.overlay.png") for slide in SPLITS]
    found = str(folder / "found.tsv")
    cohort = (found, quarantine, failed, summary, slide_table, readers, groups, metric_plots, None, stain_spread)
    views = [str(tmp_path / f"report/views/{slide}") for slide in SPLITS]
    checks = [str(folder / f"{slide}.check.json") for slide, split in SPLITS.items() if split != "inference"]
    for slide, path in zip(SPLITS, checks, strict=False):
        write_json(
            path,
            {
                "slide": slide,
                "format": "QuPath GeoJSON",
                "tissue_share": {"lesion": 0.987},
                "review": None,
                "flags": [],
            },
        )
    metrics = [make_metrics(folder, "Präparat 7%")]
    inputs = ReportInputs(*cohort, *training, per_slide[0], checks, *per_slide[1:], metrics, tables, overlays, views)
    summarise_into(inputs, metrics)
    list_again(inputs)
    return inputs


@pytest.fixture
def report(inputs: ReportInputs, tmp_path: Path) -> Path:
    return render(inputs, tmp_path)
