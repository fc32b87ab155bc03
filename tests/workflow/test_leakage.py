"""Leakage: runs that evaluate slides which their model has seen, and what they say of it; copies of a project."""

import json
import shutil

import pytest
from lesionmap.evaluation.leakage import NOT_EXTERNAL, SEEN
from lesionmap.files.model_metadata import load_metadata, patient_digest
from lesionmap.files.records import read_table
from project import jobs
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

MODEL = "results/model/lesionmap.safetensors"
PATIENT = "case 17"
COPY, OF_PATIENT = "training slide of the model (train_1)", "same patient as a training slide of the model (train_2)"


def sheet_of(project, *rows):
    """Write a slide sheet: slide, file, split, annotation, patient of each row."""
    lines = [["slide", "path", "split", "annotation", "patient"], *rows]
    (project.folder / "slides.tsv").write_text("".join("\t".join(line) + "\n" for line in lines))


@pytest.fixture
def seen(project):
    """The slides evaluated with a model that was trained on one of them, and on another slide of the second's patient.

    The first is a copy under another id and path. The model file records the patient of train_2.
    """
    model = project.folder / "given.safetensors"
    with safe_open(project.folder / MODEL, "numpy") as file:
        metadata = json.loads(file.metadata()["lesionmap"])
    metadata["patients"] = {"train_2": patient_digest(PATIENT)}
    save_file(load_file(project.folder / MODEL), model, metadata={"lesionmap": json.dumps(metadata)})
    shutil.copyfile(project.folder / "slides/train_1.tif", project.folder / "slides/other name.tif")
    project.config["model"]["path"] = "given.safetensors"
    rows = [
        ["copied", "slides/other name.tif", "test", "annotations/train_1.geojson", ""],
        ["test_1", "slides/test_1.tif", "test", "annotations/test_1.geojson", PATIENT],
    ]
    sheet_of(project, *rows)
    return project, rows


def test_slides_with_leakage_are_marked_in_every_result_and_left_out_of_the_headline(seen):
    project, _ = seen
    results = project.folder / "results"
    printed = project.run("--cores", "2")
    said = f"2 evaluated slides not independent of the model: copied ({COPY}), test_1 ({OF_PATIENT})"
    assert f"LesionMap: {said}. Their metrics are marked, and not part of the headline." in printed
    assert {row["slide"]: row["leakage"] for row in read_table(results / "metrics/slides.tsv")} == {
        "copied": COPY,
        "test_1": OF_PATIENT,
    }
    splits = json.loads((results / "metrics/summary.json").read_text())["splits"]
    assert {group: (found["slides"], found["mark"]) for group, found in splits.items()} == {"leaked": (2, SEEN)}
    lines = (results / "conclusion.txt").read_text().splitlines()
    lines = lines[lines.index("no evaluated slide is independent of the model, so there is no headline metric") :]
    assert lines[1].startswith("not independent of the model: leaked slides (2 slides): Dice ")
    assert lines[2].endswith(f" ({COPY})")
    assert lines[3].endswith(f" ({OF_PATIENT})")
    assert lines[4] == NOT_EXTERNAL
    assert said in (project.folder / "logs/summarise.log").read_text()
    index = (results / "report/index.html").read_text()
    assert "No evaluated slide is independent of the model" in index
    assert f"Not independent of the model: {SEEN}." in index
    for slide, leakage in (("copied", COPY), ("test_1", OF_PATIENT)):
        own = (results / f"report/slides/{slide}.html").read_text()
        assert f"<strong>Not independent of the model:</strong> {leakage}." in own
    assert "leaked" in (results / "metrics/roc.svg").read_text()
    assert "Nothing to be done" in project.run()


