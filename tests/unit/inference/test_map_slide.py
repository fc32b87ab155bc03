"""Inference as a whole, from files to files."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import tifffile
import torch
from lesionmap.errors import ModelError
from lesionmap.files.records import read_json, write_json
from lesionmap.geometry.tiling import TileSpec
from lesionmap.inference.map_slide import check_tiles, infer_slide, threshold_of, tile_batch_of
from lesionmap.inference.settings import InferenceSettings
from lesionmap.lesions.export import LesionFiles
from lesionmap.network.model import LesionFPN, ModelSettings
from lesionmap.network.model_file import save_model
from lesionmap.stain.table import StainMatch
from pyramids import info_of, write_tiff
from stained import PROFILE

SPEC = TileSpec(region_px=128, tile_px=32, mpp=0.25)
SETTINGS = InferenceSettings(SPEC, magnification="match_training", overlap=0.25)
EXPORTS = ("probability.ome.tif", "lesions.tif", "lesions.geojson", "lesions.tsv", "overlay.png")
FACTS = {"tiles": asdict(SPEC), "provenance": {"code": "c"}, "stain_reference": vars(PROFILE)}


def inferred(tmp_path, **changes):
    """The record, and the names of all files that there are in the end."""
    rng = np.random.default_rng(0)
    info = info_of(write_tiff(tmp_path / "s.tif", rng.integers(0, 200, (300, 400, 3)).astype(np.uint8)))
    tissue = np.zeros((75, 100), dtype=np.uint8)
    tissue[:30, :30] = 255
    tifffile.imwrite(tmp_path / "tissue.tif", tissue)
    write_json(tmp_path / "stain.json", StainMatch(PROFILE, PROFILE, (1.0, 1.0)).as_record())
    torch.manual_seed(0)
    kind = ModelSettings("resnet18", "group")
    save_model(tmp_path / "m.safetensors", LesionFPN(kind), kind, FACTS)
    out = tmp_path / "out"
    out.mkdir()
    files = LesionFiles(*(str(out / name) for name in EXPORTS))
    inputs = [str(tmp_path / name) for name in ("tissue.tif", "stain.json", "m.safetensors")]
    settings = replace(SETTINGS, **changes)
    infer_slide(info, *inputs, files, str(out / "inference.json"), settings, {"code": "d"}, threads=1)
    return read_json(out / "inference.json"), {path.name for path in out.iterdir()}


def test_the_record_says_how_the_map_was_made_and_nothing_else_is_left(tmp_path):
    record, left = inferred(tmp_path)
    assert record["slide"] == "s1"
    assert record["map"] == {"mpp": 1.0, "width": 100, "height": 75}
    # 32 px tiles, each 24 px from the last: 4 columns and 3 rows, of which two each begin before column or row 30
    assert record["tiles"] == {"read": 4, "skipped": 8, "unreadable": 0}
    assert record["unreadable"] == []
    assert record["refined"] is None
    assert record["seam_measure"] > 0
    assert record["provenance"] == {"code": "d", "model_training": {"code": "c"}}
    assert left == {*EXPORTS, "inference.json"}


def test_the_record_counts_what_was_refined(tmp_path):
    record, _ = inferred(tmp_path, refine="all")
    assert record["refined"] == {"regions": 1, "tiles": 16, "unreadable": []}  # 30 px of 4 are 120 of 128


def test_lesions_are_tidied_and_what_that_changes_is_recorded(tmp_path):
    record, _ = inferred(tmp_path, threshold=0.1005, min_lesion_area_um2=50.0, smoothing_um=1.0)
    lesions = record["lesions"]
    assert lesions["threshold"] == 0.1005
    assert lesions["as_found_mm2"] != lesions["smoothed_mm2"]
    outlines = read_json(tmp_path / "out/lesions.geojson")
    assert outlines["threshold"] == 0.1005
    assert lesions["n"] == len(outlines["features"]) > 0
    areas = [feature["properties"]["measurements"]["Area mm^2"] for feature in outlines["features"]]
    assert min(areas) >= 50e-6
    assert sum(areas) == pytest.approx(lesions["kept_mm2"])


def test_the_threshold_may_be_that_of_the_validation_slides():
    facts = {"epoch": {"val_low_threshold": 0.2, "val_fused_threshold": 0.3}}
    chosen = replace(SETTINGS, threshold="validation")
    assert threshold_of(chosen, facts) == 0.2
    assert threshold_of(replace(chosen, refine="all"), facts) == 0.3
    assert threshold_of(SETTINGS, facts) == 0.5
    for silent in ({}, {"epoch": {"val_low_threshold": None}}):
        with pytest.raises(ModelError, match=r"which threshold suits the low view best.*set inference\.threshold to"):
            threshold_of(chosen, silent)


@pytest.mark.parametrize(("refine", "levels"), [("unsure", (26, 229)), ("lesion", (128, 255)), ("all", (0, 255))])
def test_what_is_refined_follows_from_levels(refine, levels):
    assert replace(SETTINGS, refine=refine).refined_levels(128) == levels


def test_a_model_of_other_tiles_is_refused_where_the_map_rests_on_them():
    facts = {"tiles": asdict(SPEC) | {"region_px": 256, "codec": "lossless"}}
    said = r"trained on tiles\.region_px 256 \(the config has 128\)\. Remedy: set those keys to the model's values"
    for changes in ({}, {"magnification": "patent", "refine": "unsure"}):
        with pytest.raises(ModelError, match=said):
            check_tiles(replace(SETTINGS, **changes), facts)
    check_tiles(replace(SETTINGS, magnification="patent"), facts)


@pytest.mark.parametrize(("norm", "asked", "tiles"), [("batch", 7, 7), ("batch", "auto", 4), ("group", 64, 4)])
def test_tiles_share_the_statistics_of_batch_norm_as_in_training(norm, asked, tiles):
    facts = {"architecture": {"norm": norm}, "provenance": {"train": {"tile_batch": asked}}}
    assert tile_batch_of(json.loads(json.dumps(facts))) == tiles
