import pytest
import torch
from lesionmap.network.model import LesionFPN
from lesionmap.network.region_pass import RegionTensors, fused_map, own_statistics, tile_maps
from lesionmap.network.settings import ModelSettings
from lesionmap.network.thread_pool import ThreadPool
from lesionmap.training.updates import fused_backward
from textbook import FUSED
from torch.nn import functional
from training_parts import network, passes, region, settings, tensors


@pytest.fixture(params=[1, 3])
def pool(request):
    with ThreadPool(request.param) as pool:
        yield pool


OF_FUSION = {**FUSED, "tiles": lambda model, t1, t2: t1}


@pytest.mark.parametrize("saturated", [False, True])
@pytest.mark.parametrize("fusion", ["mean", "max", "learned", "tiles"])
def test_the_fused_map_is_fused_where_there_are_tiles(fusion, pool, saturated):
    part, model = tensors(region()), network(ModelSettings("narrow", "group", fusion)).eval()
    t2 = 2 * torch.randn(1, 1, 32, 32, dtype=torch.float64)
    if saturated:
        t2 += 14
        model.head.bias.data += 16
    fused = fused_map(model, part, tile_maps(passes(model, pool, 2), part), t2)
    with torch.no_grad():
        t1 = functional.avg_pool2d(torch.sigmoid(model(part.tiles)), 4)
    for tile, (row, column) in enumerate(part.row_col):
        view = (0, 0, slice(row * 8, row * 8 + 8), slice(column * 8, column * 8 + 8))
        expected = OF_FUSION[fusion](model, t1[tile, 0], torch.sigmoid(t2[view]))
        torch.testing.assert_close(fused[view], torch.logit(expected))
    alone = [(row, column) for row in range(4) for column in range(4) if (row, column) not in part.row_col]
    for row, column in alone:
        view = (0, 0, slice(row * 8, row * 8 + 8), slice(column * 8, column * 8 + 8))
        assert torch.equal(fused[view], t2[view])


def test_tiles_leave_the_running_statistics_to_the_low_view(full_precision):
    part = tensors(region(n_tiles=16))
    low_only, states = LesionFPN(ModelSettings("narrow", "batch")), []
    torch.manual_seed(0)
    wide = RegionTensors(**vars(part) | {"low": torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)})
    wide = RegionTensors(**vars(wide) | {"low_mask": torch.ones(1, 1, 64, 64, dtype=torch.uint8)})
    wide = RegionTensors(**vars(wide) | {"tiles": torch.randint(0, 256, (16, 3, 64, 64), dtype=torch.uint8)})
    for threads in (1, 3):
        model = LesionFPN(ModelSettings("narrow", "batch")).train()
        model.load_state_dict(low_only.state_dict())
        with ThreadPool(threads) as pool:
            fused_backward(passes(model, pool), wide, settings())
        gradients = {f"{name} gradient": weight.grad for name, weight in model.named_parameters()}
        states.append({**model.state_dict(), **gradients})
        assert model.stem[1].momentum == 0.1
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    low_only.train()(wide.low)
    for name, buffer in low_only.named_buffers():
        assert torch.equal(buffer, states[0].get(name, buffer)), name


def test_statistics_are_put_back_when_a_pass_is_ended():
    model = LesionFPN(ModelSettings("narrow", "batch")).eval()
    with pytest.raises(RuntimeError), own_statistics(model):
        raise RuntimeError
    assert model.stem[1].momentum == 0.1
    assert not model.stem[1].training


@pytest.mark.parametrize("number", [float("inf"), float("nan")])
def test_tiles_without_a_number_have_no_map(number, pool):
    """An infinite logit would pass for a lesion."""
    part, model = tensors(region()), network(ModelSettings("narrow", "group")).eval()
    torch.nn.init.constant_(model.head.bias, number)
    with pytest.raises(FloatingPointError, match="a logit is NaN or infinite"):
        tile_maps(passes(model, pool, 2), part)
