"""The folder that a person reviews."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from annotation_writers import info_at
from lesionmap.errors import AnnotationError, SlideError, StorageError
from lesionmap.files.records import read_json, read_table, write_json, write_text
from lesionmap.jobs.quarantine import write_quarantined
from lesionmap.review.folder import ReviewInputs, write_review
from shapely.geometry import box, mapping

SLIDES = {"Präparat 7%": "test", "new_1": "inference", "bad": "train", "late": "train"}
READABLE = [slide for slide in SLIDES if slide != "bad"]
LOST = SlideError(slide="late", stage="map_slide", finding="half of it is damaged", remedy="copy it")


def feature(**properties):
    properties = {
        "name": "Lesion 1",
        "verdict": "matched",
        "metadata": {},
        "classification": {"name": "Lesion"},
    } | properties
    return {"type": "Feature", "id": "x", "geometry": mapping(box(1, 2, 3, 5)), "properties": properties}


@pytest.fixture
def inputs(tmp_path, monkeypatch) -> ReviewInputs:
    """One slide with an annotation, one without, one that its inspection and one that a later stage has refused."""
    monkeypatch.chdir(tmp_path)
    for slide, split in SLIDES.items():
        record = {"slide": slide, "split": split, "verdict": "ok"}
        refused = record | {"verdict": "quarantined", "stage": "inspect_slide", "finding": "it is empty"}
        write_json(f"results/slides/{slide}.json", refused if slide == "bad" else record)
        info = asdict(replace(info_at(bounds_xy_lv0=(7, 11)), slide=slide))
        write_json(f"results/slides/info/{slide}.json", {key: info[key] for key in info if key != "path"})
        write_json(f"results/slides/location/{slide}.json", {"path": f"slides/{slide}.tif"})
        write_json(f"results/lesions/{slide}/lesions.geojson", {"features": [feature()]})
    write_quarantined(["results/lesions/late/lesions.geojson"], LOST)
    write_json("results/annotations/Präparat 7%.geojson", {"features": [feature(**{"class": "lesion"})]})
    unreviewed = AnnotationError(slide="late", stage="import_annotation", finding="f", remedy="r")
    write_quarantined(["results/annotations/late.geojson"], unreviewed)
    write_json("results/metrics/slides/Präparat 7%.json", {"slide": "Präparat 7%", "dice": 0.25})
    write_text("results/metrics/slides.tsv", "slide\tdice\nPräparat 7%\t0.25\n")
    paths = ["results/slides/info/{}.json", "results/slides/location/{}.json", "results/lesions/{}/lesions.geojson"]
    per_slide = [[path.format(slide) for slide in READABLE] for path in paths]
    annotations = [f"results/annotations/{slide}.geojson" for slide in ("Präparat 7%", "late")]
    records = [f"results/slides/{slide}.json" for slide in SLIDES]
    metrics = ["results/metrics/slides/Präparat 7%.json"]
    return ReviewInputs(records, *per_slide, annotations, metrics, "results/metrics/slides.tsv")


def written(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_it_has_all_that_a_person_needs(inputs, tmp_path, capsys):
    write_review(inputs, "results/review")
    folder = tmp_path / "results/review"
    assert written(folder) == {
        "HOWTO.md",
        "import.groovy",
        "slides.tsv",
        "outlines/Präparat 7%.geojson",
        "outlines/new_1.geojson",
        "before/slides.tsv",
        "before/slides/Präparat 7%.json",
    }
    rows = {row["slide"]: row for row in read_table(folder / "slides.tsv")}
    assert rows["Präparat 7%"] == {
        "slide": "Präparat 7%",
        "split": "test",
        "path": str(tmp_path / "slides/Präparat 7%.tif"),
        "outlines": "outlines/Präparat 7%.geojson",
        "predicted": "1",
        "annotated": "1",
        "left_out": "",
    }
    assert [rows["new_1"][key] for key in ("predicted", "annotated")] == ["1", "0"]
    assert [rows["bad"][key] for key in ("path", "outlines", "left_out")] == ["", "", "inspect_slide: it is empty"]
    assert rows["late"]["left_out"] == "map_slide: half of it is damaged"
    assert capsys.readouterr().err.splitlines() == [
        "results/review has 2 slides with 2 predicted lesions to correct: results/review/HOWTO.md says how.",
        "  left out: bad is in quarantine (inspect_slide: it is empty)",
        "  left out: late is in quarantine (map_slide: half of it is damaged)",
    ]
    assert read_json(folder / "before/slides/Präparat 7%.json") == {"slide": "Präparat 7%", "dice": 0.25}
    assert (folder / "before/slides.tsv").read_text() == "slide\tdice\nPräparat 7%\t0.25\n"


def test_the_outlines_are_one_feature_collection_with_predicted_and_annotated_lesions(inputs, tmp_path):
    write_review(inputs, "results/review")
    content = json.loads((tmp_path / "results/review/outlines/Präparat 7%.geojson").read_text(encoding="utf-8"))
    assert content["type"] == "FeatureCollection"
    names = [feature["properties"]["classification"]["name"] for feature in content["features"]]
    assert names == ["Annotated: lesion", "Predicted"]
    other = json.loads((tmp_path / "results/review/outlines/new_1.geojson").read_text(encoding="utf-8"))
    assert [feature["properties"]["classification"]["name"] for feature in other["features"]] == ["Lesion"]


def test_the_script_knows_where_the_folder_lies(inputs, tmp_path):
    write_review(inputs, "results/it's")
    script = (tmp_path / "results/it's/import.groovy").read_text(encoding="utf-8")
    assert f"def folder = new File('{tmp_path}/results/it\\'s')  //" in script


def test_a_slide_on_a_server_keeps_its_address(inputs, tmp_path):
    write_json(inputs.locations[1], {"path": "s3://archive/new_1.svs"})
    write_review(inputs, "results/review")
    assert read_table(tmp_path / "results/review/slides.tsv")[1]["path"] == "s3://archive/new_1.svs"


def test_a_new_review_leaves_no_slide_of_the_last_and_keeps_what_others_put_there(inputs, tmp_path):
    write_review(inputs, "results/review")
    write_text("results/review/notes.txt", "ask Anna")
    write_json("results/metrics/slides/new_1.json", {"slide": "new_1"})
    fewer = replace(
        inputs,
        **{name: getattr(inputs, name)[1:2] for name in ("infos", "locations", "outlines")},
        records=inputs.records[1:2],
        metrics=["results/metrics/slides/new_1.json"],
    )
    write_review(fewer, "results/review")
    assert {"outlines/new_1.geojson", "before/slides/new_1.json", "notes.txt"} <= written(tmp_path / "results/review")
    assert not [name for name in written(tmp_path / "results/review") if "7%" in name]


def test_corrections_that_were_saved_over_the_outlines_are_not_lost(inputs, tmp_path):
    write_review(inputs, "results/review")
    before = written(tmp_path / "results/review")
    path = tmp_path / "results/review/outlines/new_1.geojson"
    path.write_text('{"type": "FeatureCollection", "features": []}')  # as QuPath exports it
    (tmp_path / "results/review/slides.tsv").unlink()
    with pytest.raises(StorageError, match=r"review: results/review/outlines/new_1\.geojson is not as a review has"):
        write_review(inputs, "results/review")
    assert path.read_text() == '{"type": "FeatureCollection", "features": []}'
    assert written(tmp_path / "results/review") == before - {"slides.tsv"}
    path.rename(tmp_path / "corrected.geojson")
    write_review(inputs, "results/review")
    assert written(tmp_path / "results/review") == before


def test_the_howto_names_the_classes_that_the_config_knows(request):
    root = request.config.rootpath
    howto = (root / "scripts/lesionmap/review/templates/folder/HOWTO.md").read_text(encoding="utf-8")
    config = (root / "config/config.yaml").read_text(encoding="utf-8")
    for name in ("Accepted", "Rejected", "Lesion", "Vessel", "Fat", "Ignore*", "Predicted"):
        assert f"`{name}`" in howto
        assert f"{name}:" in config or f"[{name}]" in config
