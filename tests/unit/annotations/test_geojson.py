"""GeoJSON of QuPath and of others."""

import gzip
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
from annotation_imports import canonical_of, outlines_of, read, refused
from annotation_texts import FAR, HOLE, SQUARE, feature, qupath

pytestmark = pytest.mark.annotations


# --- QuPath


@pytest.mark.parametrize(
    "wrap", [list, lambda all_: all_[0], lambda all_: {"type": "FeatureCollection", "features": all_}]
)
def test_qupath_list_feature_and_collection(tmp_path, wrap):
    content = read(tmp_path, "a.geojson", json.dumps(wrap([feature([SQUARE, HOLE], classification={"name": "Tumor"})])))
    assert content.format == "GeoJSON"
    assert outlines_of(content) == [("Tumor", 16 - 2, (10, 20, 14, 24), False)]


def test_qupath_multipolygons_keep_parts_and_holes(tmp_path):
    content = read(tmp_path, "a.json", qupath(feature([[SQUARE, HOLE], [FAR]], "MultiPolygon")))
    assert outlines_of(content) == [("", 14 + 21, (10, 20, 57, 63), False)]
    assert [len(part.interiors) for part in content.outlines[0].geometry.geoms] == [1, 0]


@pytest.mark.parametrize(
    ("classification", "name"),
    [
        ({"name": "Tumor"}, "Tumor"),
        ({"name": "Tumor", "colorRGB": -3670016}, "Tumor"),
        ({"name": "Tumor: invasive"}, "Tumor: invasive"),
        ({"names": ["Tumor", "invasive"]}, "Tumor: invasive"),
        ({"names": ["Tumor"], "color": [200, 0, 0]}, "Tumor"),
        ({"name": None}, ""),
        (None, ""),
    ],
)
def test_qupath_classes_of_every_version(tmp_path, classification, name):
    content = read(tmp_path, "a.geojson", qupath(feature([SQUARE], classification=classification)))
    assert [outline.name for outline in content.outlines] == [name]


def test_qupath_derived_classes_are_imported_as_their_base(tmp_path):
    source = tmp_path / "a.geojson"
    source.write_text(qupath(feature([SQUARE], classification={"names": ["Lesion", "invasive"]})))
    (found,) = json.loads(canonical_of(tmp_path, source).read_text())["features"]
    assert (found["properties"]["class"], found["properties"]["name"]) == ("lesion", "Lesion: invasive")


def test_qupath_what_is_no_area_is_ignored_and_counted(tmp_path):
    content = read(
        tmp_path,
        "a.geojson",
        qupath(
            feature([SQUARE], isIgnored=True),
            feature([SQUARE], isIgnored=False),
            feature([SQUARE], objectType="cell"),
            feature([SQUARE], objectType="cell"),
            feature([1, 2], "Point"),
            feature([[1, 2]], "MultiPoint"),
            feature([[1, 2], [3, 4]], "LineString", objectType="annotation"),
        ),
    )
    assert len(content.outlines) == 1
    assert content.ignored == {"marked as ignored": 1, "cell": 2, "Point": 1, "MultiPoint": 1, "LineString": 1}


def test_qupath_objects_of_versions_before_0_4_are_told_by_their_id(tmp_path):
    old = json.loads(qupath(*[feature([SQUARE])] * 3))
    features = old["features"] if isinstance(old, dict) else old
    for item, kind in zip(features, ("PathAnnotationObject", "PathDetectionObject", "PathCellObject"), strict=True):
        item["id"] = kind
        item["properties"].pop("objectType", None)
    content = read(tmp_path, "a.geojson", json.dumps(old))
    assert (len(content.outlines), content.ignored) == (1, {"detection": 1, "cell": 1})


def test_qupath_coordinates_start_at_the_bounds(tmp_path):
    content = read(tmp_path, "a.geojson", qupath(feature([SQUARE])), bounds_xy_lv0=(37, 11))
    assert outlines_of(content) == [("", 16, (47, 31, 51, 35), False)]


def test_qupath_a_third_coordinate_is_not_used(tmp_path):
    content = read(tmp_path, "a.geojson", qupath(feature([[[x, y, 7.5] for x, y in SQUARE]])))
    assert outlines_of(content) == [("", 16, (10, 20, 14, 24), False)]


def test_qupath_a_feature_without_properties_has_no_class(tmp_path):
    bare = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [SQUARE]}}
    content = read(tmp_path, "a.geojson", qupath(bare, bare | {"properties": None}))
    assert [outline.name for outline in content.outlines] == ["", ""]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_json_is_read_with_and_without_a_byte_order_mark(tmp_path, encoding):
    text = json.dumps([feature([SQUARE], classification={"name": "Gefäß"})], ensure_ascii=False)
    content = read(tmp_path, "a.geojson", text.encode(encoding))
    assert [outline.name for outline in content.outlines] == ["Gefäß"]


# --- GeoJSON of geopandas, TIAToolbox and others


