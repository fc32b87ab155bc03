"""Whole training runs on tiny stores: what they write, what they refuse, what they say."""

import hashlib
import json
import logging
import os
import re
import shutil
import signal
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from lesionmap.errors import InterruptedTrainingError, ModelError, SettingsError, TrainingError
from lesionmap.files.model_metadata import load_metadata
from lesionmap.jobs import log
from lesionmap.network.model import LesionFPN
from lesionmap.network.model_file import load_model
from lesionmap.network.settings import ModelSettings
from lesionmap.stain.profile import StainProfile
from lesionmap.training import loop as training
from lesionmap.training.loss import focal_sum
from lesionmap.training.processes import train_in_processes
from lesionmap.training.settings import TrainMachine
from lesionmap.training.validation import TILE_WEIGHTS
from narrow_resnet import NARROW
from safetensors.numpy import load_file
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from stained import PROFILE
from tensorboardX.proto.event_pb2 import Event
from torch.nn import functional
from torch.nn.modules.module import register_module_forward_pre_hook
from training_parts import files, job, region, results, run, settings, store, tensors

VIEWS = {
    "joint": (["low", "fused"], ["low", "fused"]),
    "sequential": (["low", "high", "fused"], ["low", "fused"]),
    "low_only": (["low"], ["low"]),
    "high_only": (["high"], ["high"]),
}


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    return store(folder / "t.h5", region(0), region(1, 0)), store(folder / "v.h5", region(2), slide="s2")


@pytest.fixture(scope="module")
def finished(stores, tmp_path_factory):
    """A run with training and validation slides, not to be changed, and its history."""
    return run(tmp_path_factory.mktemp("finished"), stores[:1], stores[1:])


def test_training_records_each_epoch_and_keeps_the_best_by_each_view(finished):
    folder, rows = finished
    assert [float(row["learning_rate"]) for row in rows] == pytest.approx([0.001, 0.001 / 1.5])
    for view in ("low", "fused"):
        metadata = load_metadata(folder / f"best_{view}.safetensors")
        best = min(rows, key=lambda row: float(row[f"val_{view}_loss"]))
        assert (metadata["epoch"]["epoch"], metadata["chosen_by"]) == (int(best["epoch"]), view)
    assert metadata["training_slides"] == {"s1": "f" * 64}
    assert StainProfile.of(metadata["stain_reference"]) == PROFILE
    assert {path.name for path in folder.iterdir()} == {*results(folder), "events"}, "nothing of the unfinished run"
    assert load_metadata(folder / "last.safetensors")["epoch"]["epoch"] == 2
    assert json.dumps(metadata)


def test_patients_are_recorded_as_digests_for_leakage_and_decide_no_weight(finished, stores, tmp_path):
    """Of three patients, one is of no slide that was used."""
    asked = replace(job(stores[:1], stores[1:]), patients={"s2": "Müller, 1970", "s3": "someone", "s1": ""})
    train_in_processes(asked, files(tmp_path), TrainMachine("cpu", 10, 2))
    metadata = load_metadata(tmp_path / "best_fused.safetensors")
    digest = "be29a76cf365b25ece9b622f83f58bae6e635d82669767d8e9134dccd306cf86"  # printf 'Müller, 1970' | sha256sum
    assert metadata["patients"] == {"s2": digest}
    before = load_metadata(finished[0] / "best_fused.safetensors")
    assert before["patients"] == {}
    assert metadata | {"patients": {}} == before
    weights = [load_file(folder / "best_fused.safetensors") for folder in (tmp_path, finished[0])]
    assert all(np.array_equal(weights[0][name], weights[1][name]) for name in weights[1])


def test_training_gives_the_same_bytes_for_any_threads(finished, stores, tmp_path):
    folder, _ = run(tmp_path, stores[:1], stores[1:], TrainMachine("cpu", 10, 3))
    assert results(folder) == results(finished[0])


def test_a_run_that_is_finished_is_not_trained_again(finished, stores, tmp_path, caplog):
    folder = shutil.copytree(finished[0], tmp_path / "again")
    (folder / "trained.json").unlink()  # as Snakemake does
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*.*")}
    with caplog.at_level(logging.INFO):
        run(folder, stores[:1], stores[1:])
    assert "already the result of these settings and data: nothing to train" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert results(folder) == results(finished[0])


