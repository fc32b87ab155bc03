import json

import numpy as np
import pytest
import tifffile
from lesionmap.annotations import Annotation, import_annotation
from lesionmap.errors import AnnotationError
from lesionmap.inspection import describe
from lesionmap.slides import SlideInfo
from pyramids import row, write_tiff
from shapely.geometry import shape

CLASSES = {"Tumor": "lesion", "Vessel": "vessel", "Fat": "fat", "Exclusion": "hole", "Ink": "ignore"}
MASK_VALUES = {"1": "lesion", "2": "vessel", "3": "fat"}


@pytest.fixture
def info(tmp_path) -> SlideInfo:
    """A white slide of 120 × 90 px."""
    return describe(row(write_tiff(tmp_path / "s.tif", np.full((90, 120, 3), 255, dtype=np.uint8))))


def imported(tmp_path, source_name, content, info):
    source = tmp_path / source_name
    source.write_text(content, encoding="utf-8")
    output = tmp_path / "canonical.geojson"
    import_annotation(str(source), info, str(output), classes=CLASSES, mask_values=MASK_VALUES)
    return output


def asap(*annotations):
    elements = ""
    for group, ring in annotations:
        corners = "".join(f'<Coordinate Order="{i}" X="{x}" Y="{y}"/>' for i, (x, y) in enumerate(ring))
        elements += f'<Annotation Name="a" Type="Polygon" PartOfGroup="{group}"><Coordinates>{corners}</Coordinates>'
        elements += "</Annotation>"
    return f"<ASAP_Annotations><Annotations>{elements}</Annotations></ASAP_Annotations>"


def square(x, y, side):
    return [(x, y), (x + side, y), (x + side, y + side), (x, y + side)]


def feature(name, *rings):
    closed = [[list(point) for point in [*ring, ring[0]]] for ring in rings]
    geometry = {"type": "Polygon", "coordinates": closed}
    return {"type": "Feature", "geometry": geometry, "properties": {"classification": {"name": name}}}


def test_asap_exclusions_are_holes(tmp_path, info):
    path = imported(tmp_path, "a.xml", asap(("Tumor", square(10, 20, 30)), ("Exclusion", square(15, 25, 5))), info)
    mask = Annotation(path).mask((0, 0), (120, 90), 1.0)
    assert mask.sum() == 30 * 30 - 5 * 5
    assert mask[20, 10] == mask[49, 39] == 1
    assert mask[19, 10] == mask[20, 9] == mask[50, 39] == mask[25, 15] == mask[29, 19] == 0


@pytest.mark.parametrize("wrap", [lambda f: f, lambda f: f[0], lambda f: {"type": "FeatureCollection", "features": f}])
def test_qupath_list_feature_and_collection(tmp_path, info, wrap):
    features = [feature("Tumor", square(10, 20, 30), square(15, 25, 5))]
    path = imported(tmp_path, "a.geojson", json.dumps(wrap(features)), info)
    assert Annotation(path).mask((0, 0), (120, 90), 1.0).sum() == 875


def test_qupath_coordinates_start_at_the_bounds(tmp_path, info):
    shifted = SlideInfo(**vars(info) | {"bounds_xy_lv0": (40, 7)})
    path = imported(tmp_path, "a.geojson", json.dumps([feature("Tumor", square(10, 20, 5))]), shifted)
    assert np.argwhere(Annotation(path).mask((0, 0), (120, 90), 1.0))[0].tolist() == [27, 50]


def test_a_mask_of_lower_resolution_is_scaled(tmp_path, info):
    mask = np.zeros((45, 60), dtype=np.uint8)
    mask[10:20, 5:9] = 1
    mask[30, 40] = 3
    tifffile.imwrite(tmp_path / "m.tif", mask)
    output = tmp_path / "canonical.geojson"
    import_annotation(str(tmp_path / "m.tif"), info, str(output), classes=CLASSES, mask_values=MASK_VALUES)
    np.testing.assert_array_equal(Annotation(output).mask((0, 0), (120, 90), 1.0), np.kron(mask, np.ones((2, 2))))


