"""Predicted lesions go out for correction, come back through QuPath, and are learnt from."""

import json
import shutil
from collections import Counter

from lesionmap.files.records import read_json, read_table, write_text
from project import jobs
from qupath_files import drawn, exported, vertex_moved, with_class

CORNER = [(300, 300), (360, 300), (360, 350), (300, 350)]
UNTOUCHED = "2 outlines of lesion, and each is as LesionMap predicted it"


def edit_sheet(project, old, new):
    sheet = project.folder / "slides.tsv"
    text = sheet.read_text()
    assert old in text
    sheet.write_text(text.replace(old, new))


def corrected(project, slide):
    """What a person makes of a slide's outlines: one of each kind."""
    content = json.loads((project.folder / f"results/review/outlines/{slide}.geojson").read_text())
    classes = Counter(feature["properties"]["classification"]["name"] for feature in content["features"])
    assert classes["Predicted"] == 2 and classes["Annotated: lesion"] > 0
    *annotated, right, wrong_edge = content["features"]
    no_lesion = next(n for n, one in enumerate(annotated) if "lesion" in one["properties"]["classification"]["name"])
    annotated[no_lesion] = with_class(annotated[no_lesion], "Rejected")
    return exported(
        [*annotated, with_class(right, "Accepted"), vertex_moved(wrong_edge), drawn("Lesion", CORNER)], "0.6"
    ), classes


def test_predictions_are_corrected_and_come_back_and_the_next_model_is_compared_with_the_last(project):
    results = project.folder / "results"
    printed = project.run("review")
    assert jobs(printed) == {"review"}
    assert "results/review has 3 slides with 6 predicted lesions to correct" in printed
    assert "left out: unreadable is in quarantine (inspect_slide: " in printed
    assert project.foreseen() == {"compare_with_before", "render_report", "conclude"}

    text, classes = corrected(project, "train_2")
    write_text(project.folder / "annotations/corrected.geojson", text)
    edit_sheet(project, "annotations/train_2.xml", "annotations/corrected.geojson")
    before = (results / "metrics/slides/test_1.json").read_bytes()
    planned = project.planned("--cores", "2")
    assert {"import_annotation:train_2", "extract_tiles:train_2", "train", "evaluate_slide:test_1"} <= planned
    assert {"extract_tiles:train_1", "import_annotation:test_1"} & planned == set()

    counts = {"accepted": 1, "edited": 1, "rejected": 1, "deleted": 0, "new": 1}
    canonical = read_json(results / "annotations/train_2.geojson")
    assert canonical["review"] == read_json(results / "annotations/train_2.json")["review"] == counts
    assert canonical["classes"]["lesion"]["polygons"] >= classes["Annotated: lesion"] - 1 + 2
    rows = {row["slide"]: row for row in read_table(results / "annotations.tsv")}
    assert {kind: int(rows["train_2"][kind]) for kind in counts} == counts
    assert {kind: rows["test_1"][kind] for kind in counts} == dict.fromkeys(counts, "")
    said = "annotations of 1 slide are reviews of predicted lesions: 1 accepted, 1 edited, 1 rejected, 0 deleted, 1 new"
    assert said in (results / "conclusion.txt").read_text()
    index = (results / "report/index.html").read_text()
    assert "Before and after the corrections" in index
    assert "on 1 slide that both runs evaluated against the same annotation" in index
    assert "1 accepted, 1 edited, 1 rejected, 0 deleted, 1 new." in (results / "report/slides/train_2.html").read_text()
    assert (results / "review/before/slides/test_1.json").read_bytes() == before
    assert (results / "metrics/slides/test_1.json").read_bytes() != before
    table = {(row["metric"], row["model"]): row for row in read_table(results / "metrics/before_after.tsv")}
    old, new = (table["brier", model] for model in ("before", "after"))
    assert float(new["difference"]) == round(float(new["value"]) - float(old["value"]), 6) != 0
    assert "Nothing to be done" in project.run()


def test_predictions_that_nobody_has_reviewed_are_refused_by_the_doctor_and_the_run(project):
    shutil.copy(project.folder / "results/lesions/test_1/lesions.geojson", project.folder / "annotations/back.geojson")
    edit_sheet(project, "annotations/test_1.geojson", "annotations/back.geojson")
    assert UNTOUCHED in project.run("doctor", ok=False)
    printed = project.run("annotations")
    assert f"slide test_1, import_annotation: {UNTOUCHED}" in printed
    assert "give them the class Accepted" in printed
    refused = read_json(project.folder / "results/annotations/test_1.geojson")
    assert refused["quarantined"]["finding"].startswith(UNTOUCHED)
    text = (project.folder / "annotations/back.geojson").read_text()
    (project.folder / "annotations/back.geojson").write_text(text.replace('{"name": "Lesion"', '{"name": "Accepted"'))
    project.run("annotations")
    review = read_json(project.folder / "results/annotations/test_1.geojson")["review"]
    assert review == {"accepted": 2, "edited": 0, "rejected": 0, "deleted": 0, "new": 0}
