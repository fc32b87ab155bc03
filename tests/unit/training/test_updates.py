"""The updates of one region, against METHOD.md §4 written a second time, in one graph."""

import math

import numpy as np
import pytest
import torch
from lesionmap.network.model import LesionFPN
from lesionmap.network.settings import ModelSettings
from lesionmap.network.thread_pool import ThreadPool
from lesionmap.training.checkpoint import Learner
from lesionmap.training.loss import NonFiniteLossError
from lesionmap.training.updates import RegionSteps, fused_backward, settle_norms, tiles_backward
from textbook import assert_same_gradients, naive_focal_loss, naive_fused_loss, naive_training
from torch.nn import functional
from training_parts import network, passes, region, settings, tensors


@pytest.fixture(params=[1, 3])
def pool(request):
    with ThreadPool(request.param) as pool:
        yield pool


@pytest.mark.parametrize("norm", ["frozen", "group"])
@pytest.mark.parametrize("fusion", ["mean", "max"])
@pytest.mark.parametrize("n_tiles", [0, 5, 16])
def test_micro_batches_give_the_textbook_gradient(norm, fusion, n_tiles):
    part, options, kind = tensors(region(n_tiles=n_tiles)), settings(), ModelSettings("narrow", norm, fusion)
    textbook = network(kind)
    expected = naive_fused_loss(textbook, part, options, fusion)
    expected.backward()
    for tile_batch in (1, 3, 64):
        ours = network(kind)
        with ThreadPool(2) as pool:
            loss = fused_backward(passes(ours, pool, tile_batch), part, options)
        assert loss == pytest.approx(expected.item(), rel=1e-12)
        assert_same_gradients(textbook, ours)


@pytest.mark.parametrize("tile_batch", [1, 3, 64])
@pytest.mark.parametrize("n_tiles", [5, 16])
def test_micro_batches_give_the_gradient_of_the_tiles_own_loss(tile_batch, n_tiles, pool):
    part, options, t1s = tensors(region(n_tiles=n_tiles)), settings(), []
    textbook, ours = network(), network()
    probability = torch.sigmoid(textbook(part.tiles))
    expected = naive_focal_loss(probability, part.tile_masks, options)
    expected.backward()
    loss = tiles_backward(passes(ours, pool, tile_batch), part, options, t1s.append)
    assert loss == pytest.approx(expected.item(), rel=1e-12)
    assert_same_gradients(textbook, ours)
    torch.testing.assert_close(torch.cat(t1s), functional.avg_pool2d(probability, 4).logit(), rtol=1e-10, atol=0)
    assert not t1s[0].requires_grad


@pytest.mark.parametrize("schedule", ["joint", "sequential"])
def test_the_schedule_is_that_of_the_method(schedule):
    kind, options = ModelSettings("narrow", "group", "learned"), settings(schedule=schedule, learning_rate=1e-4)
    parts = [tensors(region(seed, n_tiles)) for seed, n_tiles in enumerate((5, 0, 16))]
    naive, ours = network(kind), network(kind)
    naive_training(naive, [[part] for part in parts], options, schedule, epochs=2)
    optimiser = torch.optim.Adam(ours.parameters(), lr=options.learning_rate)
    with ThreadPool(2) as pool:
        steps = RegionSteps(passes(ours, pool), optimiser, options)
        for epoch in range(2):
            Learner(ours, optimiser).set_rate(options.rate(epoch))
            for part in parts:
                steps.low(part)
                steps.rest(part)
    for (name, a), b in zip(naive.named_parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9, msg=name)


