import json
import math
import re
import tempfile
from collections import Counter
from pathlib import Path

import lesionmap.annotations.formats
import numpy as np
import pytest
import shapely
import tifffile
from annotation_writers import (
    SIZE,
    VECTOR_WRITERS,
    WRITERS,
    drawn,
    info_at,
    mask_size,
    settings,
    write_mask,
    write_qupath_feature,
)
from hypothesis import assume, given
from hypothesis import settings as budget
from hypothesis import strategies as st
from lesion_maps import write_outlines
from lesionmap.annotations.canonical import PRIORITY, import_annotation
from lesionmap.annotations.formats import mask_scale, read_annotation
from lesionmap.annotations.masks import Annotation
from lesionmap.errors import AnnotationError
from PIL import Image
from shapely import Polygon, box
from shapely.affinity import scale, translate
from shapely.geometry import shape

pytestmark = pytest.mark.annotations


def read(tmp_path, name, content, **how):
    """What the reader makes of a file with this content."""
    source = tmp_path / name
    source.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_annotation(str(source), info_at(**how))


def outlines_of(content):
    """Name, area, bounds of each outline, and whether it cuts."""
    return [(one.name, one.geometry.area, one.geometry.bounds, one.cuts) for one in content.outlines]


def canonical_of(folder, source, info=None, mask_mpp=None):
    """Import a file; the path of its canonical form."""
    output = Path(folder) / "out" / "canonical.geojson"
    import_annotation(str(source), info or info_at(), str(output), settings(), mask_mpp=mask_mpp)
    return output


def level_0(output):
    return Annotation(output).mask((0, 0), SIZE, 1.0)


# --- ASAP


def asap(*annotations):
    """ASAP XML of (type, group, points) in the order of the points."""
    elements = ""
    for kind, group, points in annotations:
        corners = "".join(f'<Coordinate Order="{i}" X="{x}" Y="{y}" />' for i, (x, y) in enumerate(points))
        elements += f'<Annotation Name="a" Type="{kind}" PartOfGroup="{group}" Color="#F4FA58"><Coordinates>{corners}'
        elements += "</Coordinates></Annotation>"
    groups = '<Group Name="Tumor" PartOfGroup="None" Color="#00ff00"><Attributes /></Group>'
    return (
        f'<?xml version="1.0"?><ASAP_Annotations><Annotations>{elements}</Annotations>'
        f"<AnnotationGroups>{groups}</AnnotationGroups></ASAP_Annotations>"
    )


TRIANGLE = [(10, 20), (30, 20), (30, 50)]
RECTANGLE = [(10, 20), (40, 20), (40, 30), (10, 30)]


@pytest.mark.parametrize("kind", ["Polygon", "Spline"])
def test_asap_polygons_and_splines_run_straight_through_their_points(tmp_path, kind):
    content = read(tmp_path, "a.xml", asap((kind, "Tumor", TRIANGLE)))
    assert content.format == "ASAP XML"
    assert outlines_of(content) == [("Tumor", 300, (10, 20, 30, 50), False)]


@pytest.mark.parametrize("corners", [RECTANGLE, [(10, 20), (40, 30)], [(40, 20), (10, 30)]])
def test_asap_rectangles_have_four_corners_or_two_opposite_ones(tmp_path, corners):
    content = read(tmp_path, "a.xml", asap(("Rectangle", "Tumor", corners)))
    assert outlines_of(content) == [("Tumor", 300, (10, 20, 40, 30), False)]


def test_asap_dots_and_rulers_are_ignored_and_counted(tmp_path):
    marks = [("Dot", "None", [(1, 1)]), ("Dot", "Tumor", [(2, 2)]), ("Measurement", "None", [(1, 1), (5, 5)])]
    content = read(tmp_path, "a.xml", asap(*marks, ("PointSet", "None", [(1, 1), (2, 2)]), ("Spline", "T", TRIANGLE)))
    assert content.ignored == {"Dot": 2, "Measurement": 1, "PointSet": 1}
    assert [outline.name for outline in content.outlines] == ["T"]


def test_asap_groups_are_classes_and_no_group_is_none(tmp_path):
    content = read(
        tmp_path,
        "a.xml",
        asap(("Polygon", "Fat & vessel", TRIANGLE), ("Polygon", "None", TRIANGLE)).replace("&", "&amp;"),
    )
    assert [outline.name for outline in content.outlines] == ["Fat & vessel", "None"]


def test_asap_points_are_taken_in_their_order_not_the_files(tmp_path):
    points = [(10 + i, 20 + i * i) for i in range(12)]  # convex; 10 and 11 come before 2 as text
    lines = asap(("Polygon", "Tumor", points)).split("<Coordinate ")
    shuffled = "<Coordinate ".join([lines[0], *sorted(lines[1:-1]), lines[-1]])
    assert shuffled != asap(("Polygon", "Tumor", points))
    (outline,) = read(tmp_path, "a.xml", shuffled).outlines
    assert list(outline.geometry.exterior.coords)[:-1] == points


