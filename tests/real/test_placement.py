"""Annotations of a real slide: in its own pixels, and in micrometres."""

from pathlib import Path

import pytest
from lesionmap.annotations.canonical import AnnotationSettings, import_annotation
from lesionmap.annotations.placement import check_annotation
from lesionmap.files.records import read_json
from lesionmap.tissue.detection import TissueSettings, find_tissue
from pyramids import info_of

DATA = Path(__file__).parents[3] / "shared/data"
MEANINGS = AnnotationSettings({"Tumor": "lesion", "Exclusion": "hole"}, {}, "repair")

pytestmark = pytest.mark.skipif(not DATA.exists(), reason="the real slides of ../shared/data are absent")


@pytest.mark.parametrize(("name", "least"), [("annotations/camelyon_1.xml", 0.95), ("cases/asap_in_um.xml", 0)])
def test_an_annotation_in_um_is_found_out(tmp_path, name, least):
    info = info_of(DATA / "slides/camelyon_1.tif")
    tissue, canonical, check = (str(tmp_path / file) for file in ("s1.tif", "s1.geojson", "s1.json"))
    find_tissue(info, tissue, TissueSettings(8.0, 10000, 5000))
    import_annotation(str(DATA / name), info, canonical, MEANINGS)
    check_annotation(canonical, info, tissue, check)
    found = read_json(check)
    if least:
        assert found["tissue_share"]["lesion"] >= least
        assert found["flags"] == []
    else:
        assert found["tissue_share"]["lesion"] < 0.5
        assert "its coordinates seem to be µm or pixels of a level 4 times coarser (" in found["flags"][0]
