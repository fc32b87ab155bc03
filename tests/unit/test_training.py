import csv
import json

import numpy as np
import pytest
import torch
from lesionmap.errors import TrainingError
from lesionmap.model import LesionFPN, ModelSettings
from lesionmap.model_facts import load_facts
from lesionmap.store import Region, TileStore, new_store, packed
from lesionmap.tile_codec import TileCodec
from lesionmap.tiling import TileSpec
from lesionmap.training import (
    RegionTensors,
    TrainJob,
    TrainSettings,
    focal_sum,
    fuse,
    fused_backward,
    joint_step,
    settle_statistics,
    train,
    turned,
)
from lesionmap.workers import Workers
from torch.nn import functional

SPEC = TileSpec(128, 32, 0.25)
NETWORK = ModelSettings("resnet18", "group")


@pytest.fixture(params=[1, 3])
def workers(request):
    with Workers(request.param) as pool:
        yield pool


def settings(**changes):
    usual = {"epochs": 2, "learning_rate": 0.001, "decay_rate": 0.5, "focal_gamma": 2.0, "focal_alpha": 0.75}
    return TrainSettings(**usual | {"tile_batch": 3, "augment": True, "seed": 0} | changes)


def region(seed=0, n_tiles=5, lesion=True):
    """A random region of 16 possible tiles, of which some are missing and some pixels are beyond the slide."""
    rng = np.random.default_rng(seed)
    places = np.sort(rng.permutation(16)[:n_tiles])
    low_mask = (rng.random((32, 32)) < 0.3).astype(np.uint8) * lesion
    low_mask[:, 30:] = 255
    return Region(
        xy_lv0=(128.0 * seed, 0.0),
        low_image=rng.integers(0, 256, (32, 32, 3), dtype=np.uint8),
        low_mask=low_mask,
        row_col=np.stack([places // 4, places % 4], axis=1).astype(np.uint8),
        images=rng.integers(0, 256, (n_tiles, 32, 32, 3), dtype=np.uint8),
        masks=rng.integers(0, 4, (n_tiles, 32, 32), dtype=np.uint8) * lesion,
    )


def tensors(part):
    return RegionTensors(
        name="test",
        tiles_per_side=4,
        low=torch.from_numpy(part.low_image[None]).permute(0, 3, 1, 2),
        low_mask=torch.from_numpy(part.low_mask)[None, None],
        tiles=torch.from_numpy(part.images).permute(0, 3, 1, 2),
        row_col=[(int(r), int(c)) for r, c in part.row_col],
    )


def network(dtype=torch.float64, seed=0):
    torch.manual_seed(seed)
    model = LesionFPN(NETWORK).to(dtype)
    torch.nn.init.normal_(model.head.weight, std=0.1)
    return model.train()


def naive_fused_loss(model, part, options):
    """METHOD.md §4, steps 2 and 3, in one graph, with the focal loss of claim 5 written out."""
    t1 = torch.sigmoid(model(part.tiles))
    t2 = torch.sigmoid(model(part.low))[0, 0]
    fused = t2.clone()
    for tile, (row, column) in zip(t1, part.row_col, strict=True):
        small = functional.avg_pool2d(tile[None], 4)[0, 0]
        view = (slice(row * 8, row * 8 + 8), slice(column * 8, column * 8 + 8))
        fused[view] = (small + t2[view]) / 2
    lesion = part.low_mask[0, 0] == 1
    xi, gamma = options.focal_alpha, options.focal_gamma
    loss = torch.where(
        lesion,
        -xi * (1 - fused) ** gamma * torch.log(fused),
        -(1 - xi) * fused**gamma * torch.log(1 - fused),
    )
    return loss[part.low_mask[0, 0] != 255].mean()


@pytest.mark.parametrize("tile_batch", [1, 3, 64])
@pytest.mark.parametrize("n_tiles", [0, 5, 16])
def test_micro_batches_give_the_textbook_gradient(tile_batch, n_tiles, workers):
    part, options = tensors(region(n_tiles=n_tiles)), settings(tile_batch=tile_batch)
    textbook, ours = network(), network()
    expected = naive_fused_loss(textbook, part, options)
    expected.backward()
    loss = fused_backward(ours, part, options, workers)
    assert loss == pytest.approx(expected.item(), rel=1e-10)
    for (name, a), b in zip(textbook.named_parameters(), ours.parameters(), strict=True):
        error = (a.grad - b.grad).norm() / a.grad.norm().clamp(min=1e-12)
        assert error < 1e-9, name


def test_a_step_is_the_low_update_and_then_the_fused_one(workers):
    part, options = tensors(region()), settings()
    ours, naive = network(), network()
    joint_step(ours, torch.optim.Adam(ours.parameters(), lr=0.001), part, options, workers)
    optimiser = torch.optim.Adam(naive.parameters(), lr=0.001)
    logits = naive(part.low)
    counted = (part.low_mask != 255).sum()
    (focal_sum(logits, part.low_mask, options) / counted).backward()
    optimiser.step()
    optimiser.zero_grad()
    naive_fused_loss(naive, part, options).backward()
    optimiser.step()
    for a, b in zip(ours.parameters(), naive.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


def test_the_fused_map_is_the_mean_where_there_are_tiles(workers):
    part, model = tensors(region()), network().eval()
    t2 = torch.rand(1, 1, 32, 32, dtype=torch.float64)
    fused = fuse(model, part, t2, tile_batch=2, workers=workers)
    with torch.no_grad():
        t1 = functional.avg_pool2d(torch.sigmoid(model(part.tiles)), 4)
    row, column = part.row_col[2]
    view = (0, 0, slice(row * 8, row * 8 + 8), slice(column * 8, column * 8 + 8))
    torch.testing.assert_close(fused[view], (t1[2, 0] + t2[view]) / 2)
    assert (fused == t2).sum() == (16 - 5) * 64


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
            fused_backward(model, wide, settings(), pool)
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


def test_pixels_beyond_the_slide_do_not_count():
    mask = torch.tensor([[[[1, 255], [0, 255]]]], dtype=torch.uint8)
    logits = torch.tensor([[[[0.0, 9.0], [0.0, -9.0]]]])
    expected = (0.75 + 0.25) * 0.25 * np.log(2)
    assert focal_sum(logits, mask, settings()).item() == pytest.approx(expected)


@pytest.mark.parametrize("quarters", range(4))
@pytest.mark.parametrize("flip", [False, True])
def test_both_views_are_turned_alike(quarters, flip):
    big = np.random.default_rng(5).integers(0, 255, (128, 128, 3), dtype=np.uint8)
    places = np.array([[0, 0], [0, 3], [2, 1]], dtype=np.uint8)
    images = np.stack([big[r * 32 : r * 32 + 32, c * 32 : c * 32 + 32] for r, c in places])
    low = big[::4, ::4]
    part = Region((0, 0), low, low[..., 0], places, images, images[..., 0])
    result = turned(part, 4, quarters, flip)
    whole = np.rot90(big, quarters)
    whole = whole[:, ::-1] if flip else whole
    for (row, column), image, mask in zip(result.row_col, result.images, result.masks, strict=True):
        expected = whole[row * 32 : row * 32 + 32, column * 32 : column * 32 + 32]
        np.testing.assert_array_equal(image, expected)
        np.testing.assert_array_equal(mask, expected[..., 0])
    low_expected = np.rot90(low, quarters)
    np.testing.assert_array_equal(result.low_image, low_expected[:, ::-1] if flip else low_expected)


STAIN = {"p99": [1.5, 1.2], "verdict": "ok"}


def store(path, *regions, slide="s1"):
    with new_store(
        path,
        SPEC,
        {"slide": slide, "identity": "f" * 64, "stain": {"reference": STAIN}, "provenance": {"a": 1}},
        TileCodec(),
    ) as writer:
        for part in regions:
            writer.append(packed(part, TileCodec()))
    return str(path)


def test_a_store_gives_back_what_was_put_in_and_the_same_bytes(tmp_path):
    parts = [region(0, 5), region(1, 0), region(2, 16)]
    one, two = store(tmp_path / "one.h5", *parts), store(tmp_path / "two.h5", *parts)
    with TileStore(one) as opened:
        assert (len(opened), opened.spec, opened.slide) == (3, SPEC, "s1")
        for index, part in enumerate(parts):
            read = opened.region(index)
            assert read.xy_lv0 == part.xy_lv0
            for name in ("low_image", "low_mask", "row_col", "images", "masks"):
                np.testing.assert_array_equal(getattr(read, name), getattr(part, name))
        expected = [[int((part.masks == code).sum()) for code in range(4)] for part in parts]
        assert opened.class_pixels().tolist() == expected
    assert (tmp_path / "one.h5").read_bytes() == (tmp_path / "two.h5").read_bytes()
    assert two != one


def test_a_failing_writer_leaves_no_store(tmp_path):
    with pytest.raises(RuntimeError), new_store(tmp_path / "s.h5", SPEC, {"slide": "s"}, TileCodec()) as writer:
        writer.append(packed(region(), TileCodec()))
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def run(tmp_path, name, train_stores, val_stores=(), threads=2, **changes):
    folder = tmp_path / name
    job = TrainJob(train_stores, val_stores, None, NETWORK, settings(**changes), {"tiles": {"tile_px": 32}})
    train(job, str(folder / "m.safetensors"), str(folder / "history.csv"), str(folder / "checkpoints"), threads=threads)
    with open(folder / "history.csv", encoding="utf-8") as stream:
        return folder, list(csv.DictReader(stream))


def test_training_gives_the_same_bytes_for_any_threads_and_records_each_epoch(tmp_path):
    train_store = store(tmp_path / "t.h5", region(0), region(1, 0))
    val_store = store(tmp_path / "v.h5", region(2))
    first, rows = run(tmp_path, "a", [train_store], [val_store])
    second, _ = run(tmp_path, "b", [train_store], [val_store], threads=3)
    assert (first / "m.safetensors").read_bytes() == (second / "m.safetensors").read_bytes()
    assert [float(row["learning_rate"]) for row in rows] == pytest.approx([0.001, 0.001 / 1.5])
    facts = load_facts(first / "m.safetensors")
    best = min(rows, key=lambda row: float(row["val_low_loss"]))
    assert facts["epoch"]["epoch"] == int(best["epoch"])
    assert facts["training_slides"] == {"s1": "f" * 64}
    assert facts["stain_reference"] == STAIN
    assert {path.name for path in (first / "checkpoints").iterdir()} == {"best.safetensors", "last.safetensors"}
    assert json.dumps(facts)


def test_without_validation_the_last_epoch_is_published(tmp_path):
    folder, rows = run(tmp_path, "a", [store(tmp_path / "t.h5", region())])
    assert load_facts(folder / "m.safetensors")["epoch"]["epoch"] == len(rows) == 2
    assert "val_low_loss" not in rows[0]


def test_undefined_validation_figures_are_empty_not_nan(tmp_path):
    healthy = store(tmp_path / "v.h5", region(2, lesion=False))
    _, rows = run(tmp_path, "a", [store(tmp_path / "t.h5", region())], [healthy], epochs=1)
    assert rows[0]["val_low_auroc"] == ""


def test_a_cohort_without_lesion_is_refused(tmp_path):
    with pytest.raises(TrainingError, match="none of the 1 training slides has a lesion"):
        run(tmp_path, "a", [store(tmp_path / "t.h5", region(lesion=False))])


def test_a_loss_that_is_not_finite_names_the_region(workers):
    model = network(torch.float32)
    torch.nn.init.constant_(model.head.bias, torch.nan)
    with pytest.raises(TrainingError, match="no longer finite at region test"):
        joint_step(model, torch.optim.Adam(model.parameters()), tensors(region()), settings(), workers)