def test_asap_exclusions_are_holes_and_dots_reach_the_canonical_counts(tmp_path):
    source = tmp_path / "a.xml"
    hole = [(15, 22), (19, 22), (19, 25), (15, 25)]
    source.write_text(
        asap(("Dot", "None", [(1, 1)]), ("Rectangle", "Lesion", RECTANGLE), ("Polygon", "Exclusion", hole))
    )
    output = canonical_of(tmp_path, source)
    content = json.loads(output.read_text())
    assert content["ignored"] == {"Dot": 1}
    assert content["classes"]["lesion"] == {"polygons": 1, "area_mm2": 0.0288}  # 30 · 10 − 4 · 3 px at 10 µm/px
    assert level_0(output).sum() == 288


# --- Aperio ImageScope and HALO


def layers(*content):
    return f'<Annotations MicronsPerPixel="0.252">{"".join(content)}</Annotations>'


def layer(attributes, *regions, header=""):
    return (
        f"<Annotation {attributes}>{header}<Regions><RegionAttributeHeaders />{''.join(regions)}</Regions></Annotation>"
    )


def region(points, attributes='Type="0"', tag="Vertex"):
    vertices = "".join(f'<{tag} X="{x}" Y="{y}" />' for x, y in points)
    return f"<Region {attributes}><Vertices>{vertices}</Vertices></Region>"


def test_imagescope_layers_are_classes(tmp_path):
    content = read(
        tmp_path,
        "a.xml",
        layers(
            layer('Id="1" Name="Tumor"', region(TRIANGLE), region(RECTANGLE)),
            layer('Id="2" Name="Fat"', region(TRIANGLE)),
        ),
    )
    assert content.format == "Aperio ImageScope XML"
    assert [(name, area) for name, area, *_ in outlines_of(content)] == [("Tumor", 300), ("Tumor", 300), ("Fat", 300)]


@pytest.mark.parametrize(
    ("attributes", "noted", "name"),
    [
        ('Id="3" Name="Tumor"', 'Name="CaP" Value="x"', "Tumor"),
        ('Id="3" Name=""', 'Name="CaP" Value=""', "CaP"),
        ('Id="3" Name=""', 'Name="Description" Value="Necrosis"', "Necrosis"),
        ('Id="3" Name=""', 'Name="Description" Value=""', "Layer 3"),
        ("", None, "Layer"),
    ],
)
def test_imagescope_layers_without_a_name_have_it_in_an_attribute(tmp_path, attributes, noted, name):
    header = f"<Attributes><Attribute {noted} /></Attributes>" if noted else ""
    content = read(tmp_path, "a.xml", layers(layer(attributes, region(TRIANGLE), header=header)))
    assert [outline.name for outline in content.outlines] == [name]


def test_imagescope_negative_regions_are_holes_in_their_own_layer_only(tmp_path):
    source = tmp_path / "a.xml"
    hole = region([(20, 22), (26, 22), (26, 27), (20, 27)], 'Type="0" NegativeROA="1"')
    wide = region([(0, 20), (60, 20), (60, 30), (0, 30)])
    source.write_text(layers(layer('Name="Lesion"', region(RECTANGLE), hole), layer('Name="Fat"', wide)))
    content = json.loads(canonical_of(tmp_path, source).read_text())
    assert content["classes"]["lesion"]["area_mm2"] == 0.027  # 30 · 10 − 6 · 5 px
    assert content["classes"]["fat"]["area_mm2"] == 0.033  # 60 · 10 − 270 px: the hole is filled with fat


def test_imagescope_types_of_region(tmp_path):
    regions = [
        region(TRIANGLE, 'Type="0"'),
        region(RECTANGLE, 'Type="1"'),
        region([(10, 20), (50, 40)], 'Type="2"'),  # an ellipse, by its box
        region([(1, 1), (5, 5)], 'Type="3"'),  # an arrow
        region([(1, 1), (5, 5)], 'Type="4"'),  # a ruler
        region([(1, 1), (5, 5), (9, 5)], 'Type="4"'),
    ]
    content = read(tmp_path, "a.xml", layers(layer('Name="Tumor"', *regions)))
    assert [bounds for _, _, bounds, _ in outlines_of(content)] == [
        (10, 20, 30, 50),
        (10, 20, 40, 30),
        (10, 20, 50, 40),
    ]
    assert content.ignored == {"region of type 3": 1, "region of type 4": 2}


def test_an_ellipse_fills_its_box(tmp_path):
    content = read(tmp_path, "a.xml", layers(layer('Name="Tumor"', region([(10, 20), (50, 30)], 'Type="2"'))))
    (outline,) = content.outlines
    assert outline.geometry.area == pytest.approx(math.pi * 20 * 5, rel=1e-3)
    assert outline.geometry.contains(shapely.Point(30, 29.9)) and not outline.geometry.contains(shapely.Point(48, 29))


