import json
import xml.etree.ElementTree as ET

import numpy as np
import openslide
import pytest
import tifffile
from lesionmap.geometry.resampling import block_max, block_mean
from lesionmap.maps.map_file import MapFile
from lesionmap.maps.ome_tiff import OME, MapNotes, write_map
from lesionmap.maps.on_disk import shrunk

NOTES = MapNotes("s1", "lesion probability", 2.6, {"unreadable": [[1.5, 2, 3, 4]], "provenance": {"note": "µ & <b>"}})


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (701, 1003), dtype=np.uint8)


def test_a_map_is_an_ome_tiff_with_its_resolution_and_facts(tmp_path, noise):
    write_map(tmp_path / "p.ome.tif", noise, NOTES, block_mean)
    with tifffile.TiffFile(tmp_path / "p.ome.tif") as tiff:
        (series,) = tiff.series
        assert (tiff.is_ome, tiff.is_bigtiff, series.kind, series.is_pyramidal) == (True, False, "ome", True)
        assert [level.shape for level in series.levels] == [(701, 1003), (351, 502), (176, 251)]
        for level in series.levels:
            assert level.keyframe.tile == (256, 256)
            assert level.keyframe.compression == tifffile.COMPRESSION.ADOBE_DEFLATE
        assert "DateTime" not in tiff.pages.first.tags
        root = ET.fromstring(tiff.ome_metadata)
    pixels = root.find(f".//{{{OME}}}Pixels").attrib
    assert (pixels["SizeX"], pixels["SizeY"], pixels["Type"]) == ("1003", "701", "uint8")
    assert (pixels["PhysicalSizeX"], pixels["PhysicalSizeY"]) == ("2.6", "2.6")
    assert root.find(f".//{{{OME}}}Channel").attrib["Name"] == "lesion probability"
    metadata = {m.attrib["K"]: json.loads(m.text) for m in root.iter(f"{{{OME}}}M")}
    assert metadata == NOTES.metadata


def test_openslide_opens_all_levels(tmp_path, noise):
    write_map(tmp_path / "p.ome.tif", noise, NOTES, block_mean)
    with openslide.OpenSlide(tmp_path / "p.ome.tif") as slide:
        assert slide.level_dimensions == ((1003, 701), (502, 351), (251, 176))
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(2.6)
        half = np.asarray(slide.read_region((0, 0), 1, (502, 351)))[..., 0].astype(int)
    assert half[50, 100] == (noise[100:102, 200:202].astype(int).sum() + 2) // 4
    assert half[350, 501] == noise[700, 1002]
    assert half[350, 0] == (noise[700, :2].astype(int).sum() + 1) // 2


@pytest.mark.parametrize("shape", [(1, 1), (256, 256), (7, 257), (300, 3)])
def test_maps_of_any_size_come_back(tmp_path, shape):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    write_map(tmp_path / "p.ome.tif", image, NOTES, block_mean)
    with openslide.OpenSlide(tmp_path / "p.ome.tif") as slide, tifffile.TiffFile(tmp_path / "p.ome.tif") as tiff:
        assert slide.level_count == len(tiff.series[0].levels) == (1 if max(shape) <= 256 else 2)
        seen = np.asarray(slide.read_region((0, 0), 0, shape[::-1]))[..., 0]
    np.testing.assert_array_equal(seen, image)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "p.ome.tif"), image)


def test_a_map_is_read_in_rows(tmp_path, noise):
    write_map(tmp_path / "p.ome.tif", noise, NOTES, block_mean)
    with MapFile(tmp_path / "p.ome.tif") as opened:
        assert (opened.shape, opened.mpp, opened.metadata) == ((701, 1003), 2.6, NOTES.metadata)
        np.testing.assert_array_equal(opened[slice(250, 701)], noise[250:])


def test_a_map_of_scores_has_one_level_and_all_its_values(tmp_path):
    scores = np.random.default_rng(0).integers(0, 65536, (301, 517), dtype=np.uint16)
    write_map(tmp_path / "s.ome.tif", scores, NOTES)
    with MapFile(tmp_path / "s.ome.tif") as opened:
        assert (opened.shape, opened.dtype, opened.mpp, opened.metadata) == ((301, 517), np.uint16, 2.6, NOTES.metadata)
        np.testing.assert_array_equal(opened[slice(250, 301)], scores[250:])
    with tifffile.TiffFile(tmp_path / "s.ome.tif") as tiff:
        assert (tiff.is_ome, len(tiff.series[0].levels), len(tiff.pages)) == (True, 1, 1)
        assert ET.fromstring(tiff.ome_metadata).find(f".//{{{OME}}}Pixels").attrib["Type"] == "uint16"
        np.testing.assert_array_equal(tiff.asarray(), scores)


def test_large_maps_are_bigtiff(tmp_path, noise, monkeypatch):
    monkeypatch.setattr("lesionmap.maps.ome_tiff.MOST_CLASSIC_BYTES", noise.size - 1)
    write_map(tmp_path / "p.ome.tif", noise, NOTES, block_mean)
    with openslide.OpenSlide(tmp_path / "p.ome.tif") as slide, tifffile.TiffFile(tmp_path / "p.ome.tif") as tiff:
        assert tiff.is_bigtiff
        assert slide.level_count == len(tiff.series[0].levels) == 3
        assert MapFile(tmp_path / "p.ome.tif").mpp == 2.6


@pytest.mark.parametrize("factor", [2, 7, 600])
def test_what_is_shrunk_strip_by_strip_is_the_mean_or_the_maximum_of_blocks(tmp_path, noise, factor):
    blocks = [[noise[y : y + factor, x : x + factor] for x in range(0, 1003, factor)] for y in range(0, 701, factor)]
    mean = [[int(block.mean() + 0.5) for block in row] for row in blocks]
    assert (np.asarray(shrunk(noise, factor, block_mean, tmp_path)) == mean).all()
    some = [[7 in block for block in row] for row in blocks]
    assert (np.asarray(shrunk(noise == 7, factor, block_max, tmp_path)) == some).all()
    assert list(tmp_path.iterdir()) == []