@pytest.mark.parametrize("lost", ["last.safetensors", "history.csv"])
def test_a_run_that_is_not_whole_is_trained_again(lost, finished, stores, tmp_path):
    folder = shutil.copytree(finished[0], tmp_path / "again")
    (folder / lost).unlink()
    run(folder, stores[:1], stores[1:])
    assert results(folder) == results(finished[0])


def test_other_data_give_another_model_and_the_record_says_so(finished, stores, tmp_path):
    folder = shutil.copytree(finished[0], tmp_path / "again")
    run(folder, stores[:1])
    before, after = results(finished[0]), results(folder)
    assert set(before) - set(after) == {"best_low.safetensors", "best_fused.safetensors"}  # there is no validation now
    assert not [name for name in after if before[name] == after[name]]
    assert json.loads(after["trained.json"])["sha256"] == {
        name: hashlib.sha256(after[name]).hexdigest() for name in after if name != "trained.json"
    }


@pytest.mark.parametrize("schedule", VIEWS)
def test_history_has_what_the_schedule_trains_and_judges(schedule, stores, tmp_path):
    folder, rows = run(tmp_path, stores[:1], stores[1:], schedule=schedule, epochs=1, stain_jitter=0.1)
    trained, judged = VIEWS[schedule]
    names = ("loss", "dice", "auroc", "threshold", "calibration_intercept", "calibration_slope")
    figures = [f"val_{view}_{figure}" for view in judged for figure in names]
    assert list(rows[0]) == ["epoch", "learning_rate", *[f"train_{name}_loss" for name in trained], *figures]
    assert all(float(value) >= 0 for name, value in rows[0].items() if "calibration" not in name)
    assert all(np.isfinite(float(rows[0][name])) for name in figures)
    assert {path.name for path in folder.glob("best_*")} == {f"best_{view}.safetensors" for view in judged}


@pytest.mark.parametrize(
    ("schedule", "of_tiles"), [("joint", "images"), ("high_only", "images"), ("low_only", "low_image")]
)
def test_each_view_is_normalised_by_statistics_of_its_own_if_it_is_trained(
    tmp_path, full_precision, schedule, of_tiles
):
    """Of the first norm: its input depends on the first convolution alone."""
    parts = [region(0, 4, side=64), region(1, 2, side=64)]  # micro-batches of two
    network, stored = replace(NARROW, norm="batch"), [store(tmp_path / "t.h5", *parts)]
    folder, _ = run(tmp_path, stored, network=network, schedule=schedule, epochs=1, tile_batch=2)
    model = load_model(folder / "last.safetensors")
    norm = model.stem[1]
    for view, mean in (("low_image", norm.running_mean), (of_tiles, norm.tile_mean)):
        stack = np.concatenate([getattr(part, view).reshape(-1, 64, 64, 3) for part in parts])
        images = torch.from_numpy(stack).permute(0, 3, 1, 2)
        with torch.no_grad():
            found = functional.conv2d((images - model.mean) / model.std, model.stem[0].weight, stride=2, padding=3)
        torch.testing.assert_close(mean, found.mean(dim=(0, 2, 3)), rtol=1e-4, atol=1e-5)


def test_where_no_tile_is_a_map_of_tiles_is_that_of_the_low_view(tmp_path, full_precision):
    """As in refinement, which keeps to the network that it has."""
    bare = store(tmp_path / "t.h5", region(0), region(1, 0))
    folder, rows = run(tmp_path, [bare], [store(tmp_path / "v.h5", region(2, 0))], schedule="high_only", epochs=1)
    assert float(rows[0]["train_high_loss"]) > 0
    model, part = load_model(folder / "best_high.safetensors"), tensors(region(2, 0))
    loss = focal_sum(model(part.low), part.judged_mask, settings()) / (part.judged_mask != 255).sum()
    assert float(rows[0]["val_high_loss"]) == pytest.approx(loss.item(), rel=1e-5)
    assert load_metadata(folder / "best_high.safetensors")["architecture"]["fusion"] == "tiles"


