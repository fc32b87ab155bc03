"""Outlines on and off the tissue of a slide of 1008 × 608 px; its tissue map has 16 px a pixel."""

from dataclasses import replace

import numpy as np
import pytest
from lesionmap.annotations.placement import Ground, check_annotation, placement
from lesionmap.files.pictures import write_tiff
from lesionmap.files.records import read_json, write_json
from lesionmap.slides.slide import SlideInfo
from lesionmap.tissue.mask import FOLD, GAP, INK, TISSUE
from shapely.affinity import affine_transform
from shapely.geometry import box, mapping

pytestmark = pytest.mark.annotations
INFO = SlideInfo(
    "s1", "s1.tif", "ab", "aperio", (1008, 608), 0.3, (1.0, 4.0), ((1008, 608), (252, 152)), bounds_xy_lv0=(0, 0)
)
BLOCK = box(480, 320, 800, 480)  # tissue
LESION = box(512, 336, 704, 432)


def codes() -> np.ndarray:
    """Tissue right of and below the middle, nothing else."""
    found = np.zeros((38, 63), dtype=np.uint8)
    found[20:30, 30:50] = TISSUE
    return found


def content(**outlines):
    """An annotation: class → its polygons."""
    parts = [(label, polygon) for label, polygons in outlines.items() for polygon in polygons]
    features = [{"properties": {"class": label}, "geometry": mapping(polygon)} for label, polygon in parts]
    return {"type": "FeatureCollection", "features": features}


def judged(info=INFO, tissue=None, **outlines):
    tissue = codes() if tissue is None else tissue
    return placement(content(**outlines), info, Ground.of(tissue, (16.0, 16.0)))


def moved(polygon, factor=1.0, x=0.0, y=0.0):
    """As in a frame whose pixels are `factor` times as large, with its origin at (x, y) of level 0."""
    return affine_transform(polygon, [1 / factor, 0, 0, 1 / factor, -x / factor, -y / factor])


def test_an_annotation_in_its_place_is_not_flagged():
    assert judged(lesion=[LESION], fat=[box(0, 0, 32, 32)]) == {
        "tissue_share": {"lesion": 1.0, "fat": 0.0},
        "flags": [],
    }


def test_shares_are_those_of_the_area():
    # Columns 23 to 34 of the map, of which tissue begins at 30; rows 21 to 26.
    found = judged(lesion=[box(368, 336, 560, 432)], vessel=[BLOCK, box(0, 320, 320, 480)])
    assert found["tissue_share"] == {"lesion": 0.4167, "vessel": 0.5}
    (flag,) = found["flags"]
    assert flag.startswith("only 42% of the area annotated as lesion lies on tissue: ")


def test_lesions_smaller_than_a_pixel_of_the_map_count_by_their_area():
    there = [box(500, 330, 506, 336), box(641, 401, 645, 405)]  # 36 and 16 px²
    beyond = [box(100, 100, 104, 107), box(478, 318, 480, 320)]  # 28 and 4, the last at the corner of the tissue
    assert judged(lesion=there + beyond)["tissue_share"] == {"lesion": round(52 / 84, 4)}
    assert judged(lesion=[LESION, *beyond])["tissue_share"] == {"lesion": round(18432 / 18464, 4)}


def test_an_outline_that_is_there_twice_counts_twice_above_and_below():
    assert judged(lesion=[LESION, LESION])["tissue_share"] == {"lesion": 1.0}


@pytest.mark.parametrize(
    ("info", "annotated", "said"),
    [
        (INFO, moved(LESION, 1 / 0.3), "µm (100% would lie on tissue)"),
        (replace(INFO, mpp=0.25), moved(LESION, 4), "µm or pixels of a level 4 times coarser (100% would lie on"),
        (INFO, moved(LESION, 2), "pixels of a level 2 times coarser (100% would lie on tissue)"),
        (INFO, moved(LESION, 16), "pixels of a level 16 times coarser (100% would lie on tissue)"),
        (
            replace(INFO, bounds_xy_lv0=(400, 250)),
            moved(LESION, x=400, y=250),
            "level-0 pixels from the corner of the scanned bounds (100%",
        ),
        (
            replace(INFO, bounds_xy_lv0=(300, -100)),
            moved(LESION, x=-300, y=100),
            "level-0 pixels to which the corner of the scanned bounds was added twice (100%",
        ),
        (
            replace(INFO, bounds_xy_lv0=(300, 200)),
            moved(LESION, 1 / 0.3, x=300, y=200),
            "µm from the corner of the scanned bounds (100%",
        ),
    ],
)
@pytest.mark.parametrize("label", ["lesion", "vessel"])
def test_the_frame_that_an_annotation_is_in_is_named(info, annotated, said, label):
    found = judged(info, **{label: [annotated]})
    assert found["tissue_share"] == {label: 0.0}
    (flag,) = found["flags"]
    assert f"only 0% of the area annotated as {label} lies on tissue: its coordinates seem to be " in flag
    assert said in flag
    assert ";" not in flag


def test_a_small_lesion_in_um_is_found_out_too():
    (flag,) = judged(lesion=[moved(box(500, 330, 512, 342), 1 / 0.3)])["flags"]
    assert "seem to be µm (100% would lie on tissue)" in flag


def test_a_shifted_annotation_is_flagged_without_a_guess():
    found = judged(lesion=[moved(LESION, x=500, y=-150)])
    assert found["flags"] == [
        "only 0% of the area annotated as lesion lies on tissue: it may belong to another slide, or be shifted "
        "(neither µm nor the pixels of another level fit, nor the offset of the scanned bounds)"
    ]


def test_what_tissue_encloses_folds_and_ink_are_places_of_a_lesion():
    tissue = codes()
    tissue[22:28, 33:47] = 0  # a wide lumen
    tissue[20, 30:50] = FOLD
    tissue[29, 30:50] = GAP
    tissue[5:9, 3:9] = INK
    assert judged(tissue=tissue, vessel=[LESION], lesion=[box(48, 80, 144, 144)]) == {
        "tissue_share": {"lesion": 1.0, "vessel": 1.0},
        "flags": [],
    }
    tissue[20:24, 40] = 0  # an open one is glass
    # Of the outline's 12 × 6 pixels, 11 of its first row and 5 of its first column are left.
    assert judged(tissue=tissue, vessel=[LESION])["tissue_share"] == {"vessel": round(16 / 72, 4)}


def test_an_annotation_without_outlines_has_no_share():
    assert judged() == {"tissue_share": {}, "flags": []}


REVIEW = {"accepted": 3, "edited": 1, "rejected": 0, "deleted": 0, "new": 2}


def test_the_check_is_written_with_the_slides_own_tissue_map(tmp_path):
    paths = [str(tmp_path / name) for name in ("s1.geojson", "s1.tif", "s1.json")]
    write_json(paths[0], content(lesion=[moved(LESION, 2)]) | {"source": {"format": "ASAP XML"}, "review": REVIEW})
    write_tiff(paths[1], codes(), mpp=4.8, metadata={"glass": None})
    check_annotation(paths[0], INFO, *paths[1:])
    found = read_json(paths[2])
    assert (found["slide"], found["format"], found["review"]) == ("s1", "ASAP XML", REVIEW)
    assert found["tissue_share"] == {"lesion": 0.0}
    assert "pixels of a level 2 times coarser" in found["flags"][0]
