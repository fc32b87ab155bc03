import pandas as pd
import pytest
from lesionmap.errors import SlideError
from lesionmap.files.records import read_table, write_identity, write_json, write_text
from lesionmap.jobs.quarantine import write_quarantined
from lesionmap.run.manifest import build_manifest, good_slides, list_annotations, segmented_slides

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
        write_identity(path, tmp_path / "canonical.geojson")
    write_quarantined([paths[2]], SlideError(slide="bad.1", stage="import_annotation", finding="f", remedy="r"))
    list_annotations(paths, str(tmp_path / "annotations.tsv"))
    rows = read_table(tmp_path / "annotations.tsv")
    assert [row["slide"] for row in rows] == ["b", "NA", "a"]
    one, another, again = (row["sha256"] for row in rows)
    assert one == again == "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"  # printf one | sha256sum
    assert another != one
