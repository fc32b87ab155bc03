"""What comes back from a review, in the words of every version of QuPath."""

import json
from dataclasses import replace

import pytest
from annotation_imports import level_0
from annotation_writers import info_at
from lesionmap.annotations.canonical import AnnotationSettings, import_annotation
from lesionmap.annotations.corrections import REMEDY, annotated_id
from lesionmap.errors import AnnotationError
from lesionmap.geometry.identity import lesion_id
from qupath_files import VERSIONS, drawn, exported, vertex_moved, with_class, with_geometry
from shapely.geometry import shape

INFO = replace(info_at(bounds_xy_lv0=(7, 11)), identity="ab" * 32)
CLASSES = {"Lesion": "lesion", "Accepted": "lesion", "Vessel": "vessel", "Stroma": "background"}
CLASSES |= {"Predicted": "background", "Annotated: lesion": "lesion", "Annotated: fat": "fat"}
SOURCE = {"source": "LesionMap 9.9", "model": "abcdef012345", "verdict": "false"}
EDGES = (
    [[10.4, 5], [30.4, 5], [30.4, 17.5], [10.4, 22.1], [10.4, 5]],
    [[50, 30.3], [61, 30.3], [61, 44], [50, 44], [50, 30.3]],
    [[80, 10], [90, 10], [90, 13], [80, 13], [80, 10]],
)
HOLE = [[12, 8], [12, 12], [17, 12.3], [12, 8]]
FAR = [(70, 50), (79, 50), (79, 61)]


def predicted(number, name="Lesion", **changes):
    """A lesion as the workflow writes it."""
    rings = [EDGES[number], *([HOLE] if number == 0 else [])]
    geometry = {"type": "Polygon", "coordinates": rings}
    properties = {
        "objectType": "annotation",
        "name": f"Lesion {number + 1}",
        "classification": {"name": name, "color": [255, 0, 0]},
        "measurements": {"Area mm^2": 0.125},
        "verdict": "false",
        "metadata": SOURCE,
    }
    own = lesion_id(INFO.identity, shape(geometry))
    return {"type": "Feature", "id": own, "geometry": geometry, "properties": properties} | changes


def annotated(number, name="Annotated: lesion"):
    """An outline of the annotation, as a review shows it."""
    feature = predicted(number, name)
    return feature | {"id": annotated_id(INFO.identity, shape(feature["geometry"]))}


def imported(tmp_path, features, version="0.5", classes=None, rejected=("Rejected",), info=INFO):
    source, output = tmp_path / "a.geojson", tmp_path / "out/canonical.geojson"
    source.write_text(exported(features, version))
    how = AnnotationSettings(classes or CLASSES, {}, "repair", rejected)
    review = import_annotation(str(source), info, str(output), how)
    content = json.loads(output.read_text())
    assert content["review"] == review
    return content


def review_of(tmp_path, *features, **options):
    review = imported(tmp_path, features, **options)["review"]
    return review and tuple(review.values())


@pytest.mark.parametrize("version", VERSIONS)
def test_each_kind_of_correction_is_counted(tmp_path, version):
    content = imported(
        tmp_path,
        [predicted(0), vertex_moved(predicted(1)), with_class(predicted(2), "Rejected"), drawn("Lesion", FAR)],
        version,
    )
    assert content["review"] == {"accepted": 1, "edited": 1, "rejected": 1, "deleted": 0, "new": 1}
    assert content["classes"]["lesion"]["polygons"] == 3
    mask = level_0(tmp_path / "out/canonical.geojson")  # the bounds begin at (7, 11)
    assert mask[11 + 12, 7 + 25] == mask[11 + 40, 7 + 60] == mask[11 + 52, 7 + 77] == 1
    assert mask[11 + 11, 7 + 85] == 0  # the rejected one


def test_an_annotation_by_hand_has_no_review(tmp_path):
    assert review_of(tmp_path, drawn("Lesion", FAR), drawn("Rejected", EDGES[1][:-1])) is None


