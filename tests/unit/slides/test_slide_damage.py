"""Damage that shows only when later stages read a slide."""

import logging

import numpy as np
import pytest
import tifffile
from engine_parts import Pixelwise
from lesionmap.annotations.masks import Annotation
from lesionmap.errors import SlideError
from lesionmap.evaluation.evaluate import EvaluatedFiles, Role, evaluate_slide
from lesionmap.files.records import read_json, write_json
from lesionmap.geometry.resampling import block_max
from lesionmap.geometry.tiling import TileSpec
from lesionmap.inference.sliding_window import PassSettings, sliding_window_maps
from lesionmap.maps.ome_tiff import MapNotes, write_map
from lesionmap.stain.fit import FitFiles, StainSettings, fit_slide
from lesionmap.stain.table import StainMatch
from lesionmap.tiles.codec import TileCodec
from lesionmap.tiles.extraction import Extraction, extract_tiles
from lesionmap.tiles.store import TileStore
from lesionmap.tissue.detection import TissueSettings, find_tissue
from lesionmap.tissue.mask import TissueMask
from pyramids import damage, info_of, write_tiff
from stained import PROFILE

STAIN = StainMatch(PROFILE, PROFILE, (1.0, 1.0))
SPEC = TileSpec(region_px=128, tile_px=32, mpp=0.25)
TISSUE = TissueSettings(mpp=2.0, min_area_um2=400, min_hole_um2=400)
LOST_XY = (300, 200)  # in the region at (256, 128), the second of the second row


@pytest.fixture
def slide(tmp_path):
    """Pink tissue all over 512 × 384 px, twelve regions, of which one cannot be read."""
    generator = np.random.default_rng(0)
    image = generator.integers(0, 60, (384, 512, 3)) + np.array([170, 80, 150])
    info = info_of(damage(write_tiff(tmp_path / "s.tif", image.astype(np.uint8)), LOST_XY))
    tifffile.imwrite(tmp_path / "tissue.tif", np.full((48, 64), 255, dtype=np.uint8))
    write_json(tmp_path / "a.geojson", {"type": "FeatureCollection", "features": []})
    return info


def extracted(tmp_path, info, most):
    settings = Extraction(SPEC, 0.0, most, STAIN, TileCodec())
    paths = [str(tmp_path / name) for name in ("tissue.tif", "a.geojson", "s.h5")]
    extract_tiles(info, *paths, settings, provenance={})
    return paths[2]


def test_an_unreadable_region_is_skipped_counted_and_listed(tmp_path, slide, caplog):
    with caplog.at_level(logging.INFO), TileStore(extracted(tmp_path, slide, 1 / 12)) as store:
        assert len(store) == 11
        assert (256, 128) not in [store.region(index).xy_lv0 for index in range(11)]
        assert store.unreadable == [[256, 128, 128, 128]]
    assert "11 regions stored, 1 unreadable" in caplog.text
    assert "slide s1, extract_tiles: level 0, box x=256 y=192 of 128×32 px" in caplog.text


def test_too_many_unreadable_regions_refuse_the_slide_and_leave_no_store(tmp_path, slide):
    with pytest.raises(SlideError, match=r"1 of 12 boxes cannot be read, more than 8 %; the first: level 0, box x=256"):
        extracted(tmp_path, slide, 0.08)
    assert not list(tmp_path.glob("*.h5"))
    assert not list(tmp_path.glob(".s*"))


def mapped(tmp_path, info, most, batch_size):
    settings = PassSettings(0.5, 32, 0, False, most)
    half = Pixelwise(lambda images: np.zeros(images.shape[:3], dtype=np.float32), batch_size)  # of probability
    tissue = TissueMask(tmp_path / "tissue.tif", info)
    (mapped,) = sliding_window_maps(info, tissue, STAIN.table(), [half], settings, folder=tmp_path, threads=2)
    return mapped.scores, mapped.unreadable


@pytest.mark.parametrize("batch_size", [1, 5, 128])
def test_unreadable_tiles_of_slides_have_no_probability_and_are_listed(tmp_path, slide, batch_size):
    scores, unreadable = mapped(tmp_path, slide, 0.05, batch_size)
    assert unreadable == [[256, 192, 64, 64]]  # 32 px of 0.5 µm are 64 px of 0.25
    assert not scores[96:128, 128:160].any()
    assert scores.size - np.count_nonzero(scores == 2**15) == 32 * 32


def test_too_many_unreadable_tiles_refuse_the_slide(tmp_path, slide):
    with pytest.raises(SlideError, match=r"slide s1, map_slide: 1 of 48 boxes cannot be read, more than 2 %"):
        mapped(tmp_path, slide, 0.02, 16)


def test_what_cannot_be_read_is_not_evaluated(tmp_path, slide):
    ring = [[256, 192], [320, 192], [320, 256], [256, 256], [256, 192]]  # lesion exactly where the slide is damaged
    geometry = {"type": "Polygon", "coordinates": [ring]}
    features = [{"type": "Feature", "properties": {"class": "lesion"}, "geometry": geometry}]
    write_json(tmp_path / "a.geojson", {"type": "FeatureCollection", "features": features})
    assert Annotation(tmp_path / "a.geojson").mask((0, 0), (256, 192), 2.0).sum() == 32 * 32
    scores, unreadable = mapped(tmp_path, slide, 0.05, 16)
    notes = MapNotes("s1", "lesion probability", 0.5, {"threshold": 0.5, "unreadable": unreadable})
    write_map(tmp_path / "p.tif", scores, notes)
    write_map(tmp_path / "l.tif", scores >= 2**15, notes, block_max)
    files = EvaluatedFiles(*(str(tmp_path / name) for name in ("p.tif", "l.tif", "tissue.tif", "a.geojson")))
    role, output = Role("test", patient=None), str(tmp_path / "m.json")
    evaluate_slide(slide, files, output, role=role, tolerance_um=30, provenance={})
    assert np.sum(read_json(output)["histograms"]["counts"]) == 256 * 192 - 32 * 32


def test_unreadable_parts_count_as_tissue_so_that_later_stages_try_them(tmp_path, slide):
    find_tissue(slide, str(tmp_path / "found.tif"), TISSUE)
    assert (tifffile.imread(tmp_path / "found.tif") == 255).all()


def test_the_stain_of_damaged_slides_is_fitted_on_the_rest(tmp_path, slide):
    files = FitFiles(*(str(tmp_path / name) for name in ("fit.json", "sample.png", "view.png", "overview.png")))
    settings = StainSettings(method="none", n_pixels=5000, seed=0)
    fit_slide(slide, str(tmp_path / "tissue.tif"), files, settings, provenance={})
    assert read_json(files.profile)["profile"]["n_pixels"] > 4000