@pytest.mark.parametrize(
    ("properties", "name"),
    [
        ({"classification": '{ "name": "Tumor", "color": [ 200, 0, 0 ] }'}, "Tumor"),
        ({"classification": '{"names": ["Tumor", "invasive"]}'}, "Tumor: invasive"),
        ({"classification": "Tumor"}, "Tumor"),
        ({"classification": " Tumor "}, "Tumor"),
        ({"classification": "{Tumor}"}, "{Tumor}"),
        ({"classification": ["Tumor", "invasive"]}, "Tumor: invasive"),
        ({"classification": math.nan, "type": "Fat"}, "Fat"),
        ({"classification": "", "name": "Fat"}, "Fat"),
        ({"type": 3, "prob": 0.9}, "3"),
        ({"type": 3.0}, "3"),
        ({"type": False, "name": "Fat"}, "Fat"),
        ({"name": "e", "type": "d", "label": "c", "class": "b", "classification": "a"}, "a"),
        ({"name": "e", "type": "d", "label": "c", "class": {"name": "b"}}, "b"),
        ({"name": "e", "type": "d", "label": "c"}, "c"),
        ({"name": "e", "type": "d"}, "d"),
        ({"name": "e"}, "e"),
        ({"area": 7}, ""),
    ],
)
def test_the_class_is_the_first_property_that_says_one(tmp_path, properties, name):
    content = read(tmp_path, "a.geojson", qupath(feature([SQUARE], **properties)))
    assert [outline.name for outline in content.outlines] == [name]


def test_what_has_no_geometry_is_counted_and_the_rest_taken(tmp_path):
    nothing = [{"type": "Feature", "geometry": None, "properties": None}, {"type": "Feature", "properties": {}}]
    content = read(tmp_path, "a.geojson", qupath(nothing[0], feature([SQUARE], name="Fat"), nothing[1]))
    assert outlines_of(content) == [("Fat", 16, (10, 20, 14, 24), False)]
    assert content.ignored == {"no geometry": 2}


def test_of_a_geometry_collection_the_areas_are_taken(tmp_path):
    parts = [
        {"type": "Polygon", "coordinates": [SQUARE, HOLE]},
        {"type": "Point", "coordinates": [1, 2]},
        {"type": "GeometryCollection", "geometries": [{"type": "MultiPolygon", "coordinates": [[FAR], []]}]},
    ]
    mixed = {"type": "Feature", "properties": {"class": "x"}}
    mixed["geometry"] = {"type": "GeometryCollection", "geometries": parts}
    content = read(tmp_path, "a.geojson", qupath(mixed))
    assert outlines_of(content) == [("x", 14, (10, 20, 14, 24), False), ("x", 21, (50, 60, 57, 63), False)]
    assert (content.ignored, content.repaired) == ({"Point": 1}, {"fewer than 3 points, dropped": 1})


@pytest.mark.parametrize("kind", ["Polygon", "MultiPolygon"])
def test_a_bare_geometry_is_an_outline_without_a_class(tmp_path, kind):
    coordinates = [SQUARE] if kind == "Polygon" else [[SQUARE]]
    content = read(tmp_path, "a.json", json.dumps({"type": kind, "coordinates": coordinates}), bounds_xy_lv0=(5, 7))
    assert outlines_of(content) == [("", 16, (15, 27, 19, 31), False)]


def test_members_that_geojson_does_not_know_are_passed_over(tmp_path):
    whole = {"crs": {"type": "name"}, "bbox": [0, 0, 1, 1], **json.loads(qupath(feature([SQUARE]) | {"bbox": None}))}
    assert len(read(tmp_path, "a.geojson", json.dumps(whole)).outlines) == 1


LINES = [
    json.dumps(feature([ring], label=name), ensure_ascii=False) for ring, name in ((SQUARE, "a"), (FAR, "b\u2028c"))
]


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(LINES),
        "\r\n".join(LINES) + "\r\n\n",
        "".join(f"\x1e{line}\n" for line in LINES),
        "".join(f"\x1e{json.dumps(json.loads(line), indent=1, ensure_ascii=False)}\n" for line in LINES),
        "\ufeff" + "\n".join(LINES),
        "\n".join(qupath(json.loads(line)) for line in LINES),
    ],
)
@pytest.mark.parametrize("name", ["a.geojson", "a.ndjson", "a.geojsonl", "a.geojson.gz", "a.json.gz"])
@pytest.mark.parametrize("packed", [False, True])
def test_features_may_stand_one_a_line_and_files_be_packed(tmp_path, text, name, packed):
    content = read(tmp_path, name, gzip.compress(text.encode()) if packed else text.encode())
    assert outlines_of(content) == [("a", 16, (10, 20, 14, 24), False), ("b\u2028c", 21, (50, 60, 57, 63), False)]


BROKEN = [[math.nan, 1], [2, 3], [4, 5], [1, 1]]