def test_an_ellipse_that_is_drawn_out_runs_through_its_points(tmp_path):
    points = [(10, 20), (30, 15), (50, 20), (48, 31), (14, 33)]
    content = read(tmp_path, "a.xml", layers(layer('Name="Tumor"', region(points, 'Type="2"'))))
    assert list(content.outlines[0].geometry.exterior.coords)[:-1] == points


def test_an_open_line_is_no_area(tmp_path):
    content = read(tmp_path, "a.xml", layers(layer('Name="Tumor"', region(TRIANGLE, 'Type="0" HasEndcaps="1"'))))
    assert (content.outlines, content.ignored) == ([], {"open line": 1})


def test_halo_annotations_have_words_for_types_and_two_corners_for_boxes(tmp_path):
    regions = [
        region([*TRIANGLE, TRIANGLE[0]], 'Type="Polygon" HasEndcaps="0" NegativeROA="0"', "V"),
        region([(10, 20), (40, 30)], 'Type="Rectangle" HasEndcaps="0" NegativeROA="1"', "V"),
        region([(10, 20), (50, 30)], 'Type="Ellipse" HasEndcaps="0" NegativeROA="0"', "V"),
        region([(10, 20), (50, 30)], 'Type="Ruler" HasEndcaps="0" NegativeROA="0"', "V"),
    ]
    content = read(tmp_path, "a.annotations", layers(layer('Name="Tumor" Visible="True"', *regions)))
    assert content.format == "HALO annotations"
    assert [(round(area), cuts) for _, area, _, cuts in outlines_of(content)] == [
        (300, False),
        (300, True),
        (314, False),
    ]
    assert content.ignored == {"region of type Ruler": 1}


def test_a_ring_of_two_points_is_dropped_and_counted_in_xml_too(tmp_path):
    content = read(tmp_path, "a.xml", asap(("Polygon", "Tumor", TRIANGLE[:2] * 2), ("Polygon", "Tumor", [])))
    assert (content.outlines, content.repaired) == ([], {"fewer than 3 points, dropped": 2})


# --- QuPath

SQUARE = [[10, 20], [14, 20], [14, 24], [10, 24], [10, 20]]
HOLE = [[11, 21], [13, 21], [13, 22], [11, 22], [11, 21]]
FAR = [[50, 60], [57, 60], [57, 63], [50, 63], [50, 60]]


def qupath(*features):
    return json.dumps({"type": "FeatureCollection", "features": list(features)})


def feature(coordinates, kind="Polygon", **properties):
    return {"type": "Feature", "geometry": {"type": kind, "coordinates": coordinates}, "properties": properties}


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


@pytest.mark.parametrize("name", ["a.xml", "a.annotations"])
def test_other_programs_coordinates_start_at_the_slides_corner(tmp_path, name):
    content = read(tmp_path, name, asap(("Polygon", "Tumor", TRIANGLE)), bounds_xy_lv0=(37, 11))
    assert outlines_of(content) == [("Tumor", 300, (10, 20, 30, 50), False)]


def test_qupath_a_third_coordinate_is_not_used(tmp_path):
    content = read(tmp_path, "a.geojson", qupath(feature([[[x, y, 7.5] for x, y in SQUARE]])))
    assert outlines_of(content) == [("", 16, (10, 20, 14, 24), False)]


def test_qupath_a_feature_without_properties_has_no_class(tmp_path):
    bare = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [SQUARE]}}
    content = read(tmp_path, "a.geojson", qupath(bare, bare | {"properties": None}))
    assert [outline.name for outline in content.outlines] == ["", ""]


# --- Encodings


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_json_is_read_with_and_without_a_byte_order_mark(tmp_path, encoding):
    text = json.dumps([feature([SQUARE], classification={"name": "Gefäß"})], ensure_ascii=False)
    content = read(tmp_path, "a.geojson", text.encode(encoding))
    assert [outline.name for outline in content.outlines] == ["Gefäß"]


@pytest.mark.parametrize(
    ("encoding", "declared"), [("utf-8", ""), ("utf-8-sig", ""), ("utf-16", ""), ("latin-1", ' encoding="ISO-8859-1"')]
)
def test_xml_is_read_in_its_own_encoding(tmp_path, encoding, declared):
    text = asap(("Polygon", "Gefäß", TRIANGLE)).replace('"1.0"', f'"1.0"{declared}')
    content = read(tmp_path, "a.xml", text.encode(encoding))
    assert [outline.name for outline in content.outlines] == ["Gefäß"]


# --- Masks


