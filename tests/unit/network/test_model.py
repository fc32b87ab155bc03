import pytest
import torch
import torchvision
from lesionmap.network.model import LesionFPN, TopDownStep
from lesionmap.network.settings import ModelSettings
from torch.nn import functional


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


def resnet18(**more):
    return {name: tensor + 1 for name, tensor in torchvision.models.resnet18(weights=None).state_dict().items()} | more
