"""The report: its metrics are exact, its links lead somewhere, nothing needs the network."""

import html
import json
import re
import shutil
from dataclasses import astuple, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
import yaml
from evaluated import lesion, record_of, scores_at
from lesion_maps import write_outlines
from lesionmap.errors import SlideError
from lesionmap.evaluation.model_comparison import compare_models
from lesionmap.evaluation.plots import MetricPlots, plot_metrics
from lesionmap.evaluation.summary import SummaryFiles, summarise
from lesionmap.files.pictures import write_png
from lesionmap.files.records import write_json, write_text
from lesionmap.jobs.quarantine import in_folder, write_quarantined
from lesionmap.metrics.bootstrap import Bootstrap
from lesionmap.report.inputs import ReportInputs
from lesionmap.report.model_card import describe_model
from lesionmap.report.render import ReportFiles, render_report
from lesionmap.run.quarantine_tables import RunFiles, list_quarantine
from lesionmap.slides.slide import SlideInfo
from lesionmap.stain.comparison import compare_stains
from lesionmap.training.learning_curves import plot_learning_curves
from lesionmap.viewer.overlay import write_overlay
from PIL import Image, UnidentifiedImageError
from safetensors.numpy import save_file

CONFIG = yaml.safe_load((Path(__file__).parents[3] / "config" / "config.yaml").read_text(encoding="utf-8"))
SPLITS = {"train_1": "train", "Präparat 7%": "test", "new_1": "inference"}
DRAWS = Bootstrap(draws=1000, seed=0)
PAGES = ("index.html", "stain.html", "model.html", "report.js")
CHARTS = ("roc", "precision_recall", "froc", "calibration", "thresholds", "areas", "lesion_sizes")
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
    probability_u8 = lesions.astype(np.uint8) * 204
    origin = {"software": "LesionMap 9", "code": "c0de"}
    metadata = {"unreadable": [], "threshold": 0.5, "provenance": origin}
    write_outlines(folder / f"{slide}.geojson", lesions, probability_u8, 10, info, metadata)
    no_lesion = np.zeros((30, 40), dtype=np.uint8)
    write_overlay(folder / f"{slide}.overlay.png", view, no_lesion, no_lesion > 0)
    write_text(folder.parent / f"report/views/{slide}/view.js", "window.lesionmapView = {};")


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
        "flags": [],
    }


def change_stain(inputs: ReportInputs, slide: str, outlier: str = "", **changes: Any) -> None:
    """Give a slide another stain, and say in what it is unlike the others."""
    path = inputs.stains[list(SPLITS).index(slide)]
    write_json(path, json.loads(Path(path).read_text()) | changes)
    table = pd.read_csv(inputs.stain_table, sep="\t", dtype=str, keep_default_na=False)
    table.loc[table["slide"] == slide, "outlier"] = outlier
    table.to_csv(inputs.stain_table, sep="\t", index=False)


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
    probability_u8 = np.array([255] * 9 + [0] + [255] + [0] * 9, dtype=np.uint8)
    lesions = [lesion(detection_score=255), lesion(predicted_pixels=0)]
    record = record_of(slide, probability_u8, mask, lesions=lesions, false_positive_scores=scores_at(255))
    write_json(folder / f"{slide}.metrics.json", record)
    return str(folder / f"{slide}.metrics.json")


def summarise_into(inputs: ReportInputs, paths: list[str]) -> None:
    files = SummaryFiles(inputs.slide_table, f"{inputs.summary}.tsv", inputs.summary, f"{inputs.summary}.txt")
    summarise(paths, files, DRAWS, min_lesion_um=200)


