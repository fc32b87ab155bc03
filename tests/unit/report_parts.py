"""A small cohort's results, the report made of them, and what stands on its pages."""

import json
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from evaluated import lesion, record_of, scores_at, scores_of
from lesion_maps import write_outlines
from lesionmap.evaluation.findings import CohortFiles, FindingsFiles, SlideFiles, list_findings
from lesionmap.evaluation.leakage import UNSEEN, Seen
from lesionmap.evaluation.summary import SummaryFiles, summarise
from lesionmap.files.pictures import write_png
from lesionmap.files.records import write_json, write_text
from lesionmap.report.inputs import ReportInputs
from lesionmap.report.render import ReportFiles, render_report
from lesionmap.slides.slide import SlideInfo
from lesionmap.stain.comparison import compare_stains
from lesionmap.viewer.overlay import write_overlay
from PIL import Image
from safetensors.numpy import save_file

CONFIG = yaml.safe_load((Path(__file__).parents[2] / "config" / "config.yaml").read_text(encoding="utf-8"))


SPLITS = {"train_1": "train", "Präparat 7%": "test", "new_1": "inference"}


PAGES = ("index.html", "stain.html", "model.html", "checklist.html", "checklist.tsv", "report.js")


TABLES = ("lesions.tsv", "annotated_lesions.tsv", "unreadable.tsv", "found.tsv", "quarantine.tsv", "failed_exports.tsv")
TABLES += ("metrics/groups.tsv", "metrics/readers.tsv", "stain/cohort.tsv", "model/MODEL_CARD.md")
TABLES += ("manifest.tsv", "metrics/slides.tsv", "metrics/cohort.tsv", "metrics/summary.json")


CHARTS = ("roc", "precision_recall", "froc", "calibration", "thresholds", "areas", "lesion_sizes", "decision_curve")


BOUNDS_XY_LV0 = (1000, 2000)


MEAN_OD = {  # before and after; standard deviations: haematoxylin √(1/150) and a quarter, eosin √(1/50) and a fifth
    "train_1": ([0.1, 0.3], [0.1, 0.3]),
    "Präparat 7%": ([0.2, 0.3], [0.125, 0.3]),
    "new_1": ([0.3, 0.6], [0.15, 0.36]),
}


HISTORY = pd.DataFrame(
    {
        "epoch": [1, 2, 3],
        "train_low_loss": [0.3, 0.2, 0.1],
        "train_fused_loss": [0.3, 0.2, 0.1],
        "val_low_loss": [0.3, 0.1, 0.2],
        "val_low_dice": [None, 0.5, 0.4],
        "val_fused_dice": [0.1, 0.6, 0.5],
        "used": [0, 1, 0],
    }
)


class Page(HTMLParser):
    """What a page shows and where it leads."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.rows: list[list[str]] = []
        self.scripts = 0
        self.in_cell = False
        self.said: list[str] = []
        self.attributes: set[str] = set()
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.attributes |= set(found)
        self.links += [str(value) for key, value in attrs if key in ("href", "src")]
        self.images += [found] if tag == "img" else []
        self.scripts += tag == "script"
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self.in_cell = True

    def handle_endtag(self, tag: str) -> None:
        self.in_cell &= tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        self.said.append(data)
        if self.in_cell:
            self.rows[-1][-1] = (self.rows[-1][-1] + data).strip()

    def row(self, first: str) -> list[str]:
        return next(row for row in self.rows if row[0] == first)


def make_slide(folder: Path, slide: str, split: str, lesions: np.ndarray[Any, Any]) -> None:
    info = SlideInfo(
        slide,
        f"slides/{slide}.tif",
        "ab" * 32,
        "aperio",
        (4000, 3000),
        0.25,
        (1.0,),
        ((4000, 3000),),
        BOUNDS_XY_LV0,
    )
    flags = ["0.05 µm/px (file) is <implausible>"] if slide == "train_1" else []
    resolution = {"mpp": 0.25, "source": "slide sheet", "objective_power": None}
    record = {"slide": slide, "split": split, "verdict": "ok", "flags": flags, "resolution": resolution}
    record["info"] = vars(info)
    write_json(folder / f"{slide}.json", record)
    write_json(folder / f"{slide}.stain.json", stain_match(slide))
    view = np.full((30, 40, 3), 200, dtype=np.uint8)
    Image.fromarray(np.full((46, 170, 4), 255, dtype=np.uint8)).save(folder / f"{slide}.stain.png")  # as matplotlib's
    write_png(folder / f"{slide}.stain_thumbnails.png", np.full((256, 512, 3), 200, dtype=np.uint8))
    scores = scores_of(np.where(lesions, 0.8, 0))
    origin = {"software": "LesionMap 9", "code": "c0de"}
    metadata = {"unreadable": [], "threshold": 0.5, "provenance": origin}
    write_outlines(folder / f"{slide}.geojson", lesions, scores, 10, info, metadata)
    write_found(folder, slide, slide)
    no_lesion = np.zeros((30, 40), dtype=np.uint8)
    write_overlay(folder / f"{slide}.overlay.png", view, no_lesion, no_lesion > 0)
    write_text(folder.parent / f"report/views/{slide}/view.js", "window.lesionmapView = {};")


def write_found(folder: Path, name: str, slide: str, **changes: Any) -> None:
    """Records of a slide's map and of its lesions: without an annotation, and with invisible borders of tiles."""
    found = {"slide": slide, "tissue_mm2": 0.5, "verdicts": None, "annotated": None} | changes
    write_json(folder / f"{name}.lesions.json", found)
    write_json(folder / f"{name}.inference.json", {"slide": slide, "seam_measure": changes.get("seam_measure", 1.1)})


