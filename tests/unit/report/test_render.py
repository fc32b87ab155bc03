"""The report: its metrics are exact, its links lead somewhere, nothing needs the network."""

import html
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
import pytest
from lesionmap.evaluation.leakage import Seen
from lesionmap.evaluation.model_comparison import compare_models
from lesionmap.files.records import write_json
from lesionmap.report.inputs import ReportInputs
from lesionmap.report.model_card import describe_model
from lesionmap.run.quarantine_tables import RunFiles, list_quarantine
from PIL import UnidentifiedImageError
from report_parts import (
    CHARTS,
    CONFIG,
    PAGES,
    SPLITS,
    TABLES,
    Page,
    change_stain,
    cohort_of,
    contents,
    make_metrics,
    make_model,
    only,
    render,
    rendered,
    slide_rows,
    summarise_into,
    texts,
    with_slides,
    write_found,
)


def test_every_slide_has_a_page_and_four_pictures(report: Path) -> None:
    pages = {f"slides/{slide}.html" for slide in SPLITS}
    kinds = ("overlay.png", "thumbnail.png", "stain.jpg", "stain_thumbnails.png")
    pictures = {f"figures/{slide}_{kind}" for slide in SPLITS for kind in kinds}
    of_all = {*PAGES, *(f"figures/{chart}.svg" for chart in (*CHARTS, "learning_curves", "stain_vectors"))}
    files = {f"files/{slide}/{name}" for slide in SPLITS for name in ("lesions.geojson", "lesions.tsv", "stain.json")}
    tables = {f"tables/{name}" for name in TABLES}
    assert rendered(report) == of_all | pages | pictures | files | {"files/Präparat 7%/metrics.json"} | tables


def test_charts_are_those_of_the_run(charts: list[str], report: Path) -> None:
    for chart in charts:
        assert (report / "figures" / Path(chart).name).read_bytes() == Path(chart).read_bytes()


def test_links_inside_the_report_lead_to_files(report: Path) -> None:
    for path in report.rglob("*.html"):
        page = Page(path)
        targets = [(path.parent / unquote(link.partition("#")[0])).resolve() for link in page.links if link[0] != "#"]
        inside = [target for target in targets if target.is_relative_to(report.resolve())]
        assert len(inside) >= 2
        assert path.name == "stain.html" or report.resolve() / "stain.html" in inside
        assert all(target.is_file() for target in targets)  # so that a copy of the report's folder has no dead link
        assert all(image["alt"] for image in page.images)


@pytest.mark.parametrize(("name", "section"), [("index", "quarantine"), ("stain", "vectors")])
def test_jumps_lead_to_sections(report: Path, name: str, section: str) -> None:
    page = Page(report / f"{name}.html")
    jumps = [link[1:] for link in page.links if link.startswith("#")]
    assert section in jumps
    assert all(f'id="{jump}"' in page.source for jump in jumps)


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
    list_quarantine(
        RunFiles(inputs.records), inputs.quarantine, str(tmp_path / "unreadable.tsv"), inputs.failed_exports
    )
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
    write_json(others / "slides/Präparat 7%.json", json.loads(Path(make_metrics(tmp_path, "Präparat 7%")).read_text()))
    shutil.copy(inputs.slide_table, others / "slides.tsv")
    compare_models(
        [make_metrics(tmp_path, "Präparat 7%")],
        inputs.slide_table,
        {"<b>low</b>": str(others)},
        str(tmp_path / "models.tsv"),
        200,
    )
    page = Page(render(replace(inputs, models=str(tmp_path / "models.tsv")), tmp_path) / "index.html")
    compared = [row for row in page.rows if row[0] == "Dice" and len(row) == 5]
    assert compared == [["Dice", "test", "this run", "0.900", "—"], ["Dice", "test", "<b>low</b>", "0.900", "0.000"]]