@pytest.mark.parametrize(
    ("broken", "finding"),
    [
        (feature([BROKEN]), "feature 2: ValueError: the coordinate nan is not a number"),
        (feature([BROKEN]) | {"id": "0c3a"}, r"feature 2 \('0c3a'\): ValueError: the coordinate nan"),
        (feature([BROKEN], name="Left"), r"feature 2 \('Left'\): ValueError: the coordinate nan"),
        (feature([SQUARE, [["x", 1], [2, 3], [4, 5]]]), "feature 2: ValueError: could not convert string to float"),
        (feature([[None, [2, 3], [4, 5]]]), "feature 2: TypeError"),
        (feature([[SQUARE], [BROKEN]], "MultiPolygon"), "feature 2: ValueError: the coordinate nan"),
        (feature([SQUARE]) | {"properties": ["x"]}, "feature 2: AttributeError"),
        ({"type": "Feature", "geometry": {"type": "Circle"}}, "feature 2: ValueError: the geometry type 'Circle'"),
        ({"type": "Feature", "geometry": {"type": "Polygon"}}, "feature 2: it lacks 'coordinates'"),
        ({"type": "Blob"}, "feature 2: ValueError: the type 'Blob' is neither Feature nor a geometry"),
        ("x", 'feature 2: TypeError: "x" is no Feature'),
    ],
)
def test_a_broken_feature_is_refused_by_its_number_and_name(tmp_path, broken, finding):
    (tmp_path / "a.geojson").write_text(qupath(feature([SQUARE], label="Lesion"), broken))
    assert re.search(finding, refused(tmp_path, tmp_path / "a.geojson").finding)


@pytest.mark.parametrize(
    ("content", "finding", "remedy"),
    [
        ({"images": [], "annotations": [], "categories": []}, "a COCO file", "config/README.md, Annotations"),
        ({"annotations": [], "categories": [], "info": {}}, "a COCO file", "config/README.md, Annotations"),
        ({"version": "5", "shapes": [], "imagePath": "x.png"}, "a labelme file", "config/README.md, Annotations"),
        ({"_via_img_metadata": {}, "_via_settings": {}}, "VGG Image Annotator", "level-0 pixels"),
        ({"x.png12": {"filename": "x.png", "regions": []}}, "VGG Image Annotator", "level-0 pixels"),
        ([{"id": 1, "annotations": [], "data": {}}], "Label Studio", "level-0 pixels"),
        ({"annotation": {"elements": []}}, "HistomicsUI", "level-0 pixels"),
    ],
)
def test_json_of_another_program_is_named_with_its_remedy(tmp_path, content, finding, remedy):
    (tmp_path / "a.json").write_text(json.dumps(content))
    error = refused(tmp_path, tmp_path / "a.json")
    assert finding in error.finding and remedy in error.remedy


README = Path(__file__).parents[3] / "config/README.md"
COCO = {
    "images": [{"id": 4, "file_name": "one.png"}, {"id": 5, "file_name": "two.png"}],
    "categories": [{"id": 9, "name": "Lesion"}, {"id": 3, "name": "Fat"}],
    "annotations": [
        {"image_id": 5, "category_id": 9, "segmentation": [[10, 20, 40, 20, 40, 30, 10, 30], [1, 1, 4, 1, 4, 5]]},
        {"image_id": 5, "category_id": 3, "segmentation": [[60, 50, 70, 50, 70, 53, 60, 53]]},
        {"image_id": 4, "category_id": 3, "segmentation": [[60, 50, 70, 50, 70, 53, 60, 53]]},
    ],
}
LABELME = {
    "imagePath": "two.png",
    "shapes": [
        {"label": "Lesion", "shape_type": "rectangle", "points": [[10, 20], [40, 30]]},
        {"label": "Lesion", "shape_type": "polygon", "points": [[1, 1], [4, 1], [4, 5]]},
        {"label": "Fat", "shape_type": "polygon", "points": [[60, 50], [70, 50], [70, 53], [60, 53]]},
        {"label": "Fat", "shape_type": "point", "points": [[60, 50]]},
    ],
}


@pytest.mark.parametrize("foreign", [COCO, LABELME], ids=["coco", "labelme"])
def test_the_script_of_the_readme_makes_geojson_of_coco_and_labelme(tmp_path, foreign):
    script = README.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    (tmp_path / "to_geojson.py").write_text(script)
    (tmp_path / "in.json").write_text(json.dumps(foreign))
    command = [sys.executable, "to_geojson.py", "in.json", "out.geojson", "two.png", "2"]
    subprocess.run(command, cwd=tmp_path, check=True)
    content = json.loads(canonical_of(tmp_path, tmp_path / "out.geojson").read_text())
    assert content["classes"]["lesion"] == {"polygons": 2, "area_mm2": 0.1224}  # 4 · (30 · 10 + 3 · 4 / 2) px
    assert content["classes"]["fat"] == {"polygons": 0, "area_mm2": 0.0}  # at x 120, beside the slide
    assert content["outside"]["polygons"] == 1
