import pickle

import pytest
import torch
import torchvision
from lesionmap.errors import ModelError
from lesionmap.network.backbone import fetch_backbone, load_backbone
from lesionmap.network.model import LesionFPN
from lesionmap.network.settings import ModelSettings
from safetensors.torch import save_file

SMALL = ModelSettings("resnet18", "batch")


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
    def __init__(self, target):
        self.target = str(target)

    def __reduce__(self):
        return (open, (self.target, "w"))


@pytest.mark.parametrize("wrap", [pickle.dumps, None])
def test_code_in_a_backbone_file_is_refused_and_not_run(tmp_path, wrap):
    path, target = tmp_path / "r.pth", tmp_path / "exploited"
    path.write_bytes(wrap(Exploit(target))) if wrap else torch.save({"conv1.weight": Exploit(target)}, path)
    with pytest.raises(ModelError, match=r"r\.pth is not a state dict: .* which were not loaded"):
        load_backbone(LesionFPN(SMALL), path)
    assert not target.exists()


def resnet18(**more):
    return {name: tensor + 1 for name, tensor in torchvision.models.resnet18(weights=None).state_dict().items()} | more


def write_weights(path, state):
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    return path


@pytest.mark.parametrize("name", ["r.pth", "r.pt", "r.safetensors"])
def test_weights_are_read_from_either_format_without_the_classifier(tmp_path, name):
    state = resnet18()
    model = LesionFPN(SMALL)
    head = model.head.weight.clone()
    load_backbone(model, write_weights(tmp_path / name, state))
    torch.testing.assert_close(model.stages[3][1].conv2.weight, state["layer4.1.conv2.weight"], rtol=0, atol=0)
    torch.testing.assert_close(model.stem[1].running_var, state["bn1.running_var"], rtol=0, atol=0)
    assert torch.equal(model.head.weight, head)


def test_a_state_dict_may_be_wrapped(tmp_path):
    state = resnet18()
    model = LesionFPN(SMALL)
    load_backbone(model, write_weights(tmp_path / "r.pth", {"epoch": 90, "state_dict": state}))
    torch.testing.assert_close(model.stem[0].weight, state["conv1.weight"], rtol=0, atol=0)


def test_weights_of_old_torchvision_versions_lack_a_counter(tmp_path):
    state = {name: tensor for name, tensor in resnet18().items() if not name.endswith("num_batches_tracked")}
    model = LesionFPN(SMALL)
    load_backbone(model, write_weights(tmp_path / "r.pth", state))
    torch.testing.assert_close(model.stem[1].running_mean, state["bn1.running_mean"], rtol=0, atol=0)
    assert model.stem[1].num_batches_tracked == 0


@pytest.mark.parametrize("name", ["r.pth", "r.safetensors"])
def test_weights_without_a_layer_of_the_backbone_show_their_keys(tmp_path, name):
    others = {f"module.conv{n}": torch.zeros(n) for n in (1, 2, 3, 4)}
    with pytest.raises(ModelError, match=r"none of the backbone's layers .* 'module\.conv1', .*2', 'module\.conv3'\."):
        load_backbone(LesionFPN(SMALL), write_weights(tmp_path / name, others))


@pytest.mark.parametrize(("content", "held"), [([torch.zeros(2)], "list"), (torch.zeros(2), "Tensor")])
def test_weights_that_are_no_dict_say_what_they_are(tmp_path, content, held):
    with pytest.raises(ModelError, match=rf"is not a state dict but a {held}"):
        load_backbone(LesionFPN(SMALL), write_weights(tmp_path / "r.pth", content))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_of_weights_that_cannot_be_read_says_why(tmp_path, suffix):
    path = tmp_path / f"r{suffix}"
    with pytest.raises(ModelError, match=r"r\..* does not exist"):
        load_backbone(LesionFPN(SMALL), path)
    path.write_bytes(b"")
    with pytest.raises(ModelError, match=r"r\..* is empty\. Remedy: copy or download it again"):
        load_backbone(LesionFPN(SMALL), path)
    whole = write_weights(tmp_path / f"whole{suffix}", resnet18()).read_bytes()
    for size in (100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ModelError, match=r"r\..* is cut short, or is not a state dict \("):
            load_backbone(LesionFPN(SMALL), path)


def test_other_bytes_are_no_weights(tmp_path):
    for name in ("r.pth", "r.safetensors"):
        (tmp_path / name).write_bytes(b"nothing, at some length")
        with pytest.raises(ModelError, match="is not a state dict"):
            load_backbone(LesionFPN(SMALL), tmp_path / name)


def test_frozen_norm_needs_the_statistics_of_batch_norm(tmp_path):
    state = {name: tensor for name, tensor in resnet18().items() if "running_" not in name}
    path = write_weights(tmp_path / "r.pth", state)
    with pytest.raises(ModelError, match=r"stem\.1\.running_mean is missing.*running statistics of batch norm, or set"):
        load_backbone(LesionFPN(ModelSettings("resnet18", "frozen")), path)
    load_backbone(LesionFPN(ModelSettings("resnet18", "group")), path)


def test_a_download_that_fails_says_how_to_place_the_file(tmp_path, monkeypatch):
    def refuse(*_args, **_options):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    with pytest.raises(ModelError, match=r"resnet50.*no route to host.*place it at .*resnet50\.pth"):
        fetch_backbone("resnet50", tmp_path / "resnet50.pth")
    assert not list(tmp_path.iterdir())
