"""Training on the GPU gives what it gives on the CPU, where every result is tested against the textbook."""

import copy
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from lesionmap.errors import InterruptedTrainingError, TrainingError
from lesionmap.network.batch_size import fitting_tile_batch
from lesionmap.network.model import LesionFPN
from lesionmap.network.settings import ModelSettings
from lesionmap.network.thread_pool import ThreadPool
from lesionmap.training.augmentation import Augmentation
from lesionmap.training.checkpoint import StopRequest
from lesionmap.training.dataset import READERS_FOR_GPU, RegionDataset, RegionLoader
from lesionmap.training.settings import TrainMachine
from lesionmap.training.updates import RegionSteps, fused_backward, settle_norms
from narrow_resnet import NARROW
from training_parts import network, passes, region, run, settings, store, tensors, unfinished

CPU = torch.device("cpu")
SIDE = 64  # of tiles: batch norm needs more than one pixel at a stride of 32


def there(part, device):
    changed = {name: one.to(device) for name, one in vars(part).items() if isinstance(one, torch.Tensor)}
    return replace(part, **changed)


def trained(device, norm, schedule="joint", dtype=torch.float64, n=3, tile_batch=3):
    """The weights and running statistics after some regions, and their losses."""
    model = network(replace(NARROW, norm=norm), torch.float32).to(device, dtype, memory_format=torch.channels_last)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.001)
    losses = []
    with ThreadPool(2, device) as pool:
        steps = RegionSteps(passes(model, pool, tile_batch), optimiser, settings(schedule=schedule))
        for seed in range(n):
            part = there(tensors(region(seed, side=SIDE)), device)
            losses.append(steps.low(part) | steps.rest(part))
    parts = [region(seed, side=SIDE) for seed in range(n)]
    settle_norms(model, [part.low_image[None] for part in parts], [part.images for part in parts])
    return {name: value.cpu() for name, value in model.state_dict().items()}, losses


@pytest.mark.parametrize("schedule", ["joint", "sequential"])
@pytest.mark.parametrize("norm", ["frozen", "batch", "group"])
def test_training_steps_are_those_of_the_cpu(device, norm, schedule):
    (mine, losses), (theirs, expected) = (trained(place, norm, schedule) for place in (device, CPU))
    for found, right in zip(losses, expected, strict=True):
        assert found == pytest.approx(right, rel=1e-7)
    start = network(replace(NARROW, norm=norm), torch.float32).state_dict()
    for name, weight in theirs.items():
        torch.testing.assert_close(mine[name], weight, rtol=1e-5, atol=1e-7)
    weights = [name for name, weight in theirs.items() if weight.is_floating_point()]
    assert sum(not theirs[name].equal(start[name].double()) for name in weights) > 20


def test_mixed_precision_learns_as_double_precision_does(device):
    """In bf16 (or fp32 on a CPU), the losses are those of fp64 but for rounding, which Adam makes larger."""
    losses = [trained(device, "group", dtype=dtype)[1] for dtype in (torch.float32, torch.float64)]
    for found, right, tolerance in zip(*losses, (0.02, 0.1, 0.1), strict=True):
        assert found == pytest.approx(right, rel=tolerance)


@pytest.mark.parametrize("tile_batch", [1, 2, 5])
def test_micro_batches_give_the_gradient_of_the_whole(device, tile_batch):
    gradients = []
    for size in (tile_batch, 16):
        model = network(NARROW).to(device, memory_format=torch.channels_last)
        with ThreadPool(1, device) as pool:
            loss = fused_backward(passes(model, pool, size), there(tensors(region(n_tiles=11)), device), settings())
        gradients.append((loss, [weight.grad.cpu() for weight in model.parameters() if weight.grad is not None]))
    (loss, found), (expected, right) = gradients
    assert loss == pytest.approx(expected, rel=1e-10)
    assert len(found) == len(right) > 20
    for one, other in zip(found, right, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-12)


def test_the_same_training_twice(device):
    """To the bit on a CPU; on a GPU, some gradients are summed in an order that varies."""
    (first, losses), (second, again) = (trained(device, "frozen", dtype=torch.float32) for _ in range(2))
    same = all(first[name].equal(second[name]) for name in first)
    print(f"two trainings on {device.type} give {'the same bits' if same else 'weights that differ in rounding'}")
    assert same or device.type == "cuda"
    for one, other in zip(losses, again, strict=True):
        assert one == pytest.approx(other, rel=0.01)


