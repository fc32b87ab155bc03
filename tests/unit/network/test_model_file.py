import json

import pytest
import torch
import torchvision
from lesionmap.errors import ModelError
from lesionmap.files.model_metadata import load_metadata
from lesionmap.network.model import LesionFPN
from lesionmap.network.model_file import load_model, save_model
from lesionmap.network.settings import ModelSettings

SMALL = ModelSettings("resnet18", "batch")


def resnet18(**more):
    return {name: tensor + 1 for name, tensor in torchvision.models.resnet18(weights=None).state_dict().items()} | more


def test_a_model_file_is_the_same_bytes_and_the_same_network(tmp_path):
    torch.manual_seed(0)
    model = LesionFPN(SMALL)
    metadata = {"b": 1, "a": {"z": 2, "y": [3]}, "provenance": {}}
    for name in ("one", "two"):
        save_model(tmp_path / f"{name}.safetensors", model, SMALL, metadata)
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "two.safetensors").read_bytes()
    assert load_metadata(tmp_path / "one.safetensors")["a"] == {"z": 2, "y": [3]}
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    torch.testing.assert_close(load_model(tmp_path / "one.safetensors")(images), model.eval()(images))


@pytest.mark.parametrize("content", [b"", b"no model", json.dumps({}).encode()])
def test_a_file_that_is_no_model_is_refused(tmp_path, content):
    (tmp_path / "m.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=r"m\.safetensors is not a LesionMap model"):
        load_metadata(tmp_path / "m.safetensors")
