import gzip
import json
import math
import re
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import shapely
from annotation_imports import canonical_of, level_0, refused
from annotation_texts import RECTANGLE, SQUARE, TRIANGLE, asap, feature, layer, layers, qupath, region
from annotation_writers import (
    SIZE,
    VECTOR_WRITERS,
    WRITERS,
    drawn,
    info_at,
    mask_size,
    write_mask,
    write_qupath_feature,
)
from hypothesis import assume, given
from hypothesis import settings as budget
from hypothesis import strategies as st
from lesion_maps import accept, write_outlines
from lesionmap.annotations.canonical import PRIORITY
from lesionmap.annotations.masks import Annotation
from lesionmap.errors import AnnotationError
from shapely import Polygon, box
from shapely.affinity import scale, translate
from shapely.geometry import shape

pytestmark = pytest.mark.annotations


# --- What cannot be used


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
        ("a.geojson", "[1, 2]", "feature 1: TypeError: 1 is no Feature"),
        ("a.geojson", "7", "TypeError"),
        ("a.geojson", "null", "TypeError"),
        ("a.geojson", "{}", "it lacks 'type'"),
        ("a.geojson", '{"type": "FeatureCollection"}', "it lacks 'features'"),
        ("a.geojson", '{"type": "FeatureCollection", "features": null}', "TypeError"),
        ("a.geojson", '{"type": "Polygon"}', "it lacks 'coordinates'"),
        ("a.geojson", '[{"properties": {}}]', "it lacks 'type'"),
        ("a.geojson", "\n".join([qupath(feature([SQUARE])), qupath(feature([SQUARE]))[:-9]]), "JSONDecodeError"),
        ("a.geojson.gz", gzip.compress(qupath(feature([SQUARE])).encode())[:-9], "EOFError"),
        ("a.geojson", qupath(feature([SQUARE]) | {"properties": "x"}), "AttributeError"),
        ("a.geojson", qupath(feature([], "GeometryCollection")), "it lacks 'geometries'"),
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


@pytest.mark.parametrize(
    ("name", "finding", "remedy"),
    [
        ("a.qpdata", "is QuPath's own data of a slide", "export its annotations as GeoJSON"),
        ("a.ZIP", "is an archive", "unpack it"),
        ("a.svg", "is a drawing", "GeoJSON in level-0 pixels"),
        ("a.csv", "is a table", "GeoJSON in level-0 pixels"),
        ("a.svs.ndpa", "is Hamamatsu NDP.view annotations", "GeoJSON in level-0 pixels"),
        ("a.db", "TIAToolbox's annotation store", 'SQLiteStore("slide.db").to_geojson("slide.geojson")'),
        ("a.jpg", "is a JPEG, which changes class values", "PNG or TIFF"),
        ("a.tif.gz", "has the ending '.gz'", "class mask as TIFF or PNG"),
    ],
)
def test_a_file_of_another_kind_is_named_with_its_remedy(tmp_path, name, finding, remedy):
    (tmp_path / name).write_bytes(b"x")
    error = refused(tmp_path, tmp_path / name)
    assert finding in error.finding and remedy in error.remedy


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
        accept(path)
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
