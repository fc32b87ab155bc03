"""The table of slides and a slide's page."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import pytest
from evaluated import judged
from lesionmap.errors import ExportError, SlideError
from lesionmap.evaluation.model_comparison import COLUMNS
from lesionmap.files.records import read_json, write_json, write_table
from lesionmap.jobs.quarantine import in_folder, write_quarantined
from lesionmap.report.inputs import ReportInputs
from lesionmap.run.quarantine_tables import RunFiles, list_quarantine
from PIL import Image
from report_parts import (
    SPLITS,
    Page,
    change_stain,
    make_metrics,
    render,
    slide_rows,
    stain_match,
    summarise_into,
    with_fallback,
)


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


def test_failed_exports_are_told_and_their_slides_are_reported_in_full(inputs: ReportInputs, tmp_path: Path) -> None:
    slide, number = "train_1", list(SPLITS).index("train_1")
    stain = [inputs.stain_pictures[number], inputs.stain_thumbnails[number]]
    dicom = str(tmp_path / "lesions.dcm")
    write_quarantined(stain, ExportError(slide=slide, stage="draw_stain", finding="<no room>", remedy="make room"))
    write_quarantined([dicom], ExportError(slide=slide, stage="write_dicom", finding="no UID", remedy="export it"))
    lost = RunFiles(inputs.records, others=[dicom, *inputs.stain_pictures])
    list_quarantine(lost, inputs.quarantine, str(tmp_path / "unreadable.tsv"), inputs.failed_exports)
    report = render(inputs, tmp_path, exports={"dicom": "always"})
    page, cohort = Page(report / f"slides/{slide}.html"), Page(report / "index.html")
    assert "draw_stain failed: &lt;no room&gt;" in page.source
    assert "write_dicom failed: no UID" in page.source
    assert "quarantine since" not in page.source
    assert page.scripts == 3  # its map is there
    assert "lesions.dcm" not in page.source
    assert "lesions.dcm" in (report / "slides/new_1.html").read_text()
    assert "2 failed exports" in cohort.source
    assert ["train_1", "train", "write_dicom", "no UID", "export it"] in cohort.rows
    assert "0 in quarantine." in " ".join(cohort.source.split())
    for path in (report / "stain.html", report / f"slides/{slide}.html"):
        pictures = [unquote(link) for link in Page(path).links if "figures/" in link]
        assert pictures
        assert all((path.parent / picture).exists() for picture in pictures)
    assert not [path for path in (report / "figures").iterdir() if path.name.startswith("train_1_stain")]


def test_where_an_annotation_lies_is_told_and_flagged(inputs: ReportInputs, tmp_path: Path) -> None:
    write_json(
        inputs.checks[0],
        {"slide": "train_1", "format": "", "tissue_share": {"lesion": 0.1, "fat": 0.5}}
        | {"review": None, "flags": ["in <µm>"]},
    )
    report = render(inputs, tmp_path)
    page = " ".join((report / "slides/train_1.html").read_text().split())
    assert "that lies on tissue: lesion 10 %, fat 50 %." in page
    assert '<p class="notice">annotation: in &lt;µm&gt;</p>' in page
    index = (report / "index.html").read_text()
    listed = index[index.index('id="flagged"') :]
    assert "<details open>" in listed
    assert "and why, first those whose annotation does not lie on tissue" in listed
    assert "annotation: in &lt;µm&gt;" in listed[: listed.index("</li>")]  # in the first of them
    other = " ".join((report / "slides/Präparat 7%.html").read_text().split())
    assert "that lies on tissue: lesion 99 %." in other
    assert "annotation:" not in other
    assert "lies on tissue" not in (report / "slides/new_1.html").read_text()


def test_corrections_are_told_on_the_slides_page_and_on_the_cohorts(inputs: ReportInputs, tmp_path: Path) -> None:
    assert "Corrections" not in (render(inputs, tmp_path) / "index.html").read_text()
    review = {"accepted": 5, "edited": 4, "rejected": 3, "deleted": 0, "new": 0}
    write_json(inputs.checks[1], read_json(inputs.checks[1]) | {"review": review})
    report = render(inputs, tmp_path)
    said = "Its annotation is a review of predicted lesions: 5 accepted, 4 edited, 3 rejected, 0 deleted, 0 new."
    assert said in (report / "slides/Präparat 7%.html").read_text()
    assert "review of predicted" not in (report / "slides/train_1.html").read_text()
    cohort = Page(report / "index.html")
    assert ["Slide", "Split", "Accepted", "Edited", "Rejected", "Deleted", "New"] in cohort.rows
    assert ["Präparat 7%", "test", "5", "4", "3", "0", "0"] in cohort.rows
    assert cohort.source.count('<h2 id="corrections-title">') == 1


def before_after(folder: Path, counts: dict[str, object], *rows: dict[str, str]) -> list[str]:
    """Files of a comparison with the maps that were last reviewed."""
    table, found = (str(folder / name) for name in ("before_after.tsv", "before_after.json"))
    numbers = dict.fromkeys(("low", "high", "difference", "difference_low", "difference_high"), "NA")
    about = {"split": "test", "metric": "dice", "mark": "", "slides": "3", "patients": "3", "note": ""}
    write_table(table, [about | numbers | row for row in rows], COLUMNS)
    write_json(found, {"not_comparable": 0, "any_map": bool(rows)} | counts)
    return [table, found]


def test_maps_before_and_after_corrections_are_compared_on_the_cohorts_page(
    inputs: ReportInputs, tmp_path: Path
) -> None:
    rows = {"model": "before", "value": "0.5"}, {"model": "after", "value": "0.75", "difference": "0.25"}
    paths = before_after(tmp_path, {"compared": 3, "changed": 1}, *rows)
    page = Page(render(replace(inputs, before_after=paths), tmp_path) / "index.html")
    text = " ".join(page.source.split())
    assert ["Metric", "Split", "Before", "After", "Difference"] in page.rows
    assert ["Dice", "test", "0.500", "0.750", "0.250"] in page.rows
    assert "on 3 slides that both runs evaluated against the same annotation" in text
    assert "1 slide is left out, as the annotation has changed since." in text


@pytest.mark.parametrize(("changed", "shown"), [(0, False), (2, True)])
def test_maps_that_are_the_same_or_held_against_other_annotations_have_no_table(
    inputs: ReportInputs, tmp_path: Path, changed: int, shown: bool
) -> None:
    paths = before_after(tmp_path, {"compared": 1 - shown, "changed": changed})
    text = " ".join((render(replace(inputs, before_after=paths), tmp_path) / "index.html").read_text().split())
    assert ("Before and after" in text) is shown
    assert ("2 slides are left out, as the annotation has changed since." in text) is shown
    assert ("cannot be compared with those of this run" in text) is shown


def test_a_check_that_failed_leaves_the_page_without_it(inputs: ReportInputs, tmp_path: Path) -> None:
    failed = ExportError(slide="train_1", stage="check_annotation", finding="odd", remedy="report it")
    write_quarantined(inputs.checks[:1], failed)
    assert "lies on tissue" not in (render(inputs, tmp_path) / "slides/train_1.html").read_text()


def test_a_slides_page_says_how_many_lesions_were_found(report: Path) -> None:
    page = " ".join((report / "slides" / "Präparat 7%.html").read_text().split())
    assert "1 of 2 annotated lesions are found at least in part; 1 predicted lesion shares no pixel with any." in page
    assert "Area: 0.100 mm² predicted, 0.100 mm² annotated." in page


def test_what_the_annotation_says_to_ignore_is_stated_with_its_area(inputs: ReportInputs, tmp_path: Path) -> None:
    metrics = make_metrics(tmp_path / "inputs", "Präparat 7%")
    said = "0.375 mm² are not judged, because the annotation says to ignore them"
    in_cohort = "; not judged, because their annotation says so: 0.375 mm² on 1 slide, with 1 predicted lesion<"
    pages = "slides/Präparat 7%.html", "index.html"
    report = render(inputs, tmp_path)
    assert not any("not judged" in (report / page).read_text() for page in pages)
    record = json.loads(Path(metrics).read_text()) | {"ignored_mm2": 0.375} | judged(false=1, unjudged=1)
    write_json(metrics, record)
    summarise_into(inputs, [metrics])
    page, index = (" ".join((render(inputs, tmp_path) / page).read_text().split()) for page in pages)
    assert f"{said}: they count in none of these numbers. 1 predicted lesion mostly in them is neither" in page
    assert in_cohort in index
    assert "1 false; 0.375 mm² not judged" in index
    write_json(metrics, record | judged(false=1, unjudged=2))
    summarise_into(inputs, [metrics])
    page = " ".join((render(inputs, tmp_path) / pages[0]).read_text().split())
    assert "2 predicted lesions mostly in them are neither true nor false." in page


def test_a_slide_that_a_later_stage_refused_says_so_on_its_page(inputs: ReportInputs, tmp_path: Path) -> None:
    reason = SlideError(slide="train_1", stage="extract_tiles", finding="2 of 3 boxes", remedy="copy it again")
    write_quarantined([str(tmp_path / "train_1.json")], reason)
    lost = RunFiles(inputs.records, tiles=[str(tmp_path / "train_1.json")])
    list_quarantine(lost, inputs.quarantine, str(tmp_path / "unreadable.tsv"), inputs.failed_exports)
    report = render(inputs, tmp_path)
    page = (report / "slides" / "train_1.html").read_text()
    assert "in quarantine since extract_tiles: 2 of 3 boxes" in page
    assert "0.05 µm/px (file) is &lt;implausible&gt;" in page
    assert 'id="flagged"' not in (report / "index.html").read_text()  # it stands in the quarantine


def test_a_flagged_slide_is_listed_with_its_flags(inputs: ReportInputs, tmp_path: Path) -> None:
    page = (render(inputs, tmp_path) / "index.html").read_text()
    assert 'id="flagged"' in page
    assert "train_1</a>: 0.05 µm/px (file) is &lt;implausible&gt;" in page


def test_a_slide_without_a_map_has_no_page(inputs: ReportInputs, tmp_path: Path) -> None:
    reason = SlideError(slide="train_1", stage="map_slide", finding="2 of 3 boxes", remedy="copy it again")
    lost = inputs.outlines[list(SPLITS).index("train_1")]
    write_quarantined([lost, str(tmp_path / "inputs/train_1.lesions.json")], reason)
    report = render(inputs, tmp_path)
    assert not (report / "slides" / "train_1.html").exists()
    assert "2 slides mapped: 2 lesions on 1 slide" in (report / "index.html").read_text()


def test_slide_table_is_in_the_order_of_the_sheet(report: Path) -> None:
    rows = slide_rows(report)
    assert [row[1] for row in rows] == list(SPLITS)
    # 4000 × 3000 px of 0.25 µm; AUROC 0.9 · 0.9 + (0.9 · 0.1 + 0.1 · 0.9) / 2
    assert rows[1][2:] == ["test", "ok", "0.2500", "1.0 × 0.8", "2", "0.008", "0.900", "0.900", "36.9"]
    assert rows[2][2:] == ["inference", "ok", "0.2500", "1.0 × 0.8", "0", "0.000", "—", "—", "36.9"]


def test_a_segmentation_is_named_where_there_is_one(report: Path, inputs: ReportInputs, tmp_path: Path) -> None:
    assert "lesions.dcm" not in (report / "slides/new_1.html").read_text()
    asked = render(inputs, tmp_path / "asked", exports={"dicom": "always"})
    assert "lesions.dcm" in (asked / "slides/new_1.html").read_text()


def test_lesions_are_listed_largest_first_in_the_frame_of_the_file(report: Path) -> None:
    page = Page(report / "slides" / "Präparat 7%.html")
    assert page.row("Lesion 2") == ["Lesion 2", "0.00600", "0.80", "0.80", "600, 1240"]
    assert page.row("Lesion 1") == ["Lesion 1", "0.00200", "0.80", "0.80", "300, 180"]
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
    assert "with its own vectors, fitted by the method vahadane." in page.source
    assert "the stain of the reference, slide train_1." in page.source
    assert "This fit is not used" not in page.source
    assert "This slide is the reference." in (report / "slides" / "train_1.html").read_text()
    assert "LesionMap 9" in page.source


def test_the_stain_picture_keeps_its_size(report: Path) -> None:
    with Image.open(report / "figures" / "new_1_stain.jpg") as picture:
        assert picture.size == (170, 46)


def test_a_slide_whose_fit_is_not_used_says_so(inputs: ReportInputs, tmp_path: Path) -> None:
    flags = ["stain: not H&E, the reference's basis used", "eosin: <too little>"]
    change_stain(inputs, "new_1", "angle, ratio_eosin", **with_fallback("the reference's basis", flags))
    report = render(inputs, tmp_path)
    page = (report / "slides" / "new_1.html").read_text()
    assert "Verdict of the fit: not H&amp;E; its two stains are 53.1° apart." in page
    assert "This fit is not used: the slide's colours are separated with the reference&#39;s basis instead." in page
    assert page.count('<p class="notice">eosin: &lt;too little&gt;</p>') == 1
    assert page.count('<p class="notice">unlike the other slides: angle, ratio eosin</p>') == 1
    index = (report / "index.html").read_text()
    unlike = "unlike the other slides: angle, ratio eosin"
    listed = f"new_1</a>: stain: not H&amp;E, the reference&#39;s basis used; eosin: &lt;too little&gt;; {unlike}</li>"
    assert listed in index


def test_vectors_that_were_not_fitted_are_not_called_so(inputs: ReportInputs, tmp_path: Path) -> None:
    change_stain(inputs, "new_1", profile=stain_match("new_1")["profile"] | {"method": "none"})
    page = (render(inputs, tmp_path) / "slides" / "new_1.html").read_text()
    assert "with the published average vectors; nothing was fitted" in page
    assert "with its own vectors" not in page