@pytest.mark.parametrize(("warmup", "shares"), [(0, [1, 1, 1]), (1, [1, 1, 1]), (4, [0.25, 0.5, 0.75, 1, 1])])
def test_the_learning_rate_rises_over_the_first_updates(warmup, shares, pool):
    model, rates = network(), []
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    optimiser.register_step_pre_hook(lambda one, *_: rates.append(one.param_groups[0]["lr"]))
    steps = RegionSteps(passes(model, pool), optimiser, settings(schedule="low_only", warmup_updates=warmup))
    for _ in shares:
        steps.low(tensors(region()))
    assert rates == pytest.approx([1e-3 * share for share in shares])
    assert optimiser.param_groups[0]["lr"] == 1e-3


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
def test_each_schedule_makes_its_updates_and_no_other(schedule, n_tiles, updates, pool):
    part, model = tensors(region(n_tiles=n_tiles)), network()
    optimiser, made = torch.optim.Adam(model.parameters()), []
    optimiser.register_step_post_hook(lambda *_: made.append(1))
    steps = RegionSteps(passes(model, pool), optimiser, settings(schedule=schedule))
    losses = steps.low(part) | steps.rest(part)
    assert list(losses) == updates
    assert len(made) == len(updates)


@pytest.mark.parametrize(
    ("schedule", "masks", "updates"),
    [
        ("joint", ["low_mask"], []),
        ("low_only", ["low_mask"], []),
        ("sequential", ["low_mask"], ["high"]),
        ("sequential", ["tile_masks"], ["low", "fused"]),
        ("high_only", ["tile_masks"], []),
        ("joint", ["tile_masks"], ["low", "fused"]),
    ],
)
def test_a_mask_that_is_ignored_whole_gives_no_update_and_no_loss(schedule, masks, updates, pool):
    """Adam would go on with its momentum even if the gradient is 0."""
    model = network()
    optimiser, made = torch.optim.Adam(model.parameters()), []
    steps = RegionSteps(passes(model, pool), optimiser, settings(schedule=schedule))
    steps.low(tensors(region())) | steps.rest(tensors(region()))
    before = [weight.clone() for weight in model.parameters()]
    part = tensors(region(1))
    for mask in masks:
        getattr(part, mask).fill_(255)
    optimiser.register_step_post_hook(lambda *_: made.append(1))
    losses = steps.low(part) | steps.rest(part)
    assert list(losses) == updates
    assert len(made) == len(updates)
    assert all(math.isfinite(loss) and loss > 0 for loss in losses.values())
    same = all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert same == (not updates)


@pytest.mark.parametrize("n_tiles", [6, 0])
def test_settled_statistics_are_the_mean_over_all_batches_of_a_view(full_precision, n_tiles):
    """Of the first norm: its input depends on the first convolution alone."""
    views = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    tiles = np.random.default_rng(1).integers(100, 200, (n_tiles, 64, 64, 3), dtype=np.uint8)
    model = LesionFPN(ModelSettings("narrow", "batch"))
    low_views, batches = [view[None] for view in views], [tiles[first : first + 4] for first in range(0, n_tiles, 4)]
    settle_norms(model, low_views, batches)
    norm = model.stem[1]
    for mean, var, passed in (
        (norm.running_mean, norm.running_var, low_views),
        (norm.tile_mean, norm.tile_var, batches or low_views),
    ):
        images = [torch.from_numpy(batch).permute(0, 3, 1, 2) for batch in passed]
        found = [model.stem[0]((batch - model.mean) / model.std).transpose(0, 1).flatten(1) for batch in images]
        expected = [torch.stack([figure(part) for part in found]).mean(dim=0) for figure in (mean_of, variance_of)]
        torch.testing.assert_close(mean, expected[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(var, expected[1], rtol=1e-4, atol=1e-5)


def mean_of(channels):
    return channels.mean(dim=1)


def variance_of(channels):
    return channels.var(dim=1)


@pytest.mark.parametrize("schedule", ["joint", "high_only"])
def test_a_loss_that_is_not_finite_stops_before_its_update(schedule, pool):
    model = network(dtype=torch.float32)
    torch.nn.init.constant_(model.head.bias, math.nan)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimiser = torch.optim.Adam(model.parameters())
    steps = RegionSteps(passes(model, pool), optimiser, settings(schedule=schedule))
    with pytest.raises(NonFiniteLossError):
        steps.low(tensors(region())) | steps.rest(tensors(region()))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor.nan_to_num(), before[name].nan_to_num()), name
