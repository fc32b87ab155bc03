import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import shapely
from evaluated import scores_of
from lesion_maps import accept, write_outlines
from lesionmap.annotations.canonical import AnnotationSettings, import_annotation
from lesionmap.slides.slide import SlideInfo
from pyramids import info_of, write_tiff
from scipy import ndimage
from shapely.geometry import shape

pytestmark = pytest.mark.annotations


@pytest.fixture
def info(tmp_path) -> SlideInfo:
    return info_of(write_tiff(tmp_path / "s.tif", np.full((333, 517, 3), 255, dtype=np.uint8)))


def exported(tmp_path, info, lesions, probability_u8, scale=10.0):
    count, _ = write_outlines(tmp_path / "lesions.geojson", lesions, scores_of(probability_u8 / 255), scale, info)
    return count, json.loads((tmp_path / "lesions.geojson").read_text())


def table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream, dialect="excel-tab"))


def test_outlines_areas_and_probabilities(tmp_path, info):
    lesions = np.zeros((34, 52), dtype=bool)
    lesions[3:9, 5:15] = True
    lesions[5:7, 8:10] = False  # a hole
    lesions[20, 40] = True
    probability_u8 = np.where(lesions, 200, 10).astype(np.uint8)
    probability_u8[3, 5] = 255
    count, content = exported(tmp_path, info, lesions, probability_u8)
    assert count == len(content["features"]) == 2
    assert content["provenance"] == {"code": "abc"}
    assert (content["slide"], content["unreadable"]) == ("s1", [])
    assert content["frame"] == {"unit": "level-0 pixels", "origin_xy_lv0": [0, 0], "mpp": 0.25}
    ring, dot = (shape(feature["geometry"]) for feature in content["features"])
    assert ring.bounds == (50, 30, 150, 90)
    assert len(ring.interiors) == 1
    assert (ring.area, dot.area) == (56 * 100, 100)
    properties = content["features"][0]["properties"]
    assert properties["objectType"] == "annotation"
    assert properties["classification"] == {"name": "Lesion", "color": [200, 0, 0]}
    assert properties["measurements"] == {
        "Area mm^2": 5600 * 0.25**2 / 1e6,
        "Mean probability": round((55 * 200 + 255) / 56 / 255, 4),
        "Max probability": 1.0,
        "Max logit": 31.999,
        "Diameter mm": round(math.hypot(100, 60) * 0.25 / 1000, 6),
    }
    assert (properties["metadata"], "verdict" in properties) == ({}, False)


def test_the_surest_of_two_lesions_is_known_though_both_probabilities_are_as_good_as_1(tmp_path, info):
    lesions, scores = np.zeros((34, 52), dtype=bool), np.zeros((34, 52), dtype=np.uint16)
    lesions[3:9, 5:15] = lesions[20:22, 40:43] = True
    scores[lesions] = 32768 + 1024 * 11  # 0.99998
    scores[4, 7] = 32768 + 1024 * 18 + 256
    scores[21, 41] = 32768 + 1024 * 18 - 256  # as float32 1.0, too
    write_outlines(tmp_path / "lesions.geojson", lesions, scores, 10.0, info)
    rows = table(tmp_path / "lesions.tsv")
    assert [row["max_probability"] for row in rows] == [row["mean_probability"] for row in rows] == ["1.0", "1.0"]
    assert [row["max_logit"] for row in rows] == ["18.25", "17.75"]
    features = json.loads((tmp_path / "lesions.geojson").read_text())["features"]
    assert [feature["properties"]["measurements"]["Max logit"] for feature in features] == [18.25, 17.75]


def test_the_lesions_of_an_ensemble_have_the_mean_spread_of_their_pixels(tmp_path, info):
    """In steps of 1/510, as hand-computed; the columns before it and what else is written stay as they are."""
    lesions, spread = np.zeros((34, 52), dtype=bool), np.full((34, 52), 255, dtype=np.uint8)
    lesions[3:5, 5:8] = lesions[20, 40] = True  # the second ends first
    spread[3:5, 5:8] = [[0, 51, 102], [153, 204, 255]]
    spread[20, 40] = 51
    scores = scores_of(np.where(lesions, 0.8, 0.1))
    write_outlines(tmp_path / "one.geojson", lesions, scores, 10.0, info)
    write_outlines(tmp_path / "all.geojson", lesions, scores, 10.0, info, uncertainty=spread)
    one, all_ = (table(tmp_path / f"{name}.tsv") for name in ("one", "all"))
    assert [list(row)[-1] for row in all_] == ["uncertainty_mean"] * 2
    assert [row.pop("uncertainty_mean") for row in all_] == ["0.25", "0.1"]
    assert all_ == one
    one, all_ = (json.loads((tmp_path / f"{name}.geojson").read_text()) for name in ("one", "all"))
    measured = [feature["properties"]["measurements"] for feature in all_["features"]]
    assert [measurements.pop("Mean uncertainty") for measurements in measured] == [0.25, 0.1]
    assert all_ == one