@pytest.mark.parametrize("name", ["m.tif", "m.TIFF", "m.png"])
@pytest.mark.parametrize("factor", [1, 2, 3])
def test_a_mask_is_placed_by_its_size_and_its_scale_is_stated(tmp_path, name, factor):
    mask = np.zeros((90 // factor, 120 // factor), dtype=np.uint8)
    mask[10:20, 5:9] = 1
    mask[28, 30] = 3
    write_mask(tmp_path / name, mask)
    output = canonical_of(tmp_path, tmp_path / name)
    content = json.loads(output.read_text())
    assert content["source"] == {"format": "class mask", "level_0_px_per_mask_px": [factor, factor]}
    assert content["classes"]["lesion"] == {"polygons": 1, "area_mm2": round(40 * factor**2 * 1e-4, 6)}
    assert content["classes"]["fat"] == {"polygons": 1, "area_mm2": round(factor**2 * 1e-4, 6)}
    np.testing.assert_array_equal(level_0(output), np.kron(mask, np.ones((factor, factor))))


@pytest.mark.parametrize(
    ("slide", "mask", "expected"),
    [
        ((120, 90), (120, 90), (1, 1)),
        ((1001, 703), (500, 351), (2, 2)),  # halved, rounded down
        ((1001, 703), (501, 352), (2, 2)),  # rounded up
        ((1001, 703), (500, 352), (2, 2)),  # each its own way
        ((1001, 703), (143, 101), (7, 7)),  # 703 / 7 = 100.4
        ((1000, 700), (300, 210), (10 / 3, 10 / 3)),
        ((120, 90), (240, 180), (0.5, 0.5)),
    ],
)
def test_the_scale_of_a_mask_that_covers_the_slide(slide, mask, expected):
    assert mask_scale(mask, info_at(size=slide), None) == pytest.approx(expected, abs=1e-12)


def test_the_scale_of_a_mask_is_its_stated_resolution():
    assert mask_scale((20, 30), info_at(mpp=0.25), 0.625) == (2.5, 2.5)
    assert mask_scale((48, 36), info_at(mpp=0.25), 0.625) == (2.5, 2.5)  # all of the slide
    assert mask_scale((49, 37), info_at(mpp=0.25), 0.625) == (2.5, 2.5)  # all, and a last pixel that it ends in


@pytest.mark.parametrize("size", [(50, 36), (48, 38)])
def test_a_mask_beyond_the_slide_at_its_stated_resolution_is_refused(size):
    with pytest.raises(
        ValueError, match=rf"^at 0\.625 µm/px the mask of {size[0]}×{size[1]} px is larger than the slide$"
    ):
        mask_scale(size, info_at(mpp=0.25), 0.625)


def test_a_mask_of_a_part_starts_at_the_slides_corner(tmp_path):
    mask = np.zeros((20, 10), dtype=np.uint8)
    mask[4:7, 2] = 2
    write_mask(tmp_path / "m.png", mask)
    output = canonical_of(tmp_path, tmp_path / "m.png", info_at(mpp=0.5), mask_mpp=1.5)
    found = np.argwhere(level_0(output) == 2)
    assert (found.min(axis=0).tolist(), found.max(axis=0).tolist()) == ([12, 6], [20, 8])


def test_masks_start_at_the_slides_corner_whatever_its_bounds(tmp_path):
    write_mask(tmp_path / "m.png", drawn({"Lesion": [box(10, 20, 14, 30)]}))
    output = canonical_of(tmp_path, tmp_path / "m.png", info_at(bounds_xy_lv0=(37, 11)))
    assert np.argwhere(level_0(output))[0].tolist() == [20, 10]


def test_a_palette_png_is_read_by_its_indices(tmp_path):
    picture = Image.fromarray(drawn({"Fat": [box(10, 20, 14, 30)], "Lesion": [box(1, 2, 4, 8)]}))
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 200, 180, 20])
    picture.save(tmp_path / "m.png")
    with Image.open(tmp_path / "m.png") as saved:
        assert saved.mode == "P"
    assert Counter(level_0(canonical_of(tmp_path, tmp_path / "m.png")).ravel().tolist()) == {0: 10742, 3: 40, 1: 18}


@pytest.mark.parametrize("name", ["m.tif", "m.png"])
def test_a_mask_of_one_bit_has_class_one(tmp_path, name):
    mask = drawn({"Lesion": [box(10, 20, 14, 30)]}) > 0
    Image.fromarray(mask).save(tmp_path / name)
    np.testing.assert_array_equal(level_0(canonical_of(tmp_path, tmp_path / name)), mask)


def test_a_mask_of_16_bits_may_have_class_values(tmp_path):
    mask = drawn({"Vessel": [box(10, 20, 14, 30)]}).astype(np.uint16)
    tifffile.imwrite(tmp_path / "m.tif", mask)
    np.testing.assert_array_equal(level_0(canonical_of(tmp_path, tmp_path / "m.tif")), mask)


def test_zero_is_background_and_an_empty_mask_says_there_is_no_lesion(tmp_path):
    write_mask(tmp_path / "m.tif", np.zeros((45, 60), dtype=np.uint8))
    assert json.loads(canonical_of(tmp_path, tmp_path / "m.tif").read_text())["features"] == []


