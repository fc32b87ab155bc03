import json
import re

import numpy as np
import pytest
from lesionmap.errors import SlideError
from lesionmap.inspection import content_digest, describe, inspect_slide
from lesionmap.slides import Slide, load_info
from pyramids import row, write_tiff

NEEDED = {"tiles": 0.25, "inference": 2.5}


def inspected(tmp_path, slide_row, **changes):
    options = {"read_share": 1.0, "mpp_tolerance": 0.1, "needed_mpp": NEEDED} | changes
    inspect_slide(slide_row, str(tmp_path / "record.json"), **options)
    return json.loads((tmp_path / "record.json").read_text())


def test_the_sheets_mpp_overrides_the_files(tmp_path, noise):
    path = write_tiff(tmp_path / "s.tif", noise)
    assert describe(row(path)).mpp == pytest.approx(0.25)
    assert describe(row(path, mpp=0.31)).mpp == 0.31


def test_a_good_slide_is_recorded_and_read_back(tmp_path, noise):
    path = write_tiff(tmp_path / "s.tif", noise, factors=(1, 2))
    record = inspected(tmp_path, row(path))
    assert record["verdict"] == "ok"
    info = load_info(tmp_path / "record.json")
    assert info == describe(row(path))
    assert info.identity == content_digest(path)


@pytest.mark.parametrize(
    ("content", "finding"),
    [(None, "does not exist"), (b"", r"empty \(0 bytes\)"), (b"not a slide", "does not recognise .* 'not a slide'")],
)
def test_files_that_are_no_slides_are_quarantined(tmp_path, content, finding):
    path = tmp_path / "bad.svs"
    if content is not None:
        path.write_bytes(content)
    record = inspected(tmp_path, row(path))
    assert record["verdict"] == "quarantined"
    assert record["remedy"]
    assert re.search(finding, record["finding"])


def test_no_resolution_is_quarantined_and_the_sheet_mends_it(tmp_path, noise):
    path = write_tiff(tmp_path / "s.tif", noise, mpp=None)
    record = inspected(tmp_path, row(path))
    assert (record["verdict"], record["finding"]) == (
        "quarantined",
        "the file does not say its resolution (no µm/px)",
    )
    assert inspected(tmp_path, row(path, mpp=0.5))["verdict"] == "ok"


@pytest.mark.parametrize(("split", "verdict"), [("train", "quarantined"), ("val", "quarantined"), ("test", "ok")])
def test_resolution_is_judged_by_the_role(tmp_path, noise, split, verdict):
    path = write_tiff(tmp_path / "s.tif", noise, mpp=0.499)
    record = inspected(tmp_path, row(path, split))
    assert record["verdict"] == verdict
    if verdict == "quarantined":
        assert "0.499 µm/px is coarser than the 0.25 µm/px" in record["finding"]


def test_tolerance_admits_a_scanner_sold_as_40x(tmp_path, noise):
    path = write_tiff(tmp_path / "s.tif", noise, mpp=0.2749)
    assert inspected(tmp_path, row(path, "train"))["verdict"] == "ok"
    assert inspected(tmp_path, row(path, "train"), mpp_tolerance=0.05)["verdict"] == "quarantined"


def test_a_missing_annotation_is_quarantined(tmp_path, noise):
    path = write_tiff(tmp_path / "s.tif", noise)
    record = inspected(tmp_path, row(path, "train", annotation=str(tmp_path / "none.xml")))
    assert "none.xml does not exist" in record["finding"]


def test_damage_names_level_and_box_and_the_handle_survives(tmp_path, noise):
    path = write_tiff(tmp_path / "s.tif", noise)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000] = b"\xff" * 2000
    path.write_bytes(content)
    record = inspected(tmp_path, row(path))
    assert record["verdict"] == "quarantined"
    assert record["finding"].startswith("level 0, box x=")
    info = describe(row(path))
    with Slide(info, "test") as slide:
        with pytest.raises(SlideError, match="slide s1, test: level 0, box"):
            slide.read((0, 0), info.size_lv0, 0.25)
        np.testing.assert_array_equal(slide.read((0, 0), (20, 20), 0.25), noise[:20, :20])


def test_identity_is_content(tmp_path, noise):
    path = write_tiff(tmp_path / "s.tif", noise)
    copy = tmp_path / "copy.tif"
    copy.write_bytes(path.read_bytes())
    before = content_digest(path)
    assert content_digest(copy) == before
    copy.write_bytes(path.read_bytes()[:-1] + b"\x01")
    assert content_digest(copy) != before


def test_identity_of_a_mirax_slide_covers_its_folder(tmp_path):
    (tmp_path / "s.mrxs").write_bytes(b"index")
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "Data0001.dat").write_bytes(b"pixels")
    before = content_digest(tmp_path / "s.mrxs")
    (tmp_path / "s" / "Data0001.dat").write_bytes(b"pixelz")
    assert content_digest(tmp_path / "s.mrxs") != before