@pytest.mark.parametrize("version", VERSIONS)
def test_an_outline_that_has_only_been_through_qupath_is_not_edited(tmp_path, version):
    far = replace(INFO, size_lv0=(200_000, 100_000))
    move = [[[x + 99_000, y + 70_000] for x, y in ring] for ring in (EDGES[0], HOLE)]
    feature = with_geometry(predicted(0), lambda _: move)
    feature |= {"id": lesion_id(INFO.identity, shape(feature["geometry"]))}
    assert review_of(tmp_path, with_class(feature, "Accepted"), version=version, info=far) == (1, 0, 0, 0, 0)


@pytest.mark.parametrize(
    "change",
    [
        vertex_moved,
        lambda feature: with_geometry(feature, lambda rings: rings[:1]),
        lambda feature: with_geometry(feature, lambda rings: [[[x, y + 0.2] for x, y in ring] for ring in rings]),
        lambda feature: with_geometry(feature, lambda rings: [rings[0][:-2] + rings[0][-1:], *rings[1:]]),
        lambda feature: feature | {"id": "0c8e4c8a-6a3d-4f0e-9d58-3f4f3a1b2c3d"},
    ],
    ids=["a vertex moved", "a hole filled", "moved", "a vertex removed", "a part that QuPath split off"],
)
def test_an_edited_outline_is_not_the_predicted_one(tmp_path, change):
    assert review_of(tmp_path, change(predicted(0))) == (0, 1, 0, 0, 0)


def test_an_outline_of_another_slide_is_not_the_predicted_one(tmp_path):
    other = replace(INFO, identity="cd" * 32)
    assert review_of(tmp_path, predicted(0), info=other) == (0, 1, 0, 0, 0)


@pytest.mark.parametrize(
    ("name", "counts", "lesions"),
    [
        ("Accepted", (1, 0, 0, 0, 1), 2),
        ("Lesion", (1, 0, 0, 0, 1), 2),
        ("Vessel", (0, 1, 0, 0, 1), 1),
        ("Stroma", (0, 0, 1, 0, 1), 1),
        ("Rejected: vessel wall", (0, 0, 1, 0, 1), 1),
    ],
)
def test_the_class_of_a_predicted_outline_says_what_a_person_made_of_it(tmp_path, name, counts, lesions):
    content = imported(tmp_path, [with_class(predicted(0), name), drawn("Lesion", FAR)])
    assert tuple(content["review"].values()) == counts
    assert content["classes"]["lesion"]["polygons"] == lesions


def test_rejected_is_background_whatever_the_classes_say_and_may_have_other_names(tmp_path):
    features = [with_class(predicted(0), "No"), with_class(predicted(1), "Rejected"), predicted(2)]
    options = {"classes": CLASSES | {"No": "lesion", "Rejected": "vessel", "*": "fat"}, "rejected": ("N?", "Rejected")}
    content = imported(tmp_path, features, **options)
    assert content["review"] == {"accepted": 1, "edited": 0, "rejected": 2, "deleted": 0, "new": 0}
    assert {label: found["polygons"] for label, found in content["classes"].items()} == {
        "ignore": 0,
        "lesion": 1,
        "vessel": 0,
        "fat": 0,
    }


def test_what_was_shown_beside_an_annotation_counts_once_it_is_edited_or_accepted(tmp_path):
    shown = [annotated(1), annotated(2, "Annotated: fat"), predicted(0, "Predicted")]
    assert review_of(tmp_path, *shown) == (0, 0, 0, 0, 0)
    kept = imported(tmp_path, shown)["classes"]
    assert [kept[label]["polygons"] for label in ("lesion", "fat")] == [1, 1]
    assert review_of(tmp_path, *shown[:2], with_class(shown[2], "Accepted")) == (1, 0, 0, 0, 0)
    edited = imported(tmp_path, [*shown[:2], vertex_moved(shown[2])])
    assert edited["review"] == {"accepted": 0, "edited": 1, "rejected": 0, "deleted": 0, "new": 0}
    assert edited["classes"]["lesion"]["polygons"] == 2