def test_an_unmapped_mask_value_is_refused_with_all_that_the_file_has(tmp_path):
    mask = drawn({"Lesion": [box(1, 2, 4, 8), box(50, 50, 60, 55)]})
    mask[80, 100] = 255
    write_mask(tmp_path / "m.png", mask)
    error = refused(tmp_path, tmp_path / "m.png")
    assert error.finding == "classes that the config does not map: '255'; the file has '1' (2), '255' (1)"
    assert "annotations.mask_values for a mask" in error.remedy


def test_mask_pixels_that_touch_at_a_corner_need_no_repair(tmp_path):
    mask = np.zeros((90, 120), dtype=np.uint8)
    mask[10:13, 20:23] = [[1, 1, 1], [1, 0, 1], [1, 1, 0]]  # the hole touches the outside
    mask[13, 23] = 1
    write_mask(tmp_path / "m.tif", mask)
    output = canonical_of(tmp_path, tmp_path / "m.tif")
    assert json.loads(output.read_text())["repaired"] == {}
    np.testing.assert_array_equal(level_0(output), mask)


def test_of_a_huge_pyramid_a_coarser_level_is_taken(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(lesionmap.annotations.formats, "LARGEST_MASK_PX", 60 * 45)
    mask = drawn({"Lesion": [box(10, 20, 14, 30)]})
    with tifffile.TiffWriter(tmp_path / "m.tif") as tiff:
        for factor in (1, 2, 4):
            tiff.write(mask[::factor, ::factor], subfiletype=int(factor > 1), tile=(16, 16), metadata=None)
    output = canonical_of(tmp_path, tmp_path / "m.tif")
    assert json.loads(output.read_text())["source"]["level_0_px_per_mask_px"] == [2, 2]
    assert "the level of 60×45 px is used" in caplog.text
    np.testing.assert_array_equal(level_0(output), mask)


# --- What cannot be used


def refused(folder, source, mask_mpp=None):
    """The error of an import that must fail and leave nothing."""
    with pytest.raises(AnnotationError) as caught:
        canonical_of(folder, source, mask_mpp=mask_mpp)
    error = caught.value
    assert (error.slide, error.stage) == ("s1", "import_annotation")
    assert str(error) == f"slide s1, import_annotation: {error.finding}. Remedy: {error.remedy}."
    assert error.finding and error.remedy
    assert not list((Path(folder) / "out").glob("*")) and not list((Path(folder) / "out").glob(".*"))
    return error


BOMB = (
    '<!DOCTYPE b [<!ENTITY a "lol"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]>'
    "<ASAP_Annotations>&c;</ASAP_Annotations>"
)


def corners(x):
    return asap(("Polygon", "Lesion", [(x, 1), (50, 1), (50, 40)]))


@pytest.mark.parametrize(
    ("name", "content", "finding"),
    [
        ("a.docx", "", r"has the ending '\.docx', which is none of \.xml, \.annotations, \.geojson"),
        ("a", "", "has the ending ''"),
        ("a.xml", "", "ParseError: no element found"),
        ("a.annotations", "", "ParseError: no element found"),
        ("a.xml", asap(("Polygon", "Lesion", TRIANGLE))[:-30], "ParseError: "),
        ("a.xml", "\0\x01\x02", "ParseError: "),
        ("a.xml", "<Other/>", "root element is <Other>, not ASAP's <ASAP_Annotations> or ImageScope's <Annotations>"),
        ("a.xml", BOMB, "EntitiesForbidden"),
        ("a.annotations", BOMB.replace("ASAP_", ""), "EntitiesForbidden"),
        ("a.xml", '<?xml version="1.0" encoding="klingon"?><ASAP_Annotations/>', "unknown encoding"),
        ("a.xml", asap(("Blob", "Lesion", TRIANGLE)), "the annotation type 'Blob' is unknown"),
        (
            "a.xml",
            asap(("Polygon", "Lesion", TRIANGLE)).replace(' PartOfGroup="Lesion"', ""),
            "it lacks 'PartOfGroup'",
        ),
        ("a.xml", asap(("Polygon", "Lesion", TRIANGLE)).replace('X="10"', ""), "it lacks 'X'"),
        ("a.xml", corners("ten"), "could not convert string to float: 'ten'"),
        ("a.xml", corners("1,234"), "could not convert string to float: '1,234'"),
        ("a.xml", corners("nan"), "the coordinate nan is not a number between ±1e"),
        ("a.xml", corners("-inf"), "the coordinate -inf is not a number between ±1e"),
        ("a.xml", corners("2e9"), "the coordinate 2e.09 is not a number between ±1e"),
        (
            "a.xml",
            layers(layer('Name="Lesion"', region([("nan", 2), (40, 30)], 'Type="2"'))),
            "the coordinate nan is not a number",
        ),
        ("a.geojson", "", "JSONDecodeError"),
        ("a.geojson", "{", "JSONDecodeError"),
        ("a.geojson", b"\xff\xfe[\x00]\x00", "UnicodeDecodeError"),
        ("a.geojson", qupath(feature([SQUARE]))[:-9], "JSONDecodeError"),
        ("a.geojson", "[" * 100_000, "RecursionError"),
        ("a.geojson", "[1, 2]", "AttributeError"),
        ("a.geojson", "7", "TypeError"),
        ("a.geojson", "null", "TypeError"),
        ("a.geojson", "{}", "it lacks 'type'"),
        ("a.geojson", '{"type": "FeatureCollection"}', "it lacks 'features'"),
        ("a.geojson", '{"type": "FeatureCollection", "features": null}', "TypeError"),
        ("a.geojson", '{"type": "Polygon", "coordinates": []}', "it is a GeoJSON Polygon, not a Feature"),
        ("a.geojson", '[{"properties": {}, "geometry": null}]', "the geometry type 'null' is unknown"),
        ("a.geojson", '[{"properties": {}}]', "it lacks 'geometry'"),
        ("a.geojson", qupath(feature([SQUARE]) | {"properties": "x"}), "AttributeError"),
        ("a.geojson", qupath(feature([], "GeometryCollection")), "the geometry type 'GeometryCollection' is unknown"),
        ("a.geojson", qupath(feature(SQUARE)), "TypeError"),  # a ring too few
        ("a.geojson", qupath(feature([[[1], [2], [3]]])), "ValueError"),
        ("a.geojson", qupath(feature([[["a", "b"], [2, 3], [4, 5]]])), "could not convert string to float: 'a'"),
        ("a.geojson", qupath(feature([[[math.nan, 1], [2, 3], [4, 5]]])), "the coordinate nan is not a number"),
        ("a.geojson", qupath(feature([[[1, math.inf], [2, 3], [4, 5]]])), "the coordinate inf is not a number"),
        ("a.geojson", qupath(feature([[[10**400, 1], [2, 3], [4, 5]]])), "int too large"),
        ("a.geojson", qupath(feature([SQUARE], classification={"name": "\ud800"})), "UnicodeEncodeError"),
        ("a.tif", "", "TiffFileError"),
        ("a.tif", "no tiff", "TiffFileError"),
        ("a.png", "", "UnidentifiedImageError"),
        ("a.png", "no png", "UnidentifiedImageError"),
    ],
)
def test_a_file_that_cannot_be_understood_is_refused(tmp_path, name, content, finding):
    source = tmp_path / name
    source.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert re.search(finding, refused(tmp_path, source).finding)


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_that_lacks_its_end_is_refused(tmp_path, name):
    noise = np.random.default_rng(0).integers(0, 4, (90, 120), dtype=np.uint8)
    source = tmp_path / name
    if name.startswith("mask"):
        write_mask(source, noise)
    else:
        WRITERS[name](source, {"Lesion": [Polygon(TRIANGLE)], "Fat": [Polygon(RECTANGLE)]})
    whole = source.read_bytes()
    for share in (0.02, 0.3, 0.6, 0.9):
        source.write_bytes(whole[: int(len(whole) * share)])
        error = refused(tmp_path, source)
        assert f"{source} cannot be read as an annotation" in error.finding


def test_a_missing_file_is_refused(tmp_path):
    assert "FileNotFoundError" in refused(tmp_path, tmp_path / "none.xml").finding


@pytest.mark.parametrize(
    "declaration",
    ['<!ENTITY x SYSTEM "{}">', '<!ENTITY % x SYSTEM "{}"> %x;', '<!ENTITY x PUBLIC "-//a//b" "{}">'],
)
def test_an_external_entity_is_refused_and_its_file_not_read(tmp_path, declaration):
    secret, source = tmp_path / "secret.txt", tmp_path / "a.xml"
    secret.write_text("open sesame")
    group = "" if "%" in declaration else "&x;"
    source.write_text(
        f"<!DOCTYPE a [{declaration.format(secret.as_uri())}]><ASAP_Annotations>{group}</ASAP_Annotations>"
    )
    error = refused(tmp_path, source)
    assert "EntitiesForbidden" in error.finding
    assert "sesame" not in str(error)


@pytest.mark.parametrize(
    ("mask", "finding"),
    [
        (np.zeros((90, 120, 3), dtype=np.uint8), r"the mask has shape \(90, 120, 3\); it needs one channel"),
        (np.full((90, 120), 300, dtype=np.uint16), "the mask has values from 300 to 300; class values are 0 to 255"),
        (np.full((90, 120), -1, dtype=np.int16), "the mask has values from -1 to -1; class values are 0 to 255"),
        (np.full((90, 120), 0.9, dtype=np.float32), "the mask has values of type float32; class values are whole"),
        (np.zeros((60, 60), dtype=np.uint8), "the mask of 60×60 px has other proportions than the slide of 120×90 px"),
    ],
)
def test_a_tiff_that_is_no_mask_of_the_slide_is_refused(tmp_path, mask, finding):
    tifffile.imwrite(tmp_path / "m.tif", mask, photometric="rgb" if mask.ndim == 3 else "minisblack")
    error = refused(tmp_path, tmp_path / "m.tif")
    assert re.search(finding, error.finding)
    assert "one channel with class values 0 to 255 that covers the whole slide, or state its µm/px" in error.remedy


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "I;16"])
def test_a_png_that_is_no_mask_is_refused(tmp_path, mode):
    Image.new(mode, (120, 90)).save(tmp_path / "m.png")
    assert (
        f"the mask is of mode {mode}; it needs one channel of 8 bits" in refused(tmp_path, tmp_path / "m.png").finding
    )


