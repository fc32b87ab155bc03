import json
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import yaml
from annotation_writers import info_at, mask_size, settings, write_mask
from lesion_maps import accept, write_outlines
from lesionmap.annotations.canonical import (
    FRAME,
    AnnotationSettings,
    import_annotation,
    import_second_annotation,
    meaning,
)
from lesionmap.annotations.masks import Annotation
from lesionmap.errors import AnnotationError
from lesionmap.slides.slide import SlideInfo
from shapely.geometry import MultiPolygon, box, mapping, shape


def feature(name, *rings, **properties):
    """A QuPath feature of one polygon: outer ring, then holes, written as given."""
    geometry = {"type": "Polygon", "coordinates": [[list(point) for point in ring] for ring in rings]}
    return {"type": "Feature", "geometry": geometry, "properties": {"classification": {"name": name}, **properties}}


def rectangle(left, top, width, height):
    right, bottom = left + width, top + height
    return [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]


def imported(tmp_path, features, info=None, how=None):
    """The canonical content of an annotation with these features."""
    source, output = tmp_path / "a.geojson", tmp_path / "canonical.geojson"
    source.write_text(json.dumps(features))
    import_annotation(str(source), info or info_at(), str(output), how or settings())
    return json.loads(output.read_text())


def mask_of(tmp_path, *box):
    return Annotation(tmp_path / "canonical.geojson").mask(*(box or ((0, 0), (120, 90), 1.0)))


def of_class(content, label):
    return [shape(item["geometry"]) for item in content["features"] if item["properties"]["class"] == label]


# --- The canonical file


def test_the_canonical_file_states_slide_frame_source_and_every_class(tmp_path):
    lesion = feature("Lesion", rectangle(10, 20, 30, 20), rectangle(15, 25, 5, 4))
    content = imported(tmp_path, [lesion, feature("Fat", rectangle(70, 5, 9, 7))])
    assert {key: content[key] for key in content if key != "features"} == {
        "type": "FeatureCollection",
        "slide": "s1",
        "frame": FRAME,
        "source": {"format": "GeoJSON", "level_0_px_per_mask_px": None},
        "classes": {  # 10 µm/px: a pixel is 0.0001 mm²
            "lesion": {"polygons": 1, "area_mm2": 0.058},  # 30 · 20 − 5 · 4 px
            "vessel": {"polygons": 0, "area_mm2": 0.0},
            "fat": {"polygons": 1, "area_mm2": 0.0063},  # 9 · 7 px
            "ignore": {"polygons": 0, "area_mm2": 0.0},
        },
        "repaired": {},
        "ignored": {},
        "outside": {"polygons": 0, "area_mm2": 0.0},
        "review": None,
    }


def test_each_feature_has_class_name_and_area(tmp_path):
    how = settings({"Tumor*": "lesion", "Fat": "fat"})
    content = imported(
        tmp_path, [feature("Fat", rectangle(70, 5, 9, 7)), feature("Tumor 2", rectangle(3, 4, 5, 6))], how=how
    )
    assert [item["properties"] for item in content["features"]] == [
        {"class": "lesion", "name": "Tumor 2", "area_mm2": 0.003},
        {"class": "fat", "name": "Fat", "area_mm2": 0.0063},
    ]


def test_areas_follow_from_the_slides_resolution(tmp_path):
    content = imported(tmp_path, [feature("Lesion", rectangle(10, 10, 80, 40))], info_at(mpp=0.25))
    assert content["classes"]["lesion"]["area_mm2"] == 0.0002  # 3200 px of 6.25e-8 mm²


def test_where_outlines_of_one_class_overlap_the_area_counts_once(tmp_path):
    content = imported(
        tmp_path, [feature("Lesion", rectangle(10, 10, 20, 10)), feature("Lesion", rectangle(20, 10, 20, 10))]
    )
    assert content["classes"]["lesion"] == {"polygons": 2, "area_mm2": 0.03}
    assert mask_of(tmp_path).sum() == 300