def test_an_annotated_outline_can_be_corrected_too(tmp_path):
    shown = [annotated(0), annotated(1), annotated(2)]
    corrected = [vertex_moved(shown[0]), with_class(shown[1], "Rejected"), with_class(shown[2], "Vessel")]
    content = imported(tmp_path, corrected)
    assert content["review"] == {"accepted": 0, "edited": 2, "rejected": 1, "deleted": 0, "new": 0}
    assert [content["classes"][label]["polygons"] for label in ("lesion", "vessel")] == [1, 1]


@pytest.mark.parametrize("version", VERSIONS)
def test_predictions_that_nobody_has_touched_are_no_truth(tmp_path, version):
    with pytest.raises(AnnotationError) as caught:
        imported(tmp_path, [predicted(0), predicted(1)], version)
    assert (caught.value.slide, caught.value.stage, caught.value.remedy) == ("s1", "import_annotation", REMEDY)
    assert caught.value.finding == (
        "2 outlines of lesion, and each is as LesionMap predicted it: nothing was edited, rejected, deleted, added or "
        "accepted, so this is no truth to train on or to judge by"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "touched",
    [
        with_class(predicted(1), "Accepted"),
        with_class(predicted(1), "Rejected"),
        with_class(predicted(1), "Vessel"),
        vertex_moved(predicted(1)),
        drawn("Vessel", FAR),
        drawn("Lesion", FAR),
        annotated(1),
    ],
)
def test_one_touched_outline_is_a_review(tmp_path, touched):
    assert sum(review_of(tmp_path, predicted(0), touched)) in (1, 2)


def test_all_accepted_or_all_rejected_is_truth(tmp_path):
    accepted = [with_class(predicted(number), "Accepted") for number in range(3)]
    assert review_of(tmp_path, *accepted) == (3, 0, 0, 0, 0)
    assert review_of(tmp_path, *(with_class(feature, "Rejected") for feature in accepted)) == (0, 0, 3, 0, 0)


def sent(feature, siblings):
    """A predicted outline that says with how many a review has sent it out."""
    metadata = feature["properties"]["metadata"] | {"predicted outlines": siblings}
    return feature | {"properties": feature["properties"] | {"metadata": metadata}}


@pytest.mark.parametrize("version", VERSIONS[1:])  # 0.4 drops metadata
def test_deleted_outlines_are_missed(tmp_path, version):
    left = [sent(predicted(number), "3") for number in (0, 2)]
    assert review_of(tmp_path, *left, version=version) == (2, 0, 0, 1, 0)
    edited = [sent(vertex_moved(predicted(0)), "3"), drawn("Lesion", FAR)]
    assert review_of(tmp_path, *edited, version=version) == (0, 1, 0, 2, 1)
    whole = [sent(predicted(number), "2") for number in (0, 1)]
    assert review_of(tmp_path, *whole, drawn("Lesion", FAR), version=version) == (2, 0, 0, 0, 1)
    # Of two reviews, the first with three outlines, the second with one
    assert review_of(tmp_path, left[0], sent(predicted(1), "1"), version=version) == (2, 0, 0, 2, 0)


@pytest.mark.parametrize("told", ["", "many", "-3", "2.5", None, 3, ["3"]])
def test_what_is_no_number_of_outlines_says_nothing(tmp_path, told):
    review = review_of(tmp_path, sent(with_class(predicted(0), "Accepted"), told))
    assert review == (1, 0, 0, 2 if told == 3 else 0, 0)


@pytest.mark.parametrize(
    "changes", [{"id": 7}, {"id": None}, {"id": ["5"]}, {"properties": {"metadata": "LesionMap", "class": "Lesion"}}]
)
def test_odd_ids_and_metadata_are_those_of_other_programs(tmp_path, changes):
    feature = drawn("Lesion", FAR) | changes
    source = tmp_path / "a.geojson"
    source.write_text(json.dumps([feature]))
    how = AnnotationSettings(CLASSES, {}, "repair")
    assert import_annotation(str(source), INFO, str(tmp_path / "c.geojson"), how) is None