def test_calibration_is_fitted_to_the_validation_slides_alone(stores, tmp_path, full_precision):
    """Against scikit-learn, on the map of the saved model, with the middles of the logits' bins."""
    folder, rows = run(tmp_path, stores[:1], stores[1:], schedule="low_only", epochs=1, warmup_updates=0)
    part = tensors(region(2))
    with torch.no_grad():
        logits = load_model(folder / "best_low.safetensors")(part.low)
    judged = (part.judged_mask != 255).numpy()
    x, y = np.floor(64 * logits.numpy()[judged] + 1 / 32) / 64 + 1 / 128, part.judged_mask.numpy()[judged] == 1
    theirs = LogisticRegression(C=np.inf, tol=1e-10).fit(x[:, None], y)
    epoch = load_metadata(folder / "best_low.safetensors")["epoch"]
    for name, value in (("slope", theirs.coef_), ("intercept", theirs.intercept_)):
        assert epoch[f"val_low_calibration_{name}"] == pytest.approx(value.item(), rel=0.01)
        assert float(rows[0][f"val_low_calibration_{name}"]) == pytest.approx(epoch[f"val_low_calibration_{name}"])


def test_where_validation_slides_have_no_lesion_there_is_no_calibration(stores, tmp_path):
    nothing = store(tmp_path / "v.h5", region(2, lesion=False), slide="s2")
    folder, _ = run(tmp_path, stores[:1], [nothing], schedule="low_only", epochs=1)
    epoch = load_metadata(folder / "best_low.safetensors")["epoch"]
    assert (epoch["val_low_calibration_slope"], epoch["val_low_calibration_intercept"]) == (None, None)


def ignored(part):
    """A region of which nothing is to be judged."""
    part.low_mask[:] = part.judged_mask[:] = part.masks[:] = 255
    return part


def on_glass(part):
    """A region of which the right half is glass: trained on, but not judged."""
    part.judged_mask[:, 16:] = 255
    return part


@pytest.mark.parametrize("schedule", ["joint", "high_only"])
def test_glass_is_trained_on_but_neither_validated_nor_ignored(schedule, stores, tmp_path):
    """Whatever the map and the mask say there: epoch, threshold and early stopping do not depend on it."""
    parts = [on_glass(region(2)), on_glass(region(2))]
    parts[1].low_mask[:, 16:] = 1
    how = {"schedule": schedule, "epochs": 1}
    stored = [store(tmp_path / f"{name}.h5", part, slide="s2") for name, part in zip("ab", parts, strict=True)]
    (_, first), (_, second) = (run(tmp_path / name, stores[:1], [stored[n]], **how) for n, name in enumerate("ab"))
    assert first == second
    _, whole = run(tmp_path / "whole", stores[:1], stores[1:], **how)
    losses = [key for key in whole[0] if key.startswith("val_") and key.endswith("_loss")]
    assert losses
    assert not [key for key in losses if first[0][key] == whole[0][key]]
    _, trained = run(tmp_path / "trained", [stored[1]], schedule="low_only", epochs=1)
    _, other = run(tmp_path / "other", [stored[0]], schedule="low_only", epochs=1)
    assert trained[0]["train_low_loss"] != other[0]["train_low_loss"]


@pytest.mark.parametrize("schedule", ["joint", "high_only"])
def test_regions_without_a_judged_pixel_change_no_validation(schedule, stores, tmp_path):
    more = store(tmp_path / "v.h5", ignored(region(5)), region(2), slide="s2")
    how = {"schedule": schedule, "epochs": 1}
    _, expected = run(tmp_path / "a", stores[:1], stores[1:], **how)
    _, rows = run(tmp_path / "b", stores[:1], [more], **how)
    assert rows == expected


@pytest.mark.parametrize("early_stop", [None, 1])
def test_validation_slides_without_a_judged_pixel_choose_nothing(early_stop, stores, tmp_path):
    nothing = store(tmp_path / "v.h5", ignored(region(2)), slide="s2")
    folder, rows = run(tmp_path, stores[:1], [nothing], epochs=3, early_stop=early_stop)
    assert [row["val_low_loss"] for row in rows] == [""] * 3
    assert load_metadata(folder / "last.safetensors")["epoch"]["epoch"] == 3
    assert not [*folder.glob("best_*")]


