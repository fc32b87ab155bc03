"""A job that is told to stop (SIGTERM): how soon it ends, and that nothing is lost."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from lesionmap.training import loop as training
from training_parts import region, results, run, store, unfinished

N_TILES, TILE_PX = 16, 256
OPTIONS = {"schedule": "joint", "epochs": 1, "tile_batch": 2}
PROCESS = """
import atexit, sys
sys.path[:0] = sys.argv[1:3]
from pathlib import Path
import torch
from lesionmap.jobs.log import job_log
from lesionmap.network.region_pass import TilePasses
from lesionmap.training.settings import TrainMachine
from training_parts import run

passes = TilePasses.map

def told(*arguments):
    for number, result in enumerate(passes(*arguments)):
        print("training" if torch.is_grad_enabled() else "validation", number, flush=True)
        yield result

TilePasses.map = told
atexit.register(print, "ended", flush=True)  # Python's own end takes a second
with job_log(sys.argv[3] + "/train.log", resumes=True):
    run(Path(sys.argv[3]), [sys.argv[4]], [sys.argv[5]], TrainMachine("cpu", 1000, 1), **OPTIONS)
""".replace("OPTIONS", repr(OPTIONS))


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """A region to train on and one to validate with, of many micro-batches each."""
    folder = tmp_path_factory.mktemp("stores")
    parts = {name: region(seed, N_TILES, side=TILE_PX) for seed, name in enumerate("tv")}
    return [store(folder / f"{name}.h5", part, slide=name) for name, part in parts.items()]


@pytest.fixture(scope="module")
def unbroken(stores, tmp_path_factory):
    """What a run leaves that nobody stops."""
    folder, _ = run(tmp_path_factory.mktemp("unbroken"), stores[:1], stores[1:], **OPTIONS)
    return results(folder)


@pytest.mark.parametrize("phase", ["training", "validation"])
def test_a_job_ends_within_a_few_micro_batches_and_goes_on_to_the_same_bytes(phase, stores, unbroken, tmp_path):
    library, tests = Path(training.__file__).parents[2], Path(__file__).parents[1]
    command = [sys.executable, "-c", PROCESS, str(library), str(tests), str(tmp_path), *stores]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        lines, seconds = [], {}
        for line in process.stdout:
            lines.append(line.strip())
            seconds[lines[-1]] = time.monotonic()
            if lines[-1] == f"{phase} 2":
                process.terminate()
        told = process.stderr.read()
    assert told.startswith("LesionMap: train: told to stop (SIGTERM) in epoch 1 after ")
    assert lines[lines.index(f"{phase} 2") + 1 :] in (["ended"], [f"{phase} 3", "ended"]), "of eight micro-batches"
    micro_batch = (seconds["training 2"] - seconds["training 0"]) / 2
    assert seconds["ended"] - seconds[f"{phase} 2"] < 4 * micro_batch
    saved = torch.load(*unfinished(tmp_path), weights_only=True)["run"]
    assert (saved["position"], saved["low_done"]) == {"training": (0, True), "validation": (1, False)}[phase]
    run(tmp_path, stores[:1], stores[1:], **OPTIONS)
    assert results(tmp_path) == unbroken
