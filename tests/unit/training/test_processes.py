"""Training in several processes: the mean gradient, the same weights in all, and one end for all."""

import os
import signal
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor

import psutil
import pytest
import torch
from forking import FORKING
from lesionmap.errors import InterruptedTrainingError, SettingsError, SlideError, TrainingError
from lesionmap.network.settings import ModelSettings
from lesionmap.training.processes import rank_devices
from lesionmap.training.settings import TrainMachine
from process_parts import N_TILES, call, check_all, check_stop, train_unbroken
from training_parts import job, region, results, run, store, unfinished

RESNET18 = ModelSettings("resnet18", "group")  # processes of the library know no other as small
WHOLE = {"schedule": "sequential", "stain_jitter": 0.1, "epochs": 2, "tile_batch": "auto", "processes": 2}
WHOLE["network"] = RESNET18


def in_processes(folder, count, function, *arguments):
    """What a function gives in each of several processes, which it is given the `ProcessGroup` of."""
    meeting = folder / "meeting"
    with pytest.MonkeyPatch.context() as patched, ProcessPoolExecutor(count, FORKING) as pool:
        patched.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # for what is imported once
        waiting = [pool.submit(call, meeting, rank, count, function, *arguments) for rank in range(count)]
        return [future.result(timeout=60) for future in waiting]


@pytest.mark.parametrize(("count", "schedule"), [(2, "sequential"), (3, "joint")])
def test_updates_follow_the_mean_gradient_and_all_weights_stay_the_same(count, schedule, tmp_path):
    path = store(tmp_path / "v.h5", *(region(seed, n_tiles) for seed, n_tiles in enumerate(N_TILES)))
    found = in_processes(tmp_path, count, check_all, schedule, path)
    assert all(one == found[0] for one in found)


def test_a_process_that_waits_for_another_can_stop(tmp_path):
    in_processes(tmp_path, 2, check_stop, tmp_path)


def stopped_at_its_first_saving(folder):
    """Have this process told to stop, once."""

    def wait_and_stop():
        while not unfinished(folder):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait_and_stop, daemon=True).start()


def test_a_run_that_is_told_to_stop_ends_as_one_and_goes_on_to_the_same_bytes(tmp_path):
    train_store = store(tmp_path / "t.h5", region(0, 1), region(1, 0), region(2, 2))
    stores = [train_store], [store(tmp_path / "v.h5", region(3, 1))]
    folder, whole = tmp_path / "stopped", tmp_path / "whole"
    folder.mkdir()
    stopped_at_its_first_saving(folder)
    with pytest.raises(InterruptedTrainingError, match=r"told to stop \(SIGTERM\) in epoch \d after \d of 3 regions"):
        run(folder, *stores, TrainMachine("cpu", 0, 2), **WHOLE)
    assert not (folder / "best.safetensors").exists()
    _, rows = run(folder, *stores, **WHOLE)
    assert len(rows) == 2
    log = (folder / "train.log").read_text()
    assert "INFO process 1: train: 19 of 19 images" in log
    assert "process 2: train: " not in log
    whole.mkdir()
    in_processes(tmp_path, 2, train_unbroken, whole, job(*stores, **WHOLE))
    assert results(folder) == results(whole)
    assert not list(folder.glob("unfinished*"))
    kept = (folder / ".train.log").read_text()
    assert [line for line in kept.splitlines() if "process 1: goes on with" in line]


@pytest.mark.parametrize(
    ("second", "error", "message"),
    [
        ("kill -9 $$", TrainingError, r"process 2 of 2 was killed \(SIGKILL\).*lower train\.processes or"),
        ("exit 1", RuntimeError, r"process 2 of 2 failed; its error is above, and in .*train\.log"),
        (
            """echo '["SlideError", {"slide": "s1", "stage": "train", "finding": "lost", "remedy": "look"}]'"""
            " > $3/error_1.json; exit 1",
            SlideError,
            r"^slide s1, train: lost\. Remedy: look\.$",
        ),
    ],
)
def test_one_that_fails_ends_all_and_its_error_is_that_of_the_job(second, error, message, tmp_path, monkeypatch):
    python = tmp_path / "python"
    python.write_text(
        f"""#!/bin/sh
        if [ $4 = 1 ]; then
            until [ -s {tmp_path}/first ]; do sleep 0.01; done
            {second}
        fi
        echo $$ > {tmp_path}/first
        exec sleep 60"""
    )
    python.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(error, match=message):
        run(tmp_path, ["t.h5"], processes=2)
    assert not psutil.pid_exists(int((tmp_path / "first").read_text()))


@pytest.mark.parametrize(
    ("device", "n_gpus", "devices"),
    [
        ("auto", 0, ["cpu", "cpu"]),
        ("cpu", 4, ["cpu", "cpu"]),
        ("auto", 2, ["cuda:0", "cuda:1"]),
        ("cuda", 4, ["cuda:0", "cuda:1"]),
    ],
)
def test_each_process_has_a_gpu_or_all_have_the_cpu(device, n_gpus, devices, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n_gpus)
    assert rank_devices(device, 2) == devices


@pytest.mark.parametrize(("device", "n_gpus"), [("auto", 1), ("cuda", 0), ("cuda:0", 4)])
def test_too_few_gpus_are_named(device, n_gpus, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n_gpus)
    with pytest.raises(SettingsError, match=rf"train\.device {device}, but each process .* torch finds {n_gpus} "):
        rank_devices(device, 2)