@pytest.fixture(scope="module")
def charts(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What the report copies as it is: curves of HISTORY, and figures of a cohort without evaluated slide."""
    folder = tmp_path_factory.mktemp("charts")
    HISTORY.to_csv(folder / "history.csv", index=False)
    plot_learning_curves(str(folder / "history.csv"), str(folder / "learning_curves.svg"))
    files = SummaryFiles(*(str(folder / name) for name in ("slides.tsv", "cohort.tsv", "summary.json", "headline.txt")))
    summarise([], files, DRAWS, min_lesion_um=200)
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
    names = ("quarantine.tsv", "summary.json", "slides.tsv", "stain.tsv", "spread.json")
    quarantine, summary, slide_table, stain_table, stain_spread = (str(folder / name) for name in names)
    list_quarantine(RunFiles(records), quarantine, str(folder / "unreadable.tsv"))
    HISTORY.to_csv(folder / "history.csv", index=False)
    kinds = ("json", "stain.json", "stain.png", "stain_thumbnails.png", "geojson", "overlay.png")
    per_slide = [[str(folder / f"{slide}.{kind}") for slide in SPLITS] for kind in kinds]
    compare_stains(per_slide[1], stain_table, stain_spread)
    learning_curves, *metric_plots = charts
    training = (make_model(folder / "m.safetensors"), str(folder / "history.csv"), learning_curves)
    cohort = (quarantine, summary, slide_table, metric_plots, None, stain_table, stain_spread)
    views = [str(tmp_path / f"report/views/{slide}") for slide in SPLITS]
    inputs = ReportInputs(*cohort, *training, *per_slide, views)
    summarise_into(inputs, [make_metrics(folder, "Präparat 7%")])
    return inputs


def render(inputs: ReportInputs, folder: Path, **changes: Any) -> Path:
    report = folder / "report"
    files = ReportFiles(*(str(report / name) for name in (*PAGES, "slides", "figures", "viewer")))
    render_report(inputs, files, config=CONFIG | changes, map_mpp=2.5, benchmarks=str(folder / "benchmarks"))
    return report


def cohort_of(folder: Path, *, without_lesion: int = 0) -> list[str]:
    """Files of metrics of six patients' test slides of which ever less is found, and of others without lesion."""
    paths = []
    for n in range(6 + without_lesion):
        has_lesion = n < 6
        mask = np.array([has_lesion] * 10 + [0] * 10, dtype=np.uint8)
        probability_u8 = np.array([255] * (10 - n) + [0] * (10 + n), dtype=np.uint8)
        found = [lesion(detection_score=255 if n < 3 else None, predicted_pixels=n < 3)] if has_lesion else []
        false = scores_at(*[255] * n) if not has_lesion else scores_at()
        paths.append(str(folder / f"s{n}.metrics.json"))
        write_json(paths[-1], record_of(f"s{n}", probability_u8, mask, lesions=found, false_positive_scores=false))
    return paths


def with_slides(inputs: ReportInputs, folder: Path, names: list[str]) -> ReportInputs:
    """Mapped slides of these names, all else as of train_1."""
    record, stain = (json.loads(Path(paths[0]).read_text()) for paths in (inputs.records, inputs.stains))
    for name in names:
        write_json(folder / f"{name}.json", record | {"slide": name, "split": "test", "flags": []})
        write_json(folder / f"{name}.stain.json", stain | {"slide": name})
    records, stains = ([str(folder / f"{name}.{kind}") for name in names] for kind in ("json", "stain.json"))
    compare_stains(stains, inputs.stain_table, inputs.stain_spread)
    kinds = ("stain_pictures", "stain_thumbnails", "outlines", "overlays", "views")
    same = {kind: [getattr(inputs, kind)[0]] * len(names) for kind in kinds}
    return replace(inputs, records=records, stains=stains, **same)


def texts(page: Page, opening: str) -> list[str]:
    """What stands in elements that begin so."""
    return [" ".join(part.split("<")[0].split()) for part in page.source.split(opening)[1:]]


def slide_rows(report: Path) -> list[list[str]]:
    """Rows of the table of slides."""
    return [row for row in Page(report / "index.html").rows if len(row) == 11][1:]


@pytest.fixture
def report(inputs: ReportInputs, tmp_path: Path) -> Path:
    return render(inputs, tmp_path)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rendered(report: Path) -> set[str]:
    """What was written but for the slides' views, which another rule writes, and the viewer."""
    return {name for name in contents(report) if Path(name).parts[0] not in ("views", "viewer")}


def test_every_slide_has_a_page_and_four_pictures(report: Path) -> None:
    pages = {f"slides/{slide}.html" for slide in SPLITS}
    kinds = ("overlay.png", "thumbnail.png", "stain.jpg", "stain_thumbnails.png")
    pictures = {f"figures/{slide}_{kind}" for slide in SPLITS for kind in kinds}
    of_all = {*PAGES, *(f"figures/{chart}.svg" for chart in (*CHARTS, "learning_curves", "stain_vectors"))}
    assert rendered(report) == of_all | pages | pictures


def test_charts_are_those_of_the_run(charts: list[str], report: Path) -> None:
    for chart in charts:
        assert (report / "figures" / Path(chart).name).read_bytes() == Path(chart).read_bytes()


def test_links_inside_the_report_lead_to_files(report: Path) -> None:
    for path in report.rglob("*.html"):
        page = Page(path)
        targets = [(path.parent / unquote(link)).resolve() for link in page.links if not link.startswith("#")]
        inside = [target for target in targets if target.is_relative_to(report.resolve())]
        assert len(inside) >= 2
        assert path.name == "stain.html" or report.resolve() / "stain.html" in inside
        assert all(target.is_file() for target in inside)
        assert all(image["alt"] for image in page.images)


@pytest.mark.parametrize(("name", "section"), [("index", "quarantine"), ("stain", "vectors")])
def test_jumps_lead_to_sections(report: Path, name: str, section: str) -> None:
    page = Page(report / f"{name}.html")
    jumps = [link[1:] for link in page.links if link.startswith("#")]
    assert section in jumps
    assert all(f'id="{jump}"' in page.source for jump in jumps)


def test_a_slides_page_shows_its_view(report: Path) -> None:
    page = Page(report / "slides/Präparat 7%.html")
    file = "Pr%C3%A4parat%207%25"
    scripts = ["../viewer/leaflet.js", f"../views/{file}/view.js", "../viewer/viewer.js"]
    assert [link for link in page.links if link.endswith(".js")] == scripts
    assert f'data-view="../views/{file}"' in page.source
    lesions = re.findall(r'<tr data-lesion="([^"]+)" data-x="([^"]+)" data-y="([^"]+)">', page.source)
    assert lesions == [("Lesion 2", "600.0", "1240.0"), ("Lesion 1", "300.0", "180.0")]  # in pixels of the file
    assert f"../figures/{file}_overlay.png" in page.links  # for paper, and without JavaScript


def test_a_slide_that_could_not_be_shown_has_its_page_without_a_picture(inputs: ReportInputs, tmp_path: Path) -> None:
    slide = "Präparat 7%"  # evaluated, so among the worst
    view, overlay = next(pair for pair in zip(inputs.views, inputs.overlays, strict=True) if slide in pair[0])
    shutil.rmtree(view)
    reason = SlideError(slide=slide, stage="cut_view", finding="gone", remedy="bring it back")
    write_quarantined([in_folder(view), overlay], reason)
    report = render(inputs, tmp_path)
    page = Page(report / f"slides/{slide}.html")
    assert page.scripts == 0
    assert "viewer" not in page.source
    assert "There is no picture of this slide" in page.source
    for path in (report / "index.html", report / f"slides/{slide}.html"):
        sources = [unquote(link) for link in Page(path).links if "figures/" in link]
        assert sources
        assert all((path.parent / source).exists() for source in sources)
    assert Page(report / "slides/new_1.html").scripts == 3


def test_nothing_is_fetched_from_a_network(report: Path) -> None:
    for path in report.rglob("*.html"):
        page = Page(path)
        assert not any(":" in unquote(link) for link in page.links)
        assert "@import" not in page.source
        assert "url(" not in page.source


def test_same_inputs_give_same_bytes(inputs: ReportInputs, report: Path, tmp_path: Path) -> None:
    again = render(inputs, tmp_path / "again")
    shutil.rmtree(report / "views")  # not written by this rule
    assert contents(again) == contents(report)


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


def test_cohort_metrics_and_gaps(report: Path) -> None:
    page = Page(report / "index.html")
    assert "test: 1 slide of 1 patient, 1 with lesion" in page.source
    assert page.row("Pixels, all slides together") == ["Pixels, all slides together", "test"]
    assert page.row("Dice") == ["Dice", "0.900"]
    assert page.row("IoU") == ["IoU", "0.818"]
    assert page.row("False-positive rate on the rest")[1] == "0.100"
    assert page.row("False-positive rate on vessel")[1] == "—"
    assert page.row("Sensitivity at ½ false lesion per slide")[1] == "0.250"  # half of the way to 1 of 2 at 1
    assert page.row("Lesions found, 0.5 to 2 mm")[1] == "0.500"
    assert page.row("Area, upper limit of agreement, mm²")[1] == "—"


def test_models_are_compared_if_there_are_several(inputs: ReportInputs, report: Path, tmp_path: Path) -> None:
    assert "Models compared" not in (report / "index.html").read_text()
    others = tmp_path / "other"
    write_json(others / "Präparat 7%.json", json.loads(Path(make_metrics(tmp_path, "Präparat 7%")).read_text()))
    compare_models(
        [make_metrics(tmp_path, "Präparat 7%")], {"<b>low</b>": str(others)}, str(tmp_path / "models.tsv"), DRAWS, 200
    )
    page = Page(render(replace(inputs, models=str(tmp_path / "models.tsv")), tmp_path) / "index.html")
    compared = [row for row in page.rows if row[0] == "Dice" and len(row) == 5]
    assert compared == [["Dice", "test", "this run", "0.900", "—"], ["Dice", "test", "<b>low</b>", "0.900", "0.000"]]


def test_a_slides_page_says_how_many_lesions_were_found(report: Path) -> None:
    page = " ".join((report / "slides" / "Präparat 7%.html").read_text().split())
    assert "1 of 2 annotated lesions are found at least in part; 1 predicted lesion lies outside them." in page
    assert "Area: 0.100 mm² predicted, 0.100 mm² annotated." in page


def test_a_slide_that_a_later_stage_refused_says_so_on_its_page(inputs: ReportInputs, tmp_path: Path) -> None:
    reason = SlideError(slide="train_1", stage="extract_tiles", finding="2 of 3 boxes", remedy="copy it again")
    write_quarantined([str(tmp_path / "train_1.json")], reason)
    unreadable = str(tmp_path / "unreadable.tsv")
    list_quarantine(RunFiles(inputs.records, tiles=[str(tmp_path / "train_1.json")]), inputs.quarantine, unreadable)
    report = render(inputs, tmp_path)
    page = (report / "slides" / "train_1.html").read_text()
    assert "in quarantine since extract_tiles: 2 of 3 boxes" in page
    assert "0.05 µm/px (file) is &lt;implausible&gt;" in page
    assert 'id="oddities"' not in (report / "index.html").read_text()  # it stands in the quarantine


def test_headline_metrics_have_an_interval_or_say_why_not(inputs: ReportInputs, report: Path, tmp_path: Path) -> None:
    page = Page(report / "index.html")
    assert texts(page, "<li>\n<h3>") == [
        *("Dice", "AUROC, pixels", "FROC score", "Lesions found", "Area difference", "AUROC, slides"),
    ]
    assert texts(page, '<p class="value">') == ["0.900", "0.900", "0.396", "0.500", "0.000", "—"]
    assert texts(page, '<p class="range">')[-1] == "needs slides with and slides without lesion"
    assert texts(page, '<p class="range">')[0] == "no interval: fewer than 5 patients"
    summarise_into(inputs, cohort_of(tmp_path))
    page = Page(render(inputs, tmp_path / "six") / "index.html")
    entry = json.loads(Path(inputs.summary).read_text())["splits"]["test"]["metrics"]["dice"]
    assert entry["value"] == pytest.approx(2 * 45 / (45 + 60))
    assert texts(page, '<p class="value">')[0] == "0.857"
    assert texts(page, '<p class="range">')[0] == f"{entry['low']:.3f} to {entry['high']:.3f}"
    assert "Of the test slides" in page.source
    assert "6 slides of 6 patients, 6 with lesion" in page.source


def test_without_test_slides_the_headline_is_that_of_validation_and_says_so(
    inputs: ReportInputs, tmp_path: Path
) -> None:
    path = Path(make_metrics(tmp_path, "Präparat 7%"))
    write_json(path, json.loads(path.read_text()) | {"split": "val"})
    summarise_into(inputs, [str(path)])
    page = Page(render(inputs, tmp_path) / "index.html")
    assert "validation slides, which may have chosen the epoch and the threshold" in page.source
    assert texts(page, '<p class="value">')[0] == "0.900"


def test_every_chart_has_a_title_and_words(report: Path) -> None:
    page = Page(report / "index.html")
    charts = [image for image in page.images if str(image["src"]).endswith(".svg")]
    assert {str(image["src"]) for image in charts} == {f"figures/{name}.svg" for name in (*CHARTS, "learning_curves")}
    assert page.source.count("<figcaption>") == len(charts) == 8
    assert all(len(str(image["alt"])) > 30 for image in charts)


def test_the_worst_slides_come_first(inputs: ReportInputs, tmp_path: Path) -> None:
    summarise_into(inputs, cohort_of(tmp_path, without_lesion=2))
    page = Page(render(with_slides(inputs, tmp_path, [f"s{n}" for n in range(8)]), tmp_path) / "index.html")
    worst = page.source.split('<section id="worst"')[1].split("</section>")[0]
    assert re.findall(r'html">(s\d)</a>', worst) == ["s5", "s4", "s3", "s2", "s1", "s0", "s6", "s7"]
    assert "<p>Dice 0.667</p>" in worst
    assert "0.050 mm² predicted, 0.100 annotated; 0 of 1 lesions found, 0 false" in worst
    assert "<p>0.040 mm² false</p>" in worst
    assert "6 false lesions" in worst
    assert all("loading" in image for image in page.images if "thumbnail" in str(image["src"]))


def test_where_no_slide_is_without_lesion_the_page_says_so(report: Path) -> None:
    assert "None: every evaluated slide has annotated lesion." in (report / "index.html").read_text()


def test_the_verdict_has_its_reasons(inputs: ReportInputs, tmp_path: Path) -> None:
    change_stain(inputs, "new_1", "angle", flags=["eosin: too little"])
    report = render(inputs, tmp_path)
    unlike = "eosin: too little; unlike the other slides: angle"
    assert [row[3] for row in slide_rows(report)] == ["odd: 0.05 µm/px (file) is <implausible>", "ok", f"odd: {unlike}"]
    assert f'title="{unlike}"' in (report / "index.html").read_text()


def test_the_split_can_be_chosen_among_those_there_are(report: Path) -> None:
    options = texts(Page(report / "index.html"), "<option>")
    assert options == ["train", "test", "inference"]


HOSTILE = "<img src=x onerror=alert(1)>\"'&$x$"


def test_names_from_files_are_text_and_no_markup(inputs: ReportInputs, tmp_path: Path) -> None:
    quarantined = {"slide": HOSTILE, "split": HOSTILE, "stage": HOSTILE, "finding": HOSTILE, "remedy": HOSTILE}
    named = with_slides(inputs, tmp_path, [HOSTILE])
    record = json.loads(Path(named.records[0]).read_text())
    record["info"] |= {"path": HOSTILE, "vendor": HOSTILE}
    write_json(named.records[0], record | {"flags": [HOSTILE]})
    pd.DataFrame([quarantined]).to_csv(named.quarantine, sep="\t", index=False)
    metrics = json.loads(Path(make_metrics(tmp_path, "any")).read_text()) | {"slide": HOSTILE, "patient": HOSTILE}
    write_json(tmp_path / "hostile.json", metrics)
    write_json(tmp_path / "other" / f"{HOSTILE}.json", metrics)
    summarise_into(named, [str(tmp_path / "hostile.json")])
    models = str(tmp_path / "models.tsv")
    compare_models([str(tmp_path / "hostile.json")], {HOSTILE: str(tmp_path / "other")}, models, DRAWS, 200)
    metadata = {"licence": HOSTILE, "training_slides": {HOSTILE: HOSTILE}, "provenance": {"software": HOSTILE}}
    model = make_model(tmp_path / "hostile.safetensors", intended_use=HOSTILE, **metadata)
    config = {"model": CONFIG["model"] | {"path": HOSTILE}}
    report = render(replace(named, models=models, model=model, history=None), tmp_path, **config)
    pages = {path.name: Page(path) for path in report.rglob("*.html")}
    assert set(pages) == {"index.html", "stain.html", "model.html", f"{HOSTILE}.html"}
    for name, page in pages.items():
        assert HOSTILE in " ".join(page.said), name
        assert not any(image["src"] == "x" or "onerror" in image for image in page.images)
        assert page.scripts == {"index.html": 1, f"{HOSTILE}.html": 3}.get(name, 0)
        assert not any(key.startswith("on") for key in page.attributes)
    assert HOSTILE in " ".join(pages["model.html"].said)


def cells_of(text: str) -> list[list[str]]:
    """Rows of the tables of a Markdown card."""
    plain = re.sub(r"\\(.)", r"\1", text)
    rows = [line.strip("| ").split(" | ") for line in plain.splitlines() if line.startswith("| ") and " | " in line]
    return [row for row in rows if row != [""]]


def test_the_page_of_the_model_says_what_its_card_says(inputs: ReportInputs, tmp_path: Path) -> None:
    metadata = {
        "architecture": {"backbone": "resnet50", "norm": "frozen"},
        "backbone_weights": {"file": "resnet50.pth", "sha256": "ab" * 32},
        "classes": {"background": 0, "lesion": 1},
        "target": "lesion",
        "training_slides": {"train_1": "cd" * 32, "train_2": "ef" * 32},
        "validation_slides": {"val_1": "01" * 32},
        "epoch": {"epoch": 7, "val_low_loss": 0.012345, "val_low_dice": 0.75, "val_fused_auroc": 0.9},
        "mpp": {"high": 0.25, "low": 2.0},
        "tiles": {"region_px": 4096, "tile_px": 512, "mpp": 0.25},
        "stain_reference": {"basis": [[0.6, 0.8, 0.0], [0.0, 1.0, 0.0]], "p99": [1.5, 1.0], "method": "vahadane"},
        "provenance": {"software": "LesionMap 9", "code": "c0de", "model": {"weights": "imagenet"}},
        "intended_use": "Research.",
    }
    model = make_model(tmp_path / "m.safetensors", **metadata)
    page = Page(render(replace(inputs, model=model), tmp_path) / "model.html")
    describe_model(model, str(tmp_path / "CARD.md"))
    card = (tmp_path / "CARD.md").read_text(encoding="utf-8")
    assert page.rows == cells_of(card)
    assert len(page.rows) >= 25
    titles = [line.removeprefix("## ") for line in card.splitlines() if line.startswith("## ")]
    assert re.findall(r"<h2[^>]*>(.*?)</h2>", page.source) == titles
    said = " ".join(" ".join(page.said).split())
    assert "Of epoch 7, the one in this file." in said
    assert "As the file says: Research." in said
    assert "not recorded" not in said


def test_what_an_older_model_file_lacks_is_not_recorded(report: Path) -> None:
    page = Page(report / "model.html")
    assert page.row("Regions") == ["Regions", "not recorded wide at not recorded"]
    assert page.row("Backbone") == ["Backbone", "resnet18, normalisation group"]
    assert "Training slides: not recorded." in page.source


def test_references_can_be_copied_as_text_and_as_bibtex(report: Path) -> None:
    page = Page(report / "index.html")
    text = page.source.split('<div id="methods-text">')[1].split("</div>")[0]
    assert [int(n) for n in re.findall(r'<li id="ref-\w+">\[(\d+)\] ', text)] == list(range(1, 8))
    assert "LesionMap 0.1.0 follows patent application CN 111784671 A" in text
    entries = html.unescape(page.source.split('<pre id="bibtex" tabindex="0">')[1].split("</pre>")[0])
    assert re.findall(r"^@(\w+)\{(\w+),$", entries, re.MULTILINE)[:2] == [
        ("misc", "lesionmap_patent"),
        ("article", "vahadane2016"),
    ]
    assert entries.count("@") == 7
    copied = set(re.findall(r'data-copy="([\w-]+)" hidden', page.source))
    assert copied == {"methods-text", "bibtex"}
    assert all(f'id="{name}"' in page.source for name in copied)


def test_a_slide_that_is_odd_is_listed_with_what_is_odd(inputs: ReportInputs, tmp_path: Path) -> None:
    page = (render(inputs, tmp_path) / "index.html").read_text()
    assert 'id="oddities"' in page
    assert "train_1</a>: 0.05 µm/px (file) is &lt;implausible&gt;" in page


def test_a_slide_without_a_map_has_no_page(inputs: ReportInputs, tmp_path: Path) -> None:
    reason = SlideError(slide="train_1", stage="map_slide", finding="2 of 3 boxes", remedy="copy it again")
    lost = inputs.outlines[list(SPLITS).index("train_1")]
    write_quarantined([lost], reason)
    report = render(inputs, tmp_path)
    assert not (report / "slides" / "train_1.html").exists()
    assert "2 slides mapped" in (report / "index.html").read_text()


def test_without_evaluated_slides_the_report_says_so(inputs: ReportInputs, tmp_path: Path) -> None:
    summarise_into(inputs, [])
    report = render(inputs, tmp_path)
    assert "No slide was evaluated" in (report / "index.html").read_text()
    assert slide_rows(report)[1][8:10] == ["—", "—"]
    assert (
        "Not evaluated: its annotation or its map could not be used"
        in (report / "slides" / "Präparat 7%.html").read_text()
    )


def test_slide_table_is_in_the_order_of_the_sheet(report: Path) -> None:
    rows = slide_rows(report)
    assert [row[1] for row in rows] == list(SPLITS)
    # 4000 × 3000 px of 0.25 µm; AUROC 0.9 · 0.9 + (0.9 · 0.1 + 0.1 · 0.9) / 2
    assert rows[1][2:] == ["test", "ok", "0.2500", "1.0 × 0.8", "2", "0.008", "0.900", "0.900", "36.9"]
    assert rows[2][2:] == ["inference", "ok", "0.2500", "1.0 × 0.8", "0", "0.000", "—", "—", "36.9"]


def test_a_segmentation_is_linked_where_there_is_one(report: Path, inputs: ReportInputs, tmp_path: Path) -> None:
    assert "../../lesions/new_1/lesions.dcm" not in Page(report / "slides/new_1.html").links
    asked = render(inputs, tmp_path / "asked", exports={"dicom": "always"})
    assert "../../lesions/new_1/lesions.dcm" in Page(asked / "slides/new_1.html").links


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
    assert page.row("Haematoxylin") == ["Haematoxylin", "", "0.600", "0.800", "0.000", "1.500", "0.5", "2.00"]
    assert page.row("Eosin") == ["Eosin", "", "0.000", "1.000", "0.000", "1.000", "1.5", "1.25"]
    assert "rgb(104, 77, 255)" in page.source  # 255 · exp(−1.5 · 0.6), 255 · exp(−1.5 · 0.8)
    assert "Verdict of the fit: ok; its two stains are 36.9° apart." in page.source
    assert "by its own vectors, fitted by the method vahadane." in page.source
    assert "the stain of the reference, slide train_1." in page.source
    assert "This fit is not used" not in page.source
    assert "This slide is the reference." in (report / "slides" / "train_1.html").read_text()
    assert "LesionMap 9" in page.source


def test_the_stain_picture_keeps_its_size(report: Path) -> None:
    with Image.open(report / "figures" / "new_1_stain.jpg") as picture:
        assert picture.size == (170, 46)


def test_a_slide_whose_fit_is_not_used_says_so(inputs: ReportInputs, tmp_path: Path) -> None:
    flags = ["stain: not H&E; the reference's basis used", "eosin: <too little>"]
    change_stain(inputs, "new_1", "angle, ratio_eosin", **with_fallback("the reference's basis", flags))
    report = render(inputs, tmp_path)
    page = (report / "slides" / "new_1.html").read_text()
    assert "Verdict of the fit: not H&amp;E; its two stains are 53.1° apart." in page
    assert "This fit is not used: the slide's colours are taken apart by the reference&#39;s basis instead." in page
    assert page.count('<p class="notice">eosin: &lt;too little&gt;</p>') == 2  # at the top and under Stain
    assert page.count('<p class="notice">unlike the other slides: angle, ratio eosin</p>') == 1
    index = (report / "index.html").read_text()
    assert "new_1</a>: stain: not H&amp;E; the reference&#39;s basis used; eosin: &lt;too little&gt;</li>" in index


def test_vectors_that_were_not_fitted_are_not_called_so(inputs: ReportInputs, tmp_path: Path) -> None:
    change_stain(inputs, "new_1", profile=stain_match("new_1")["profile"] | {"method": "none"})
    page = (render(inputs, tmp_path) / "slides" / "new_1.html").read_text()
    assert "by the published average vectors; nothing was fitted" in page
    assert "by its own vectors" not in page


def test_spread_between_slides(report: Path) -> None:
    page = Page(report / "stain.html")
    assert page.row("Haematoxylin") == ["Haematoxylin", "0.0816", "0.0204", "75.0"]
    assert page.row("Eosin") == ["Eosin", "0.1414", "0.0283", "80.0"]
    assert "Over the 3 slides that show two stains." in page.source


def only(inputs: ReportInputs, count: int) -> ReportInputs:
    """The first slides alone."""
    names = ("records", "stains", "stain_pictures", "stain_thumbnails", "outlines", "overlays", "views")
    fewer = replace(inputs, **{name: getattr(inputs, name)[:count] for name in names})
    compare_stains(fewer.stains, fewer.stain_table, fewer.stain_spread)
    return fewer


def test_one_slide_has_no_spread(inputs: ReportInputs, tmp_path: Path) -> None:
    page = Page(render(only(inputs, 1), tmp_path) / "stain.html")
    assert "None to compare: it takes at least two slides" in page.source
    assert [row[0] for row in page.rows] == []
    assert "vector of 1 slide and" in page.source


def test_a_cohort_without_slides_has_a_page(inputs: ReportInputs, tmp_path: Path) -> None:
    report = render(only(inputs, 0), tmp_path)
    page = Page(report / "stain.html")
    assert "No slide was mapped." in page.source
    assert "All slides are brought to" not in page.source
    assert page.images == []
    assert not (report / "figures" / "stain_vectors.svg").exists()


@pytest.mark.parametrize(
    ("reference", "model", "sentence"),
    [
        ("auto", None, "of slide train_1. It was chosen automatically"),
        ("train_1", None, "of slide train_1, which the settings name"),
        ("other/profile.json", None, "of slide train_1 of another run, whose profile the settings name"),
        ("auto", "liver.safetensors", "that the model <code>liver.safetensors</code> was trained on"),
    ],
)
def test_the_page_on_stain_says_how_the_reference_was_chosen(
    inputs: ReportInputs, tmp_path: Path, reference: str, model: str | None, sentence: str
) -> None:
    changes = {"stain": CONFIG["stain"] | {"reference": reference}, "model": CONFIG["model"] | {"path": model}}
    page = Page(render(inputs, tmp_path, **changes) / "stain.html")
    assert page.source.count("All slides are brought to") == 1
    assert f"All slides are brought to the stain {sentence}" in page.source
    assert ("../stain/reference/candidates.tsv" in page.links) == ("automatically" in sentence)


def test_without_odd_stains_the_page_says_so(report: Path) -> None:
    page = Page(report / "stain.html")
    assert "None: every slide shows two stains, and none is flagged or unlike the others." in page.source
    assert not any(row[0] in SPLITS for row in page.rows)
    assert "odd</li>" not in page.source


def test_odd_stains_are_listed_the_oddest_first(inputs: ReportInputs, tmp_path: Path) -> None:
    change_stain(inputs, "train_1", "angle_to_reference_eosin")
    change_stain(inputs, "Präparat 7%", flags=["<stains swapped>"], angle_to_reference=[12.34, 0.0])
    change_stain(inputs, "new_1", **with_fallback("Macenko's basis", ["stain: not H&E; Macenko's basis used"]))
    page = Page(render(inputs, tmp_path) / "stain.html")
    unlike, swapped = "unlike the other slides: angle to reference eosin", "<stains swapped>"
    used = ["not H&E", "Macenko's basis", "53.1", "0.0", "0.0", "2.00", "1.25", "stain: not H&E; Macenko's basis used"]
    assert [row for row in page.rows if len(row) == 9][1:] == [
        ["new_1", *used],
        ["Präparat 7%", "ok", "vahadane", "36.9", "12.3", "0.0", "2.00", "1.25", swapped],
        ["train_1", "ok", "vahadane", "36.9", "0.5", "1.5", "2.00", "1.25", unlike],
    ]
    assert page.links.count("slides/Pr%C3%A4parat%207%25.html") == 2  # in the table and under the thumbnail
    assert "Labelled, with a line: the odd slides of the table below." in page.source
    assert swapped not in page.source


def test_a_hundred_odd_stains_are_listed_and_the_rest_counted(inputs: ReportInputs, tmp_path: Path) -> None:
    record = json.loads(Path(inputs.records[0]).read_text())
    paths = [(str(tmp_path / f"{n}.json"), str(tmp_path / f"{n}.stain.json")) for n in range(107)]
    for n, (record_path, stain_path) in enumerate(paths):
        write_json(record_path, record | {"slide": f"slide_{n}"})
        match = {"flags": ["odd"], "angle_to_reference": [0.0, n / 10]}
        write_json(stain_path, stain_match(f"slide_{n}") | match)
    names = ("stain_pictures", "stain_thumbnails", "outlines", "overlays", "views")
    same = {name: [getattr(inputs, name)[0]] * len(paths) for name in names}
    records, stains = zip(*paths, strict=True)
    compare_stains(stains, inputs.stain_table, inputs.stain_spread)
    report = render(replace(inputs, records=records, stains=stains, **same), tmp_path)
    page = Page(report / "stain.html")
    listed = [row for row in page.rows if len(row) == 9][1:]
    assert [row[0] for row in listed] == [f"slide_{n}" for n in range(106, 6, -1)]
    assert "And 7 more, which are marked below" in page.source
    assert "Labelled, with a line: the 20 oddest slides of the table below." in page.source
    drawn = (report / "figures" / "stain_vectors.svg").read_text()
    assert [n for n in range(107) if f"<!-- slide_{n} -->" in drawn] == list(range(87, 107))
    assert len(page.images) == 1 + 107


def test_all_slides_are_shown_before_and_after(inputs: ReportInputs, tmp_path: Path) -> None:
    change_stain(inputs, "new_1", "ratio_eosin")
    report = render(inputs, tmp_path)
    page = Page(report / "stain.html")
    shown = page.images[1:]
    assert [image["alt"] for image in shown] == [f"Slide {slide} before and after normalisation" for slide in SPLITS]
    assert all(image["loading"] == "lazy" for image in shown)
    assert unquote(str(shown[1]["src"])) == "figures/Präparat 7%_stain_thumbnails.png"
    with Image.open(report / unquote(str(shown[1]["src"]))) as picture:
        assert picture.size == (400, 200)
    assert page.source.count('class="marked"') == 1
    assert '<a href="slides/train_1.html">train_1</a> – reference</li>' in page.source
    assert '<a href="slides/new_1.html">new_1</a> – odd</li>' in page.source


def test_odd_stains_are_labelled_where_they_were_fitted(inputs: ReportInputs, tmp_path: Path) -> None:
    change_stain(
        inputs, "new_1", **with_fallback("the reference's basis", ["stain: not H&E; the reference's basis used"])
    )
    drawn = (render(inputs, tmp_path) / "figures" / "stain_vectors.svg").read_text()
    assert "<!-- new_1 -->" in drawn
    assert "<!-- train_1 -->" not in drawn
    assert "<!-- 1.2 -->" in drawn  # its blue, of which green has none, is drawn at the edge
    assert "<!-- 1e6 -->" not in drawn


def test_swapped_stains_are_drawn_in_the_right_order(inputs: ReportInputs, report: Path, tmp_path: Path) -> None:
    swapped = {"verdict": "ok", "basis": stain_match("new_1")["profile"]["basis"][::-1], "angle": 36.87}
    change_stain(inputs, "new_1", fitted=swapped)
    drawn = (render(inputs, tmp_path / "swapped") / "figures" / "stain_vectors.svg").read_bytes()
    assert drawn == (report / "figures" / "stain_vectors.svg").read_bytes()


def test_many_stain_vectors_are_drawn_as_pixels(
    inputs: ReportInputs, report: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "<image" not in (report / "figures" / "stain_vectors.svg").read_text()
    monkeypatch.setattr("lesionmap.report.stain_page.MOST_VECTORS", 2)
    drawn = [render(inputs, tmp_path / name) / "figures" / "stain_vectors.svg" for name in ("first", "second")]
    assert "<image" in drawn[0].read_text()
    assert drawn[0].read_bytes() == drawn[1].read_bytes()


def test_an_existing_model_is_named_instead_of_curves(inputs: ReportInputs, tmp_path: Path) -> None:
    model = CONFIG["model"] | {"path": "/models/liver.safetensors"}
    report = render(replace(inputs, history=None, learning_curves=None), tmp_path, model=model)
    page = Page(report / "index.html")
    assert "existing model <code>/models/liver.safetensors</code>" in page.source
    assert not (report / "figures" / "learning_curves.svg").exists()
    assert not any("learning_curves" in link for link in page.links)
    assert "../model/MODEL_CARD.md" in page.links


@pytest.mark.parametrize(
    ("method", "fallback", "cited"),
    [
        ("vahadane", "reference", ["Vahadane A"]),
        ("macenko", "reference", ["Macenko M"]),
        ("none", "fail", ["Ruifrok AC"]),
        ("staintools", "reference", ["Vahadane A", "Byfield P"]),
        ("vahadane", "macenko", ["Vahadane A", "Macenko M"]),
        ("macenko", "macenko", ["Macenko M"]),
    ],
)
def test_the_stain_method_in_use_is_cited(
    inputs: ReportInputs, tmp_path: Path, method: str, fallback: str, cited: list[str]
) -> None:
    stain = CONFIG["stain"] | {"method": method, "fallback": fallback}
    text = (render(inputs, tmp_path, stain=stain) / "index.html").read_text()
    authors = ("Vahadane A", "Macenko M", "Ruifrok AC", "Byfield P")
    assert {name: text.count(name) for name in authors if name in text} == dict.fromkeys(cited, 1)


def test_citations_have_the_numbers_of_their_sources(inputs: ReportInputs, tmp_path: Path) -> None:
    stain = CONFIG["stain"] | {"method": "staintools", "fallback": "macenko"}
    text = (render(inputs, tmp_path, stain=stain) / "index.html").read_text()
    sources = re.findall(r'<li id="(ref-\w+)">', text)
    assert sources == [
        f"ref-{name}"
        for name in (
            *("patent", "stain", "staintools", "macenko"),
            *("fpn", "resnet", "focal", "camelyon", "bootstrap"),
        )
    ]
    citations = re.findall(r'<a href="#(ref-\w+)">\[(\d+)\]</a>', text)
    assert citations == [(source, str(number)) for number, source in enumerate(sources, start=1)]


@pytest.mark.parametrize(
    ("fallback", "sentence"),
    [
        ("reference", "the slide's colours were taken apart by the reference's vectors."),
        ("macenko", "or by those of the reference if that was no better."),
        ("fail", "Slides whose tissue did not show haematoxylin and eosin were left out."),
    ],
)
def test_methods_name_the_limits_and_the_fallback(
    inputs: ReportInputs, tmp_path: Path, fallback: str, sentence: str
) -> None:
    stain = CONFIG["stain"] | {"fallback": fallback, "ratio_limits": [0.25, 3.0], "n_pixels": 123456}
    text = (render(inputs, tmp_path, stain=stain) / "index.html").read_text()
    assert "The ratios were held between 0.25 and 3.0." in text
    assert "on up to 123,456 tissue pixels" in text
    assert sentence in text
    assert text.count("did not show haematoxylin and eosin") == 1


@pytest.mark.parametrize(
    ("schedule", "fusion", "sentence"),
    [
        ("joint", "mean", "one update was made on the reduced view and one on the mean of the reduced view&#39;s map"),
        (
            "sequential",
            "max",
            "one on its tiles and their own masks, and one on the larger of the reduced view&#39;s map",
        ),
        ("low_only", "mean", "one update was made on the reduced view; its tiles were not used, after random flips"),
        ("high_only", "mean", "one update was made on its tiles and their own masks; the reduced view was not used"),
    ],
)
def test_methods_name_the_schedule_and_the_fusion(
    inputs: ReportInputs, tmp_path: Path, schedule: str, fusion: str, sentence: str
) -> None:
    changes = {"train": CONFIG["train"] | {"schedule": schedule}, "model": CONFIG["model"] | {"fusion": fusion}}
    assert sentence in (render(inputs, tmp_path, **changes) / "index.html").read_text()


def test_no_page_of_a_former_slide_is_left(report: Path, inputs: ReportInputs, tmp_path: Path) -> None:
    names = ("records", "stains", "stain_pictures", "stain_thumbnails", "outlines", "overlays", "views")
    fewer = {name: getattr(inputs, name)[1:] for name in names}
    list_quarantine(RunFiles(inputs.records[1:]), inputs.quarantine, str(tmp_path / "unreadable.tsv"))
    render(replace(inputs, **fewer), tmp_path)
    assert not (report / "slides" / "train_1.html").exists()
    assert not list((report / "figures").glob("train_1*"))


def test_a_failure_leaves_the_former_report(report: Path, inputs: ReportInputs, tmp_path: Path) -> None:
    before = contents(report)
    summarise_into(inputs, [])
    Path(inputs.stain_pictures[2]).write_text("no picture")
    with pytest.raises(UnidentifiedImageError):
        render(inputs, tmp_path)
    assert contents(report) == before
    assert {path.name for path in report.iterdir()} == {*PAGES, "slides", "figures", "viewer", "views"}


def test_folders_are_open_to_others(report: Path) -> None:
    assert (report / "slides").stat().st_mode == (report.parent / "inputs").stat().st_mode