def test_equal_annotations_give_equal_bytes(tmp_path):
    features = [feature("Lesion", rectangle(10.3, 10, 20, 10)), feature("Fat", rectangle(20, 10.7, 20, 10))]
    imported(tmp_path, features)
    first = (tmp_path / "canonical.geojson").read_bytes()
    imported(tmp_path, features)
    assert (tmp_path / "canonical.geojson").read_bytes() == first


# --- Classes


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("Tumor", "lesion"),
        ("Tumor grade 3", "vessel"),  # a pattern
        ("Tumor grade 12", None),  # ? is one character
        ("Tumor grade 2", "fat"),  # itself before the pattern that comes first
        ("Fatty", "fat"),
        ("fatty", None),  # case counts
        ("Ignore*", "ignore"),  # QuPath's own name, which is a pattern here
        ("Tumor: invasive", "lesion"),  # as what it is derived from
        ("Tumor: invasive: front", "lesion"),
        ("Tumor: in situ", "ignore"),  # itself before its base
        ("Tumor: in situ: cribriform", "ignore"),  # the nearest base
        ("Stroma: Tumor", None),  # the base is Stroma
        ("G1", "hole"),
        ("G4", None),
        ("", None),
    ],
)
def test_what_a_class_name_means(name, label):
    names = {
        "Tumor grade ?": "vessel",
        "Tumor grade 2": "fat",
        "Tumor": "lesion",
        "Tumor: in situ": "ignore",
        "Fat*": "fat",
        "Ignore*": "ignore",
        "G[1-3]": "hole",
    }
    assert meaning(name, names) == label


def test_of_two_patterns_that_fit_the_first_counts():
    assert meaning("Tumor 3", {"Tumor*": "lesion", "*": "ignore"}) == "lesion"
    assert meaning("Tumor 3", {"*": "ignore", "Tumor*": "lesion"}) == "ignore"


def test_outlines_without_a_class_are_mapped_by_the_empty_name(tmp_path):
    unnamed = feature("x", rectangle(1, 2, 3, 4))
    unnamed["properties"] = {"classification": None}
    assert len(of_class(imported(tmp_path, [unnamed], how=settings({"": "vessel"})), "vessel")) == 1


def test_an_unmapped_class_is_refused_with_all_that_the_file_has(tmp_path):
    names = ("Tumour", "Lesion", "Tumour", "Necrosis")
    with pytest.raises(AnnotationError) as caught:
        imported(tmp_path, [feature(name, rectangle(1, 1, 9, 9)) for name in names])
    assert str(caught.value) == (
        "slide s1, import_annotation: classes that the config does not map: 'Necrosis', 'Tumour'; the file has "
        "'Lesion' (1), 'Necrosis' (1), 'Tumour' (2). Remedy: map each under annotations.classes "
        "(annotations.mask_values for a mask) to lesion, vessel, fat, hole, ignore (not to be judged) or background "
        "(of no meaning here)."
    )
    assert not list(tmp_path.glob("*canonical*"))


def test_an_outline_of_the_background_leaves_nothing_and_covers_nothing(tmp_path):
    how = settings({"Stroma": "background", "Lesion": "lesion"})
    stroma = feature("Stroma", rectangle(5, 5, 30, 30))
    content = imported(tmp_path, [stroma, feature("Lesion", rectangle(10, 10, 10, 5))], how=how)
    assert [item["properties"]["name"] for item in content["features"]] == ["Lesion"]
    assert mask_of(tmp_path).sum() == 50


