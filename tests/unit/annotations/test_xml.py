"""ASAP, ImageScope and HALO."""

import gzip
import json
import math

import pytest
import shapely
from annotation_imports import canonical_of, level_0, outlines_of, read, refused
from annotation_texts import RECTANGLE, TRIANGLE, asap, layer, layers, region

pytestmark = pytest.mark.annotations


# --- ASAP


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


@pytest.mark.parametrize(
    ("encoding", "declared"), [("utf-8", ""), ("utf-8-sig", ""), ("utf-16", ""), ("latin-1", ' encoding="ISO-8859-1"')]
)
def test_xml_is_read_in_its_own_encoding(tmp_path, encoding, declared):
    text = asap(("Polygon", "Gefäß", TRIANGLE)).replace('"1.0"', f'"1.0"{declared}')
    content = read(tmp_path, "a.xml", text.encode(encoding))
    assert [outline.name for outline in content.outlines] == ["Gefäß"]


@pytest.mark.parametrize("name", ["a.xml", "a.annotations"])
def test_other_programs_coordinates_start_at_the_slides_corner(tmp_path, name):
    content = read(tmp_path, name, asap(("Polygon", "Tumor", TRIANGLE)), bounds_xy_lv0=(37, 11))
    assert outlines_of(content) == [("Tumor", 300, (10, 20, 30, 50), False)]


# --- Numbers and packing


def test_decimal_commas_are_taken_and_counted(tmp_path):
    square = [("10,5", "20"), ("14,5", "20"), ("14,5", "24,25"), ("10,5", "24,25")]
    content = read(tmp_path, "a.xml", asap(("Polygon", "Tumor", square)))
    assert outlines_of(content) == [("Tumor", 17, (10.5, 20, 14.5, 24.25), False)]
    assert content.repaired == {"decimal comma": 6}


@pytest.mark.parametrize(
    "corner", [("1,234", "5"), ("12,345,678", "5,5"), ("12,5", "7.25"), ("12,5,1", "7"), ("a,5", "7"), (",5", "7")]
)
def test_a_comma_that_may_mean_something_else_is_refused(tmp_path, corner):
    (tmp_path / "a.annotations").write_text(
        layers(layer('Name="Lesion"', region([corner, (50, 1), (50, 40)], tag="V")))
    )
    error = refused(tmp_path, tmp_path / "a.annotations")
    assert "has a comma that may be a decimal comma or a mark of thousands" in error.finding
    assert "export it with decimal points" in error.remedy


def test_xml_may_be_packed(tmp_path):
    content = read(tmp_path, "a.xml.gz", gzip.compress(asap(("Polygon", "Tumor", TRIANGLE)).encode()))
    assert outlines_of(content) == [("Tumor", 300, (10, 20, 30, 50), False)]


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("<annotations><ndpviewstate/></annotations>", "a file of NDP.view or CVAT"),
        ("<annotation><object/></annotation>", "a Pascal VOC file"),
        ('<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"/>', "OME-XML"),
    ],
)
def test_xml_of_another_program_is_named(tmp_path, text, finding):
    (tmp_path / "a.xml").write_text(text)
    error = refused(tmp_path, tmp_path / "a.xml")
    assert finding in error.finding and "GeoJSON in level-0 pixels" in error.remedy
