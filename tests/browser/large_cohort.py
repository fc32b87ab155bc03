"""A large cohort made of a finished run's slides, and its report: for a test of the page, and to time it."""

from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import yaml
from lesionmap.evaluation.findings import CohortFiles, FindingsFiles, SlideFiles, list_findings
from lesionmap.evaluation.plots import MetricPlots, plot_metrics
from lesionmap.evaluation.summary import SummaryFiles, summarise
from lesionmap.files.records import read_json, write_json
from lesionmap.report.inputs import ReportInputs
from lesionmap.report.render import ReportFiles, render_report
from lesionmap.run.config import inference_mpp
from lesionmap.stain.comparison import compare_stains

CHARTS = ("roc", "precision_recall", "froc", "calibration", "thresholds", "areas", "lesion_sizes", "decision_curve")
CONFIG = Path(__file__).parents[2] / "config/config.yaml"


def render_large(results: Path, folder: Path, count: int) -> Path:
    """Write a report of `count` slides, each a copy of one of the run's under a name of its own.

    Parameters
    ----------
    results : Path
        Folder of the finished run, whose files are taken as they are but for the slides' names.
    folder : Path
        Where the renamed files and the report go.
    count : int

    Returns
    -------
    Path
        Folder of the report.
    """
    originals = sorted(path.parent.name for path in results.glob("lesions/*/lesions.geojson"))
    copies = [(original, f"{original}_{n:04}") for n, original in enumerate(islice(cycle(originals), count))]
    config = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    report = folder / "report"
    pages = ("index.html", "stain.html", "model.html", "checklist.html", "checklist.tsv")
    names = (*pages, "report.js", "slides", "figures", "viewer", "files", "tables")
    files = ReportFiles(*(str(report / name) for name in names))
    benchmarks = str(results / "benchmarks")
    options = {"slides": [copy for _, copy in copies], "config": config, "benchmarks": benchmarks}
    render_report(_inputs(results, folder, copies), files, map_mpp=inference_mpp(config), **options)
    return report


def _inputs(results: Path, folder: Path, copies: list[tuple[str, str]]) -> ReportInputs:
    stains = list(_renamed(results / "stain/matches", folder / "stain", copies))
    metrics = list(_renamed(results / "metrics/slides", folder / "metrics", copies))
    written = ("slides.tsv", "cohort.tsv", "summary.json", "headline.txt", "readers.tsv", "groups.tsv")
    slide_table, cohort, summary, headline, readers, groups = (str(folder / name) for name in written)
    stain_table, spread = (str(folder / name) for name in ("stain.tsv", "spread.json"))
    summarise(metrics, SummaryFiles(slide_table, cohort, summary, headline, readers, groups), min_lesion_um=200)
    charts = [str(folder / f"{name}.svg") for name in CHARTS]
    plot_metrics(summary, slide_table, MetricPlots(*charts))
    compare_stains(stains, stain_table, spread)
    tables = [str(folder / name) for name in ("lesions.tsv", "annotated_lesions.tsv", "found.tsv")]
    records = list(_renamed(results / "slides", folder / "slides", copies))
    checks = list(_renamed(results / "annotations", folder / "annotations", copies))
    lesion_tables = [str(results / f"lesions/{original}/lesions.tsv") for original, _ in copies]
    found, maps = (
        list(_of_lesions(results, folder / kind, copies, f"{kind}.json")) for kind in ("lesions", "inference")
    )
    lost = (str(results / f"{name}.tsv") for name in ("unreadable", "failed_exports"))
    list_findings(
        SlideFiles(records, list(zip(found, lesion_tables, strict=True)), maps, stains, checks),
        CohortFiles(slide_table, stain_table, *lost),
        FindingsFiles(*tables),
        {},
    )
    return ReportInputs(
        found=tables[2],
        lesion_tables=lesion_tables,
        metrics=metrics,
        tables=tables,
        quarantine=str(results / "quarantine.tsv"),
        failed_exports=str(results / "failed_exports.tsv"),
        checks=checks,
        summary=summary,
        slide_table=slide_table,
        readers=readers,
        groups=groups,
        metric_plots=charts,
        models=None,
        stain_spread=spread,
        model=str(results / "model/lesionmap.safetensors"),
        history=str(results / "model/history.csv"),
        learning_curves=str(results / "model/learning_curves.svg"),
        records=records,
        stains=stains,
        stain_pictures=[str(results / f"stain/{original}.png") for original, _ in copies],
        stain_thumbnails=[str(results / f"stain/thumbnails/{original}.png") for original, _ in copies],
        outlines=[str(results / f"lesions/{original}/lesions.geojson") for original, _ in copies],
        overlays=[str(results / f"lesions/{original}/overlay.png") for original, _ in copies],
        views=[str(results / f"report/views/{original}") for original, _ in copies],
    )


def _renamed(source: Path, target: Path, copies: list[tuple[str, str]]) -> Iterator[str]:
    """Copies of the JSON files that there are of slides, with the new name in them."""
    for original, name in copies:
        if (source / f"{original}.json").exists():
            content: dict[str, Any] = read_json(source / f"{original}.json")
            write_json(target / f"{name}.json", content | {"slide": name})
            yield str(target / f"{name}.json")


def _of_lesions(results: Path, folder: Path, copies: list[tuple[str, str]], name: str) -> Iterator[str]:
    """A record of each slide's lesions or map, under the copy's name."""
    for original, copy in copies:
        path = folder / f"{copy}.json"
        write_json(path, read_json(results / f"lesions/{original}/{name}") | {"slide": copy})
        yield str(path)