@pytest.mark.parametrize("order", [1, -1])
def test_what_is_to_be_ignored_wins_over_every_class_and_only_holes_cut_it(tmp_path, order):
    outlines = [
        feature("Lesion", rectangle(10, 10, 40, 30)),
        feature("Ink", rectangle(30, 5, 30, 20), rectangle(32, 7, 2, 8)),  # 2 · 5 px of its own hole are lesion
        feature("Fat", rectangle(55, 20, 10, 9)),
        feature("Exclusion", rectangle(45, 12, 5, 4)),
    ]
    content = imported(tmp_path, outlines[::order])
    assert {label: summary["area_mm2"] for label, summary in content["classes"].items()} == {
        "ignore": 0.0564,  # 30 · 20 − 2 · 8 − 5 · 4 px
        "lesion": 0.091,  # 40 · 30 − 20 · 15 + 2 · 5 px
        "vessel": 0,
        "fat": 0.0065,  # 10 · 9 − 5 · 5 px
    }
    assert (content["ignored"], content["classes"]["ignore"]["polygons"]) == ({}, 1)
    (ignored,) = (item["properties"] for item in content["features"] if item["properties"]["class"] == "ignore")
    assert ignored == {"class": "ignore", "name": "Ink", "area_mm2": 0.0564}
    mask = mask_of(tmp_path)
    assert mask[13, [9, 10, 29, 30, 32, 34, 44, 45, 49, 50, 59, 60]].tolist() == [
        *[0, 1, 1, 255, 1, 255],
        *[255, 0, 0, 255, 255, 0],
    ]
    assert mask[24, [29, 30, 54, 55, 59, 60, 64, 65]].tolist() == [1, 255, 255, 255, 255, 3, 3, 0]
    assert mask[25, [30, 55]].tolist() == [1, 3]
    annotation = Annotation(tmp_path / "canonical.geojson")
    assert sum(polygon.area for polygon in annotation.lesions) == 910


def test_a_mask_may_say_what_to_ignore(tmp_path):
    mask = np.zeros((90, 120), np.uint8)
    mask[10:40, 20:60], mask[20:30, 50:80] = 1, 9
    write_mask(tmp_path / "mask.png", mask)
    how = AnnotationSettings({}, {"1": "lesion", "9": "ignore"}, "repair")
    import_annotation(str(tmp_path / "mask.png"), info_at(), str(tmp_path / "canonical.geojson"), how)
    assert np.array_equal(mask_of(tmp_path), np.where(mask == 9, 255, mask))


def test_a_class_of_holes_is_cut_out_of_every_class(tmp_path):
    content = imported(
        tmp_path,
        [
            feature("Exclusion", rectangle(25, 12, 10, 4)),
            feature("Lesion", rectangle(10, 10, 20, 10)),
            feature("Fat", rectangle(30, 10, 20, 10)),
        ],
    )
    assert [polygon.area for polygon in of_class(content, "lesion")] == [200 - 5 * 4]
    assert [polygon.area for polygon in of_class(content, "fat")] == [200 - 5 * 4]
    assert mask_of(tmp_path)[13, 24:36].tolist() == [1] + 10 * [0] + [3]


def test_a_hole_across_an_outline_leaves_two_polygons(tmp_path):
    content = imported(
        tmp_path, [feature("Lesion", rectangle(10, 10, 20, 10)), feature("Exclusion", rectangle(14, 0, 3, 40))]
    )
    assert content["classes"]["lesion"] == {"polygons": 2, "area_mm2": 0.017}
    assert sorted(polygon.bounds for polygon in of_class(content, "lesion")) == [(10, 10, 14, 20), (17, 10, 30, 20)]


# --- Islands in holes


def imagescope(layers):
    """ImageScope XML of layers: name → (rectangle as left, top, width, height; whether it is negative)."""
    text = ""
    for name, regions in layers.items():
        text += f'<Annotation Name="{name}"><Regions>'
        for place, negative in regions:
            corners = "".join(f'<Vertex X="{x}" Y="{y}" />' for x, y in rectangle(*place)[:-1])
            text += f'<Region Type="0" NegativeROA="{int(negative)}"><Vertices>{corners}</Vertices></Region>'
        text += "</Regions></Annotation>"
    return f"<Annotations>{text}</Annotations>"


def imported_layers(tmp_path, layers):
    (tmp_path / "a.xml").write_text(imagescope(layers))
    import_annotation(str(tmp_path / "a.xml"), info_at(), str(tmp_path / "canonical.geojson"), settings())
    return json.loads((tmp_path / "canonical.geojson").read_text())


NEST = [  # each in the one before, none in its middle
    ((5, 4, 60, 50), False),
    ((8, 9, 50, 40), True),
    ((20, 12, 30, 30), False),
    ((21, 20, 20, 15), True),
    ((30, 22, 7, 5), False),
]