def test_a_region_without_a_judged_pixel_trains_nothing(stores, tmp_path):
    half = store(tmp_path / "t.h5", region(0), ignored(region(3)))
    _, rows = run(tmp_path / "half", [half], schedule="low_only", epochs=1)
    _, alone = run(tmp_path / "alone", [store(tmp_path / "one.h5", region(0))], schedule="low_only", epochs=1)
    assert rows[0]["train_low_loss"] == alone[0]["train_low_loss"]


def test_without_validation_there_is_the_last_epoch_alone(tmp_path):
    folder, rows = run(tmp_path, [store(tmp_path / "t.h5", region())], schedule="low_only")
    assert load_metadata(folder / "last.safetensors")["epoch"]["epoch"] == len(rows) == 2
    assert not [*folder.glob("best_*")]
    assert "val_low_loss" not in rows[0]


def test_undefined_validation_figures_are_empty_not_nan(tmp_path):
    healthy = store(tmp_path / "v.h5", region(2, lesion=False))
    _, rows = run(tmp_path, [store(tmp_path / "t.h5", region())], [healthy], epochs=1)
    assert rows[0]["val_low_auroc"] == ""


def test_without_validation_slides_a_learned_fusion_stays_the_mean(stores, tmp_path):
    network = ModelSettings("narrow", "group", "learned")
    folder, _ = run(tmp_path, stores[:1], network=network, epochs=1)
    assert load_model(folder / "last.safetensors").fusion.a == 0


def test_a_model_has_the_fusion_that_its_metrics_are_of(stores, tmp_path):
    network = ModelSettings("narrow", "group", "learned")
    folder, rows = run(tmp_path, stores[:1], stores[1:], network=network, epochs=2)
    best = load_model(folder / "best_fused.safetensors")
    epoch = load_metadata(folder / "best_fused.safetensors")["epoch"]
    assert torch.sigmoid(best.fusion.a).item() == pytest.approx(epoch["val_fused_tile_weight"], abs=1e-6)
    assert epoch["val_fused_loss"] <= epoch["val_low_loss"]
    assert {float(row["val_fused_tile_weight"]) for row in rows} <= {expit(weight) for weight in TILE_WEIGHTS}


def test_a_cohort_without_lesion_is_refused(tmp_path):
    with pytest.raises(TrainingError, match="none of the 1 training slides has a lesion"):
        run(tmp_path, [store(tmp_path / "t.h5", region(lesion=False))])


def test_early_stop_without_validation_is_refused(stores, tmp_path):
    with pytest.raises(TrainingError, match=r"train\.early_stop is 3, but there is no validation slide"):
        run(tmp_path, stores[:1], early_stop=3)


def test_training_stops_early_when_validation_gets_no_better(stores, tmp_path, monkeypatch):
    losses = iter([3.0, 2.0, 2.0, 2.5, 1.0])
    monkeypatch.setattr(training, "validate", lambda *_: {"val_low_loss": next(losses)})
    folder, rows = run(tmp_path, stores[:1], stores[1:], schedule="low_only", epochs=5, early_stop=2)
    assert [row["val_low_loss"] for row in rows] == ["3.0", "2.0", "2.0", "2.5"]
    assert load_metadata(folder / "best_low.safetensors")["epoch"]["epoch"] == 3  # of equal ones the last


def test_training_goes_on_while_any_view_gets_better_and_keeps_the_best_by_each(stores, tmp_path, monkeypatch):
    losses = iter([(1.0, 5.0), (2.0, 4.0), (2.0, 3.0), (2.0, 3.5), (2.0, 3.5), (0.0, 0.0)])
    names = ("val_low_loss", "val_fused_loss")
    monkeypatch.setattr(training, "validate", lambda *_: dict(zip(names, next(losses), strict=True)))
    folder, rows = run(tmp_path, stores[:1], stores[1:], epochs=6, early_stop=2)
    assert len(rows) == 5
    best = {view: folder / f"best_{view}.safetensors" for view in ("low", "fused")}
    assert {view: load_metadata(path)["epoch"]["epoch"] for view, path in best.items()} == {"low": 1, "fused": 3}
    weights = [load_model(path).head.weight for path in (*best.values(), folder / "last.safetensors")]
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[1], weights[2])