def test_leakage_is_refused_before_any_map_is_made_and_the_remedy_works(seen):
    project, rows = seen
    project.config["evaluation"] = {"on_leakage": "refuse"}
    printed = project.run(ok=False)
    said = f"evaluation: 2 evaluated slides not independent of the model: copied ({COPY}), test_1 ({OF_PATIENT})"
    assert f"LesionMap: {said}; evaluation.on_leakage is refuse. Remedy: give them the split inference" in printed
    assert {"inspect_slide:copied", "build_manifest"} <= jobs(printed)
    assert not {job for job in jobs(printed) if job.startswith(("map_slide", "find_tissue", "find_lesions"))}
    assert not (project.folder / "results/lesions/copied").exists()
    printed = project.run("doctor", ok=False)
    for leakage in (COPY, OF_PATIENT):
        assert f"not independent of the model: {leakage}. Remedy: give them the split inference" in printed
    sheet_of(project, [*rows[0][:2], "inference", "", ""], [*rows[1][:4], "someone else"])
    table = "results/metrics/slides.tsv"
    assert "not independent" not in project.run(table, "--cores", "2")
    assert [(row["slide"], row["leakage"]) for row in read_table(project.folder / table)] == [("test_1", "")]


def test_the_sheet_alone_shows_leakage_between_its_splits(project):
    """A training slide under another id among those to test; a patient in two splits."""
    shutil.copyfile(project.folder / "slides/train_1.tif", project.folder / "slides/again.tif")
    rows = [
        ["train_1", "slides/train_1.tif", "train", "annotations/train_1.geojson", "a"],
        ["train_2", "slides/train_2.tif", "train", "annotations/train_2.xml", "b"],
        ["test_1", "slides/test_1.tif", "test", "annotations/test_1.geojson", "b"],
    ]
    sheet_of(project, *rows, ["again", "slides/again.tif", "test", "annotations/train_1.geojson", ""])
    project.config["evaluation"] = {"on_leakage": "refuse"}
    printed = project.run("results/manifest.tsv")
    assert "not independent" not in printed
    printed = project.run(ok=False)
    assert f"2 evaluated slides not independent of the model: test_1 ({OF_PATIENT}), again ({COPY})" in printed
    sheet_of(project, *rows[:2], [*rows[2][:4], "c"])
    assert "not independent" not in project.run("--dry-run")


def test_patients_reach_the_model_file_as_digests_and_train_nothing_anew(project, finished):
    """They are named after the model was trained, then leakage is by the sheet; the next training records them."""
    before = (project.folder / MODEL).read_bytes()
    assert load_metadata(project.folder / MODEL)["patients"] == {}
    assert "Patients: 0, and 2 slides without one." in (finished.folder / "results/model/MODEL_CARD.md").read_text()
    rows = [
        ["train_1", "slides/train_1.tif", "train", "annotations/train_1.geojson", PATIENT],
        ["train_2", "slides/train_2.tif", "train", "annotations/train_2.xml", ""],
        ["test_1", "slides/test_1.tif", "test", "annotations/test_1.geojson", ""],
        ["unreadable", "slides/unreadable.tif", "inference", "", ""],
    ]
    sheet_of(project, *rows)
    table = "results/metrics/slides.tsv"
    assert project.planned(table) == {"summarise"}
    rows[2][4] = PATIENT
    sheet_of(project, *rows)
    assert project.planned(table) == {"evaluate_slide:test_1", "summarise"}
    (row,) = read_table(project.folder / table)
    assert row["leakage"] == "same patient as a training slide of the model (train_1)"
    assert (project.folder / MODEL).read_bytes() == before
    project.config["train"]["seed"] = 1
    project.run(MODEL)
    assert load_metadata(project.folder / MODEL)["patients"] == {"train_1": patient_digest(PATIENT)}
    assert PATIENT.encode() not in (project.folder / MODEL).read_bytes()


def test_without_leakage_nothing_is_marked(finished):
    results = finished.folder / "results"
    (row,) = read_table(results / "metrics/slides.tsv")
    assert row["leakage"] == ""
    summary = json.loads((results / "metrics/summary.json").read_text())
    assert [(group, found["mark"]) for group, found in summary["splits"].items()] == [("test", "")]
    assert summary["notes"] == []
    assert "\nlesion, split test (1 slide): Dice " in (results / "conclusion.txt").read_text()
    for page in (results / "report").rglob("*.html"):
        assert "ndependent" not in page.read_text(), page
