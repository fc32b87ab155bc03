"""What a review shows of a slide, and what it means when it comes back as it is."""

import json
from dataclasses import replace

import pytest
import yaml
from annotation_imports import level_0
from annotation_writers import SIZE, info_at
from lesionmap.annotations.canonical import AnnotationSettings, canonical, import_annotation
from lesionmap.annotations.corrections import annotated_id
from lesionmap.annotations.formats import read_annotation
from lesionmap.annotations.masks import Annotation
from lesionmap.geometry.identity import lesion_id
from lesionmap.review.outlines import review_outlines
from qupath_files import VERSIONS, drawn, exported, with_class
from shapely.geometry import shape

INFO = replace(info_at(bounds_xy_lv0=(7, 11)), identity="ab" * 32)
EDGE = [[10.4, 5], [30.4, 5], [30.4, 17.5], [10.4, 22.1], [10.4, 5]]
RING = [(50.123, 30.346), (70.789, 30.346), (70.789, 44.567), (55.4, 50.12)]


@pytest.fixture
def settings(request):
    config = yaml.safe_load((request.config.rootpath / "config/config.yaml").read_text(encoding="utf-8"))
    return AnnotationSettings(**config["annotations"])


@pytest.fixture
def annotation(tmp_path, settings):
    """Of a program with decimals, of classes of its own."""
    source = tmp_path / "first.geojson"
    fat = [(5, 40), (20, 40), (20, 55)]
    source.write_text(
        json.dumps([drawn("Tumor", RING), drawn("Fat", fat), drawn("Ignore*", [(90, 5), (99, 5), (99, 9)])])
    )
    return canonical(read_annotation(str(source), INFO), INFO, settings)


def lesions():
    geometry = {"type": "Polygon", "coordinates": [EDGE]}
    properties = {
        "objectType": "annotation",
        "name": "Lesion 1",
        "classification": {"name": "Lesion", "color": [200, 0, 0]},
        "measurements": {"Area mm^2": 0.5},
        "verdict": "false",
        "metadata": {"source": "LesionMap 9", "model": "abcdef012345", "verdict": "false"},
    }
    own = lesion_id(INFO.identity, shape(geometry))
    return {"features": [{"type": "Feature", "id": own, "geometry": geometry, "properties": properties}]}


def counted_lesion():
    """The lesion as a review shows it, which says that it is the only one."""
    (feature,) = lesions()["features"]
    feature["properties"]["metadata"]["predicted outlines"] = "1"
    return feature


def test_a_slide_without_annotation_shows_its_lesions_as_they_are_and_their_number():
    assert review_outlines(lesions(), None, INFO) == ([counted_lesion()], [])


def test_lesions_beside_an_annotation_are_named_with_their_verdict_and_mean_nothing_yet(annotation):
    (shown,), _ = review_outlines(lesions(), annotation, INFO)
    before = counted_lesion()
    changed = {"name": "Lesion 1, false", "classification": {"name": "Predicted", "color": (200, 0, 0)}}
    assert shown == before | {"properties": before["properties"] | changed}


def test_the_annotation_is_locked_named_by_its_meaning_and_lies_from_the_corner_of_the_bounds(annotation):
    _, shown = review_outlines(lesions(), annotation, INFO)
    assert [feature["properties"]["classification"]["name"] for feature in shown] == [
        "Annotated: ignore",
        "Annotated: lesion",
        "Annotated: fat",
    ]
    lesion = shown[1]
    assert lesion["properties"]["isLocked"] is True
    assert lesion["properties"]["metadata"] == {"source": "annotation", "class in its file": "Tumor"}
    assert shape(lesion["geometry"]).bounds == (50.1, 30.3, 70.8, 50.1)
    assert lesion["id"] == annotated_id(INFO.identity, shape(lesion["geometry"]))


def test_an_outline_of_no_width_on_the_grid_is_left_out(annotation):
    thin = {"type": "Polygon", "coordinates": [[[9, 9], [12, 9], [12, 9.01], [9, 9.01], [9, 9]]]}
    annotation["features"] = [{"geometry": thin, "properties": {"class": "lesion", "name": "Tumor"}}]
    assert review_outlines(lesions(), annotation, INFO)[1] == []


@pytest.mark.parametrize("version", VERSIONS)
def test_what_comes_back_as_it_is_means_the_annotation_and_no_lesion_counts_twice(
    tmp_path, annotation, settings, version
):
    predicted, annotated = review_outlines(lesions(), annotation, INFO)
    source = tmp_path / "back.geojson"
    source.write_text(exported([*annotated, *predicted], version))
    review = import_annotation(str(source), INFO, str(tmp_path / "back.json"), settings)
    assert review == {"accepted": 0, "edited": 0, "rejected": 0, "deleted": 0, "new": 0}
    assert (level_0(tmp_path / "back.json") == Annotation(annotation).mask((0, 0), SIZE, 1.0)).all()
    source.write_text(exported([*annotated, with_class(predicted[0], "Accepted")], version))
    assert import_annotation(str(source), INFO, str(tmp_path / "back.json"), settings) == review | {"accepted": 1}
    before = annotation["classes"]["lesion"]["polygons"]
    assert json.loads((tmp_path / "back.json").read_text())["classes"]["lesion"]["polygons"] == before + 1
