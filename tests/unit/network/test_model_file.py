import json

import pytest
import torch
import torchvision
from lesionmap.errors import ModelError
from lesionmap.files.model_metadata import load_metadata
from lesionmap.network.model import LesionFPN
from lesionmap.network.model_file import load_model, save_model
from lesionmap.network.settings import ModelSettings
from safetensors import safe_open
from safetensors.torch import load_file, save_file

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


def test_a_network_that_was_trained_on_tiles_alone_comes_back_as_such(tmp_path):
    kind = ModelSettings("resnet18", "batch", "tiles")
    save_model(tmp_path / "m.safetensors", LesionFPN(kind), kind, {"provenance": {}})
    t1, t2 = torch.tensor([1.5, -2.0]), torch.tensor([3.0, 0.0])
    assert load_model(tmp_path / "m.safetensors").fusion(t1, t2).tolist() == [1.5, -2.0]


def test_tiles_of_an_older_model_are_normalised_as_its_version_did(tmp_path):
    def of_an_older_version(tensors):
        tensors["stem.1.running_mean"] += 1
        for name in [name for name in tensors if "tile_" in name]:
            del tensors[name]

    norm = load_model(rewritten(tmp_path / "m.safetensors", of_an_older_version)).stem[1]
    assert torch.equal(norm.tile_mean, torch.ones(64))
    assert norm.tile_mean is not norm.running_mean


@pytest.mark.parametrize("content", [b"", b"no model", json.dumps({}).encode()])
def test_a_file_that_is_no_model_is_refused(tmp_path, content):
    (tmp_path / "m.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=r"m\.safetensors is not a LesionMap model"):
        load_metadata(tmp_path / "m.safetensors")


def rewritten(path, change):
    """A model file after `change` of its tensors."""
    torch.manual_seed(0)
    save_model(path, LesionFPN(SMALL), SMALL, {})
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata=metadata)
    return path


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tensors: tensors.pop("to_p3.smooth.bias"), "to_p3.smooth.bias is missing."),
        (lambda tensors: tensors.update(extra=torch.zeros(2)), "extra does not belong there."),
        (
            lambda tensors: tensors.update({"head.bias": torch.zeros(2), "head.weight": torch.zeros(3)}),
            "head.bias is float32 (2,) instead of float32 (1,) and 1 more.",
        ),
        (
            lambda tensors: tensors.update({"head.bias": torch.zeros(1, dtype=torch.float16)}),
            "head.bias is float16 (1,) instead of float32 (1,).",
        ),
    ],
)
def test_tensors_of_another_network_are_refused(tmp_path, change, said):
    with pytest.raises(ModelError) as raised:
        load_model(rewritten(tmp_path / "m.safetensors", change))
    expected = f"cannot be used: its tensors are not those of resnet18, norm batch, fusion mean: {said}"
    assert expected in str(raised.value)
    assert raised.value.slide is None  # else the slide that is mapped would be to blame


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["stages.3.1.conv2.weight", "stem.1.running_var"])
def test_a_weight_that_is_no_number_is_neither_read_nor_written(tmp_path, name, number):
    def poison(tensors):
        tensors[name].view(-1)[-1] = number

    path = rewritten(tmp_path / "m.safetensors", poison)
    with pytest.raises(ModelError, match=rf"m\.safetensors cannot be used: its tensor {name} holds NaN or infinity"):
        load_model(path)
    model = LesionFPN(SMALL)
    with torch.no_grad():
        poison(model.state_dict())
    with pytest.raises(ModelError, match=rf"tensor {name} .* is not written\. Remedy: lower train\.learning_rate"):
        save_model(tmp_path / "new.safetensors", model, SMALL, {})
    assert not (tmp_path / "new.safetensors").exists()


@pytest.mark.parametrize(
    ("architecture", "said"),
    [
        (ModelSettings("resnet50", "batch"), "its tensors are not those of resnet50, norm batch"),
        (ModelSettings("resnet34", "batch"), r"stages\.0\.2\.bn1\.bias is missing"),
        (ModelSettings("resnet18", "frozen"), "num_batches_tracked does not belong there"),
        (ModelSettings("resnet18", "group"), r"num_batches_tracked does not belong there"),
        (ModelSettings("resnet18", "batch", "learned"), r"fusion\.a is missing"),
        (
            ModelSettings("vgg16", "batch"),
            "its backbone is 'vgg16', but this version knows resnet18, resnet34",
        ),
        (ModelSettings("__class__", "batch"), "its backbone is '__class__'"),
    ],
)
def test_an_architecture_that_its_tensors_are_not_of_is_refused(tmp_path, architecture, said):
    save_model(tmp_path / "m.safetensors", LesionFPN(SMALL), architecture, {})
    with pytest.raises(ModelError, match=said):
        load_model(tmp_path / "m.safetensors")