def test_a_mask_larger_than_the_slide_at_its_stated_resolution_is_refused(tmp_path):
    write_mask(tmp_path / "m.png", np.ones((45, 60), dtype=np.uint8))
    error = refused(tmp_path, tmp_path / "m.png", mask_mpp=25.0)
    assert "at 25 µm/px the mask of 60×45 px is larger than the slide" in error.finding


def test_a_pyramid_without_a_level_that_fits_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(lesionmap.annotations.formats, "LARGEST_MASK_PX", 10_799)
    write_mask(tmp_path / "m.tif", np.ones((90, 120), dtype=np.uint8))
    assert "its smallest level has 10800 pixels, more than 10799" in refused(tmp_path, tmp_path / "m.tif").finding


# --- Random outlines through every writer and reader

CHECKED = budget(max_examples=25, deadline=None, derandomize=True)


@st.composite
def holed_polygons(draw):
    """A star-shaped polygon, its hole strictly inside, in any way over the slide's edges; whole or broken pixels."""
    x, y = draw(st.floats(25, 95)), draw(st.floats(25, 65))
    corners = draw(st.integers(5, 11))
    radii = draw(st.lists(st.floats(10, 45), min_size=corners, max_size=corners))
    shares = draw(st.lists(st.floats(0.3, 0.55), min_size=corners, max_size=corners))
    inner = [share * min(radii) for share in shares]  # < cos(π / 5) · the shortest radius: in the polygon
    turn, digits = draw(st.floats(0, 1)), draw(st.sampled_from([0, 1, 12]))

    def ring(lengths):
        angles = [2 * math.pi * (index + turn) / corners for index in range(corners)]
        points = zip(angles, lengths, strict=True)
        return [(round(x + r * math.cos(at), digits), round(y + r * math.sin(at), digits)) for at, r in points]

    polygon = Polygon(ring(radii), [ring(inner)])
    assume(polygon.is_valid)
    return polygon