def test_the_agreement_of_readers_is_shown_if_a_slide_has_two(
    inputs: ReportInputs, report: Path, tmp_path: Path
) -> None:
    page = Page(report / "index.html")
    assert "Agreement of readers" not in page.source
    assert page.row("Normalised surface Dice, mean")[1] == "—"
    record = json.loads(Path(make_metrics(tmp_path, "Präparat 7%")).read_text())
    counts = (30, 10, 10, 50), (20, 20, 0, 60), (15, 5, 25, 55)
    pairs = ("model–reader 1", "model–reader 2", "reader 2–reader 1")
    names = ("tp", "fp", "fn", "tn", "nsd", "hd95_um")
    record["readers"] = {
        pair: dict(zip(names, (*of_pair, 0.5, 42.0), strict=True)) for pair, of_pair in zip(pairs, counts, strict=True)
    }
    write_json(tmp_path / "twice.json", record | {"boundary": {"tolerance_um": 30, "nsd": 0.625, "hd95_um": 81.5}})
    summarise_into(inputs, [str(tmp_path / "twice.json")])
    page = Page(render(inputs, tmp_path) / "index.html")
    shown = [row for row in page.rows if len(row) == 6 and row[1] == "test, 1 slide"]
    assert [row[0] for row in shown] == [
        *("Dice", "IoU", "Precision", "Recall", "Specificity", "Cohen’s kappa"),
        *("Normalised surface Dice, mean", "95 % Hausdorff distance, mean, µm"),
    ]
    assert shown[0][2:] == ["0.750", "0.667", "0.500", "0.250"]
    assert page.row("Normalised surface Dice, mean")[1] == "0.625"
    of_slide = Page(tmp_path / "report/slides/Präparat 7%.html")
    assert of_slide.row("95 % Hausdorff distance, µm") == ["95 % Hausdorff distance, µm", "81.500"]


def test_what_kind_of_validation_it_is_stands_with_the_metrics_and_on_the_page_of_the_model(
    inputs: ReportInputs, report: Path
) -> None:
    kind = "nternal validation: held-out slides of the same sheet."
    assert (report / "index.html").read_text().count(f"<p>I{kind}") == 1
    assert f'<p class="quiet">I{kind}' in (report / "index.html").read_text()
    assert f"to the model: i{kind}" in (report / "model.html").read_text()


def test_headline_metrics_have_an_interval_or_say_why_not(inputs: ReportInputs, report: Path, tmp_path: Path) -> None:
    page = Page(report / "index.html")
    assert texts(page, "<li>\n<h3>") == [
        *("Dice", "AUROC, pixels", "FROC score", "Lesions found", "Area difference", "AUROC, slides"),
    ]
    assert texts(page, '<p class="value">') == ["1 of 2"]  # the others rest on one slide
    assert texts(page, '<p class="value few">') == ["0.900", "0.900", "0.396", "0.000", "—"]
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


def test_without_test_slides_the_headline_is_that_of_validation_unless_the_model_was_chosen_by_it(
    inputs: ReportInputs, tmp_path: Path
) -> None:
    slide = "Präparat 7%"
    path = Path(make_metrics(tmp_path, slide))
    write_json(path, json.loads(path.read_text()) | {"split": "val"})
    summarise_into(inputs, [str(path)])
    page = Page(render(inputs, tmp_path) / "index.html")
    assert "Of the validation slides, which the model has not seen" in page.source
    assert texts(page, '<p class="value few">')[0] == "0.900"
    summarise_into(inputs, [str(path)], Seen.of({"validation_slides": {slide: f"sha256 of {slide}"}, **RECORDED}))
    page = Page(render(inputs, tmp_path / "chosen") / "index.html")
    assert 'class="value' not in page.source
    assert "No evaluated slide is independent of the model, so there is no headline metric." in page.source
    said = " ".join(" ".join(page.said).split())
    marked = "Val, 1 slide of 1 patient: Dice 0.900, AUROC, pixels 0.900, FROC score 0.396, Lesions found 0.500."
    assert f"{marked} Not independent of the model: the model was chosen on these slides." in said
    assert "The epoch was chosen on the 1 validation slide, whose metrics are" in said
    assert page.row("Pixels, all slides together") == ["Pixels, all slides together", "valnot independent"]


RECORDED = {"training_slides": {}, "patients": {}}


def test_slides_with_leakage_are_marked_where_their_metrics_stand(inputs: ReportInputs, tmp_path: Path) -> None:
    """Of six test slides, s1 was trained on; the model file is of a version that records no patients."""
    summarise_into(inputs, cohort_of(tmp_path), Seen.of({"training_slides": {"t": "sha256 of s1"}}))
    named = with_slides(inputs, tmp_path, [f"s{n}" for n in range(6)])
    report = render(named, tmp_path)
    page = Page(report / "index.html")
    said = " ".join(" ".join(page.said).split())
    assert "Of the test slides (5 slides of 5 patients, 5 with lesion)" in said
    assert "Leaked, 1 slide of 1 patient: Dice 0.947, " in said  # 2 × 9 / (9 + 10)
    assert "the model was trained or chosen on these slides, or on other slides of their patients" in said
    assert "1 evaluated slide was left out of the metrics of its split, since the model was trained or chosen" in said
    assert "The model file does not record patients: only the content of slides was compared with it." in said
    assert "dash-dotted lines and triangles: leaked" in said
    assert page.row("Pixels, all slides together")[1:] == ["test", "leakednot independent"]
    assert page.row("Dice")[1:][1] == "0.947"
    reason = "not independent of the model: training slide of the model (t)"
    assert [row[3] for row in slide_rows(report)] == ["ok", f"flagged: {reason}", "ok", "ok", "ok", "ok"]
    assert [row[8] for row in slide_rows(report)][:2] == ["1.000", "0.947not independent"]
    assert f"s1</a>: {reason}" in page.source
    assert "<strong>Not independent of the model:</strong> training slide of the model (t)</p>" in page.source
    own = (report / "slides/s1.html").read_text()
    assert "<strong>Not independent of the model:</strong> training slide of the model (t)." in own
    assert "The metrics of its split are without this slide." in own
    assert "ndependent of the model" not in (report / "slides/s0.html").read_text()


