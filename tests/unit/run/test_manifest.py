import pandas as pd
import pytest
from lesionmap.files.records import write_json
from lesionmap.run.manifest import build_manifest, good_slides, segmented_slides

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