def test_lesion_wins_over_vessel_over_fat_whatever_the_order(tmp_path, info):
    for order in (("Tumor", "Vessel", "Fat"), ("Fat", "Tumor", "Vessel"), ("Vessel", "Fat", "Tumor")):
        places = {"Tumor": square(10, 10, 10), "Vessel": square(15, 10, 10), "Fat": square(12, 10, 30)}
        path = imported(tmp_path, "a.xml", asap(*((name, places[name]) for name in order)), info)
        assert Annotation(path).mask((0, 12), (50, 1), 1.0)[0, [10, 17, 22, 30, 45]].tolist() == [1, 1, 2, 3, 0]


def test_a_pixel_belongs_to_the_outline_that_its_centre_lies_in(tmp_path, info):
    path = imported(tmp_path, "a.xml", asap(("Tumor", square(10.4, 10.6, 3.0))), info)
    found = np.argwhere(Annotation(path).mask((0, 0), (120, 90), 1.0))
    assert found.min(axis=0).tolist() == [11, 10]  # centres 11.5 ≥ 10.6, 10.5 ≥ 10.4
    assert found.max(axis=0).tolist() == [13, 12]  # centres 13.5 < 13.6, 12.5 < 13.4


def test_a_box_of_the_mask_equals_that_part_of_the_whole(tmp_path, info):
    path = imported(tmp_path, "a.xml", asap(("Tumor", [(3, 4), (100, 30), (60, 80)])), info)
    annotation = Annotation(path)
    whole = annotation.mask((0, 0), (120, 90), 1.0)
    np.testing.assert_array_equal(annotation.mask((37, 11), (50, 60), 1.0), whole[11:71, 37:87])


def test_an_annotation_without_outlines_says_there_is_no_lesion(tmp_path, info):
    path = imported(tmp_path, "a.geojson", '{"type": "FeatureCollection", "features": []}', info)
    assert not Annotation(path).mask((0, 0), (120, 90), 1.0).any()
    assert not Annotation(None).mask((0, 0), (120, 90), 1.0).any()


def test_a_ring_that_crosses_itself_is_repaired(tmp_path, info):
    path = imported(tmp_path, "a.xml", asap(("Tumor", [(10, 10), (30, 30), (30, 10), (10, 30)])), info)
    polygons = [shape(item["geometry"]) for item in json.loads(path.read_text())["features"]]
    assert all(polygon.is_valid for polygon in polygons)
    assert sum(polygon.area for polygon in polygons) == pytest.approx(200)


BOMB = '<!DOCTYPE b [<!ENTITY a "x"><!ENTITY c "&a;&a;">]><ASAP_Annotations>&c;</ASAP_Annotations>'


@pytest.mark.parametrize(
    ("name", "content", "finding"),
    [
        ("a.xml", "<ASAP_Annotations>", "not well-formed"),
        ("a.xml", BOMB, "not well-formed .*EntitiesForbidden"),
        ("a.xml", "<Other/>", "root element is <Other>"),
        ("a.xml", "", "not well-formed"),
        ("a.geojson", "{", "not well-formed"),
        ("a.geojson", "[1, 2]", "not understood"),
        ("a.geojson", '{"features": [{"properties": {}, "geometry": null}]}', "not understood"),
        ("a.docx", "", "has the ending '.docx'"),
        ("a.tif", "no tiff", "not understood"),
        ("a.xml", asap(("Tumour", square(1, 1, 9))), "does not map: 'Tumour'"),
        ("a.xml", asap(("Tumor", square(1000, 1000, 9))), "lie beside the slide of 120×90 px"),
    ],
)
def test_what_cannot_be_used_is_refused_and_nothing_is_written(tmp_path, info, name, content, finding):
    with pytest.raises(AnnotationError, match=rf"slide s1, import_annotation: (.|\n)*{finding}(.|\n)*Remedy: "):
        imported(tmp_path, name, content, info)
    assert not list(tmp_path.glob("*canonical*"))


def test_a_mask_of_other_proportions_is_refused(tmp_path, info):
    tifffile.imwrite(tmp_path / "m.tif", np.zeros((60, 60), dtype=np.uint8))
    with pytest.raises(AnnotationError, match="other proportions than the slide of 120×90"):
        import_annotation(
            str(tmp_path / "m.tif"), info, str(tmp_path / "c.geojson"), classes=CLASSES, mask_values=MASK_VALUES
        )