def test_every_chart_has_a_title_and_words(report: Path) -> None:
    page = Page(report / "index.html")
    charts = [image for image in page.images if str(image["src"]).endswith(".svg")]
    assert {str(image["src"]) for image in charts} == {f"figures/{name}.svg" for name in (*CHARTS, "learning_curves")}
    assert page.source.count("<figcaption>") == len(charts) == 9
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
    assert [row[3] for row in slide_rows(report)] == [
        "flagged: 0.05 µm/px (file) is <implausible>",
        "ok",
        f"flagged: {unlike}",
    ]
    assert f'title="{unlike}"' in (report / "index.html").read_text()


def test_the_split_can_be_chosen_among_those_there_are(report: Path) -> None:
    options = texts(Page(report / "index.html"), "<option>")
    assert options == ["train", "test", "inference"]


HOSTILE = "<img src=x onerror=alert(1)>\"'&$x$"


def test_names_from_files_are_text_and_no_markup(inputs: ReportInputs, tmp_path: Path) -> None:
    quarantined = {"slide": HOSTILE, "split": HOSTILE, "stage": HOSTILE, "finding": HOSTILE, "remedy": HOSTILE}
    named = with_slides(inputs, tmp_path, [HOSTILE])
    record = json.loads(Path(named.records[0]).read_text())
    record["info"] |= {"vendor": HOSTILE}
    write_json(named.records[0], record | {"flags": [HOSTILE]})
    pd.DataFrame([quarantined]).to_csv(named.quarantine, sep="\t", index=False)
    metrics = json.loads(Path(make_metrics(tmp_path, "any")).read_text()) | {"slide": HOSTILE, "patient": HOSTILE}
    write_json(tmp_path / "hostile.json", metrics)
    write_json(tmp_path / "other/slides" / f"{HOSTILE}.json", metrics)
    summarise_into(named, [str(tmp_path / "hostile.json")])
    models = str(tmp_path / "models.tsv")
    others = {HOSTILE: str(tmp_path / "other")}
    compare_models([str(tmp_path / "hostile.json")], named.slide_table, others, models, 200)
    metadata = {"licence": HOSTILE, "training_slides": {HOSTILE: HOSTILE}, "provenance": {"software": HOSTILE}}
    model = make_model(tmp_path / "hostile.safetensors", intended_use=HOSTILE, **metadata)
    config = {"model": CONFIG["model"] | {"path": HOSTILE}}
    report = render(replace(named, models=models, model=model, history=None), tmp_path, **config)
    pages = {path.name: Page(path) for path in report.rglob("*.html")}
    assert set(pages) == {"index.html", "stain.html", "model.html", "checklist.html", f"{HOSTILE}.html"}
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
        "patients": {"train_1": "23" * 32},
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


def test_the_page_of_the_model_has_the_evaluation_and_what_is_stated(inputs: ReportInputs, tmp_path: Path) -> None:
    stated = CONFIG["report"] | {"organ": "liver <b>", "contact": "a@b.example", "scanner": "AT2"}
    page = Page(render(inputs, tmp_path, report=stated) / "model.html")
    assert "test: 1 slide of 1 patient. Dice 0.900, AUROC " in page.source
    assert page.row("Organ") == ["Organ", "liver <b>"]
    assert page.row("Contact") == ["Contact", "a@b.example"]
    assert page.row("Scanners") == ["Scanners", "AT2"]
    assert page.row("Licence of the weights") == ["Licence of the weights", "not stated"]
    summarise_into(inputs, [])
    page = Page(render(inputs, tmp_path / "none") / "model.html")
    assert "No evaluated slide is independent of the model." in page.source


def test_what_an_older_model_file_lacks_is_not_recorded(report: Path) -> None:
    page = Page(report / "model.html")
    assert page.row("Regions") == ["Regions", "not recorded wide at not recorded"]
    assert page.row("Backbone") == ["Backbone", "resnet18, normalisation group"]
    assert "Training slides: not recorded." in page.source