@pytest.mark.parametrize("order", list(permutations(range(5)))[::7])
@pytest.mark.parametrize(("depth", "area"), [(1, 3000), (2, 1000), (3, 1900), (4, 1600), (5, 1635)])
def test_nested_regions_alternate_whatever_their_order(tmp_path, depth, area, order):
    regions = [NEST[index] for index in order if index < depth]
    content = imported_layers(tmp_path, {"Lesion": regions})
    assert content["classes"]["lesion"] == {"polygons": (depth + 1) // 2, "area_mm2": area * 1e-4}
    assert (content["ignored"], mask_of(tmp_path).sum()) == ({}, area)


def test_layers_nest_each_by_itself(tmp_path):
    content = imported_layers(tmp_path, {"Lesion": NEST[:3], "Fat": [NEST[1], NEST[4], NEST[0]]})
    assert content["classes"]["lesion"]["area_mm2"] == 0.19
    assert content["classes"]["fat"]["area_mm2"] == 0  # 3000 − 2000 + 35 px, all under the lesion


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_a_negative_region_over_an_edge_is_cut_and_an_island_in_it_stays(tmp_path, order):
    regions = [((10, 10, 20, 10), False), ((20, 5, 30, 30), True), ((25, 12, 8, 4), False)]
    imported_layers(tmp_path, {"Lesion": [regions[index] for index in order]})
    mask = mask_of(tmp_path)
    assert mask.sum() == 10 * 10 + 8 * 4
    assert mask[13, [9, 10, 19, 20, 24, 25, 32, 33]].tolist() == [0, 1, 1, 0, 0, 1, 1, 0]


def test_an_island_over_the_edge_of_a_negative_region_is_no_island(tmp_path):
    imported_layers(tmp_path, {"Lesion": [((40, 10, 10, 10), True), ((45, 12, 20, 4), False)]})
    assert mask_of(tmp_path).sum() == 15 * 4


def test_a_negative_region_that_equals_a_region_takes_it_away(tmp_path):
    content = imported_layers(tmp_path, {"Lesion": [((40, 10, 10, 10), True), ((40, 10, 10, 10), False)]})
    assert (content["features"], content["ignored"]) == ([], {})


def test_holes_that_cut_nothing_are_counted(tmp_path):
    beside, around = ((90, 60, 5, 5), True), ((1, 1, 80, 60), True)
    content = imported_layers(tmp_path, {"Lesion": [NEST[0], beside], "Fat": [around], "Exclusion": [NEST[0], NEST[1]]})
    assert content["ignored"] == {"hole that cuts nothing": 2}
    assert content["classes"]["lesion"]["area_mm2"] == 0.2  # what the exclusion leaves in its own negative region


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_an_outline_in_an_exclusion_is_an_island_of_any_class(tmp_path, order):
    features = [
        feature("Lesion", rectangle(*NEST[0][0])),
        feature("Exclusion", rectangle(*NEST[1][0])),
        feature("Vessel", rectangle(*NEST[2][0])),
    ]
    content = imported(tmp_path, [features[index] for index in order])
    assert content["classes"]["lesion"]["area_mm2"] == 0.1
    assert content["classes"]["vessel"]["area_mm2"] == 0.09


@pytest.mark.parametrize("place", [(10, 10, 20, 10), (28, 4, 9, 14)])
@pytest.mark.parametrize("reverse", [False, True])
def test_an_exclusion_around_or_across_outlines_takes_away_what_lies_in_it(tmp_path, place, reverse):
    features = [
        feature("Lesion", rectangle(12, 12, 3, 4)),
        feature("Lesion", rectangle(30, 12, 4, 4)),
        feature("Exclusion", rectangle(*place)),
    ]
    content = imported(tmp_path, features[::-1] if reverse else features)
    assert mask_of(tmp_path).sum() == (16 if place[0] == 10 else 12)
    assert content["ignored"] == {}


@pytest.mark.parametrize("order", list(permutations(range(5)))[::11])
def test_nested_exclusions_alternate_whatever_their_order(tmp_path, order):
    features = [feature("Exclusion" if cuts else "Lesion", rectangle(*place)) for place, cuts in NEST]
    content = imported(tmp_path, [features[index] for index in order])
    assert content["classes"]["lesion"] == {"polygons": 3, "area_mm2": 0.1635}


def test_parts_of_one_feature_are_islands_each_by_itself(tmp_path):
    both = feature("Lesion", rectangle(12, 12, 3, 4))
    both["geometry"] = mapping(MultiPolygon([box(12, 12, 15, 16), box(28, 12, 34, 16)]))
    imported(tmp_path, [both, feature("Exclusion", rectangle(10, 10, 20, 10)), feature("Fat", rectangle(9, 9, 22, 12))])
    assert (mask_of(tmp_path) == 1).sum() == 3 * 4 + 4 * 4


# --- Invalid outlines

BOW_TIE = [(10, 10), (30, 30), (30, 10), (10, 30), (10, 10)]
UNCLOSED = [(40, 10), (60, 10), (60, 20), (40, 20)]
TWO_POINTS = [(5, 5), (9, 9), (5, 5)]


def test_a_ring_that_crosses_itself_becomes_its_lobes(tmp_path):
    content = imported(tmp_path, [feature("Lesion", BOW_TIE)])
    assert content["repaired"] == {"self-crossing": 1}
    assert sorted(polygon.area for polygon in of_class(content, "lesion")) == [100, 100]
    assert mask_of(tmp_path)[15, [11, 14, 17, 22, 26]].tolist() == [1, 1, 0, 0, 1]  # they meet at (20, 20)


def test_a_ring_that_runs_over_itself_keeps_what_it_surrounds_twice(tmp_path):
    twice = [(10, 10), (30, 10), (30, 30), (15, 30), (15, 15), (40, 15), (40, 40), (10, 40), (10, 10)]
    content = imported(tmp_path, [feature("Lesion", twice)])
    assert content["repaired"] == {"self-crossing": 1}
    assert mask_of(tmp_path)[20, 20] == 1


def test_a_hole_that_reaches_over_its_outline_is_cut_off_it(tmp_path):
    content = imported(tmp_path, [feature("Lesion", rectangle(10, 10, 20, 10), rectangle(25, 12, 10, 4))])
    assert content["repaired"] == {"self-crossing": 1}
    assert content["classes"]["lesion"]["area_mm2"] == 0.018  # 20 · 10 − 5 · 4 px


def test_an_unclosed_ring_is_closed(tmp_path):
    content = imported(tmp_path, [feature("Lesion", UNCLOSED, [(45, 12), (50, 12), (50, 15)])])
    assert content["repaired"] == {"unclosed": 2}
    assert content["classes"]["lesion"]["area_mm2"] == 0.01925  # 20 · 10 − 5 · 3 / 2 px


@pytest.mark.parametrize("ring", [[], [(5, 5)], TWO_POINTS, [(5, 5), (5, 5), (9, 9), (9, 9), (5, 5)]])
def test_a_ring_of_fewer_than_three_points_is_dropped(tmp_path, ring):
    content = imported(tmp_path, [feature("Lesion", rectangle(10, 10, 20, 10)), feature("Lesion", ring)])
    assert content["repaired"] == {"fewer than 3 points, dropped": 1}
    assert content["classes"]["lesion"] == {"polygons": 1, "area_mm2": 0.02}


def test_a_polygon_without_any_ring_is_dropped_and_counted(tmp_path):
    content = imported(tmp_path, [feature("Lesion")])
    assert (content["repaired"], content["features"]) == ({"fewer than 3 points, dropped": 1}, [])


def test_a_hole_of_fewer_than_three_points_is_dropped_its_outline_kept(tmp_path):
    content = imported(tmp_path, [feature("Lesion", rectangle(1, 1, 20, 10), TWO_POINTS)])
    assert content["repaired"] == {"fewer than 3 points, dropped": 1}
    assert content["classes"]["lesion"] == {"polygons": 1, "area_mm2": 0.02}


def test_points_on_a_line_enclose_nothing(tmp_path):
    content = imported(tmp_path, [feature("Lesion", [(0, 0), (20, 10), (40, 20), (0, 0)])])
    assert (content["features"], sum(content["repaired"].values())) == ([], 1)


def test_by_policy_invalid_outlines_are_refused_with_their_counts(tmp_path):
    features = [feature("Lesion", ring) for ring in (BOW_TIE, UNCLOSED, BOW_TIE, TWO_POINTS)]
    with pytest.raises(AnnotationError) as caught:
        imported(tmp_path, features, how=settings(invalid="refuse"))
    assert caught.value.finding == "invalid outlines: 1 fewer than 3 points, dropped, 2 self-crossing, 1 unclosed"
    assert caught.value.remedy == (
        "correct the outlines in the program that made them, or set annotations.invalid to repair"
    )
    assert not list(tmp_path.glob("*canonical*"))


def test_the_policy_refuses_no_valid_outline(tmp_path):
    lesion = feature("Lesion", rectangle(10, 10, 20, 10), rectangle(12, 12, 4, 4))
    assert len(imported(tmp_path, [lesion], how=settings(invalid="refuse"))["features"]) == 1


# --- Outside the slide


def test_what_reaches_beyond_the_slide_is_cut_off_and_reported(tmp_path, caplog):
    content = imported(
        tmp_path,
        [
            feature("Lesion", rectangle(-5, 10, 15, 20)),  # 5 · 20 px beyond the left edge
            feature("Lesion", rectangle(100, 80, 30, 40)),  # 30 · 40 px, of which 20 · 10 on the slide
            feature("Fat", rectangle(200, 10, 7, 3)),  # all beside it
            feature("Fat", rectangle(50, 50, 10, 10)),
        ],
    )
    assert content["outside"] == {"polygons": 3, "area_mm2": 0.1121}  # 100 + 1000 + 21 px
    assert content["classes"]["lesion"] == {"polygons": 2, "area_mm2": 0.04}
    assert [polygon.bounds for polygon in of_class(content, "lesion")] == [(0, 10, 10, 30), (100, 80, 120, 90)]
    assert content["classes"]["fat"] == {"polygons": 1, "area_mm2": 0.01}
    assert "s1: 3 outlines reach beyond the slide" in caplog.text


def test_an_outline_along_the_slides_edge_is_inside(tmp_path):
    content = imported(tmp_path, [feature("Lesion", rectangle(0, 0, 120, 90))])
    assert content["outside"] == {"polygons": 0, "area_mm2": 0.0}
    assert mask_of(tmp_path).sum() == 120 * 90


def test_an_annotation_all_beside_the_slide_is_refused(tmp_path):
    with pytest.raises(AnnotationError) as caught:
        imported(tmp_path, [feature("Lesion", rectangle(1000, 200, 9, 7)), feature("Fat", rectangle(300, 400, 50, 60))])
    assert str(caught.value) == (
        "slide s1, import_annotation: all outlines (x 300 to 1009, y 200 to 460) lie outside the slide of 120×90 px. "
        "Remedy: check that the annotation belongs to this slide and is in level-0 pixels."
    )
    assert not list(tmp_path.glob("*canonical*"))


# --- Overlaps


@pytest.mark.parametrize("name", ["Ignore*", "Ignore*: pen", "Ignored"])
def test_the_default_config_ignores_what_qupath_calls_ignore(tmp_path, name):
    config = yaml.safe_load((Path(__file__).parents[3] / "config/config.yaml").read_text(encoding="utf-8"))
    content = imported(
        tmp_path, [feature(name, rectangle(3, 4, 5, 6))], how=AnnotationSettings(**config["annotations"])
    )
    assert content["classes"]["ignore"] == {"polygons": 1, "area_mm2": 0.003}


@pytest.mark.parametrize(
    "order", [("Lesion", "Vessel", "Fat"), ("Fat", "Lesion", "Vessel"), ("Vessel", "Fat", "Lesion")]
)
def test_lesion_wins_over_vessel_over_fat_whatever_the_order(tmp_path, order):
    places = {
        "Lesion": rectangle(10, 10, 10, 10),
        "Vessel": rectangle(15, 10, 10, 10),
        "Fat": rectangle(12, 10, 30, 10),
    }
    content = imported(tmp_path, [feature(name, places[name]) for name in order])
    assert [item["properties"]["class"] for item in content["features"]] == ["lesion", "vessel", "fat"]
    assert {label: summary["area_mm2"] for label, summary in content["classes"].items()} == {
        "lesion": 0.01,
        "vessel": 0.005,  # x 20 to 25
        "fat": 0.017,  # x 25 to 42
        "ignore": 0,
    }
    assert mask_of(tmp_path)[12, [10, 17, 22, 30, 45]].tolist() == [1, 1, 2, 3, 0]


def test_an_outline_all_under_a_higher_class_vanishes(tmp_path):
    content = imported(
        tmp_path, [feature("Fat", rectangle(12, 12, 3, 4)), feature("Lesion", rectangle(10, 10, 10, 10))]
    )
    assert [item["properties"]["class"] for item in content["features"]] == ["lesion"]


def test_a_higher_class_inside_a_lower_one_becomes_its_hole(tmp_path):
    content = imported(
        tmp_path, [feature("Fat", rectangle(10, 10, 30, 20)), feature("Vessel", rectangle(15, 12, 4, 5))]
    )
    (fat,) = of_class(content, "fat")
    assert (fat.area, len(fat.interiors)) == (600 - 20, 1)


def test_a_lower_class_fills_the_hole_of_a_higher_one(tmp_path):
    lesion = feature("Lesion", rectangle(10, 10, 30, 20), rectangle(15, 12, 4, 5))
    imported(tmp_path, [lesion, feature("Vessel", rectangle(14, 11, 8, 9))])
    assert np.bincount(mask_of(tmp_path).ravel(), minlength=4).tolist() == [120 * 90 - 600, 580, 20, 0]


# --- Masks


def test_a_pixel_belongs_to_the_outline_that_its_centre_lies_in(tmp_path):
    imported(tmp_path, [feature("Lesion", rectangle(10.4, 10.6, 3.0, 3.0))])
    found = np.argwhere(mask_of(tmp_path))
    assert found.min(axis=0).tolist() == [11, 10]  # centres 11.5 ≥ 10.6, 10.5 ≥ 10.4
    assert found.max(axis=0).tolist() == [13, 12]  # centres 13.5 < 13.6, 12.5 < 13.4


def test_a_box_of_the_mask_equals_that_part_of_the_whole(tmp_path):
    imported(tmp_path, [feature("Lesion", [(3, 4), (100, 30), (60, 80), (3, 4)])])
    whole = mask_of(tmp_path)
    np.testing.assert_array_equal(mask_of(tmp_path, (37, 11), (50, 60), 1.0), whole[11:71, 37:87])


def test_a_coarser_mask_has_the_classes_at_its_own_centres(tmp_path):
    imported(tmp_path, [feature("Lesion", rectangle(13, 6, 12, 9))])
    found = np.argwhere(mask_of(tmp_path, (2, 1), (30, 20), 4.0))  # centres x 4, 8, …; y 3, 7, …
    assert found.min(axis=0).tolist() == [1, 3]  # y 7, x 16
    assert found.max(axis=0).tolist() == [2, 5]  # y 11, x 24


def test_a_box_beside_the_slide_is_background(tmp_path):
    imported(tmp_path, [feature("Lesion", rectangle(0, 0, 120, 90))])
    mask = mask_of(tmp_path, (-10, 80), (20, 20), 1.0)
    assert np.argwhere(mask).min(axis=0).tolist() == [0, 10]
    assert mask.sum() == 10 * 10


def test_an_annotation_without_outlines_says_there_is_no_lesion(tmp_path):
    imported(tmp_path, {"type": "FeatureCollection", "features": []})
    assert mask_of(tmp_path).tolist() == np.zeros((90, 120)).tolist()


def test_a_slide_without_annotation_is_background():
    assert Annotation(None).mask((0, 0), (12, 9), 2.0).tolist() == np.zeros((9, 12)).tolist()


# --- Annotation → mask → map → lesions.geojson → mask


MAP_SCALE = 5.0  # a slide of 0.5 µm/px, a map of 2.5


def blob(x, y, radius):
    """A smooth outline that no symmetry maps onto itself."""
    angle = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    radii = radius * (1 + 0.2 * np.sin(3 * angle + 0.4) + 0.1 * np.cos(5 * angle))
    return np.stack([x + radii * np.cos(angle), y + radii * np.sin(angle)], axis=1)


def round_trip(tmp_path: Path, info: SlideInfo) -> tuple[Annotation, Annotation]:
    """An annotation, and what comes back of it through a probability map and lesions.geojson."""
    rings = [blob(1803.4, 1901.7, 1400), blob(1703.4, 2001.7, 400)], [blob(4505.2, 607.9, 350)]
    imported(
        tmp_path, [feature("Lesion", *(_closed(ring - info.bounds_xy_lv0) for ring in part)) for part in rings], info
    )
    annotation = Annotation(tmp_path / "canonical.geojson")
    lesions = annotation.mask((0, 0), mask_size(MAP_SCALE, info.size_lv0), MAP_SCALE) == 1
    levels = np.where(lesions, 230, 12).astype(np.uint8)
    write_outlines(tmp_path / "lesions.geojson", lesions, levels, MAP_SCALE, info)
    accept(tmp_path / "lesions.geojson")
    import_annotation(str(tmp_path / "lesions.geojson"), info, str(tmp_path / "back.geojson"), settings())
    return annotation, Annotation(tmp_path / "back.geojson")


def _closed(ring):
    return [*ring.tolist(), ring[0].tolist()]


@pytest.mark.parametrize("bounds", [(0, 0), (37, 11)])
def test_a_round_trip_through_the_map_keeps_the_lesions(tmp_path, bounds):
    info = info_at(0.5, bounds, size=(5003, 4001))
    first, back = (annotation.mask((0, 0), (5003, 4001), 1.0) == 1 for annotation in round_trip(tmp_path, info))
    assert first[1901, 3000] and not first[2001, 1703] and first[607, 4505]
    assert (first & back).sum() / (first | back).sum() >= 0.995


def test_a_round_trip_loses_no_pixel_at_the_maps_own_resolution(tmp_path):
    info = info_at(0.5, (37, 11), size=(5003, 4001))
    first, back = (annotation.mask((0, 0), (1001, 801), MAP_SCALE) for annotation in round_trip(tmp_path, info))
    np.testing.assert_array_equal(back, first)


def test_outlines_without_area_are_dropped_and_counted(tmp_path):
    content = imported(
        tmp_path, [feature("Lesion", [(1, 1), (5, 5), (9, 9), (1, 1)]), feature("Lesion", rectangle(10, 10, 5, 4))]
    )
    assert content["repaired"] == {"without area, dropped": 1}
    assert content["classes"]["lesion"]["polygons"] == 1


# --- A second reader


def test_a_second_annotation_is_read_as_the_first_and_its_errors_name_the_column(tmp_path):
    lesion = feature("Lesion", rectangle(10, 20, 30, 20))
    first, source, output = imported(tmp_path, [lesion]), tmp_path / "a.geojson", tmp_path / "second.geojson"
    import_second_annotation(str(source), info_at(), str(output), settings())
    assert json.loads(output.read_text()) == first
    source.write_text(json.dumps([feature("Lesionn", rectangle(10, 20, 30, 20))]))
    with pytest.raises(AnnotationError, match=r"s1, .*: annotation_2: classes that .* 'Lesionn'.* Remedy: map each"):
        import_second_annotation(str(source), info_at(), str(output), settings())
    with pytest.raises(
        AnnotationError, match=r"s1, .*: annotation_2: .*absent.xml does not exist. Remedy: correct the"
    ):
        import_second_annotation(str(tmp_path / "absent.xml"), info_at(), str(output), settings())
    assert json.loads(output.read_text()) == first
