"""What each of several training processes does in tests; of a module that processes can import by its name."""

import hashlib
import os
import signal
import threading
import time
from dataclasses import replace

import pytest
import torch
from lesionmap.network.thread_pool import CPU, ThreadPool
from lesionmap.training.checkpoint import Learner, StopRequest, StopRequestedError
from lesionmap.training.dataset import RegionDataset, RegionLoader
from lesionmap.training.loop import train
from lesionmap.training.process_group import joined
from lesionmap.training.settings import TrainMachine
from lesionmap.training.updates import RegionSteps, fused_backward
from lesionmap.training.validation import validate
from narrow_resnet import NARROW
from textbook import assert_same_gradients, naive_fused_loss, naive_training
from training_parts import ALWAYS, WHOLE, files, network, passes, region, run, settings, tensors

KIND = replace(NARROW, fusion="learned")
N_TILES = (0, 2, 1, 0)


def call(meeting, rank, count, function, *arguments):
    with joined(meeting, rank, count, CPU) as processes:
        return function(processes, *arguments)


def digest(model):
    return hashlib.sha256(b"".join(weight.detach().numpy().tobytes() for weight in model.parameters())).hexdigest()


def groups_of(count):
    """One region more than there are processes, some without tiles: a full group, and one of a single region."""
    parts = [tensors(region(seed, n_tiles)) for seed, n_tiles in enumerate(N_TILES[: count + 1])]
    return [parts[first : first + count] for first in range(0, len(parts), count)]


def own(processes, group):
    return group[processes.rank] if processes.rank < len(group) else None


def check_gradients(processes):
    """The gradient of each group is that of the mean loss."""
    ours, textbook = network(KIND), network(KIND)
    for group in groups_of(processes.count):
        ours.zero_grad()
        textbook.zero_grad()
        part = own(processes, group)
        with ThreadPool(1) as pool:
            if part:
                fused_backward(passes(ours, pool), part, settings())
        assert processes.mean_gradients(list(ours.parameters()), part is not None)
        if processes.is_main:
            sum(naive_fused_loss(textbook, one, settings(), "learned") / len(group) for one in group).backward()
            assert_same_gradients(textbook, ours)
    assert not processes.mean_gradients(list(ours.parameters()), False)


def check_schedule(processes, schedule):
    """An epoch gives the weights that updates on mean losses give; their digest."""
    options, groups, ours = settings(schedule=schedule, learning_rate=1e-4), groups_of(processes.count), network(KIND)
    optimiser = torch.optim.Adam(ours.parameters())
    Learner(ours, optimiser).set_rate(options.rate(0))
    with ThreadPool(1) as pool:
        steps = RegionSteps(passes(ours, pool), optimiser, options, processes)
        losses = [{**steps.low(part), **steps.rest(part)} for part in (own(processes, group) for group in groups)]
    has_region = [processes.rank < len(group) for group in groups]
    assert [bool(part) for part in losses] == has_region
    if processes.is_main:
        naive = network(KIND)
        naive_training(naive, groups, options, schedule, epochs=1)
        for (name, expected), weight in zip(naive.named_parameters(), ours.parameters(), strict=True):
            torch.testing.assert_close(weight, expected, rtol=1e-9, atol=1e-9, msg=name)
    return digest(ours)


def check_validation(processes, path):
    """Regions are shared out, and all processes have the figures of all."""
    model = network(KIND).eval()
    with ThreadPool(1) as pool:
        loader, ready = RegionLoader(RegionDataset([path]), CPU, with_tile_masks=False), passes(model, pool)
        together, alone = validate(loader, ready, settings(), processes), validate(loader, ready, settings())
    assert together == pytest.approx(alone, rel=1e-12)
    return together


def check_stop(processes, folder):
    """The main process need not wait for the other, which comes only once that has stopped."""
    weights, stopped = list(network(KIND).parameters()), folder / "stopped"
    if not processes.is_main:
        while not stopped.exists():
            time.sleep(0.01)
        processes.summed([1.0] * (1 + len(weights)))  # the main process no longer needs it
        return
    with StopRequest() as stop:
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
        with pytest.raises(StopRequestedError):
            processes.mean_gradients(weights, True, stop.pause_point)
    stopped.touch()


def check_all(processes, schedule, path):
    check_gradients(processes)
    return check_schedule(processes, schedule), check_validation(processes, path)


def train_unbroken(processes, folder, asked):
    train(asked, files(folder), TrainMachine("cpu", 10, 1), processes)


def run_whole(folder, train_store, val_store):
    run(folder, [train_store], [val_store], ALWAYS, **WHOLE)
