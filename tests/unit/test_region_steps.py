"""The updates of one region, against METHOD.md §4 written a second time, in one graph."""

import math

import numpy as np
import pytest
import torch
from lesionmap.checkpoint import Learner
from lesionmap.model import LesionFPN, ModelSettings
from lesionmap.region_steps import (
    NonFiniteLossError,
    RegionSteps,
    RegionTensors,
    focal_sum,
    fused_backward,
    fused_map,
    own_statistics,
    settle_statistics,
    tile_maps,
    tiles_backward,
)
from lesionmap.workers import Workers
from torch.nn import functional
from training_parts import network, passes, region, settings, tensors

FUSED = {
    "mean": lambda model, t1, t2: (t1 + t2) / 2,
    "max": lambda model, t1, t2: torch.where(t1 > t2, t1, t2),
    "learned": lambda model, t1, t2: t2 + (t1 - t2) / (1 + torch.exp(-model.fusion.a)),
}


@pytest.fixture(params=[1, 3])
def workers(request):
    with Workers(request.param) as pool:
        yield pool


def naive_focal_loss(probability, mask, options):
    """Claim 5, written out; the mean over the pixels that are not 255."""
    xi, gamma = options.focal_alpha, options.focal_gamma
    loss = torch.where(
        mask == 1,
        -xi * (1 - probability) ** gamma * torch.log(probability),
        -(1 - xi) * probability**gamma * torch.log(1 - probability),
    )
    return loss[mask != 255].mean()


def naive_fused_loss(model, part, options, fusion, t1=None):
    """Steps 2 and 3 in one graph; T1 of the tiles, (n, 1, s, s) probabilities, unless it is given."""
    t1 = torch.sigmoid(model(part.tiles)) if t1 is None and len(part.tiles) else t1
    t2 = torch.sigmoid(model(part.low))[0, 0]
    fused = t2.clone()
    for index, (row, column) in enumerate(part.row_col):
        small = t1[index, 0].reshape(8, 4, 8, 4).mean(dim=(1, 3))
        view = (slice(row * 8, row * 8 + 8), slice(column * 8, column * 8 + 8))
        fused[view] = FUSED[fusion](model, small, t2[view])
    return naive_focal_loss(fused, part.low_mask[0, 0], options)


def assert_same_gradients(expected, ours):
    for (name, a), b in zip(expected.named_parameters(), ours.parameters(), strict=True):
        if a.grad is None:
            assert b.grad is None or not b.grad.any(), name
        else:
            assert (a.grad - b.grad).norm() <= 1e-10 * a.grad.norm(), name


@pytest.mark.parametrize("norm", ["frozen", "group"])
@pytest.mark.parametrize("fusion", ["mean", "max", "learned"])
@pytest.mark.parametrize("n_tiles", [0, 5, 16])
def test_micro_batches_give_the_textbook_gradient(norm, fusion, n_tiles):
    part, options, kind = tensors(region(n_tiles=n_tiles)), settings(), ModelSettings("resnet18", norm, fusion)
    textbook = network(kind)
    expected = naive_fused_loss(textbook, part, options, fusion)
    expected.backward()
    for tile_batch in (1, 3, 64):
        ours = network(kind)
        with Workers(2) as workers:
            loss = fused_backward(passes(ours, workers, tile_batch), part, options)
        assert loss == pytest.approx(expected.item(), rel=1e-12)
        assert_same_gradients(textbook, ours)
    if fusion == "learned" and n_tiles:
        assert textbook.fusion.a.grad != 0


@pytest.mark.parametrize("tile_batch", [1, 3, 64])
@pytest.mark.parametrize("n_tiles", [5, 16])
def test_micro_batches_give_the_gradient_of_the_tiles_own_loss(tile_batch, n_tiles, workers):
    part, options, t1s = tensors(region(n_tiles=n_tiles)), settings(), []
    textbook, ours = network(), network()
    probability = torch.sigmoid(textbook(part.tiles))
    expected = naive_focal_loss(probability, part.tile_masks, options)
    expected.backward()
    loss = tiles_backward(passes(ours, workers, tile_batch), part, options, t1s.append)
    assert loss == pytest.approx(expected.item(), rel=1e-12)
    assert_same_gradients(textbook, ours)
    torch.testing.assert_close(torch.cat(t1s), functional.avg_pool2d(probability, 4), rtol=1e-12, atol=0)
    assert not t1s[0].requires_grad


