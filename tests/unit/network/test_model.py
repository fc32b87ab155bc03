import pytest
import torch
import torchvision
from lesionmap.network.model import LesionFPN
from lesionmap.network.settings import ModelSettings
from textbook import naive_network
from torchvision.ops import FrozenBatchNorm2d


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


@pytest.mark.parametrize(("backbone", "norm"), [("resnet18", "frozen"), ("resnet50", "frozen"), ("resnet18", "group")])
def test_the_network_is_that_of_the_method_and_so_are_its_gradients(backbone, norm):
    torch.manual_seed(0)
    model = LesionFPN(ModelSettings(backbone, norm)).double().eval()
    for part in model.modules():
        if isinstance(part, FrozenBatchNorm2d):
            for name, low, high in (
                ("weight", 0.1, 0.4),
                ("bias", -1, 1),
                ("running_mean", -1, 1),
                ("running_var", 1, 2),
            ):
                getattr(part, name).uniform_(low, high)
    images = torch.randint(0, 256, (2, 3, 96, 160), dtype=torch.uint8)
    weighting = torch.rand(2, 1, 96, 160, dtype=torch.float64)  # no symmetry hides a flip or a shift
    expected, ours = naive_network(model, images), model(images)
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)
    weights = [weight for name, weight in model.named_parameters() if not name.startswith("fusion")]
    for mine, theirs in zip(
        torch.autograd.grad((ours * weighting).sum(), weights),
        torch.autograd.grad((expected * weighting).sum(), weights),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-7, atol=1e-9 * float(theirs.abs().max()))


def resnet18(**more):
    return {name: tensor + 1 for name, tensor in torchvision.models.resnet18(weights=None).state_dict().items()} | more