def test_references_can_be_copied_as_text_and_as_bibtex(report: Path) -> None:
    page = Page(report / "index.html")
    text = page.source.split('<div id="methods-text">')[1].split("</div>")[0]
    assert [int(n) for n in re.findall(r'<li id="ref-\w+">\[(\d+)\] ', text)] == list(range(1, 8))
    assert "LesionMap 0.2.0 follows patent application CN 111784671 A" in text
    entries = html.unescape(page.source.split('<pre id="bibtex" tabindex="0">')[1].split("</pre>")[0])
    assert re.findall(r"^@(\w+)\{(\w+),$", entries, re.MULTILINE)[:2] == [
        ("misc", "lesionmap_patent"),
        ("article", "vahadane2016"),
    ]
    assert entries.count("@") == 7
    copied = set(re.findall(r'data-copy="([\w-]+)" hidden', page.source))
    assert copied == {"methods-text", "bibtex"}
    assert all(f'id="{name}"' in page.source for name in copied)


def test_without_evaluated_slides_the_report_says_so(inputs: ReportInputs, tmp_path: Path) -> None:
    summarise_into(inputs, [])
    report = render(inputs, tmp_path)
    assert "No slide was evaluated" in (report / "index.html").read_text()
    assert slide_rows(report)[1][8:10] == ["—", "—"]
    assert (
        "Not evaluated: its annotation or its map could not be used"
        in (report / "slides" / "Präparat 7%.html").read_text()
    )


def test_a_cohort_without_slides_has_a_page(inputs: ReportInputs, tmp_path: Path) -> None:
    report = render(only(inputs, 0), tmp_path)
    page = Page(report / "stain.html")
    assert "No slide was mapped." in page.source
    assert "All slides are normalised to" not in page.source
    assert page.images == []
    assert not (report / "figures" / "stain_vectors.svg").exists()
    found = (report / "index.html").read_text().split('id="findings-title"')[1]
    assert "Nothing: no slide could be mapped." in found
    assert 'aria-label="Legend"' not in found


def test_what_was_found_has_a_legend_and_names_slides_whose_lesions_were_missed(
    inputs: ReportInputs, tmp_path: Path
) -> None:
    missed = {"lesion": 1, "outlines": 1, "area_mm2": 0.1, "centroid_xy_lv0": [5, 6], "found": False}
    write_found(tmp_path / "inputs", "new_1", "new_1", verdicts={"matched": 0}, annotated=[missed])
    found = (render(inputs, tmp_path) / "index.html").read_text().split('id="findings-title"')[1]
    assert found.count('aria-label="Legend"') == 1
    assert '<a href="slides/new_1.html">new_1</a> (1 missed), <a href="slides/train_1.html">train_1</a></p>' in found


def test_an_existing_model_is_named_instead_of_curves(inputs: ReportInputs, tmp_path: Path) -> None:
    model = CONFIG["model"] | {"path": "/models/liver.safetensors"}
    report = render(replace(inputs, history=None, learning_curves=None), tmp_path, model=model)
    page = Page(report / "index.html")
    assert "existing model <code>/models/liver.safetensors</code>" in page.source
    assert not (report / "figures" / "learning_curves.svg").exists()
    assert not any("learning_curves" in link for link in page.links)
    assert "tables/model/MODEL_CARD.md" in page.links
    assert "settings and model differ" not in page.source
    notes = ["stain.method: macenko, from the model", "tiles.mpp: 0.5 <from the model>"]
    again = render(replace(inputs, history=None, learning_curves=None), tmp_path, notes, model=model)
    source = Page(again / "index.html").source
    assert "<li>stain.method: macenko, from the model</li>" in source
    assert "<li>tiles.mpp: 0.5 &lt;from the model&gt;</li>" in source


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
            *("fpn", "resnet", "focal", "camelyon", "jackknife"),
        )
    ]
    citations = re.findall(r'<a href="#(ref-\w+)">\[(\d+)\]</a>', text)
    assert citations == [(source, str(number)) for number, source in enumerate(sources, start=1)]


