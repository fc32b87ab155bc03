"""Runs that are stopped anywhere and go on: to the same bytes, or to a clear refusal."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from lesionmap import training
from lesionmap.checkpoint import StopRequest
from lesionmap.errors import InterruptedTrainingError
from lesionmap.train_settings import TrainMachine
from training_parts import region, run, store

ALWAYS = TrainMachine("cpu", 0, 2)
PROCESS = """
import sys
sys.path[:0] = sys.argv[1:3]
from pathlib import Path
from lesionmap.logs import job_log
from training_parts import run
from test_checkpoint import ALWAYS, WHOLE
with job_log(sys.argv[3] + "/train.log"):
    run(Path(sys.argv[3]), [sys.argv[4]], [sys.argv[5]], ALWAYS, **WHOLE)
"""
WHOLE = {"schedule": "sequential", "stain_jitter": 0.1, "epochs": 4, "tile_batch": 1}


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    train = store(folder / "t.h5", region(0), region(1, 0), region(2, 16))
    return train, store(folder / "v.h5", region(3), slide="s2")


@pytest.fixture(scope="module")
def unbroken(stores, tmp_path_factory):
    """What a run leaves that nobody stops."""
    folder, _ = run(tmp_path_factory.mktemp("unbroken"), stores[:1], stores[1:], ALWAYS, **WHOLE)
    return results(folder)


def results(folder):
    names = ("m.safetensors", "history.csv", "checkpoints/last.safetensors", "checkpoints/best.safetensors")
    return {name: (folder / name).read_bytes() for name in names}


def started(folder, stores):
    library, tests = Path(training.__file__).parents[1], Path(__file__).parent
    command = [sys.executable, "-c", PROCESS, str(library), str(tests), str(folder), *stores]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def written(folder, process, before):
    """Wait until the process has saved its run, or is done."""
    path = folder / "unfinished.pt"
    while process.poll() is None and not (path.exists() and path.stat().st_mtime_ns != before):
        time.sleep(0.01)


def test_a_run_killed_anywhere_goes_on_to_the_same_bytes(stores, unbroken, tmp_path):
    moments, unfinished = random.Random(1), tmp_path / "unfinished.pt"
    killed = 0
    for _ in range(5):
        before = unfinished.stat().st_mtime_ns if unfinished.exists() else None
        process = started(tmp_path, stores)
        written(tmp_path, process, before)
        time.sleep(moments.uniform(0, 0.3))
        process.kill()
        killed += process.wait() == -signal.SIGKILL
        process.stderr.close()
    assert killed == 5
    run(tmp_path, stores[:1], stores[1:], ALWAYS, **WHOLE)
    assert results(tmp_path) == unbroken
    assert not unfinished.exists()


def test_a_job_that_is_told_to_stop_saves_its_run_and_says_so(stores, unbroken, tmp_path):
    process = started(tmp_path, stores)
    written(tmp_path, process, None)
    process.terminate()
    _, told = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "LesionMap: train: told to stop (SIGTERM) in epoch" in told
    assert "Remedy: run again: training goes on from there." in told
    assert "Traceback" not in told
    run(tmp_path, stores[:1], stores[1:], ALWAYS, **WHOLE)
    assert results(tmp_path) == unbroken


def stopped_at(monkeypatch, number):
    """Have training told to stop at a pause point; that is, between two of its passes."""
    points = iter(range(number + 1))
    original = StopRequest.pause_point

    def pause_point(self):
        if next(points, number) == number:
            os.kill(os.getpid(), signal.SIGTERM)
        original(self)

    monkeypatch.setattr(StopRequest, "pause_point", pause_point)


@pytest.mark.parametrize("schedule", ["joint", "sequential", "high_only", "low_only"])
def test_every_pause_point_is_one_to_go_on_from(schedule, stores, tmp_path, monkeypatch):
    """Every run gets one pause point farther than the one before."""
    options = {"schedule": schedule, "epochs": 2, "stain_jitter": 0.1}
    (tmp_path / "whole").mkdir()
    whole, _ = run(tmp_path / "whole", stores[:1], stores[1:], **options)
    phases, stops = set(), 0
    while not (tmp_path / "m.safetensors").exists():
        with monkeypatch.context() as patched:
            stopped_at(patched, 1 + stops % 3)
            try:
                run(tmp_path, stores[:1], stores[1:], TrainMachine("cpu", 1000, 1 + stops % 2), **options)
            except InterruptedTrainingError:
                saved = torch.load(tmp_path / "unfinished.pt", weights_only=True)["run"]
                phases.add((saved["position"], saved["low_done"]))
                stops += 1
    assert results(tmp_path) == results(whole)
    assert {(0, False), (3, False)} < phases
    assert any(low_done for _, low_done in phases) == (schedule in ("joint", "sequential", "high_only"))


def test_trainable_batch_norm_goes_on_to_the_same_bytes(tmp_path, monkeypatch):
    pass