def test_a_region_whose_loss_is_not_finite_is_saved_and_named(stores, tmp_path, monkeypatch):
    original = training._learner

    def broken(*arguments):
        learner = original(*arguments)
        learner.model.head.bias.data.fill_(np.nan)
        return learner

    monkeypatch.setattr(training, "_learner", broken)
    with pytest.raises(TrainingError, match=r"no longer finite at region s1 at x=\d+ y=0; .*nonfinite_region\.npz"):
        run(tmp_path, [store(tmp_path / "t.h5", region(0))], augment=False)
    part = region(0)
    with np.load(tmp_path / "nonfinite_region.npz") as saved:
        assert str(saved["name"]) == "s1 at x=0 y=0"
        np.testing.assert_array_equal(saved["low"][0].transpose(1, 2, 0), part.low_image)
        np.testing.assert_array_equal(saved["low_mask"][0, 0], part.low_mask)
        np.testing.assert_array_equal(saved["tiles"].transpose(0, 2, 3, 1), part.images)
        np.testing.assert_array_equal(saved["row_col"], part.row_col)


@pytest.mark.parametrize("schedule", ["joint", "low_only"])
def test_a_loss_that_explodes_stops_with_advice_once_it_has_stayed_there(tmp_path, monkeypatch, schedule):
    """As of a network that is as sure as it is wrong; one region an epoch, 48 are needed to say so."""
    original, learned = training._learner, []

    def wrecked(*arguments):
        learner = original(*arguments)
        learner.model.head.bias.data.fill_(60.0)
        learner.optimiser.register_step_post_hook(lambda *_: learned.append(1))
        return learner

    monkeypatch.setattr(training, "_learner", wrecked)
    stored = store(tmp_path / "t.h5", region(0))
    with pytest.raises(TrainingError, match=r"the loss has exploded: .*Remedy: lower train\.learning_rate .*warmup"):
        run(tmp_path, [stored], schedule=schedule, epochs=60, learning_rate=1e-6)
    assert len(learned) == 48 * (2 if schedule == "joint" else 1)
    assert not (tmp_path / "last.safetensors").exists()


@pytest.mark.parametrize("schedule", ["joint", "high_only"])
def test_weights_that_the_last_update_has_spoilt_are_not_published(stores, tmp_path, monkeypatch, schedule):
    """With validation slides, a region of theirs shows it; without, the weights do."""

    def spoil(model, *_):
        model.head.bias.data.fill_(np.inf)

    monkeypatch.setattr(training, "settle_norms", spoil)
    with pytest.raises(TrainingError, match="no longer finite at region s2 at x="):
        run(tmp_path, stores[:1], stores[1:], schedule=schedule, epochs=1)
    (tmp_path / "alone").mkdir()
    with pytest.raises(ModelError, match=r"tensor head\.bias of the network holds NaN or infinity"):
        run(tmp_path / "alone", stores[:1], schedule=schedule, epochs=1)
    assert not (tmp_path / "alone/m.safetensors").exists()


def test_an_absent_gpu_is_named(stores, tmp_path):
    with pytest.raises(SettingsError, match=r"train\.device is cuda:97, but torch finds \d+ CUDA devices"):
        run(tmp_path, stores[:1], machine=TrainMachine("cuda:97", 10, 1))


def test_an_automatic_tile_batch_is_told_and_changes_nothing_but_rounding(stores, tmp_path, caplog, full_precision):
    with caplog.at_level(logging.INFO):
        network = ModelSettings("resnet18", "group")  # whose size is known
        _, rows = run(tmp_path, stores[:1], tile_batch="auto", epochs=1, network=network)
    assert "4 tiles in the network at once on each thread of cpu" in caplog.text
    (tmp_path / "b").mkdir()
    _, others = run(tmp_path / "b", stores[:1], tile_batch=1, epochs=1, network=network)
    assert float(rows[0]["train_fused_loss"]) == pytest.approx(float(others[0]["train_fused_loss"]), rel=1e-4)


