import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from lesionmap.errors import ModelError
from lesionmap.files.records import read_json, sha256
from lesionmap.network.model import LesionFPN, ViewNorm
from lesionmap.network.model_file import load_model, save_model
from lesionmap.network.onnx_export import export_model
from lesionmap.network.settings import ModelSettings
from narrow_resnet import NARROW
from torchvision.ops import FrozenBatchNorm2d


def exported(folder, settings, name="m", **metadata):
    model, path = LesionFPN(settings), folder / f"{name}.safetensors"
    for part in model.modules():
        if isinstance(part, torch.nn.BatchNorm2d | FrozenBatchNorm2d):
            part.running_mean.uniform_(-0.5, 0.5)
            part.running_var.uniform_(0.5, 2)
        if isinstance(part, ViewNorm):
            part.tile_mean.uniform_(-0.5, 0.5)
            part.tile_var.uniform_(0.5, 2)
    torch.nn.init.normal_(model.head.weight, std=0.1)
    save_model(path, model, settings, metadata)
    export_model(path, folder / f"{name}.onnx", folder / f"{name}.json")
    return path, folder / f"{name}.onnx"


@pytest.mark.parametrize(
    "settings",
    [*(ModelSettings("narrow", norm) for norm in ("frozen", "batch", "group")), ModelSettings("resnet50", "frozen")],
    ids=lambda settings: f"{settings.backbone}-{settings.norm}",
)
def test_another_program_gets_the_networks_logits_from_the_file(tmp_path, settings):
    torch.manual_seed(0)
    path, file = exported(tmp_path, settings)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    for shape in ((1, 3, 32, 96), (2, 3, 160, 64)):
        images = torch.randint(0, 256, shape, dtype=torch.uint8)
        model = load_model(path)
        with torch.no_grad():
            expected = [model(images).numpy(), model.for_tiles()(images).numpy()]
        names = [output.name for output in session.get_outputs()]
        assert names == ["logits", "tile_logits"][: 1 + (settings.norm == "batch")]
        for found, right in zip(session.run(names, {"images": images.numpy()}), expected, strict=False):
            np.testing.assert_allclose(found, right, atol=1e-4 * max(1, np.abs(right).max()))
    assert (np.abs(expected[0] - expected[1]).max() > 0.1) == (settings.norm == "batch")


def test_equal_models_give_equal_bytes_with_the_metadata_of_the_model_file(tmp_path):
    torch.manual_seed(0)
    _, file = exported(tmp_path, NARROW, seed=3, licence="ours")
    torch.manual_seed(0)
    _, other = exported(tmp_path, NARROW, "other", licence="ours", seed=3)
    assert file.read_bytes() == other.read_bytes()
    model = onnx.load(file)
    (held,) = model.metadata_props
    assert json.loads(held.value) == {
        "architecture": {"backbone": "narrow", "norm": "group", "fusion": "mean"},
        "licence": "ours",
        "seed": 3,
    }
    assert read_json(file.with_suffix(".json"))["onnx_sha256"] == sha256(file)
    assert not {node.op_type for node in model.graph.node} & {"BatchNormalization", "Mul", "Div"}


def test_weights_that_give_no_number_are_refused_and_nothing_is_written(tmp_path):
    model = LesionFPN(NARROW)
    torch.nn.init.constant_(model.head.weight, 3e38)
    save_model(tmp_path / "m.safetensors", model, NARROW, {})
    with pytest.raises(ModelError, match=r"^export_model: the model .* gives NaN or infinity on a test picture; its"):
        export_model(tmp_path / "m.safetensors", tmp_path / "m.onnx", tmp_path / "m.json")
    assert {path.name for path in tmp_path.iterdir()} == {"m.safetensors"}