@st.composite
def annotations(draw):
    """Two classes, disjoint or not, in any order; one polygon with a hole each."""
    first, second = draw(st.permutations(["Lesion", "Vessel", "Fat"]))[:2]
    return {first: [draw(holed_polygons())], second: [draw(holed_polygons())]}


def assert_same_pixels(mask, expected, outlines):
    """Equal, but for pixels whose centre lies on an edge: those may fall to either side."""
    edges = shapely.union_all([polygon.boundary for polygons in outlines.values() for polygon in polygons])
    differ = np.argwhere(mask != expected)[:, ::-1] + 0.5
    assert (shapely.distance(edges, shapely.points(differ)) < 1e-6).all()


def on_slide(outlines):
    """Cut to the slide, so that no mask pixel of theirs has its centre beside it."""
    slide = box(0, 0, *SIZE)
    return {name: [polygon.intersection(slide) for polygon in polygons] for name, polygons in outlines.items()}


def without_each_others_holes(outlines):
    """ASAP's exclusions are cut out of every class."""
    holes = shapely.union_all([Polygon(polygon.interiors[0]) for polygons in outlines.values() for polygon in polygons])
    return {name: [polygon.difference(holes) for polygon in polygons] for name, polygons in outlines.items()}


@pytest.mark.parametrize("name", VECTOR_WRITERS)
@CHECKED
@given(outlines=annotations())
def test_random_outlines_come_back_pixel_for_pixel(name, outlines):
    meant = without_each_others_holes(outlines) if name == "asap.xml" else outlines
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / name
        VECTOR_WRITERS[name](source, outlines)
        output = canonical_of(folder, source)
        assert_same_pixels(level_0(output), drawn(meant), outlines)
        assert json.loads(output.read_text())["repaired"] == {}