def test_the_log_says_how_far_it_is(stores, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        run(tmp_path, stores[:1], epochs=1)
    lines = [record.message for record in caplog.records if record.message.startswith("train: ")]
    assert lines[0].startswith("train: 0 of 9 images")  # five tiles, and the low views twice
    assert lines[-1].startswith("train: 9 of 9 images")
    assert "epoch=1, low=" in lines[-1]
    assert len(lines) == 2  # a minute has not passed


@contextmanager
def images_passed():
    """Counts the images that pass the network, with gradient and without."""
    counts = {True: 0, False: 0}

    def count(module, inputs):
        if isinstance(module, LesionFPN):
            counts[torch.is_grad_enabled()] += len(inputs[0])

    with register_module_forward_pre_hook(count):
        yield counts


def shown(caplog):
    """How many images were done and left to do, at each line."""
    found = (re.match(r"train: (\d+) of (\d+) images, .* (\S+) left", record.message) for record in caplog.records)
    return [(int(line[1]), int(line[2])) for line in found if line]


@pytest.mark.parametrize(
    ("schedule", "norm"), [("joint", "group"), ("joint", "batch"), ("sequential", "group"), ("high_only", "group")]
)
def test_progress_counts_what_passes_the_network(schedule, norm, stores, tmp_path, caplog, monkeypatch):
    """A pass without gradient is a third of an image."""
    monkeypatch.setattr(log, "SECONDS_BETWEEN_LINES", 0)
    wide = store(tmp_path / "w.h5", region(0, 7, side=64), region(1, 2, side=64))
    with images_passed() as counts, caplog.at_level(logging.INFO):
        run(tmp_path, [wide], [wide], network=ModelSettings("narrow", norm), schedule=schedule, tile_batch=2)
    lines = shown(caplog)
    total = counts[True] + counts[False] / 3
    assert {all_of_them for _, all_of_them in lines} == {round(total)}
    assert lines[-1][0] == round(total)
    done = [images for images, _ in lines]
    assert done == sorted(done)
    assert max(after - before for before, after in pairwise(done)) <= 4, "two tiles and the low views"


def test_progress_of_the_low_view_counts_regions(stores, tmp_path, caplog):
    with images_passed() as counts, caplog.at_level(logging.INFO):
        run(tmp_path, stores[:1], stores[1:], schedule="low_only", epochs=3)
    assert shown(caplog) == [(0, 7), (7, 7)]
    assert counts == {True: 3 * 2, False: 3}


def test_progress_goes_on_where_a_run_goes_on(stores, tmp_path, caplog, monkeypatch):
    with monkeypatch.context() as patched, pytest.raises(InterruptedTrainingError):
        patched.setattr(training, "settle_norms", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        run(tmp_path, stores[:1], stores[1:])
    with caplog.at_level(logging.INFO):
        run(tmp_path, stores[:1], stores[1:])
    assert shown(caplog)[0] == (9, 22)  # two epochs: 9 images, and 6 without gradient
    assert shown(caplog)[-1] == (22, 22)


def events(folder):
    """All events of the files in a folder, by name and time; a TFRecord is length, CRC, bytes, CRC."""
    for path in sorted(folder.iterdir()):
        content, place = path.read_bytes(), 0
        while place < len(content):
            length = int.from_bytes(content[place : place + 8], "little")
            yield Event.FromString(content[place + 12 : place + 12 + length])
            place += 16 + length


def test_tensorboard_can_follow(finished):
    folder, rows = finished
    found = {}
    for event in events(folder / "events"):
        for value in event.summary.value:
            found.setdefault(value.tag, []).append((event.step, value.simple_value))
    assert [step for step, _ in found["region/low_loss"]] == [1, 2, 3, 4]
    assert [step for step, _ in found["region/fused_loss"]] == [1, 2, 3, 4]
    for name in ("val_low_loss", "val_fused_dice", "learning_rate", "train_fused_loss"):
        expected = [float(row[name]) for row in rows]
        assert [step for step, _ in found[f"epoch/{name}"]] == [2, 4]
        assert [value for _, value in found[f"epoch/{name}"]] == pytest.approx(expected)
    starts = [event.step for event in events(folder / "events") if event.HasField("session_log")]
    assert starts == [0]