def test_the_table_has_a_row_for_each_outline_in_its_order(tmp_path, info):
    lesions = np.zeros((34, 52), dtype=bool)
    lesions[2:30, 4] = lesions[29, 4:40] = True  # begins first, ends last
    lesions[5:8, 20:30] = True
    lesions[33, 51] = True  # half beyond the slide's edge
    info = replace(info, bounds_xy_lv0=(40, 7))
    _, content = exported(tmp_path, info, lesions, np.where(lesions, 204, 0).astype(np.uint8))
    rows = table(tmp_path / "lesions.tsv")
    assert [row["name"] for row in rows] == [feature["properties"]["name"] for feature in content["features"]]
    assert [row["name"] for row in rows] == ["Lesion 1", "Lesion 2", "Lesion 3"]
    for row, feature in zip(rows, content["features"], strict=True):
        outline = shape(feature["geometry"])
        left, top, right, bottom = outline.bounds
        assert [float(row[key]) for key in ("x", "y", "width", "height")] == [left, top, right - left, bottom - top]
        assert float(row["area_mm2"]) == pytest.approx(outline.area * 0.25**2 / 1e6, abs=1e-8)
        assert [float(row[key]) for key in ("centroid_x", "centroid_y")] == pytest.approx(
            outline.centroid.coords[0], abs=0.01
        )
        of_0_8 = (0.8001, 0.8001, 1.387)  # the nearest score, 34188
        assert tuple(float(row[name]) for name in ("mean_probability", "max_probability", "max_logit")) == of_0_8
    assert (rows[0]["x"], rows[0]["y"]) == ("160.0", "43.0")
    assert (rows[2]["width"], rows[2]["height"]) == ("7.0", "3.0")


def test_rings_are_wound_as_rfc_7946_asks(tmp_path, info):
    lesions = np.zeros((34, 52), dtype=bool)
    lesions[3:9, 5:15] = True
    lesions[5:7, 8:10] = False
    _, content = exported(tmp_path, info, lesions, np.full((34, 52), 200, dtype=np.uint8))
    outline = shape(content["features"][0]["geometry"])
    assert shapely.is_ccw(outline.exterior)
    assert not shapely.is_ccw(outline.interiors[0])


def test_lesions_that_touch_at_corners_are_valid_outlines(tmp_path, info):
    pattern = ["#####.#.", "#.#.#.##", "###.###.", "#.#.#...", ".#####.#", "#...#.#.", "#.###.#.", "##......"]
    lesions = np.array([[sign == "#" for sign in row] for row in pattern])
    noise = np.random.default_rng(1).random((33, 51)) < 0.6
    for mask in (lesions, noise):
        _, content = exported(tmp_path, info, mask, mask.astype(np.uint8))
        outlines = [shape(feature["geometry"]) for feature in content["features"]]
        assert all(outline.is_valid and outline.geom_type == "Polygon" for outline in outlines)
        assert any(outline.interiors for outline in outlines)
        assert len(outlines) == ndimage.label(mask)[1]
        assert sum(outline.area for outline in outlines) == 100 * mask.sum()
        assert shapely.union_all(outlines).area == 100 * mask.sum()


def test_outlines_end_at_the_slides_edge(tmp_path, info):
    lesions = np.ones((34, 52), dtype=bool)
    _, content = exported(tmp_path, info, lesions, np.full((34, 52), 255, dtype=np.uint8))
    assert shape(content["features"][0]["geometry"]).bounds == (0, 0, 517, 333)


def test_no_lesion_gives_valid_empty_files(tmp_path, info):
    count, content = exported(tmp_path, info, np.zeros((34, 52), dtype=bool), np.zeros((34, 52), dtype=np.uint8))
    assert (count, content["features"]) == (0, [])
    assert (tmp_path / "lesions.tsv").read_text().count("\n") == 1


def test_outlines_of_a_cropped_slide_come_back_to_their_place(tmp_path, info):
    shifted = replace(info, bounds_xy_lv0=(40, 7))
    lesions = np.zeros((34, 52), dtype=bool)
    lesions[10:12, 20:25] = True
    _, content = exported(tmp_path, shifted, lesions, np.full((34, 52), 200, dtype=np.uint8))
    assert shape(content["features"][0]["geometry"]).bounds == (160, 93, 210, 113)
    output = tmp_path / "back.geojson"
    settings = AnnotationSettings(classes={"Accepted": "lesion"}, mask_values={}, invalid="refuse")
    accept(tmp_path / "lesions.geojson")
    import_annotation(str(tmp_path / "lesions.geojson"), shifted, str(output), settings)
    assert shape(json.loads(output.read_text())["features"][0]["geometry"]).bounds == (200, 100, 250, 120)
