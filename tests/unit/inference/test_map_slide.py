"""Inference as a whole, from files to files."""

import os
import subprocess
import sys
from dataclasses import asdict, replace
from importlib.metadata import version

import numpy as np
import openslide
import pytest
import tifffile
import torch
from lesionmap.errors import ModelError
from lesionmap.files.records import read_json, sha256, write_json
from lesionmap.geometry.tiling import TileSpec
from lesionmap.inference import map_slide as mapping
from lesionmap.inference.engines import Engine, EngineFiles, EngineSettings
from lesionmap.inference.map_slide import (
    MapFiles,
    MapInputs,
    check_tiles,
    fusion_of_model,
    map_slide,
    validated_threshold,
)
from lesionmap.inference.settings import MapSettings
from lesionmap.maps.map_file import MapFile
from lesionmap.network.model import LesionFPN
from lesionmap.network.model_file import save_model
from lesionmap.network.onnx_export import export_model
from lesionmap.stain.table import StainMatch
from narrow_resnet import NARROW
from pyramids import info_of, write_tiff
from stained import PROFILE

SPEC = TileSpec(region_px=128, tile_px=32, mpp=0.25)
SETTINGS = MapSettings(SPEC, magnification="match_training", overlap=0.25)
FACTS = {"tiles": asdict(SPEC), "provenance": {"code": "c"}, "stain_reference": vars(PROFILE)}
ENGINE = EngineSettings(precision="fp32")
INPUTS = ("tissue.tif", "stain.json", "m.safetensors", "m.onnx", "check.json")
FILES = ("probability.ome.tif", "scores.ome.tif", "inference.json")


def inputs_in(folder):
    tissue, stain, *model = (str(folder / name) for name in INPUTS)
    return MapInputs(tissue, stain, [EngineFiles(*model)])


