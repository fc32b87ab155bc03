"""The choice of an engine, with real engines on a real file."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from engine_parts import openvino_engine
from lesionmap.errors import ModelError, SettingsError
from lesionmap.files.records import read_json
from lesionmap.inference import engines
from lesionmap.inference.engines import BF16, FP32, EngineFiles, EngineSettings, candidates, open_engine
from lesionmap.network.model import LesionFPN
from lesionmap.network.model_file import load_model, save_model
from lesionmap.network.onnx_export import export_model
from lesionmap.network.self_check import check_image
from lesionmap.network.settings import ModelSettings
from narrow_resnet import NARROW


@pytest.fixture
def files(tmp_path):
    torch.manual_seed(0)
    model = LesionFPN(NARROW)
    torch.nn.init.normal_(model.head.weight, std=0.1)
    found = EngineFiles(*(str(tmp_path / name) for name in ("m.safetensors", "m.onnx", "check.json")))
    save_model(found.model, model, NARROW, {})
    export_model(found.model, found.onnx, found.check)
    return found


def on(monkeypatch, *, gpus=0, bf16=False):
    """As on a machine with so many GPUs, and a CPU with or without bf16."""
    monkeypatch.setattr(engines, "_has_gpu", lambda: gpus > 0)
    monkeypatch.setattr(engines, "_cpu_has_bf16", lambda: bf16)


@pytest.mark.parametrize(
    ("asked", "machine", "expected"),
    [
        ({}, {}, [("openvino", FP32), ("torch", FP32)]),
        ({}, {"bf16": True}, [("openvino", BF16), ("openvino", FP32), ("torch", BF16), ("torch", FP32)]),
        ({}, {"gpus": 1}, [("torch", BF16), ("torch", FP32)]),
        ({"engine": "openvino"}, {"gpus": 1}, [("openvino", FP32)]),
        ({"engine": "torch", "precision": FP32}, {"bf16": True}, [("torch", FP32)]),
        ({"precision": BF16}, {"bf16": True}, [("openvino", BF16), ("torch", BF16)]),
    ],
)
def test_engines_are_tried_by_what_the_machine_has_and_what_is_asked(monkeypatch, asked, machine, expected):
    on(monkeypatch, **machine)
    assert candidates(EngineSettings(**asked)) == expected


@pytest.mark.parametrize("engine", ["auto", "openvino", "torch"])
def test_bf16_is_refused_where_the_cpu_has_none(monkeypatch, engine):
    on(monkeypatch)
    with pytest.raises(
        SettingsError, match=r"precision is bf16, but this CPU has no instructions for it\. Remedy: set"
    ):
        candidates(EngineSettings(engine, BF16))


@pytest.mark.parametrize("engine", ["openvino", "torch"])
def test_an_engine_that_is_asked_for_is_taken_and_recorded(files, engine):
    opened, record = open_engine(files, EngineSettings(engine, FP32), 64, 2)
    assert (opened.name, opened.precision, opened.threads) == (engine, FP32, 2)
    assert record["engine"].split()[0] == engine
    assert record["logit_difference"] < 2e-5
    assert record["tolerance"] == 0.001


@pytest.mark.parametrize("precision", [FP32, BF16])
def test_an_engine_gives_the_networks_logits_also_on_odd_shapes(tmp_path, precision):
    torch.manual_seed(0)
    model = LesionFPN(NARROW).eval()
    torch.nn.init.normal_(model.head.weight, std=0.1)
    engine = openvino_engine(model, tmp_path, precision)
    for shape in ((1, 32, 96), (3, 160, 64)):
        images = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
        with torch.no_grad():
            expected = model(torch.from_numpy(images).permute(0, 3, 1, 2))[:, 0].numpy()
        assert np.ptp(expected) > 1
        np.testing.assert_allclose(engine.logits(images), expected, atol=2e-5 if precision == FP32 else 0.1)


def test_one_whose_logits_differ_is_passed_over_or_refused(files, monkeypatch, caplog):
    """The file of engines is exchanged for another network's: only torch, on the model file, gives its logits."""
    on(monkeypatch)
    torch.manual_seed(1)
    save_model(files.model + "2", LesionFPN(NARROW), NARROW, {})
    export_model(files.model + "2", files.onnx, files.check + "2")
    assert open_engine(files, EngineSettings(), 64, 1)[0].name == "torch"
    assert "passed over: openvino in fp32: its logits differ by" in caplog.text
    with pytest.raises(ModelError) as raised:
        open_engine(files, EngineSettings("openvino"), 64, 1)
    assert "openvino in fp32: its logits differ by" in raised.value.finding
    assert "of 0.001 allowed" in raised.value.finding


def test_an_engine_whose_tiles_are_normalised_otherwise_is_passed_over(tmp_path, monkeypatch, caplog):
    """The low views' logits of both networks are the same."""
    on(monkeypatch)
    settings = ModelSettings("narrow", "batch")
    model = LesionFPN(settings).eval()
    torch.nn.init.normal_(model.head.weight, std=0.1)
    files = [
        EngineFiles(*(str(tmp_path / f"{name}.{end}") for end in ("safetensors", "onnx", "json"))) for name in "ab"
    ]
    for part in files:
        save_model(part.model, model, settings, {})
        export_model(part.model, part.onnx, part.check)
        model.stem[1].tile_mean += 1
    assert open_engine(files[0], EngineSettings(), 64, 1)[0].name == "openvino"
    assert open_engine(replace(files[0], onnx=files[1].onnx), EngineSettings(), 64, 1)[0].name == "torch"
    assert "passed over: openvino in fp32: its logits differ by" in caplog.text


def test_a_file_that_is_cut_short_is_passed_over_or_refused_and_named(files, monkeypatch, caplog):
    on(monkeypatch)
    whole = Path(files.onnx).read_bytes()
    Path(files.onnx).write_bytes(whole[: len(whole) // 2])
    assert open_engine(files, EngineSettings(), 64, 1)[0].name == "torch"
    assert "passed over: openvino in fp32: " in caplog.text
    with pytest.raises(ModelError, match=rf"no engine can run the model .*Remedy: delete {files.onnx} and run again"):
        open_engine(files, EngineSettings("openvino"), 64, 1)


def test_where_there_is_no_driver_there_is_no_gpu(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not engines._has_gpu()


def test_the_test_picture_has_no_symmetry_and_many_colours():
    picture = check_image()
    assert (picture.shape, picture.dtype) == ((96, 160, 3), np.uint8)
    assert len(np.unique(picture)) == 256
    for other in (picture[::-1], picture[:, ::-1], picture[::-1, ::-1], picture[..., ::-1]):
        assert np.abs(picture.astype(int) - other).mean() > 50


def test_the_check_holds_the_networks_logits(files):
    check = read_json(files.check)
    with torch.no_grad():
        expected = load_model(files.model)(torch.from_numpy(check_image()[None]).permute(0, 3, 1, 2))
    np.testing.assert_allclose(check["logits"], expected[0, 0, ::4, ::4].numpy(), atol=1e-4)
