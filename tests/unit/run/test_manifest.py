import json

import numpy as np
import pandas as pd
import pytest
from lesionmap.errors import ExportError, SlideError
from lesionmap.files.records import read_table, write_identity, write_json, write_text
from lesionmap.jobs.quarantine import write_quarantined
from lesionmap.run.manifest import build_manifest, good_slides, list_annotations, planned_leaks, segmented_slides
from lesionmap.slides.sheet import SlideRow
from safetensors.numpy import save_file

pytestmark = pytest.mark.slides
INFO = {"vendor": "aperio", "mpp": 0.25, "identity": "f" * 64, "size_lv0": [30, 20]}
GOOD = {"verdict": "ok", "flags": [], "resolution": {"source": "file"}, "info": INFO}


def test_the_manifest_holds_the_slides_that_passed(tables):
    assert good_slides(tables.manifest, ["train", "val"]) == ["NA"]
    assert good_slides(tables.manifest, ["test"]) == ["b"]
    table = pd.read_csv(tables.manifest, sep="\t", keep_default_na=False).set_index("slide")
    assert table["flags"].to_dict() == {"NA": "", "b": 'it is pale; it is "small"'}
    assert table["mpp_source"].to_list() == ["file", "file"]


def test_the_lesions_of_dicom_slides_are_written_as_dicom(tmp_path, records, tables):
    write_json(records[1], {"slide": "b", "split": "test"} | GOOD | {"info": INFO | {"vendor": "dicom"}})
    build_manifest(records, tables.manifest)
    chosen = {dicom: segmented_slides(tables.manifest, dicom) for dicom in ("auto", "always", "never")}
    assert chosen == {"auto": ["b"], "always": ["NA", "b"], "never": []}


def test_annotations_are_listed_by_content_without_those_in_quarantine(tmp_path):
    paths = [str(tmp_path / f"{slide}.json") for slide in ("b", "NA", "bad.1", "a")]
    for path, text in zip(paths, ("one", "another", "", "one"), strict=True):
        write_text(tmp_path / "canonical.geojson", text)
        review = {"accepted": 3, "edited": 1, "rejected": 0, "deleted": 0, "new": 2} if text == "another" else None
        write_identity(path, tmp_path / "canonical.geojson", review=review)
    write_quarantined([paths[2]], SlideError(slide="bad.1", stage="import_annotation", finding="f", remedy="r"))
    list_annotations(paths, str(tmp_path / "annotations.tsv"))
    rows = read_table(tmp_path / "annotations.tsv")
    assert [row["slide"] for row in rows] == ["b", "NA", "a"]
    one, another, again = (row["sha256"] for row in rows)
    assert one == again == "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"  # printf one | sha256sum
    assert another != one
    assert [rows[0][kind] for kind in ("accepted", "edited", "rejected", "deleted", "new")] == [""] * 5
    assert [rows[1][kind] for kind in ("accepted", "edited", "rejected", "deleted", "new")] == ["3", "1", "0", "0", "2"]
    write_quarantined([paths[1]], ExportError(slide="NA", stage="import_second_annotation", finding="f", remedy="r"))
    list_annotations([paths[0], paths[3]], str(tmp_path / "annotations.tsv"), [*paths[:2]])
    rows = read_table(tmp_path / "annotations.tsv")
    assert {row["slide"]: row["second_sha256"] for row in rows} == {"b": one, "a": ""}


def manifest_of(tmp_path, slides):
    """A manifest, and the sheet's rows: id → split, identity, patient."""
    for slide, (split, identity, _) in slides.items():
        record = {"slide": slide, "split": split} | GOOD | {"info": INFO | {"identity": identity}}
        write_json(tmp_path / f"{slide}.json", record)
    build_manifest([str(tmp_path / f"{slide}.json") for slide in slides], str(tmp_path / "manifest.tsv"))
    rows = {slide: SlideRow(slide, "", split, patient=patient) for slide, (split, _, patient) in slides.items()}
    return str(tmp_path / "manifest.tsv"), rows | {"refused": SlideRow("refused", "", "train", patient="p9")}


LEAKING = {
    "t": ("train", "1", "p1"),
    "v": ("val", "2", "p2"),
    "v2": ("val", "3", "p1"),
    "a": ("test", "2", ""),
    "b": ("test", "4", "p2"),
    "c": ("test", "5", "p9"),
    "d": ("inference", "1", "p1"),
}


def test_leakage_between_the_splits_of_a_sheet_is_known_from_its_manifest(tmp_path):
    assert planned_leaks(*manifest_of(tmp_path, LEAKING), None) == {
        "v2": "same patient as a training slide of the model (t)",
        "a": "validation slide of the model (v)",
        "b": "same patient as a validation slide of the model (v)",
    }


def test_leakage_into_a_given_model_does_not_ask_for_the_sheets_own_splits(tmp_path):
    metadata = {"architecture": {"backbone": "resnet18", "norm": "group"}, "training_slides": {"old": "4", "new": "1"}}
    model = tmp_path / "m.safetensors"
    save_file({"head.bias": np.zeros(1, np.float32)}, model, metadata={"lesionmap": json.dumps(metadata)})
    found = planned_leaks(*manifest_of(tmp_path, LEAKING), str(model))
    assert found == {"b": "training slide of the model (old)"}