@CHECKED
@given(first=holed_polygons(), second=holed_polygons())
def test_a_random_feature_of_several_polygons_comes_back_pixel_for_pixel(first, second):
    narrow = [scale(part, 0.3, 1, origin=(0, 0)) for part in (first, second)]
    outlines = {"Vessel": [narrow[0], translate(narrow[1], 60)]}  # beside each other
    with tempfile.TemporaryDirectory() as folder:
        write_qupath_feature(Path(folder) / "a.geojson", outlines)
        assert_same_pixels(level_0(canonical_of(folder, Path(folder) / "a.geojson")), drawn(outlines), outlines)


@CHECKED
@given(outlines=annotations())
def test_areas_of_random_outlines_are_those_of_their_geometry(outlines):
    with tempfile.TemporaryDirectory() as folder:
        VECTOR_WRITERS["halo.annotations"](Path(folder) / "a.xml", outlines)
        content = json.loads(canonical_of(folder, Path(folder) / "a.xml").read_text())
    left = box(0, 0, *SIZE)
    for label in PRIORITY:
        polygon = outlines.get(label.capitalize(), [Polygon()])[0]
        assert content["classes"][label]["area_mm2"] == pytest.approx(polygon.intersection(left).area * 1e-4, abs=1e-6)
        left = left.difference(polygon)


@pytest.mark.parametrize("name", ["mask.tif", "mask.png"])
@CHECKED
@given(outlines=annotations(), factor=st.sampled_from([1, 2, 3, 4, 7]))
def test_a_random_mask_comes_back_exactly_at_its_own_resolution(name, outlines, factor):
    mask = drawn(on_slide(outlines), mask_size(factor), factor)
    with tempfile.TemporaryDirectory() as folder:
        write_mask(Path(folder) / name, mask)
        output = canonical_of(folder, Path(folder) / name)
        np.testing.assert_array_equal(Annotation(output).mask((0, 0), mask_size(factor), factor), mask)


@CHECKED
@given(seed=st.integers(0, 2**32 - 1), n_classes=st.integers(1, 3))
def test_a_mask_of_noise_comes_back_exactly_and_needs_no_repair(seed, n_classes):
    mask = np.random.default_rng(seed).integers(0, n_classes + 1, (30, 40), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        write_mask(Path(folder) / "m.tif", mask)
        output = canonical_of(folder, Path(folder) / "m.tif")
        assert json.loads(output.read_text())["repaired"] == {}
        np.testing.assert_array_equal(Annotation(output).mask((0, 0), (40, 30), 3.0), mask)


@CHECKED
@given(
    polygon=holed_polygons(), factor=st.sampled_from([1.0, 2.0, 2.6, 7.0]), bounds=st.sampled_from([(0, 0), (37, 11)])
)
def test_written_lesions_come_back_exactly_on_a_slide_with_bounds(polygon, factor, bounds):
    lesions = drawn(on_slide({"Lesion": [polygon]}), mask_size(factor), factor) == 1
    info = info_at(bounds_xy_lv0=bounds)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lesions.geojson"
        write_outlines(path, lesions, lesions.astype(np.uint8), factor, info)
        annotation = Annotation(canonical_of(folder, path, info))
    columns, rows = (((np.arange(length) + 0.5) // factor).astype(int) for length in SIZE)
    np.testing.assert_array_equal(annotation.mask((0, 0), mask_size(factor), factor), lesions)
    np.testing.assert_array_equal(annotation.mask((0, 0), SIZE, 1.0), lesions[np.ix_(rows, columns)])


# --- Damaged files


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """Cut short, or with one to four bits turned over."""
    if rng.random() < 0.25:
        return content[: rng.integers(len(content))]
    changed = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        changed[rng.integers(len(changed))] ^= 1 << rng.integers(8)
    return bytes(changed)


def assert_canonical(path):
    content = json.loads(path.read_text())
    assert set(content["classes"]) == set(PRIORITY)
    for item in content["features"]:
        polygon = shape(item["geometry"])
        assert polygon.is_valid and polygon.area > 0
        assert box(0, 0, *SIZE).buffer(1e-9).covers(polygon)
        assert item["properties"]["class"] in PRIORITY


@pytest.mark.filterwarnings("ignore:.*decompression bomb:PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", WRITERS)
def test_a_damaged_file_is_refused_or_gives_a_valid_annotation(tmp_path, name):
    lesion = Polygon([(10, 8), (70, 20), (52, 71), (17, 55)], [[(30, 30), (40, 30), (38, 44)]])
    source = tmp_path / name
    WRITERS[name](source, {"Lesion": [lesion], "Fat": [box(60.5, 40.25, 110, 80)]})
    whole = source.read_bytes()
    outcomes = Counter()
    for seed in range(40):
        source.write_bytes(damaged(whole, np.random.default_rng(seed)))
        try:
            output = canonical_of(tmp_path, source)
        except AnnotationError:
            outcomes["refused"] += 1
        else:
            outcomes["imported"] += 1
            assert_canonical(output)
            output.unlink()
        assert not [*(tmp_path / "out").glob("*"), *(tmp_path / "out").glob(".*")]
    assert outcomes["refused"] > 0
