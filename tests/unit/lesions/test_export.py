import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import openslide
import pytest
import shapely
import tifffile
from lesion_maps import FACTS, write_outlines
from lesionmap.annotations.canonical import AnnotationSettings, import_annotation
from lesionmap.lesions.export import LesionFiles, export_lesions, write_overlay
from lesionmap.lesions.find_lesions import lesions_from
from lesionmap.maps.components import find_components
from lesionmap.maps.on_disk import strips
from lesionmap.slides.slide import SlideInfo
from PIL import Image
from pyramids import info_of, write_tiff
from scipy import ndimage
from shapely.geometry import shape

pytestmark = pytest.mark.annotations


@pytest.fixture
def info(tmp_path) -> SlideInfo:
    return info_of(write_tiff(tmp_path / "s.tif", np.full((333, 517, 3), 255, dtype=np.uint8)))


def exported(tmp_path, info, lesions, levels, scale=10.0):
    count, _ = write_outlines(tmp_path / "lesions.geojson", lesions, levels, scale, info)
    return count, json.loads((tmp_path / "lesions.geojson").read_text())


def table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream, dialect="excel-tab"))


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
    assert properties["objectType"] == "annotation"
    assert properties["classification"] == {"name": "Lesion", "color": [200, 0, 0]}
    assert properties["measurements"] == {
        "Area mm^2": 5600 * 0.25**2 / 1e6,
        "Mean probability": round((55 * 200 + 255) / 56 / 255, 4),
        "Max probability": 1.0,
    }


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
        assert (float(row["mean_probability"]), float(row["max_probability"])) == (0.8, 0.8)
    assert (rows[0]["x"], rows[0]["y"]) == ("160.0", "43.0")
    assert (rows[2]["width"], rows[2]["height"]) == ("7.0", "3.0")


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


@pytest.mark.parametrize("rows", [1, 3, 7, 64])
def test_lesions_are_measured_alike_in_strips_of_any_height(rows):
    rng = np.random.default_rng(2)
    lesions, levels = rng.random((41, 53)) < 0.55, rng.integers(0, 256, (41, 53), dtype=np.uint8)
    found = find_components((lesions[part], levels[part]) for part in strips(41, rows))
    labels, n = ndimage.label(lesions)
    at = labels.ravel()[found.first]
    assert sorted(at) == list(range(1, n + 1))
    assert found.first.tolist() == sorted(np.flatnonzero(labels.ravel() == k)[0] for k in range(1, n + 1))
    assert found.pixels.tolist() == np.bincount(labels.ravel())[at].tolist()
    assert found.total.tolist() == ndimage.sum(levels.astype(int), labels, at).tolist()
    assert found.peak.tolist() == ndimage.maximum(levels, labels, at).tolist()


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


# --- One lesion, found again in every file


SIZE_LV0 = (7013, 2003)
MPP, MAP_MPP = 0.26, 1.0  # a map pixel is 3.846 level-0 pixels
BOUNDS = (390, 51)
DISC_XY, DISC_RADIUS = (1650.3, 211.8), 23  # map pixels: in odd columns of the coarser levels, near the bottom


@pytest.fixture(scope="module")
def everything(tmp_path_factory) -> tuple[SlideInfo, LesionFiles, np.ndarray, np.ndarray]:
    """All files of an asymmetric map with a probable disc, a hole in it, a speck, and one at the edge."""
    folder = tmp_path_factory.mktemp("lesions")
    image = np.full((SIZE_LV0[1], SIZE_LV0[0], 3), 250, dtype=np.uint8)
    info = replace(info_of(write_tiff(folder / "s.tif", image, mpp=MPP)), bounds_xy_lv0=BOUNDS)
    height, width = (math.ceil(length * MPP / MAP_MPP) for length in reversed(SIZE_LV0))
    y, x = np.mgrid[:height, :width] + 0.5
    levels = (30 + 20 * np.sin(x / 90)).astype(np.uint8)
    levels[np.hypot(x - DISC_XY[0], y - DISC_XY[1]) < DISC_RADIUS] = 230
    levels[np.hypot(x - DISC_XY[0], y - DISC_XY[1]) < 4] = 12
    levels[101, 333] = 128
    levels[-3:, :50] = 190
    files = LesionFiles(*(str(folder / name) for name in ("p.ome.tif", "l.tif", "l.geojson", "l.tsv", "o.png")))
    lesions = lesions_from(levels, 128, folder)
    assert export_lesions(files, levels, lesions, info=info, mpp=MAP_MPP, facts=FACTS)[0] == 3
    return info, files, levels, np.array(lesions)


