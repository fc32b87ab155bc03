import pytest
import torch
from lesionmap.network.model import LesionFPN
from lesionmap.network.region_pass import RegionTensors, downsampled, fused_map, passing_tiles, tile_maps
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


def test_after_a_pass_of_tiles_that_is_ended_low_views_have_their_statistics():
    model = LesionFPN(ModelSettings("narrow", "batch")).eval()
    image = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    before = model(image)
    model.stem[1].tile_mean += 1
    with pytest.raises(RuntimeError), passing_tiles(model):
        assert not torch.allclose(model(image), before)
        raise RuntimeError
    assert torch.equal(model(image), before)


@torch.no_grad()
def test_a_tile_is_not_normalised_by_its_neighbours_in_a_micro_batch(pool):
    """Else refined maps would depend on how many tiles pass at once."""
    torch.manual_seed(0)
    model = network(ModelSettings("narrow", "batch"))
    for name, buffer in model.named_buffers():
        if "tile_" in name:
            buffer += torch.rand_like(buffer)
    one, all_at_once = (tile_maps(passes(model.eval(), pool, size), tensors(region())) for size in (1, 16))
    torch.testing.assert_close(one, all_at_once, rtol=1e-9, atol=1e-9)
    twin = model.for_tiles()
    assert [id(weight) for weight in twin.parameters()] == [id(weight) for weight in model.parameters()]
    expected = downsampled(twin(tensors(region()).tiles), 4)
    torch.testing.assert_close(one, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("number", [float("inf"), float("nan")])
def test_tiles_without_a_number_have_no_map(number, pool):
    """An infinite logit would pass for a lesion."""
    part, model = tensors(region()), network(ModelSettings("narrow", "group")).eval()
    torch.nn.init.constant_(model.head.bias, number)
    with pytest.raises(FloatingPointError, match="a logit is NaN or infinite"):
        tile_maps(passes(model, pool, 2), part)
