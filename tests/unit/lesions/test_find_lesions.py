"""Lesions of a map, found again in every file at their place."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import openslide
import pytest
import shapely
import tifffile
from evaluated import scores_of
from lesionmap.errors import AnnotationError, ModelError
from lesionmap.files.records import read_json, read_table, write_json
from lesionmap.geometry.identity import lesion_id
from lesionmap.geometry.resampling import block_mean
from lesionmap.jobs.quarantine import write_quarantined
from lesionmap.lesions.find_lesions import LesionFiles, LesionSettings, find_lesions
from lesionmap.maps.map_file import MapFile
from lesionmap.maps.ome_tiff import MapNotes, map_frame, write_map
from lesionmap.slides.slide import Slide, SlideInfo
from lesionmap.version import VERSION
from lesionmap.viewer.overlay import draw_overlay
from PIL import Image
from pyramids import info_of, write_tiff
from scipy import ndimage
from shapely.geometry import shape

SIZE_LV0 = (7013, 2003)
MPP, MAP_MPP = 0.26, 1.0  # a map pixel is 3.846 level-0 pixels
BOUNDS = (390, 51)
METADATA = {
    "frame": map_frame(MAP_MPP, MPP),
    "view": "low",
    "validated_threshold": 0.7,
    "unreadable": [[0, 0, 9, 9]],
    "provenance": {"code": "abc", "identity": "f", "model": "0123456789abcdef", "model_training": {"code": "c"}},
}
DISC_XY, DISC_RADIUS = (1650.3, 211.8), 23  # map pixels: in odd columns of the coarser levels, near the bottom


class Found(NamedTuple):
    info: SlideInfo
    probability: str
    scores: str
    files: LesionFiles
    overlay: str
    probability_u8: np.ndarray
    lesions: np.ndarray


def found_in(
    folder: Path,
    info: SlideInfo,
    scores: str,
    *,
    uncertainty: str | None = None,
    annotation: str | None = None,
    **changes: Any,
) -> LesionFiles:
    files = LesionFiles(*(str(folder / name) for name in ("l.tif", "l.geojson", "l.tsv", "l.json")))
    tissue = str(folder.parent / f"{folder.name}_tissue.tif")
    tifffile.imwrite(tissue, np.full((20, 70), 255, np.uint8))
    settings = LesionSettings(**changes)
    origin = {"code": "d"}
    find_lesions(info, scores, tissue, files, settings, origin, uncertainty_path=uncertainty, annotation=annotation)
    return files


@pytest.fixture(scope="module")
def everything(tmp_path_factory) -> Found:
    """All files of an asymmetric map with a probable disc, a hole in it, a speck, and one at the edge."""
    folder = tmp_path_factory.mktemp("lesions")
    image = np.full((SIZE_LV0[1], SIZE_LV0[0], 3), 250, dtype=np.uint8)
    info = replace(info_of(write_tiff(folder / "s.tif", image, mpp=MPP)), bounds_xy_lv0=BOUNDS)
    height, width = (math.ceil(length * MPP / MAP_MPP) for length in reversed(SIZE_LV0))
    y, x = np.mgrid[:height, :width] + 0.5
    probability_u8 = (30 + 20 * np.sin(x / 90)).astype(np.uint8)
    probability_u8[np.hypot(x - DISC_XY[0], y - DISC_XY[1]) < DISC_RADIUS] = 230
    probability_u8[np.hypot(x - DISC_XY[0], y - DISC_XY[1]) < 4] = 12
    probability_u8[101, 333] = 128
    probability_u8[-3:, :50] = 190
    probability, scores, overlay = (str(folder / name) for name in ("p.ome.tif", "s.ome.tif", "o.png"))
    write_map(probability, probability_u8, MapNotes("s1", "p", MAP_MPP, METADATA), block_mean)
    write_map(scores, scores_of(probability_u8 / 255), MapNotes("s1", "s", MAP_MPP, METADATA))
    files = found_in(folder, info, scores)
    with Slide(info, "cut_view") as slide, MapFile(probability) as mapped, MapFile(files.lesions) as lesions:
        draw_overlay(overlay, slide, mapped, lesions, MAP_MPP)
    return Found(info, probability, scores, files, overlay, probability_u8, probability_u8 >= 128)


def centroid_of(weights: np.ndarray) -> np.ndarray:
    """(x, y) of the strongest part."""
    labels, n = ndimage.label(weights)
    largest = 1 + np.argmax(ndimage.sum(weights, labels, range(1, n + 1)))
    return np.array(ndimage.center_of_mass(labels == largest))[::-1] + 0.5


def test_the_lesion_lies_in_its_place_in_the_maps(everything):
    maps = (everything.probability, everything.probability_u8), (everything.files.lesions, everything.lesions * 255)
    for path, values in maps:
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
            assert centroid_of(one >= 128) * 2**level == pytest.approx(DISC_XY, abs=1 if level < 2 else 2**level)


def test_the_lesion_lies_in_its_place_in_outlines_and_table(everything):
    info, files = everything.info, everything.files
    features = json.loads(Path(files.outlines).read_text())["features"]
    outlines = [shape(feature["geometry"]) for feature in features]
    disc = max(outlines, key=lambda outline: outline.area)
    row = max(read_table(files.table), key=lambda row: float(row["area_mm2"]))
    for x, y in (disc.centroid.coords[0], (float(row["centroid_x"]), float(row["centroid_y"]))):
        in_map = (np.array([x, y]) + BOUNDS) * MPP / MAP_MPP
        assert in_map == pytest.approx(DISC_XY, abs=1)
    assert len(disc.interiors) == 1
    assert float(row["area_mm2"]) == pytest.approx(np.pi * (DISC_RADIUS**2 - 4**2) / 1e6, rel=0.02)
    assert max(outline.bounds[3] for outline in outlines) == SIZE_LV0[1] - info.bounds_xy_lv0[1]


def test_the_lesions_lie_in_their_place_in_the_overlay(everything):
    picture = np.asarray(Image.open(everything.overlay))
    assert picture.shape == (261, 912, 3)
    black = ndimage.binary_fill_holes(ndimage.binary_dilation((picture == 0).all(axis=2)))
    assert centroid_of(black) * 2 == pytest.approx(DISC_XY, abs=2)
    assert (picture[50, 166] == 0).all()  # one map pixel of a block of four


def test_small_lesions_stay_in_every_level_of_the_binary_map(everything):
    lesions = everything.lesions
    with tifffile.TiffFile(everything.files.lesions) as tiff:
        for level, image in enumerate(tiff.series[0].levels):
            found = image.asarray()
            assert set(np.unique(found)) == {0, 255}
            assert found[101 // 2**level, 333 // 2**level] == 255
            y, x = np.nonzero(lesions)
            assert (found[y // 2**level, x // 2**level] == 255).all()


def test_the_same_map_gives_the_same_bytes(everything, tmp_path):
    again = found_in(tmp_path, everything.info, everything.scores)
    for one, other in zip(vars(everything.files).values(), vars(again).values(), strict=True):
        assert Path(one).read_bytes() == Path(other).read_bytes()
    assert len(list(tmp_path.iterdir())) == 4


def test_what_is_interrupted_leaves_nothing(everything, tmp_path, monkeypatch):
    monkeypatch.setattr("lesionmap.lesions.export._feature", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        found_in(tmp_path, everything.info, everything.scores)
    (tmp_path / "l.tif").unlink()  # which is whole; Snakemake removes it with the job's other outputs
    monkeypatch.setattr("lesionmap.maps.ome_tiff._chain_levels", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        found_in(tmp_path, everything.info, everything.scores)
    assert [path.name for path in tmp_path.iterdir()] == []


def test_what_is_written_says_where_it_comes_from(everything):
    origin = {"code": "d", "model_training": {"code": "c"}}
    origin |= {"map": {"code": "abc", "identity": "f", "model": "0123456789abcdef"}}
    record, outlines = read_json(everything.files.record), read_json(everything.files.outlines)
    with MapFile(everything.files.lesions) as lesions:
        for content in (record, outlines, lesions.metadata):
            assert (content["threshold"], content["provenance"]) == (0.5, origin)
        assert lesions.metadata["frame"] == METADATA["frame"]
    assert outlines["unreadable"] == METADATA["unreadable"]
    assert (record["slide"], record["n"]) == ("s1", len(outlines["features"]))
    origin = {"source": f"LesionMap {VERSION}", "model": "0123456789ab"}
    assert all(feature["properties"]["metadata"] == origin for feature in outlines["features"])
    assert (record["annotated"], record["verdicts"], "annotated_lesions" in outlines) == (None, None, False)
    assert record["tissue_mm2"] == pytest.approx(7013 * 2003 * MPP**2 / 1e6, abs=1e-6)


def test_with_an_annotation_every_lesion_has_a_verdict(everything, tmp_path):
    """The disc overlaps a lesion of two outlines, the lesion at the edge lies in an ignored area; one is missed."""

    def feature(name: str, *bounds: float) -> dict[str, Any]:
        outline = shapely.transform(shapely.box(*bounds), lambda xy: xy * MAP_MPP / MPP)
        return {"properties": {"class": name, "name": name}, "geometry": json.loads(shapely.to_geojson(outline))}

    x, y = DISC_XY
    boxes = [
        ("lesion", (x - 30, y - 8, x - 20, y + 8)),
        ("lesion", (x + 15, y - 3, x + 18, y + 3)),  # 35 µm from the first: one lesion with it
        ("ignore", (0, 500, 400, 521)),
        ("lesion", (600, 300, 610, 310)),
    ]
    write_json(tmp_path / "a.geojson", {"features": [feature(name, *bounds) for name, bounds in boxes]})
    (tmp_path / "out").mkdir()
    files = found_in(tmp_path / "out", everything.info, everything.scores, annotation=str(tmp_path / "a.geojson"))
    outlines, record, rows = read_json(files.outlines), read_json(files.record), read_table(files.table)
    verdicts = [feature["properties"]["verdict"] for feature in outlines["features"]]
    assert sorted(verdicts) == ["false", "matched", "not judged"]
    assert verdicts == [row["verdict"] for row in rows]
    assert verdicts == [feature["properties"]["metadata"]["verdict"] for feature in outlines["features"]]
    areas = {row["verdict"]: float(row["area_mm2"]) for row in rows}
    assert max(areas, key=areas.__getitem__) == "matched"
    assert record["verdicts"] == {"matched": 1, "merged": 0, "false": 1, "not judged": 1}
    assert record["annotated"] == outlines["annotated_lesions"]
    assert [(one["lesion"], one["found"], one["outlines"]) for one in record["annotated"]] == [
        (1, True, 2),
        (2, False, 1),
    ]
    missed = record["annotated"][1]
    np.testing.assert_allclose(missed["centroid_xy_lv0"], np.array([605, 305]) * MAP_MPP / MPP, atol=0.01)
    assert missed["area_mm2"] == pytest.approx(1e-4)
    for row, one in zip(rows, outlines["features"], strict=True):
        assert row["id"] == one["id"] == lesion_id(everything.info.identity, shape(one["geometry"]))
    ids = [feature["id"] for feature in read_json(everything.files.outlines)["features"]]
    assert ids == [feature["id"] for feature in outlines["features"]]  # whatever the annotation
    assert Path(files.lesions).read_bytes() == Path(everything.files.lesions).read_bytes()


def test_an_annotation_in_quarantine_leaves_lesions_without_verdicts(everything, tmp_path):
    error = AnnotationError(slide="s1", stage="import_annotation", finding="it is empty", remedy="export it again")
    write_quarantined([str(tmp_path / "a.geojson")], error)
    (tmp_path / "out").mkdir()
    files = found_in(tmp_path / "out", everything.info, everything.scores, annotation=str(tmp_path / "a.geojson"))
    assert read_json(files.outlines) == read_json(everything.files.outlines)


def test_lesions_are_postprocessed_and_what_that_changes_is_recorded(everything, tmp_path):
    changes = {"threshold": 0.1005, "smoothing_um": 3.0, "min_lesion_area_um2": 50.0}
    files = found_in(tmp_path, everything.info, everything.scores, **changes)
    record, outlines = read_json(files.record), read_json(files.outlines)
    assert record["threshold"] == outlines["threshold"] == 0.1005
    assert record["as_found_mm2"] != record["smoothed_mm2"]
    assert record["n"] == len(outlines["features"]) > 0
    areas = [feature["properties"]["measurements"]["Area mm^2"] for feature in outlines["features"]]
    assert min(areas) >= 50e-6
    assert sum(areas) == pytest.approx(record["kept_mm2"], rel=0.01)  # outlines end at the slide's edge


def test_the_lesions_of_an_ensemble_say_how_far_its_models_differ(everything, tmp_path):
    spread = np.zeros(everything.lesions.shape, dtype=np.uint8)
    spread[101, 333] = 102
    spread[-3:, :25] = 204  # half of the lesion at the edge
    write_map(tmp_path / "u.ome.tif", spread, MapNotes("s1", "u", MAP_MPP, METADATA), block_mean)
    (tmp_path / "out").mkdir()
    files = found_in(tmp_path / "out", everything.info, everything.scores, uncertainty=str(tmp_path / "u.ome.tif"))
    assert sorted(row["uncertainty_mean"] for row in read_table(files.table)) == ["0.0", "0.2", "0.2"]
    record = read_json(files.record)
    said = "mean, over the pixels of a lesion, of the standard deviation of the models' probabilities"
    assert record.pop("uncertainty_mean") == said
    assert record == read_json(everything.files.record)
    assert Path(files.lesions).read_bytes() == Path(everything.files.lesions).read_bytes()


def test_the_threshold_may_be_that_of_the_validation_slides(everything, tmp_path):
    files = found_in(tmp_path, everything.info, everything.scores, threshold="validation")
    assert read_json(files.record)["threshold"] == 0.7
    silent, notes = tmp_path / "s.ome.tif", MapNotes("s1", "s", MAP_MPP, METADATA | {"validated_threshold": None})
    write_map(silent, scores_of(everything.probability_u8 / 255), notes)
    with pytest.raises(ModelError, match=r"^find_lesions: .*has no threshold for maps.*set inference\.threshold"):
        found_in(tmp_path, everything.info, str(silent), threshold="validation")


def test_a_threshold_beyond_the_published_255ths_parts_what_is_above_it(everything, tmp_path):
    """The logit of 0.99995 is 9.9034, and the next 64th of a logit 9.90625."""
    scores = np.zeros(everything.probability_u8.shape, dtype=np.uint16)
    scores[50:60, 100:120] = 32768 + round(1024 * 9.90625) - 1
    scores[52, 104:107] = 32768 + round(1024 * 9.90625)
    scores[70:72, 300:305] = 32768 + 1024 * 12
    write_map(tmp_path / "s.ome.tif", scores, MapNotes("s1", "s", MAP_MPP, METADATA))
    (tmp_path / "out").mkdir()
    files = found_in(tmp_path / "out", everything.info, str(tmp_path / "s.ome.tif"), threshold=0.99995)
    assert (read_json(files.record)["threshold"], read_json(files.record)["n"]) == (0.99995, 2)
    rows = [(row["area_mm2"], row["max_probability"], row["max_logit"]) for row in read_table(files.table)]
    assert rows == [("3e-06", "1.0", "9.906"), ("1e-05", "1.0", "12.0")]
    with MapFile(files.lesions) as lesions:
        np.testing.assert_array_equal(lesions[slice(0, 100)] > 0, scores[:100] >= 32768 + round(1024 * 9.90625))