def mapped(tmp_path, size=(75, 100), epoch=None, **changes):
    """The record, the metadata of scores, and the names of all files that there are in the end."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 200, (4 * size[0], 4 * size[1], 3)).astype(np.uint8)
    info = info_of(write_tiff(tmp_path / "s.tif", image))
    tissue = np.zeros(size, dtype=np.uint8)
    tissue[:30, :30] = 255
    tifffile.imwrite(tmp_path / "tissue.tif", tissue)
    write_json(tmp_path / "stain.json", StainMatch(PROFILE, PROFILE, (1.0, 1.0)).as_record())
    torch.manual_seed(0)
    save_model(tmp_path / "m.safetensors", LesionFPN(NARROW), NARROW, FACTS | {"epoch": epoch or {}})
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    export_model(tmp_path / "m.safetensors", tmp_path / "m.onnx", tmp_path / "check.json")
    inputs = inputs_in(tmp_path)
    files = MapFiles(*(str(out / name) for name in FILES))
    map_slide(info, inputs, files, replace(SETTINGS, **changes), ENGINE, provenance={"code": "d"}, threads=1)
    with MapFile(files.scores) as scores:
        return read_json(files.record), scores.metadata, {path.name for path in out.iterdir()}


def test_the_record_says_how_the_map_was_made_and_nothing_else_is_left(tmp_path):
    record, metadata, left = mapped(tmp_path)
    assert record["slide"] == "s1"
    assert record["map"] == {"mpp": 1.0, "width": 100, "height": 75}
    # 32 px tiles, each 24 px from the last: 4 columns and 3 rows, of which two each begin before column or row 30
    assert record["tiles"] == {"read": 4, "skipped": 8, "unreadable": 0}
    assert record["unreadable"] == []
    assert record["refined"] is None
    assert record["recalibration"] is None
    assert record["seam_measure"] > 0
    engine = record["provenance"].pop("engine")
    assert engine["logit_difference"] < engine["tolerance"] == 0.001
    assert engine | {"logit_difference": 0} == {
        "engine": f"openvino {version('openvino')}",
        "precision": "fp32",
        "device": "cpu",
        "logit_difference": 0,
        "tolerance": 0.001,
    }
    assert metadata["provenance"].pop("engine") == engine
    assert record["provenance"] == {
        "code": "d",
        "model": sha256(tmp_path / "m.safetensors"),
        "model_training": {"code": "c"},
    }
    assert metadata == {
        "frame": {"unit": "level-0 pixels", "origin_xy_lv0": [0, 0], "per_map_pixel": 4.0, "mpp": 0.25},
        "view": "low",
        "validated_threshold": None,
        "unreadable": [],
        "provenance": record["provenance"],
    }
    assert left == set(FILES)


def test_on_a_cpu_a_map_is_made_without_torch(tmp_path):
    """Loading it would take longer than a small slide's map."""
    mapped(tmp_path, refine="all")
    before = [(tmp_path / "out" / name).read_bytes() for name in FILES]
    outputs = [str(tmp_path / "out" / name) for name in FILES]
    script = f"""
import sys
from lesionmap.geometry.tiling import TileSpec
from lesionmap.inference.engines import EngineFiles, EngineSettings
from lesionmap.inference.map_slide import MapFiles, MapInputs, map_slide
from lesionmap.inference.settings import MapSettings
from pyramids import info_of

settings = MapSettings(TileSpec(128, 32, 0.25), magnification="match_training", overlap=0.25, refine="all")
inputs, files = {inputs_in(tmp_path)}, MapFiles(*{outputs})
info, engine = info_of({str(tmp_path / "s.tif")!r}), EngineSettings(precision="fp32")
map_slide(info, inputs, files, settings, engine, provenance={{"code": "d"}}, threads=2)
print([name for name in sys.modules if name.split(".")[0] in ("torch", "torchvision")])
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == "[]\n"
    assert [(tmp_path / "out" / name).read_bytes() for name in FILES] == before


@pytest.mark.parametrize("refine", ["none", "all"])
def test_what_is_published_is_the_probability_of_the_scores(tmp_path, refine):
    mapped(tmp_path, size=(75, 301), refine=refine)
    probability, scores = (tmp_path / "out" / name for name in FILES[:2])
    with MapFile(probability) as published, MapFile(scores) as exact:
        values = exact[slice(0, 75)]
        assert (published.dtype, exact.dtype) == (np.uint8, np.uint16)
        assert (published.shape, published.mpp, published.metadata) == (exact.shape, exact.mpp, exact.metadata)
        expected = np.where(values, np.rint(255 / (1 + np.exp((32768.0 - values) / 1024))), 0)
        np.testing.assert_array_equal(published[slice(0, 75)], expected)
    on_tissue = np.zeros((75, 301), dtype=bool)
    on_tissue[:30, :30] = True
    assert values[on_tissue].all()
    assert expected[on_tissue].any()
    assert not values[31:].any()  # tissue reaches up to a pixel of its map beyond its edge
    assert not values[:, 31:].any()
    with tifffile.TiffFile(scores) as tiff:
        assert len(tiff.pages) == len(tiff.series[0].levels) == 1
    with openslide.OpenSlide(probability) as slide:
        assert slide.level_dimensions == ((301, 75), (151, 38))
        np.testing.assert_array_equal(np.asarray(slide.read_region((0, 0), 0, (301, 75)))[..., 0], expected)


def test_the_record_counts_what_was_refined(tmp_path):
    record, metadata, _ = mapped(tmp_path, refine="all")
    assert metadata["view"] == "fused"
    seams = record["refined"].pop("seam_measure")
    assert record["refined"] == {"regions": 1, "tiles": 16, "unreadable": []}  # 30 px of 4 are 120 of 128
    assert record["seam_measure"] == seams > 0


def test_seams_are_those_of_the_tiles_that_the_map_shows(tmp_path):
    first = mapped(tmp_path)[0]["seam_measure"]
    partly = mapped(tmp_path, refine="unsure")[0]
    assert partly["refined"]["regions"] == 1
    assert partly["seam_measure"] == max(first, partly["refined"]["seam_measure"])
    everywhere = mapped(tmp_path, refine="all")[0]
    assert everywhere["seam_measure"] == everywhere["refined"]["seam_measure"] != first


def test_the_map_says_which_threshold_suited_the_validation_slides():
    epoch = {"val_low_threshold": 0.2, "val_fused_threshold": 0.3, "val_high_threshold": 0.4}
    model = {"architecture": {"norm": "group", "fusion": "mean"}, "epoch": epoch}
    on_tiles = {"architecture": {"norm": "group", "fusion": "tiles"}, "epoch": epoch}
    assert [validated_threshold(SETTINGS, kind) for kind in (model, on_tiles)] == [0.2, 0.2]
    refined = replace(SETTINGS, refine="all")
    assert [validated_threshold(refined, kind) for kind in (model, on_tiles)] == [0.3, 0.4]
    for silent in ({}, {"epoch": {"val_low_threshold": None}}):
        assert validated_threshold(SETTINGS, {"architecture": {"norm": "group"}} | silent) is None


@pytest.mark.parametrize(("refine", "view"), [("none", "low"), ("unsure", "fused")])
def test_recalibration_moves_the_map_after_refinement_and_the_threshold_with_it(tmp_path, refine, view):
    """A quarter of the slope: no pixel of the map would be so sure as to be left out of refinement."""
    facts = {"intercept": -2.0, "slope": 0.25}
    epoch = {f"val_{view}_calibration_{name}": value for name, value in facts.items()}
    how = {"epoch": epoch | {f"val_{view}_threshold": 0.6}, "refine": refine, "unsure": (0.6, 1.0)}
    maps = {}
    for recalibrate in (False, True):
        record, metadata, _ = mapped(tmp_path, recalibrate=recalibrate, **how)
        with MapFile(tmp_path / "out" / FILES[1]) as scores:
            maps[recalibrate] = scores[slice(0, 75)].astype(int), record, metadata["validated_threshold"]
    (before, plain, threshold), (after, record, moved) = maps[False], maps[True]
    expected = np.clip(np.rint(0.25 * (before - 2**15) - 2048) + 2**15, 1, 2**16 - 1)
    np.testing.assert_array_equal(after, np.where(before, expected, 0))
    assert (before > 0).any()
    assert (before == 0).any()
    assert threshold == 0.6
    assert moved == pytest.approx(1 / (1 + np.exp(2 - 0.25 * np.log(1.5))))
    assert (plain["recalibration"], record["recalibration"]) == (None, facts)
    assert plain["refined"] == record["refined"]


def test_a_model_of_an_older_version_cannot_be_recalibrated(tmp_path):
    with pytest.raises(ModelError, match=r"^map_slide: inference\.recalibrate is true, but the model .* has no"):
        mapped(tmp_path, recalibrate=True, epoch={"val_low_threshold": 0.4})
    assert list((tmp_path / "out").iterdir()) == []


def test_where_lesions_are_refined_the_model_must_know_a_threshold_that_is_asked_of_it(tmp_path):
    with pytest.raises(ModelError, match=r"^map_slide: inference\.threshold is validation, but the model file has no"):
        mapped(tmp_path, refine="lesion", threshold="validation")


@pytest.mark.parametrize(
    ("refine", "looked_at"), [("unsure", (30518, 35018)), ("lesion", (32768, 65535)), ("all", (0, 65535))]
)
def test_what_is_refined_follows_from_the_first_pass(refine, looked_at):
    assert replace(SETTINGS, refine=refine).refined_range(0.5) == looked_at


def test_a_model_of_other_tiles_is_refused_where_the_map_rests_on_them():
    model = {"tiles": asdict(SPEC) | {"region_px": 256, "codec": "lossless"}}
    said = r"trained on tiles\.region_px 256 \(the config has 128\)\. Remedy: run the workflow again from its start"
    for changes in ({}, {"magnification": "patent", "refine": "unsure"}):
        with pytest.raises(ModelError, match=said):
            check_tiles(replace(SETTINGS, **changes), model)
    check_tiles(replace(SETTINGS, magnification="patent"), model)


def test_the_weight_of_a_learned_fusion_is_the_models(tmp_path):
    network = replace(NARROW, fusion="learned")
    model = LesionFPN(network)
    torch.nn.init.constant_(model.fusion.a, -1.5)
    save_model(tmp_path / "m.safetensors", model, network, FACTS)
    assert fusion_of_model(str(tmp_path / "m.safetensors"), "learned").weight == pytest.approx(0.182426, abs=1e-6)
    assert fusion_of_model("no file", "tiles").kind == "tiles"


class Overflowing(Engine):
    """As a network whose weights are finite, but too large for what this slide shows."""

    def __init__(self, model, bad_call):
        self.model, self.calls, self.bad_call = model, 0, bad_call

    def logits(self, images, *, tiles=False):
        self.calls += 1
        return np.full(images.shape[:3], np.inf if self.calls == self.bad_call else 0.5, dtype=np.float32)


@pytest.mark.parametrize(("refine", "bad_call"), [("none", 2), ("all", 6)])
def test_a_model_that_gives_no_numbers_stops_the_job_and_is_named(tmp_path, monkeypatch, refine, bad_call):
    """The slide is not to blame, and not in quarantine."""
    monkeypatch.setattr(mapping, "open_engine", lambda files, *_: (Overflowing(files.model, bad_call), {}))
    with pytest.raises(ModelError) as raised:
        mapped(tmp_path, refine=refine)
    said = f"the model {tmp_path / 'm.safetensors'} gives no probability on slide s1 (a logit is NaN or infinite)"
    assert said in raised.value.finding
    assert raised.value.slide is None
    assert list((tmp_path / "out").iterdir()) == []