def stain_table(inputs: ReportInputs) -> str:
    """Where the stains of the slides are compared."""
    return str(Path(inputs.stain_spread).with_name("stain.tsv"))


def list_again(inputs: ReportInputs) -> None:
    """List what was found, as the files are now."""
    beside = [
        [path.removesuffix("json") + kind for path in inputs.records] for kind in ("lesions.json", "inference.json")
    ]
    pairs = list(zip(beside[0], inputs.lesion_tables, strict=True))
    slides = SlideFiles(inputs.records, pairs, beside[1], inputs.stains, inputs.checks)
    cohort = CohortFiles(inputs.slide_table, stain_table(inputs), inputs.tables[2], inputs.failed_exports)
    list_findings(slides, cohort, FindingsFiles(*inputs.tables[:2], inputs.found), {})


def stain_match(slide: str) -> dict[str, Any]:
    """As of a slide whose stains are those of the reference, train_1, but weaker."""
    basis = [[0.6, 0.8, 0.0], [0.0, 1.0, 0.0]]  # cosine of the angle between them: 0.8
    metadata = {"n_pixels": 9, "reconstruction_error": 0.0125, "method": "vahadane", "verdict": "ok"}
    before, after = MEAN_OD.get(slide, ([0.1, 0.3], [0.1, 0.3]))
    return {
        "profile": {"basis": basis, "p99": [1.5, 1.0]} | metadata,
        "reference": {"basis": basis, "p99": [3.0, 1.25]} | metadata,
        "ratio": [2.0, 1.25],
        "slide": slide,
        "reference_slide": "train_1",
        "angle_to_reference": [0.5, 1.5],
        "fitted": {"verdict": "ok", "basis": basis, "angle": 36.87},
        "mean_od": {"before": before, "after": after},
        "white_point": {"colour": [189.0, 188.0, 186.0], "source": "glass"},
        "flags": [],
    }


def change_stain(inputs: ReportInputs, slide: str, outlier: str = "", **changes: Any) -> None:
    """Give a slide another stain, and say in what it is unlike the others."""
    path = inputs.stains[list(SPLITS).index(slide)]
    write_json(path, json.loads(Path(path).read_text()) | changes)
    table = pd.read_csv(stain_table(inputs), sep="\t", dtype=str, keep_default_na=False)
    table.loc[table["slide"] == slide, "outlier"] = outlier
    table.to_csv(stain_table(inputs), sep="\t", index=False)


def with_fallback(method: str, flags: list[str]) -> dict[str, Any]:
    """What differs for a slide whose fit found brown and grey."""
    match = stain_match("any")
    fitted = {"verdict": "not H&E", "basis": [[0.0, 0.0, 1.0], [0.5, 0.6, 0.6]], "angle": 53.1}
    return {
        "profile": match["profile"] | {"verdict": "not H&E", "method": method},
        "fitted": fitted,
        "flags": flags,
        "angle_to_reference": [0.0, 0.0],
    }


def make_model(path: Path, **changes: Any) -> str:
    metadata = {"architecture": {"backbone": "resnet18", "norm": "group"}, "threshold": 0.5, "licence": "MIT"} | changes
    save_file({"head.bias": np.zeros(1, dtype=np.float32)}, path, metadata={"lesionmap": json.dumps(metadata)})
    return str(path)