def test_the_loader_gives_what_it_gives_on_the_cpu(tmp_path, device):
    regions = RegionDataset([store(tmp_path / "a.h5", *(region(seed) for seed in range(READERS_FOR_GPU + 3)))])
    tasks = [(number, Augmentation(number % 4, bool(number % 2))) for number in range(len(regions))]
    mine, theirs = (list(RegionLoader(regions, place, with_tile_masks=True).tensors(tasks)) for place in (device, CPU))
    assert len(mine) == READERS_FOR_GPU + 3
    for one, other in zip(mine, theirs, strict=True):
        assert one.tiles.device.type == device.type
        assert (one.name, one.row_col) == (other.name, other.row_col)
        for name in ("low", "low_mask", "judged_mask", "tiles", "tile_masks"):
            assert torch.equal(getattr(one, name).cpu(), getattr(other, name)), name


def test_a_run_that_was_stopped_goes_on(tmp_path, device, monkeypatch):
    stores = [store(tmp_path / "a.h5", *(region(seed) for seed in range(3)))]
    machine, folders = TrainMachine(device.type, 0, 2), [tmp_path / "whole", tmp_path / "stopped"]
    for folder in folders:
        folder.mkdir()
    original, points = StopRequest.pause_point, iter(range(7))

    def pause_point(self):
        if next(points, 7) == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        original(self)

    with monkeypatch.context() as patched, pytest.raises(InterruptedTrainingError):
        patched.setattr(StopRequest, "pause_point", pause_point)
        run(folders[1], stores, stores, machine)
    assert len(unfinished(folders[1])) == 1
    (_, whole), (_, resumed) = (run(folder, stores, stores, machine) for folder in folders)
    assert unfinished(folders[1]) == []  # a run that starts anew puts it aside
    assert [row["epoch"] for row in resumed] == [row["epoch"] for row in whole] == ["1", "2"]
    for mine, theirs in zip(resumed, whole, strict=True):
        for name in ("train_low_loss", "train_fused_loss"):
            assert float(mine[name]) == pytest.approx(float(theirs[name]), rel=0.02)


def test_too_little_memory_says_what_helps(tmp_path, gpu):
    stores = [store(tmp_path / "a.h5", region(n_tiles=16, side=512))]
    total = torch.cuda.get_device_properties(gpu).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved(gpu) + 300e6) / total)
    with pytest.raises(TrainingError, match="the GPU's memory is too small") as caught:
        run(tmp_path, stores, machine=TrainMachine("cuda", 10, 2), tile_batch=16)
    assert caught.value.remedy == "lower train.tile_batch, or set it to auto"


@pytest.mark.parametrize("left_gb", [4, 12])
def test_the_fitting_batch_fits(tmp_path, gpu, left_gb):
    kind = ModelSettings("resnet50", "frozen")
    model = LesionFPN(kind).to(gpu, memory_format=torch.channels_last).train()
    free = torch.cuda.mem_get_info(gpu)[0]
    if free < left_gb * 1e9:
        pytest.skip("the GPU has less memory")
    filler = torch.empty(int(free - left_gb * 1e9), dtype=torch.uint8, device=gpu)
    k = fitting_tile_batch(model, kind, 512, 1, tmp_path / "costs.json")
    print(f"{k} training tiles fit {left_gb} GB")
    assert k > 1
    part = np.random.default_rng(0).integers(0, 256, (k + 1, 512, 512, 3), dtype=np.uint8)
    tiles = torch.from_numpy(part).permute(0, 3, 1, 2).to(gpu)
    places = [(number // 8, number % 8) for number in range(k)]
    shown = replace(there(tensors(region(side=512)), gpu), tiles_per_side=8, row_col=places)
    shown = replace(shown, low=tiles[:1], tiles=tiles[1:], tile_masks=shown.tile_masks[:0])
    with ThreadPool(1, gpu) as pool:
        steps = RegionSteps(passes(model, pool, k), torch.optim.Adam(model.parameters()), settings())
        for _ in range(2):
            steps.low(shown)
            steps.rest(shown)
    del filler


def test_the_weights_of_a_model_move_both_ways(device):
    """A network that has been on the GPU gives the same logits on the CPU again."""
    images = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    model = network(NARROW).eval()
    with torch.no_grad():
        expected = copy.deepcopy(model)(images)
        found = model.to(device)(images.to(device))
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(model.to(CPU)(images), expected, rtol=1e-12, atol=1e-12)