def centroid_of(weights: np.ndarray) -> np.ndarray:
    """(x, y) of the strongest part."""
    labels, n = ndimage.label(weights)
    largest = 1 + np.argmax(ndimage.sum(weights, labels, range(1, n + 1)))
    return np.array(ndimage.center_of_mass(labels == largest))[::-1] + 0.5


def test_the_lesion_lies_in_its_place_in_the_maps(everything):
    _, files, levels, lesions = everything
    for path, values, threshold in ((files.probability, levels, 128), (files.lesions, lesions * 255, 128)):
        with tifffile.TiffFile(path) as tiff:
            assert tiff.is_ome
            seen_by_tifffile = [level.asarray() for level in tiff.series[0].levels]
        with openslide.OpenSlide(path) as slide:
            assert slide.properties["openslide.vendor"] == "generic-tiff"
            assert float(slide.properties["openslide.mpp-x"]) == float(slide.properties["openslide.mpp-y"]) == MAP_MPP
            assert slide.level_dimensions == ((1824, 521), (912, 261), (456, 131), (228, 66))
            seen_by_openslide = [
                np.asarray(slide.read_region((0, 0), level, size))[..., 0]
                for level, size in enumerate(slide.level_dimensions)
            ]
        np.testing.assert_array_equal(seen_by_tifffile[0], values)
        for level, (one, other) in enumerate(zip(seen_by_tifffile, seen_by_openslide, strict=True)):
            np.testing.assert_array_equal(one, other)
            assert centroid_of(one >= threshold) * 2**level == pytest.approx(DISC_XY, abs=1 if level < 2 else 2**level)


def test_the_lesion_lies_in_its_place_in_outlines_and_table(everything):
    info, files, _, _ = everything
    features = json.loads(Path(files.outlines).read_text())["features"]
    outlines = [shape(feature["geometry"]) for feature in features]
    disc = max(outlines, key=lambda outline: outline.area)
    row = max(table(Path(files.table)), key=lambda row: float(row["area_mm2"]))
    for x, y in (disc.centroid.coords[0], (float(row["centroid_x"]), float(row["centroid_y"]))):
        in_map = (np.array([x, y]) + BOUNDS) * MPP / MAP_MPP
        assert in_map == pytest.approx(DISC_XY, abs=1)
    assert len(disc.interiors) == 1
    assert float(row["area_mm2"]) == pytest.approx(np.pi * (DISC_RADIUS**2 - 4**2) / 1e6, rel=0.02)
    assert max(outline.bounds[3] for outline in outlines) == SIZE_LV0[1] - info.bounds_xy_lv0[1]


def test_the_lesions_lie_in_their_place_in_the_overlay(everything):
    _, files, _, _ = everything
    picture = np.asarray(Image.open(files.overlay))
    assert picture.shape == (261, 912, 3)
    black = ndimage.binary_fill_holes(ndimage.binary_dilation((picture == 0).all(axis=2)))
    assert centroid_of(black) * 2 == pytest.approx(DISC_XY, abs=2)
    assert (picture[50, 166] == 0).all()  # one map pixel of a block of four


def test_small_lesions_stay_in_every_level_of_the_binary_map(everything):
    _, files, _, lesions = everything
    with tifffile.TiffFile(files.lesions) as tiff:
        for level, image in enumerate(tiff.series[0].levels):
            found = image.asarray()
            assert set(np.unique(found)) == {0, 255}
            assert found[101 // 2**level, 333 // 2**level] == 255
            y, x = np.nonzero(lesions)
            assert (found[y // 2**level, x // 2**level] == 255).all()


def test_the_same_map_gives_the_same_bytes(everything, tmp_path):
    info, files, levels, lesions = everything
    again = LesionFiles(*(str(tmp_path / Path(path).name) for path in vars(files).values()))
    export_lesions(again, levels, lesions, info=info, mpp=MAP_MPP, facts=FACTS)
    for one, other in zip(vars(files).values(), vars(again).values(), strict=True):
        assert Path(one).read_bytes() == Path(other).read_bytes()
    assert len(list(tmp_path.iterdir())) == 5


def test_what_is_interrupted_leaves_nothing(everything, tmp_path, monkeypatch):
    info, files, levels, lesions = everything
    again = LesionFiles(*(str(tmp_path / Path(path).name) for path in vars(files).values()))
    monkeypatch.setattr("lesionmap.maps.ome_tiff._chain_levels", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export_lesions(again, levels, lesions, info=info, mpp=MAP_MPP, facts=FACTS)
    monkeypatch.setattr("lesionmap.lesions.export._feature", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_outlines(tmp_path / "l.geojson", lesions, levels, MAP_MPP / MPP, info)
    assert [path.name for path in tmp_path.iterdir()] == []
