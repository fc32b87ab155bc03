"""What each of several training processes does in tests; of a module that processes can import by its name."""

import hashlib

import pytest
import torch
from lesionmap.network.model import ModelSettings
from lesionmap.network.thread_pool import CPU, Workers
from lesionmap.training.checkpoint import Learner
from lesionmap.training.dataset import RegionDataset, RegionFeed
from lesionmap.training.loop import train
from lesionmap.training.process_group import joined
from lesionmap.training.settings import TrainMachine
from lesionmap.training.updates import RegionSteps, fused_backward
from lesionmap.training.validation import validate
from textbook import assert_same_gradients, naive_fused_loss, naive_training
from training_parts import files, network, passes, region, settings, tensors

KIND = ModelSettings("resnet18", "group", "learned")
N_TILES = (0, 2, 1, 0)


def call(meeting, rank, count, function, *arguments):
    with joined(meeting, rank, count, CPU) as ranks:
        return function(ranks, *arguments)


def digest(model):
    return hashlib.sha256(b"".join(weight.detach().numpy().tobytes() for weight in model.parameters())).hexdigest()


def groups_of(count):
    """One region more than there are processes, some without tiles: a full group, and one of a single region."""
    parts = [tensors(region(seed, n_tiles)) for seed, n_tiles in enumerate(N_TILES[: count + 1])]
    return [parts[first : first + count] for first in range(0, len(parts), count)]


def own(ranks, group):
    return group[ranks.rank] if ranks.rank < len(group) else None


def check_gradients(ranks):
    """The gradient of each group is that of the mean loss."""
    ours, textbook = network(KIND), network(KIND)
    for group in groups_of(ranks.count):
        ours.zero_grad()
        textbook.zero_grad()
        part = own(ranks, group)
        with Workers(1) as workers:
            if part:
                fused_backward(passes(ours, workers), part, settings())
        assert ranks.mean_gradients(list(ours.parameters()), part is not None)
        if ranks.leads:
            sum(naive_fused_loss(textbook, one, settings(), "learned") / len(group) for one in group).backward()
            assert_same_gradients(textbook, ours)
    assert not ranks.mean_gradients(list(ours.parameters()), False)


def check_schedule(ranks, schedule):
    """An epoch gives the weights that updates on mean losses give; their digest."""
    options, groups, ours = settings(schedule=schedule, learning_rate=1e-4), groups_of(ranks.count), network(KIND)
    optimiser = torch.optim.Adam(ours.parameters())
    Learner(ours, optimiser).set_rate(options.rate(0))
    with Workers(1) as workers:
        steps = RegionSteps(passes(ours, workers), optimiser, options, ranks)
        losses = [{**steps.low(part), **steps.rest(part)} for part in (own(ranks, group) for group in groups)]
    has_region = [ranks.rank < len(group) for group in groups]
    assert [bool(part) for part in losses] == has_region
    if ranks.leads:
        naive = network(KIND)
        naive_training(naive, groups, options, schedule, epochs=1)
        for (name, expected), weight in zip(naive.named_parameters(), ours.parameters(), strict=True):
            torch.testing.assert_close(weight, expected, rtol=1e-9, atol=1e-9, msg=name)
    return digest(ours)


def check_validation(ranks, path):
    """Regions are shared out, and all processes have the figures of all."""
    model = network(KIND).eval()
    with Workers(1) as workers:
        feed, ready = RegionFeed(RegionDataset([path]), CPU, with_tile_masks=False), passes(model, workers)
        together, alone = validate(feed, ready, settings(), ranks), validate(feed, ready, settings())
    assert together == pytest.approx(alone, rel=1e-12)
    return together


def check_all(ranks, schedule, path):
    check_gradients(ranks)
    return check_schedule(ranks, schedule), check_validation(ranks, path)


def train_unbroken(ranks, folder, asked):
    train(asked, files(folder), TrainMachine("cpu", 10, 1), ranks)