def naive_training(model, groups, options, schedule, epochs):
    """METHOD.md §4, all regions in their order, with Adam (Kingma & Ba, algorithm 1) written out.

    Each update is on the mean loss of a group of regions; the method's groups have one.
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    m, v, n_updates = [0.0] * len(weights), [0.0] * len(weights), [0] * len(weights)

    def update(losses, rate):
        gradients = torch.autograd.grad(sum(losses) / len(losses), weights, allow_unused=True)
        for i, (weight, gradient) in enumerate(zip(weights, gradients, strict=True)):
            if gradient is None:
                continue
            n_updates[i] += 1
            m[i] = 0.9 * m[i] + 0.1 * gradient
            v[i] = 0.999 * v[i] + 0.001 * gradient**2
            step = m[i] / (1 - 0.9 ** n_updates[i]) / (torch.sqrt(v[i] / (1 - 0.999 ** n_updates[i])) + 1e-8)
            weight.data -= rate * step

    for epoch in range(epochs):
        rate = options.learning_rate / (1 + options.decay_rate * epoch)
        for parts in groups:
            update([naive_focal_loss(torch.sigmoid(model(part.low)), part.low_mask, options) for part in parts], rate)
            t1s = [None] * len(parts)
            if schedule == "sequential" and any(len(part.tiles) for part in parts):
                maps = [(torch.sigmoid(model(part.tiles)), part.tile_masks) for part in parts if len(part.tiles)]
                ready = iter([t1.detach() for t1, _ in maps])
                t1s = [next(ready) if len(part.tiles) else None for part in parts]
                update([naive_focal_loss(t1, mask, options) for t1, mask in maps], rate)
            pairs = zip(parts, t1s, strict=True)
            update([naive_fused_loss(model, part, options, "learned", t1) for part, t1 in pairs], rate)


@pytest.mark.parametrize("schedule", ["joint", "sequential"])
def test_the_schedule_is_that_of_the_method(schedule):
    kind, options = ModelSettings("resnet18", "group", "learned"), settings(schedule=schedule, learning_rate=1e-4)
    parts = [tensors(region(seed, n_tiles)) for seed, n_tiles in enumerate((5, 0, 16))]
    naive, ours = network(kind), network(kind)
    naive_training(naive, [[part] for part in parts], options, schedule, epochs=2)
    optimiser = torch.optim.Adam(ours.parameters(), lr=options.learning_rate)
    with Workers(2) as workers:
        steps = RegionSteps(passes(ours, workers), optimiser, options)
        for epoch in range(2):
            Learner(ours, optimiser).set_rate(options.rate(epoch))
            for part in parts:
                steps.low(part)
                steps.rest(part)
    for (name, a), b in zip(naive.named_parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9, msg=name)


@pytest.mark.parametrize(
    ("schedule", "n_tiles", "updates"),
    [
        ("joint", 5, ["low", "fused"]),
        ("sequential", 5, ["low", "high", "fused"]),
        ("sequential", 0, ["low", "fused"]),
        ("low_only", 5, ["low"]),
        ("high_only", 5, ["high"]),
        ("high_only", 0, []),
    ],
)
def test_each_schedule_makes_its_updates_and_no_other(schedule, n_tiles, updates, workers):
    part, model = tensors(region(n_tiles=n_tiles)), network()
    optimiser, made = torch.optim.Adam(model.parameters()), []
    optimiser.register_step_post_hook(lambda *_: made.append(1))
    steps = RegionSteps(passes(model, workers), optimiser, settings(schedule=schedule))
    losses = steps.low(part) | steps.rest(part)
    assert list(losses) == updates
    assert len(made) == len(updates)


@pytest.mark.parametrize("fusion", ["mean", "max", "learned"])
def test_the_fused_map_is_fused_where_there_are_tiles(fusion, workers):
    part, model = tensors(region()), network(ModelSettings("resnet18", "group", fusion)).eval()
    t2 = torch.rand(1, 1, 32, 32, dtype=torch.float64)
    fused = fused_map(model, part, tile_maps(passes(model, workers, 2), part), t2)
    with torch.no_grad():
        t1 = functional.avg_pool2d(torch.sigmoid(model(part.tiles)), 4)
    row, column = part.row_col[2]
    view = (0, 0, slice(row * 8, row * 8 + 8), slice(column * 8, column * 8 + 8))
    torch.testing.assert_close(fused[view], FUSED[fusion](model, t1[2, 0], t2[view]))
    alone = [(row, column) for row in range(4) for column in range(4) if (row, column) not in part.row_col]
    for row, column in alone:
        view = (0, 0, slice(row * 8, row * 8 + 8), slice(column * 8, column * 8 + 8))
        assert torch.equal(fused[view], t2[view])


def test_tiles_leave_the_running_statistics_to_the_low_view():
    part = tensors(region(n_tiles=16))
    low_only, states = LesionFPN(ModelSettings("resnet18", "batch")), []
    torch.manual_seed(0)
    wide = RegionTensors(**vars(part) | {"low": torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)})
    wide = RegionTensors(**vars(wide) | {"low_mask": torch.ones(1, 1, 64, 64, dtype=torch.uint8)})
    wide = RegionTensors(**vars(wide) | {"tiles": torch.randint(0, 256, (16, 3, 64, 64), dtype=torch.uint8)})
    for threads in (1, 3):
        model = LesionFPN(ModelSettings("resnet18", "batch")).train()
        model.load_state_dict(low_only.state_dict())
        with Workers(threads) as pool:
            fused_backward(passes(model, pool), wide, settings())
        gradients = {f"{name} gradient": weight.grad for name, weight in model.named_parameters()}
        states.append({**model.state_dict(), **gradients})
        assert model.stem[1].momentum == 0.1
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    low_only.train()(wide.low)
    for name, buffer in low_only.named_buffers():
        assert torch.equal(buffer, states[0].get(name, buffer)), name


def test_settled_statistics_are_the_mean_over_all_low_views():
    views = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    model = LesionFPN(ModelSettings("resnet18", "batch"))
    settle_statistics(model, views)
    images = torch.from_numpy(views).permute(0, 3, 1, 2)
    first = model.stem[0]((images - model.mean) / model.std)
    torch.testing.assert_close(model.stem[1].running_mean, first.mean(dim=(0, 2, 3)), rtol=1e-4, atol=1e-5)
    variance = torch.stack([view.var(dim=(1, 2)) for view in first]).mean(dim=0)
    torch.testing.assert_close(model.stem[1].running_var, variance, rtol=1e-4, atol=1e-5)


def test_statistics_are_put_back_when_a_pass_is_ended():
    model = LesionFPN(ModelSettings("resnet18", "batch")).eval()
    with pytest.raises(RuntimeError), own_statistics(model):
        raise RuntimeError
    assert model.stem[1].momentum == 0.1
    assert not model.stem[1].training


def test_pixels_beyond_the_slide_do_not_count():
    mask = torch.tensor([[[[1, 255], [0, 255]]]], dtype=torch.uint8)
    logits = torch.tensor([[[[0.0, 9.0], [0.0, -9.0]]]])
    expected = (0.75 + 0.25) * 0.25 * np.log(2)
    assert focal_sum(logits, mask, settings()).item() == pytest.approx(expected)


@pytest.mark.parametrize("schedule", ["joint", "high_only"])
def test_a_loss_that_is_not_finite_stops_before_its_update(schedule, workers):
    model = network(dtype=torch.float32)
    torch.nn.init.constant_(model.head.bias, math.nan)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimiser = torch.optim.Adam(model.parameters())
    steps = RegionSteps(passes(model, workers), optimiser, settings(schedule=schedule))
    with pytest.raises(NonFiniteLossError):
        steps.low(tensors(region())) | steps.rest(tensors(region()))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor.nan_to_num(), before[name].nan_to_num()), name