@pytest.mark.parametrize(
    ("fallback", "sentence"),
    [
        ("reference", "the slide's colours were separated with the reference's vectors."),
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


@pytest.mark.parametrize(
    ("refine", "schedule", "sentence"),
    [
        ("all", "joint", "All regions with tissue were then read at 0.25 µm/px and passed as tiles, whose maps, fused"),
        ("all", "high_only", "passed as tiles, whose maps took the place of the first; pixels with a probability"),
        ("lesion", "joint", "tile by tile. Regions in which this found lesion were then read at"),
        ("unsure", "joint", "Regions with a probability from 0.1 to 0.9 were then read at 0.25 µm/px"),
        ("none", "joint", "passed through the network tile by tile; pixels with a probability"),
    ],
)
def test_methods_say_which_regions_were_refined(
    inputs: ReportInputs, tmp_path: Path, refine: str, schedule: str, sentence: str
) -> None:
    changes = {
        key: CONFIG[key] | part for key, part in (("train", {"schedule": schedule}), ("inference", {"refine": refine}))
    }
    text = (render(inputs, tmp_path, **changes) / "index.html").read_text()
    assert sentence in " ".join(text.split())


def test_subgroups_have_a_table_each(inputs: ReportInputs, tmp_path: Path) -> None:
    """Slides s0 to s5 are of six patients and have lesion, s6 and s7 have none; s7 has no scanner."""
    paths = cohort_of(tmp_path, without_lesion=2)
    scanner = {f"s{n}": "A<b>" if n < 6 else "B" for n in range(7)} | {"s7": ""}
    groups = {"scanner": scanner, "stain": dict.fromkeys(scanner, "ok")}
    seen = Seen.of({"training_slides": {"t": "sha256 of s6"}})
    summarise_into(inputs, paths, seen, groups=groups)
    page = Page(render(inputs, tmp_path) / "index.html")
    head = ["Split", "Slides", "Patients", "Dice", "AUROC", "Lesions found"]
    assert [row for row in page.rows if row[1:] == head] == [["scanner", *head], ["stain", *head]]
    found = page.row("A<b>")
    assert found[:4] == ["A<b>", "test", "6", "6"]
    assert re.fullmatch(r"0\.857 \(0\.\d{3} to 0\.\d{3}\)", found[4])  # 45 of 60 pixels found, none false: 90 / 105
    assert found[6].startswith("0.500 (")
    assert page.row("not stated") == ["not stated", "test", "1", "1", "—", "—", "—"]
    assert page.row("ok")[:4] == ["ok", "test", "7", "7"]
    assert "B" not in [row[0] for row in page.rows]  # leaked
    assert "tables/metrics/groups.tsv" in page.links


def test_without_subgroups_none_are_mentioned(report: Path) -> None:
    assert "ubgroup" not in (report / "index.html").read_text()


def test_methods_say_that_probabilities_were_recalibrated(report: Path, inputs: ReportInputs, tmp_path: Path) -> None:
    changes = {"inference": CONFIG["inference"] | {"recalibrate": True}}
    assert "recalibrated by a logistic" in (render(inputs, tmp_path / "again", **changes) / "index.html").read_text()
    assert "recalibrated by a logistic" not in (report / "index.html").read_text()


def test_no_page_of_a_former_slide_is_left(report: Path, inputs: ReportInputs, tmp_path: Path) -> None:
    names = ("records", "stains", "stain_pictures", "stain_thumbnails")
    names += ("outlines", "lesion_tables", "overlays", "views")
    fewer = {name: getattr(inputs, name)[1:] for name in names}
    list_quarantine(
        RunFiles(inputs.records[1:]), inputs.quarantine, str(tmp_path / "unreadable.tsv"), inputs.failed_exports
    )
    views = report / "views"
    left = [views / "train_1", views / ".train_1.draft", views / ".new_1.draft"]
    for folder in left:
        folder.mkdir(exist_ok=True)
    (views / "train_9").symlink_to(tmp_path)
    render(replace(inputs, **fewer), tmp_path)
    assert not (report / "slides" / "train_1.html").exists()
    assert not list((report / "figures").glob("train_1*"))
    assert [folder.exists() for folder in left] == [False, False, True]
    assert not (views / "train_9").is_symlink()
    assert tmp_path.is_dir()
    assert all((report.parent / "report/views" / Path(view).name / "view.js").exists() for view in fewer["views"])


def test_a_failure_leaves_the_former_report(report: Path, inputs: ReportInputs, tmp_path: Path) -> None:
    before = contents(report)
    summarise_into(inputs, [])
    Path(inputs.stain_pictures[2]).write_text("no picture")
    with pytest.raises(UnidentifiedImageError):
        render(inputs, tmp_path)
    assert contents(report) == before
    assert {path.name for path in report.iterdir()} == {
        *PAGES,
        "slides",
        "figures",
        "viewer",
        "views",
        "files",
        "tables",
    }


def test_folders_are_open_to_others(report: Path) -> None:
    assert (report / "slides").stat().st_mode == (report.parent / "inputs").stat().st_mode