def make_metrics(folder: Path, slide: str) -> str:
    """Nine lesion pixels found, one missed, one false alarm on the rest; no vessel, no fat."""
    mask = np.array([1] * 10 + [0] * 10, dtype=np.uint8)
    scores = scores_of([1] * 9 + [0] + [1] + [0] * 9)
    lesions = [lesion(detected_at=255), lesion(predicted_pixels=0)]
    record = record_of(slide, scores, mask, lesions=lesions, false_positive_scores=scores_at(255))
    write_json(folder / f"{slide}.metrics.json", record)
    return str(folder / f"{slide}.metrics.json")


def summarise_into(inputs: ReportInputs, paths: list[str], seen: Seen = UNSEEN, **options: Any) -> None:
    others = f"{inputs.summary}.tsv", inputs.summary, f"{inputs.summary}.txt", inputs.readers, inputs.groups
    summarise(paths, SummaryFiles(inputs.slide_table, *others), 200, seen, **options)


def render(inputs: ReportInputs, folder: Path, model_notes: Sequence[str] = (), **changes: Any) -> Path:
    list_again(inputs)
    report = folder / "report"
    files = ReportFiles(*(str(report / name) for name in (*PAGES, "slides", "figures", "viewer", "files", "tables")))
    slides = [Path(view).name for view in inputs.views]
    options = {"slides": slides, "config": CONFIG | changes, "model_notes": model_notes}
    options["benchmarks"] = str(folder / "benchmarks")
    render_report(inputs, files, map_mpp=2.5, **options)
    return report


def cohort_of(folder: Path, *, without_lesion: int = 0) -> list[str]:
    """Files of metrics of six patients' test slides of which ever less is found, and of others without lesion."""
    paths = []
    for n in range(6 + without_lesion):
        has_lesion = n < 6
        mask = np.array([has_lesion] * 10 + [0] * 10, dtype=np.uint8)
        scores = scores_of([1] * (10 - n) + [0] * (10 + n))
        found = [lesion(detected_at=255 if n < 3 else None, predicted_pixels=n < 3)] if has_lesion else []
        false = scores_at(*[255] * n) if not has_lesion else scores_at()
        paths.append(str(folder / f"s{n}.metrics.json"))
        write_json(paths[-1], record_of(f"s{n}", scores, mask, lesions=found, false_positive_scores=false))
    return paths


def with_slides(inputs: ReportInputs, folder: Path, names: list[str]) -> ReportInputs:
    """Mapped slides of these names, all else as of train_1."""
    record, stain = (json.loads(Path(paths[0]).read_text()) for paths in (inputs.records, inputs.stains))
    for name in names:
        write_json(folder / f"{name}.json", record | {"slide": name, "split": "test", "flags": []})
        write_json(folder / f"{name}.stain.json", stain | {"slide": name})
        write_found(folder, name, name)
    records, stains = ([str(folder / f"{name}.{kind}") for name in names] for kind in ("json", "stain.json"))
    compare_stains(stains, stain_table(inputs), inputs.stain_spread)
    kinds = ("stain_pictures", "stain_thumbnails", "outlines", "lesion_tables", "overlays", "views")
    same = {kind: [getattr(inputs, kind)[0]] * len(names) for kind in kinds}
    return replace(inputs, records=records, stains=stains, **same)


def texts(page: Page, opening: str) -> list[str]:
    """What stands in elements that begin so."""
    return [" ".join(part.split("<")[0].split()) for part in page.source.split(opening)[1:]]


def slide_rows(report: Path) -> list[list[str]]:
    """Rows of the table of slides."""
    return [row for row in Page(report / "index.html").rows if len(row) == 11][1:]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rendered(report: Path) -> set[str]:
    """What was written but for the slides' views, which another rule writes, and the viewer."""
    return {name for name in contents(report) if Path(name).parts[0] not in ("views", "viewer")}


def only(inputs: ReportInputs, count: int) -> ReportInputs:
    """The first slides alone."""
    names = (
        "records",
        "stains",
        "stain_pictures",
        "stain_thumbnails",
        "outlines",
        "lesion_tables",
        "overlays",
        "views",
    )
    fewer = replace(inputs, **{name: getattr(inputs, name)[:count] for name in names})
    compare_stains(fewer.stains, stain_table(fewer), fewer.stain_spread)
    return fewer
