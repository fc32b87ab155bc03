import json

import numpy as np
import openslide
import pytest
import tifffile
from lesionmap.annotations import AnnotationSettings, import_annotation
from lesionmap.export import write_lesions, write_overlay
from lesionmap.images import write_pyramid
from lesionmap.slides import SlideInfo
from PIL import Image
from pyramids import info_of, write_tiff
from shapely.geometry import shape

pytestmark = pytest.mark.annotations


@pytest.fixture
def info(tmp_path) -> SlideInfo:
    return info_of(write_tiff(tmp_path / "s.tif", np.full((333, 517, 3), 255, dtype=np.uint8)))


def test_a_pyramid_opens_everywhere_with_levels_and_resolution(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (701, 1003), dtype=np.uint8)
    write_pyramid(tmp_path / "p.tif", image, mpp=2.5, levels=8, provenance={"code": "abc"})
    with openslide.OpenSlide(tmp_path / "p.tif") as slide:
        assert slide.level_dimensions == ((1003, 701), (502, 351), (251, 176))
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(2.5)
        seen = np.asarray(slide.read_region((0, 0), 0, (1003, 701)))[..., 0]
    np.testing.assert_array_equal(seen, image)
    with tifffile.TiffFile(tmp_path / "p.tif") as tiff:
        half = tiff.pages[1].asarray()
        assert json.loads(tiff.pages[0].description) == {"code": "abc"}
    block = image[100:102, 200:202].astype(int)
    assert half[50, 100] == (block.sum() + 2) // 4


def test_the_same_map_gives_the_same_bytes(tmp_path):
    image = np.zeros((300, 300), dtype=np.uint8)
    for name in ("a", "b"):
        write_pyramid(tmp_path / name, image, mpp=2.5, levels=3)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def exported(tmp_path, info, lesions, levels, scale=10.0):
    path = tmp_path / "lesions.geojson"
    count = write_lesions(
        path, lesions, levels, scale=scale, info=info, facts={"unreadable": [], "provenance": {"code": "abc"}}
    )
    return count, json.loads(path.read_text())


def test_outlines_areas_and_probabilities(tmp_path, info):
    lesions = np.zeros((34, 52), dtype=bool)
    lesions[3:9, 5:15] = True
    lesions[5:7, 8:10] = False  # a hole
    lesions[20, 40] = True
    levels = np.where(lesions, 200, 10).astype(np.uint8)
    levels[3, 5] = 255
    count, content = exported(tmp_path, info, lesions, levels)
    assert count == len(content["features"]) == 2
    assert content["provenance"] == {"code": "abc"}
    assert (content["slide"], content["unreadable"]) == ("s1", [])
    assert content["frame"] == {"unit": "level-0 pixels", "origin_xy_lv0": [0, 0], "mpp": 0.25}
    ring, dot = (shape(feature["geometry"]) for feature in content["features"])
    assert ring.bounds == (50, 30, 150, 90)
    assert len(ring.interiors) == 1
    assert (ring.area, dot.area) == (56 * 100, 100)
    properties = content["features"][0]["properties"]
    assert properties["classification"]["name"] == "Lesion"
    assert properties["measurements"] == {
        "Area mm^2": round(5600 * 0.25**2 / 1e6, 6),
        "Mean probability": round((55 * 200 + 255) / 56 / 255, 4),
        "Max probability": 1.0,
    }


def test_outlines_end_at_the_slides_edge(tmp_path, info):
    lesions = np.ones((34, 52), dtype=bool)
    _, content = exported(tmp_path, info, lesions, np.full((34, 52), 255, dtype=np.uint8))
    assert shape(content["features"][0]["geometry"]).bounds == (0, 0, 517, 333)


def test_no_lesion_gives_a_valid_empty_file(tmp_path, info):
    count, content = exported(tmp_path, info, np.zeros((34, 52), dtype=bool), np.zeros((34, 52), dtype=np.uint8))
    assert (count, content["features"]) == (0, [])


def test_outlines_of_a_cropped_slide_come_back_to_their_place(tmp_path, info):
    shifted = SlideInfo(**vars(info) | {"bounds_xy_lv0": (40, 7)})
    lesions = np.zeros((34, 52), dtype=bool)
    lesions[10:12, 20:25] = True
    _, content = exported(tmp_path, shifted, lesions, np.full((34, 52), 200, dtype=np.uint8))
    assert shape(content["features"][0]["geometry"]).bounds == (160, 93, 210, 113)
    output = tmp_path / "back.geojson"
    settings = AnnotationSettings(classes={"Lesion": "lesion"}, mask_values={}, invalid="refuse")
    import_annotation(str(tmp_path / "lesions.geojson"), shifted, str(output), settings)
    assert shape(json.loads(output.read_text())["features"][0]["geometry"]).bounds == (200, 100, 250, 120)


def test_the_overlay_tints_by_probability_and_outlines_in_black(tmp_path):
    overview = np.full((40, 60, 3), 200, dtype=np.uint8)
    levels = np.zeros((40, 60), dtype=np.uint8)
    levels[10:30, 20:50] = 255
    write_overlay(tmp_path / "o.png", overview, levels, levels > 0)
    picture = np.asarray(Image.open(tmp_path / "o.png"))
    assert picture.shape == (40, 60, 3)
    assert picture[0, 0].tolist() == [200, 200, 200]
    assert picture[10, 20].tolist() == picture[11, 30].tolist() == [0, 0, 0]
    assert picture[20, 35, 0] > 200 > 100 > picture[20, 35, 2]
