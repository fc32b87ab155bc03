import json
import pickle

import pytest
import torch
import torchvision
from lesionmap.errors import ModelError
from lesionmap.model import (
    LesionFPN,
    ModelSettings,
    TopDownStep,
    fetch_backbone,
    load_backbone,
    load_model,
    save_model,
)
from lesionmap.model_facts import load_facts
from torch.nn import functional

SMALL = ModelSettings("resnet18", "batch")


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
@pytest.mark.parametrize("norm", ["frozen", "batch", "group"])
def test_one_logit_per_pixel(backbone, norm):
    model = LesionFPN(ModelSettings(backbone, norm)).eval()
    assert model(torch.zeros(2, 3, 64, 96, dtype=torch.uint8)).shape == (2, 1, 64, 96)


def test_stages_have_the_methods_strides_and_channels():
    model = LesionFPN(ModelSettings("resnet50", "batch")).eval()
    features = model.stem(torch.zeros(1, 3, 128, 128))
    shapes = []
    for stage in model.stages:
        features = stage(features)
        shapes.append(tuple(features.shape[1:3]))
    assert shapes == [(256, 32), (512, 16), (1024, 8), (2048, 4)]


def test_top_down_equals_the_text_which_upsamples_first():
    step = TopDownStep(8, 4)
    above, skip = torch.randn(1, 8, 5, 7), torch.randn(1, 4, 10, 14)
    upsampled = functional.interpolate(above, scale_factor=2, mode="bilinear")
    torch.testing.assert_close(step(above, skip), skip + step.smooth(step.reduce(upsampled)))


def test_the_bottom_up_path_is_torchvisions(tmp_path):
    resnet = torchvision.models.resnet18(weights=None).eval()
    torch.save(resnet.state_dict(), tmp_path / "resnet18.pth")
    model = LesionFPN(SMALL)
    load_backbone(model, tmp_path / "resnet18.pth")
    x = torch.randn(1, 3, 64, 64)
    expected = resnet.layer1(resnet.maxpool(resnet.relu(resnet.bn1(resnet.conv1(x)))))
    torch.testing.assert_close(model.eval().stages[0](model.stem(x)), expected)


def test_a_backbone_of_another_size_names_the_layer(tmp_path):
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "r.pth")
    with pytest.raises(ModelError, match=r"layer stages\.0\.0\.conv1\.weight is \(64, 64, 3, 3\).*\(64, 64, 1, 1\)"):
        load_backbone(LesionFPN(ModelSettings("resnet50", "frozen")), tmp_path / "r.pth")


class Exploit:
    def __reduce__(self):
        return (open, ("/tmp/lesionmap-exploited", "w"))


@pytest.mark.parametrize("content", [pickle.dumps(Exploit()), b"nothing", b""])
def test_a_backbone_that_is_no_state_dict_is_refused_and_not_run(tmp_path, content):
    (tmp_path / "r.pth").write_bytes(content)
    with pytest.raises(ModelError, match=r"r\.pth is not a state dict"):
        load_backbone(LesionFPN(SMALL), tmp_path / "r.pth")


def test_a_download_that_fails_says_how_to_place_the_file(tmp_path, monkeypatch):
    def refuse(*_args, **_options):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    with pytest.raises(ModelError, match=r"resnet50.*no route to host.*place it at .*resnet50\.pth"):
        fetch_backbone("resnet50", tmp_path / "resnet50.pth")
    assert not list(tmp_path.iterdir())


def test_a_model_file_is_the_same_bytes_and_the_same_network(tmp_path):
    torch.manual_seed(0)
    model = LesionFPN(SMALL)
    facts = {"b": 1, "a": {"z": 2, "y": [3]}, "provenance": {}}
    for name in ("one", "two"):
        save_model(tmp_path / f"{name}.safetensors", model, SMALL, facts)
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "two.safetensors").read_bytes()
    assert load_facts(tmp_path / "one.safetensors")["a"] == {"z": 2, "y": [3]}
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    torch.testing.assert_close(load_model(tmp_path / "one.safetensors")(images), model.eval()(images))


@pytest.mark.parametrize("content", [b"", b"no model", json.dumps({}).encode()])
def test_a_file_that_is_no_model_is_refused(tmp_path, content):
    (tmp_path / "m.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=r"m\.safetensors is not a LesionMap model"):
        load_facts(tmp_path / "m.safetensors")
