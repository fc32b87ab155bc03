"""The report: its figures are exact, its links lead somewhere, nothing needs the network."""

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
import yaml
from lesionmap.errors import SlideError
from lesionmap.evaluation import summarise
from lesionmap.export import write_lesions, write_overlay
from lesionmap.files import write_json
from lesionmap.images import write_png
from lesionmap.losses import RunFiles, list_quarantine
from lesionmap.metrics import Histograms, binary_metrics
from lesionmap.quarantine import write_quarantined
from lesionmap.report import ReportInputs, duration, fixed, published_epoch, render_report, stage_times
from lesionmap.slides import SlideInfo
from PIL import UnidentifiedImageError

CONFIG = yaml.safe_load((Path(__file__).parents[2] / "config" / "config.yaml").read_text(encoding="utf-8"))
SPLITS = {"train_1": "train", "Präparat 7%": "test", "new_1": "inference"}
BOUNDS_XY_LV0 = (1000, 2000)
HISTORY = pd.DataFrame(
    {
        "epoch": [1, 2, 3],
        "train_low_loss": [0.3, 0.2, 0.1],
        "train_fused_loss": [0.3, 0.2, 0.1],
        "val_low_loss": [0.3, 0.1, 0.2],
        "val_low_dice": [None, 0.5, 0.4],
        "val_fused_dice": [0.1, 0.6, 0.5],
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
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
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
    profile = {
        "basis": [[0.6, 0.8, 0.0], [0.0, 1.0, 0.0]],
        "p99": [1.5, 1.0],
        "n_pixels": 9,
        "method": "vahadane",
    }
    write_json(folder / f"{slide}.stain.json", {"profile": profile | {"reconstruction_error": 0.0125}})
    view = np.full((30, 40, 3), 200, dtype=np.uint8)
    write_png(folder / f"{slide}.stain.png", view)
    levels = lesions.astype(np.uint8) * 204
    origin = {"software": "LesionMap 9", "code": "c0de"}
    write_lesions(
        folder / f"{slide}.geojson",
        lesions,
        levels,
        scale=10,
        info=info,
        facts={"unreadable": [], "provenance": origin},
    )
    no_lesion = np.zeros((30, 40), dtype=np.uint8)
    write_overlay(folder / f"{slide}.overlay.png", view, no_lesion, no_lesion > 0)


def make_metrics(folder: Path, slide: str) -> str:
    """Nine lesion pixels found, one missed, one false alarm on the rest; no vessel, no fat."""
    mask = np.array([1] * 10 + [0] * 10, dtype=np.uint8)
    levels = np.array([255] * 9 + [0] + [255] + [0] * 9, dtype=np.uint8)
    histograms = Histograms.of(levels, mask)
    metrics = binary_metrics(histograms, 0.5)
    content = {"slide": slide, "split": "test", "metrics": metrics, "histograms": histograms.counts.tolist()}
    write_json(folder / f"{slide}.metrics.json", content)
    return str(folder / f"{slide}.metrics.json")


@pytest.fixture
def inputs(tmp_path: Path) -> ReportInputs:
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
    tables = [str(folder / name) for name in ("quarantine.tsv", "cohort.json", "slides.tsv")]
    list_quarantine(RunFiles(records), tables[0], str(folder / "unreadable.tsv"))
    summarise([make_metrics(folder, "Präparat 7%")], tables[2], tables[1], str(folder / "headline.txt"), threshold=0.5)
    HISTORY.to_csv(folder / "history.csv", index=False)
    kinds = ("json", "stain.json", "stain.png", "geojson", "overlay.png")
    per_slide = [[str(folder / f"{slide}.{kind}") for slide in SPLITS] for kind in kinds]
    return ReportInputs(*tables, str(folder / "history.csv"), *per_slide)


def render(inputs: ReportInputs, folder: Path, **changes: Any) -> Path:
    report = folder / "report"
    outputs = (str(report / "index.html"), str(report / "slides"), str(report / "figures"))
    render_report(inputs, *outputs, config=CONFIG | changes, benchmarks=str(folder / "benchmarks"))
    return report


@pytest.fixture
def report(inputs: ReportInputs, tmp_path: Path) -> Path:
    return render(inputs, tmp_path)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_slide_has_a_page_and_three_pictures(report: Path) -> None:
    pages = {f"slides/{slide}.html" for slide in SPLITS}
    kinds = ("overlay.png", "thumbnail.png", "stain.jpg")
    pictures = {f"figures/{slide}_{kind}" for slide in SPLITS for kind in kinds}
    assert set(contents(report)) == {"index.html", "figures/learning_curves.svg"} | pages | pictures


def test_links_inside_the_report_lead_to_files(report: Path) -> None:
    for path in [report / "index.html", *(report / "slides").iterdir()]:
        page = Page(path)
        targets = [(path.parent / unquote(link)).resolve() for link in page.links if not link.startswith("#")]
        inside = [target for target in targets if target.is_relative_to(report.resolve())]
        assert len(inside) >= 3
        assert all(target.is_file() for target in inside)
        assert all(image["alt"] for image in page.images)


def test_jumps_lead_to_sections(report: Path) -> None:
    page = Page(report / "index.html")
    jumps = [link[1:] for link in page.links if link.startswith("#")]
    assert "quarantine" in jumps
    assert all(f'id="{jump}"' in page.source for jump in jumps)


def test_nothing_is_fetched_from_a_network(report: Path) -> None:
    for path in report.rglob("*.html"):
        page = Page(path)
        assert not any(":" in unquote(link) for link in page.links)
        assert "@import" not in page.source
        assert "url(" not in page.source


def test_same_inputs_give_same_bytes(inputs: ReportInputs, report: Path, tmp_path: Path) -> None:
    assert contents(render(inputs, tmp_path / "again")) == contents(report)


def test_quarantine_is_listed_and_escaped(report: Path) -> None:
    page = Page(report / "index.html")
    expected = ["bad_1", "train", "inspect_slide", "<script>alert(1)</script>", "copy & try again"]
    assert page.row("bad_1") == expected
    assert page.scripts == 1
    assert "3 slides mapped" in page.source
    assert "1 in quarantine" in page.source


def test_without_quarantine_there_is_no_such_section(inputs: ReportInputs, tmp_path: Path) -> None:
    list_quarantine(RunFiles(inputs.records), inputs.quarantine, str(tmp_path / "unreadable.tsv"))
    assert 'id="quarantine"' not in Page(render(inputs, tmp_path) / "index.html").source


def test_cohort_figures_and_gaps(report: Path) -> None:
    page = Page(report / "index.html")
    assert page.row("Measure") == ["Measure", "test (1 slide)"]
    assert page.row("Dice") == ["Dice", "0.900"]
    assert page.row("IoU") == ["IoU", "0.818"]
    assert page.row("False-positive rate on the rest")[1] == "0.100"
    assert page.row("False-positive rate on vessel")[1] == "—"


def test_a_slide_that_a_later_stage_refused_says_so_on_its_page(inputs: ReportInputs, tmp_path: Path) -> None:
    reason = SlideError(slide="train_1", stage="extract_tiles", finding="2 of 3 boxes", remedy="copy it again")
    write_quarantined([str(tmp_path / "train_1.h5")], reason)
    unreadable = str(tmp_path / "unreadable.tsv")
    list_quarantine(RunFiles(inputs.records, stores=[str(tmp_path / "train_1.h5")]), inputs.quarantine, unreadable)
    report = render(inputs, tmp_path)
    page = (report / "slides" / "train_1.html").read_text()
    assert "in quarantine since extract_tiles: 2 of 3 boxes" in page
    assert "0.05 µm/px (file) is &lt;implausible&gt;" in page
    assert 'id="oddities"' not in (report / "index.html").read_text()  # it stands in the quarantine


def test_a_slide_that_is_odd_is_listed_with_what_is_odd(inputs: ReportInputs, tmp_path: Path) -> None:
    page = (render(inputs, tmp_path) / "index.html").read_text()
    assert 'id="oddities"' in page
    assert "train_1</a>: 0.05 µm/px (file) is &lt;implausible&gt;" in page


def test_a_slide_without_a_map_has_no_page(inputs: ReportInputs, tmp_path: Path) -> None:
    reason = SlideError(slide="train_1", stage="infer_slide", finding="2 of 3 boxes", remedy="copy it again")
    lost = inputs.outlines[list(SPLITS).index("train_1")]
    write_quarantined([lost], reason)
    report = render(inputs, tmp_path)
    assert not (report / "slides" / "train_1.html").exists()
    assert "2 slides mapped" in (report / "index.html").read_text()


def test_without_evaluated_slides_the_report_says_so(inputs: ReportInputs, tmp_path: Path) -> None:
    summarise([], inputs.slide_table, inputs.cohort, f"{inputs.cohort}.txt", threshold=0.5)
    report = render(inputs, tmp_path)
    assert "No slide was evaluated" in (report / "index.html").read_text()
    assert Page(report / "index.html").rows[3][7:9] == ["—", "—"]
    assert (
        "Not evaluated: its annotation or its map could not be used"
        in (report / "slides" / "Präparat 7%.html").read_text()
    )


def test_slide_table_is_in_the_order_of_the_sheet(report: Path) -> None:
    rows = [row for row in Page(report / "index.html").rows if len(row) == 10][1:]
    assert [row[1] for row in rows] == list(SPLITS)
    # 4000 × 3000 px of 0.25 µm; AUROC 0.9 · 0.9 + (0.9 · 0.1 + 0.1 · 0.9) / 2; cosine of the stain angle 0.8
    assert rows[1][2:] == ["test", "0.2500", "1.0 × 0.8", "2", "0.008", "0.900", "0.900", "36.9"]
    assert rows[2][2:] == ["inference", "0.2500", "1.0 × 0.8", "0", "0.000", "—", "—", "36.9"]


def test_lesions_are_listed_largest_first_in_the_frame_of_the_file(report: Path) -> None:
    page = Page(report / "slides" / "Präparat 7%.html")
    assert page.row("Lesion 2") == ["Lesion 2", "0.00600", "0.80", "0.80", "600", "1240"]
    assert page.row("Lesion 1") == ["Lesion 1", "0.00200", "0.80", "0.80", "300", "180"]
    assert page.rows.index(page.row("Lesion 2")) < page.rows.index(page.row("Lesion 1"))


def test_a_hundred_lesions_are_listed_and_the_rest_counted(inputs: ReportInputs, tmp_path: Path) -> None:
    outlines = json.loads(Path(inputs.outlines[1]).read_text())
    outlines["features"] = outlines["features"][:1] * 107
    Path(inputs.outlines[1]).write_text(json.dumps(outlines))
    page = Page(render(inputs, tmp_path) / "slides" / "Präparat 7%.html")
    assert sum(row[0] == "Lesion 1" for row in page.rows) == 100
    assert "the 100 largest of 107, the other 7 are in lesions.geojson" in page.source


def test_slide_pages_name_their_neighbours(report: Path) -> None:
    links = {slide: Page(report / "slides" / f"{slide}.html").links[:3] for slide in SPLITS}
    assert links["train_1"][:2] == ["../index.html", "Pr%C3%A4parat%207%25.html"]
    assert links["Präparat 7%"] == ["../index.html", "train_1.html", "new_1.html"]
    assert links["new_1"][:2] == ["../index.html", "Pr%C3%A4parat%207%25.html"]


def test_stain_of_a_slide(report: Path) -> None:
    page = Page(report / "slides" / "new_1.html")
    assert page.row("Haematoxylin") == ["Haematoxylin", "", "0.600", "0.800", "0.000", "1.500"]
    assert "rgb(104, 77, 255)" in page.source  # 255 · exp(−1.5 · 0.6), 255 · exp(−1.5 · 0.8)
    assert "LesionMap 9" in page.source


def test_an_existing_model_is_named_instead_of_curves(inputs: ReportInputs, tmp_path: Path) -> None:
    model = CONFIG["model"] | {"path": "/models/liver.safetensors"}
    report = render(replace(inputs, history=None), tmp_path, model=model)
    page = Page(report / "index.html")
    assert "existing model <code>/models/liver.safetensors</code>" in page.source
    assert not (report / "figures" / "learning_curves.svg").exists()
    assert not any("learning_curves" in link for link in page.links)


@pytest.mark.parametrize("method", ["vahadane", "macenko", "none"])
def test_the_stain_method_in_use_is_cited(inputs: ReportInputs, tmp_path: Path, method: str) -> None:
    text = (render(inputs, tmp_path, stain=CONFIG["stain"] | {"method": method}) / "index.html").read_text()
    authors = {"vahadane": "Vahadane A", "macenko": "Macenko M", "none": "Ruifrok AC"}
    assert [name for name in authors.values() if name in text] == [authors[method]]


def test_no_page_of_a_former_slide_is_left(report: Path, inputs: ReportInputs, tmp_path: Path) -> None:
    names = ("records", "stains", "stain_pictures", "outlines", "overlays")
    fewer = {name: getattr(inputs, name)[1:] for name in names}
    list_quarantine(RunFiles(inputs.records[1:]), inputs.quarantine, str(tmp_path / "unreadable.tsv"))
    render(replace(inputs, **fewer), tmp_path)
    assert not (report / "slides" / "train_1.html").exists()
    assert not list((report / "figures").glob("train_1*"))


def test_a_failure_leaves_the_former_report(report: Path, inputs: ReportInputs, tmp_path: Path) -> None:
    before = contents(report)
    summarise([], inputs.slide_table, inputs.cohort, f"{inputs.cohort}.txt", threshold=0.5)
    Path(inputs.stain_pictures[2]).write_text("no picture")
    with pytest.raises(UnidentifiedImageError):
        render(inputs, tmp_path)
    assert contents(report) == before
    assert {path.name for path in report.iterdir()} == {"index.html", "slides", "figures"}


def test_folders_are_open_to_others(report: Path) -> None:
    assert (report / "slides").stat().st_mode == (report.parent / "inputs").stat().st_mode


def test_stage_times_sum_over_slides(tmp_path: Path) -> None:
    assert stage_times(str(tmp_path / "absent")) == []
    columns = "s\th:m:s\tmax_rss\n"
    (tmp_path / "find_tissue").mkdir()
    (tmp_path / "find_tissue" / "a.tsv").write_text(columns + "1.5\t0:00:01\t60.5\n")
    (tmp_path / "find_tissue" / "b.tsv").write_text(columns + "2.0\t0:00:02\tNA\n")
    (tmp_path / "train.tsv").write_text(columns + "90.0\t0:01:30\t900\n")
    (tmp_path / "render_report.tsv").write_text(columns + "99.0\t0:01:39\t900\n")
    assert stage_times(str(tmp_path)) == [
        {"stage": "train", "jobs": 1, "seconds": 90.0, "longest_s": 90.0, "peak_mb": 900.0},
        {"stage": "find_tissue", "jobs": 2, "seconds": 3.5, "longest_s": 2.0, "peak_mb": 60.5},
    ]


def test_without_validation_there_is_one_chart(inputs: ReportInputs, tmp_path: Path) -> None:
    columns = ["epoch", "train_low_loss", "train_fused_loss"]
    HISTORY[columns].to_csv(str(inputs.history), index=False)
    assert 'width="324pt"' in (render(inputs, tmp_path) / "figures" / "learning_curves.svg").read_text()


def test_published_epoch() -> None:
    assert published_epoch(HISTORY) == 2
    assert published_epoch(HISTORY.assign(val_low_loss=[0.1, 0.2, 0.1])) == 3
    assert published_epoch(HISTORY.drop(columns="val_low_loss")) == 3


def test_numbers_for_people() -> None:
    assert fixed(0.12345, 3) == "0.123"
    assert fixed(None, 3) == fixed(float("nan"), 3) == "—"
    assert duration(59.94) == "59.9 s"
    assert duration(3661.4) == "1:01:01 h"
