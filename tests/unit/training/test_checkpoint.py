"""Runs that are stopped anywhere and go on: to the same bytes, or to a clear refusal."""

import csv
import logging
import os
import pickle
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from forking import started
from lesionmap.errors import InterruptedTrainingError, TrainingError
from lesionmap.files import records
from lesionmap.jobs import parallel
from lesionmap.network.settings import ModelSettings
from lesionmap.training import loop as training
from lesionmap.training.checkpoint import StopRequest, StopRequestedError
from lesionmap.training.settings import TrainMachine
from process_parts import run_whole
from training_parts import ALWAYS, WHOLE, region, results, run, store, unfinished

PROCESS = """
import sys
sys.path[:0] = sys.argv[1:3]
from pathlib import Path
from lesionmap.jobs.log import job_log
from process_parts import run_whole
from training_parts import ALWAYS, WHOLE, run
with job_log(sys.argv[3] + "/train.log", resumes=True):
    run(Path(sys.argv[3]), [sys.argv[4]], [sys.argv[5]], ALWAYS, **WHOLE)
"""


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


def job_of(folder, stores):
    library, tests = Path(training.__file__).parents[2], Path(__file__).parents[1]
    command = [sys.executable, "-c", PROCESS, str(library), str(tests), str(folder), *stores]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def saved_ns(folder):
    """When the unfinished run was saved last; None if it never was."""
    return next((path.stat().st_mtime_ns for path in unfinished(folder)), None)


def written(folder, before, running):
    """Wait until a process has saved its run, or runs no longer."""
    while running() and saved_ns(folder) == before:
        time.sleep(0.001)


def test_a_run_killed_anywhere_goes_on_to_the_same_bytes(stores, unbroken, tmp_path):
    moments, killed = random.Random(1), 0
    for _ in range(5):
        before = saved_ns(tmp_path)
        process = started(run_whole, tmp_path, *stores)
        written(tmp_path, before, process.is_alive)
        time.sleep(moments.uniform(0, 0.1))  # a region takes about as long
        process.kill()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
    assert killed == 5
    run(tmp_path, stores[:1], stores[1:], ALWAYS, **WHOLE)
    assert results(tmp_path) == unbroken
    assert not [*tmp_path.glob("unfinished*"), *tmp_path.glob(".*")], "neither it nor a draft of it"


def test_a_job_that_is_told_to_stop_saves_its_run_and_says_so(stores, unbroken, tmp_path):
    process = job_of(tmp_path, stores)
    written(tmp_path, None, lambda: process.poll() is None)
    process.terminate()
    _, told = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "LesionMap: train: told to stop (SIGTERM) in epoch" in told
    assert "Remedy: run again: training goes on from there." in told
    assert "Traceback" not in told
    run(tmp_path, stores[:1], stores[1:], ALWAYS, **WHOLE)
    assert results(tmp_path) == unbroken


def stopped_at(monkeypatch, number):
    """Have training told to stop at a pause point, counted from 0: between regions, or between two passes of one."""
    points = iter(range(number))
    original = StopRequest.pause_point

    def pause_point(self):
        if next(points, number) == number:
            os.kill(os.getpid(), signal.SIGTERM)
        original(self)

    monkeypatch.setattr(StopRequest, "pause_point", pause_point)
    monkeypatch.setattr(parallel, "POLL_SECONDS", None)  # how often training looks while it waits is chance


def run_with_stops(monkeypatch, folder, numbers, *stores, **options):
    """Run until it is done, stopped so many pause points after each start; where, as (position, low_done)."""
    places = []
    for number in numbers:
        with monkeypatch.context() as patched, pytest.raises(InterruptedTrainingError):
            stopped_at(patched, number)
            run(folder, *stores, TrainMachine("cpu", 1000, 1 + number % 2), **options)
        saved = torch.load(*unfinished(folder), weights_only=True)["run"]
        places.append((saved["position"], saved["low_done"]))
    run(folder, *stores, **options)
    return places


@pytest.fixture
def folders(tmp_path):
    """One for a run that nobody stops, one for the same with stops."""
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    return tmp_path / "whole", tmp_path / "stopped"


@pytest.mark.parametrize(("schedule", "stain_jitter"), [("joint", 0.1), ("sequential", 0), ("high_only", 0)])
def test_between_passes_of_a_region_a_run_can_stop(schedule, stain_jitter, stores, folders, monkeypatch):
    options = {"schedule": schedule, "stain_jitter": stain_jitter}
    run(folders[0], stores[:1], stores[1:], **options)
    places = run_with_stops(monkeypatch, folders[1], (1, 2, 5, 3, 7), stores[:1], stores[1:], **options)
    assert results(folders[1]) == results(folders[0])
    assert any(low_done for _, low_done in places)


def test_in_validation_a_run_can_stop(stores, folders, monkeypatch):
    options = {"schedule": "low_only", "early_stop": 1}
    run(folders[0], stores[:1], stores[1:], **options)
    places = run_with_stops(monkeypatch, folders[1], (6, 0, 0, 3), stores[:1], stores[1:], **options)
    assert places == [(3, False), (3, False), (3, False), (1, False)]
    assert results(folders[1]) == results(folders[0])


def test_trainable_batch_norm_goes_on_to_the_same_bytes(tmp_path, folders, monkeypatch):
    part = store(tmp_path / "t.h5", region(0, side=64), region(1, 16, side=64))
    options = {"epochs": 2, "network": ModelSettings("narrow", "batch", "learned")}
    run(folders[0], [part], [part], **options)
    run_with_stops(monkeypatch, folders[1], (2, 5, 40), [part], [part], **options)  # the last in the second epoch
    assert results(folders[1]) == results(folders[0])


def test_the_tile_batch_of_the_start_is_kept(stores, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(training, "fitting_tile_batch", lambda *_: 2)
    with monkeypatch.context() as patched, pytest.raises(InterruptedTrainingError):
        stopped_at(patched, 4)
        run(tmp_path, stores[:1], tile_batch="auto")
    monkeypatch.setattr(training, "fitting_tile_batch", lambda *_: 4)
    with caplog.at_level(logging.INFO):
        run(tmp_path, stores[:1], tile_batch="auto")
    assert "2 tiles in the network at once" in caplog.text


@pytest.fixture
def stopped(stores, tmp_path, monkeypatch):
    """An unfinished run."""
    with monkeypatch.context() as patched, pytest.raises(InterruptedTrainingError):
        stopped_at(patched, 4)
        run(tmp_path, stores[:1], stores[1:])
    return unfinished(tmp_path)[0]


def test_an_unfinished_run_of_other_settings_is_put_aside_and_they_are_logged(stopped, stores, tmp_path, caplog):
    other = store(tmp_path / "other.h5", region(7), slide="s3")
    before = stopped.read_bytes()
    with caplog.at_level(logging.INFO):
        network = ModelSettings("narrow", "group", "max")
        run(tmp_path, stores[:1], [other], network=network, epochs=3, leave_out_above={"blur": 0.5})
    (message,) = (record.message for record in caplog.records if f"{stopped} is put aside:" in record.message)
    for difference in (
        "model.fusion: mean there, max here",
        "train.epochs: 2 there, 3 here",
        "train.leave_out_above.blur: None there, 0.5 here",
        f"validation_slides.s3: None there, {'f' * 64}, tiles ",
    ):
        assert f"\n  - {difference}" in message
    assert "train.seed" not in message
    assert "training starts anew" in caplog.text
    assert stopped.read_bytes() == before
    caplog.clear()
    with caplog.at_level(logging.INFO):
        run(tmp_path, stores[:1], stores[1:])
    assert f"goes on with {stopped}: epoch 1, after " in caplog.text
    assert not (tmp_path / "unfinished").exists()


def test_other_outlines_of_the_same_slide_are_other_data(stopped, tmp_path, stores, caplog):
    changed = region(0)
    changed.masks[changed.masks == 1] = 2
    other = store(tmp_path / "other.h5", changed, region(1, 0), region(2, 16))
    with caplog.at_level(logging.INFO):
        run(tmp_path, [other], stores[1:])
    assert re.search(r"is put aside: \n  - training_slides\.s1: f+, tiles .* there", caplog.text)


def test_the_three_unfinished_runs_saved_last_are_kept(stores, tmp_path, monkeypatch, caplog):
    saved = []
    for seed in range(4):
        with monkeypatch.context() as patched, pytest.raises(InterruptedTrainingError):
            stopped_at(patched, 4)
            run(tmp_path, stores[:1], seed=seed)
        saved.insert(0, unfinished(tmp_path)[0])
        assert unfinished(tmp_path) == saved[:3]


def test_many_differences_are_cut_short(stopped, stores, tmp_path, caplog):
    others = [store(tmp_path / f"o{number}.h5", region(number), slide=f"o{number}") for number in range(23)]
    with caplog.at_level(logging.INFO):
        run(tmp_path, stores[:1], others, epochs=1, schedule="low_only")
    (message,) = (record.message for record in caplog.records if " is put aside:" in record.message)
    assert message.count("\n  - ") == 20
    assert message.endswith("\n  and 6 more")  # epochs, schedule, 23 slides more and one less: 26


def test_a_broken_run_that_is_put_aside_holds_nothing_up(stopped, stores, tmp_path, caplog):
    stopped.write_bytes(b"no checkpoint")
    with caplog.at_level(logging.INFO):
        run(tmp_path, stores[:1], stores[1:], epochs=1)
    assert f"{stopped} is put aside: it cannot be read (" in caplog.text


def test_the_history_so_far_has_each_epoch_once(stores, tmp_path, monkeypatch):
    """Saved less often than an epoch ends, a run goes on before its last finished epoch."""
    history, seen = tmp_path / "unfinished_history.csv", []
    monkeypatch.setattr(training, "write_table", lambda path, rows, columns: (write(path, rows, columns), note()))
    write = records.write_table

    def note():
        with open(history, encoding="utf-8") as stream:
            seen.append([row["epoch"] for row in csv.DictReader(stream)])

    machine = TrainMachine("cpu", 1000, 1)
    with monkeypatch.context() as patched, pytest.raises(InterruptedTrainingError):
        stopped_at(patched, 80)
        run(tmp_path, stores[:1], stores[1:], machine, epochs=9)
    assert seen[0] == ["1"]
    assert seen[-1] == [str(number) for number in range(1, len(seen) + 1)]
    (path,) = unfinished(tmp_path)
    content = torch.load(path, weights_only=True)
    n_epochs = len(content["run"]["rows"])
    assert n_epochs == len(seen) > 1
    content["run"] |= {"rows": content["run"]["rows"][:-1], "epoch": n_epochs - 1, "position": 0, "losses": []}
    torch.save(content, path)  # as saved before the last epoch ended
    seen.clear()
    _, rows = run(tmp_path, stores[:1], stores[1:], machine, epochs=9)
    assert seen[0] == [str(number) for number in range(1, n_epochs)]
    assert seen[1] == [*seen[0], str(n_epochs)]
    assert seen[-1] == [row["epoch"] for row in rows] == [str(number) for number in range(1, 10)]
    assert not history.exists()


def test_a_run_that_starts_anew_leaves_no_history_of_another(stores, tmp_path):
    (tmp_path / "unfinished_history.csv").write_text("epoch\n1\n")
    with pytest.MonkeyPatch.context() as patched, pytest.raises(InterruptedTrainingError):
        stopped_at(patched, 1)
        run(tmp_path, stores[:1])
    assert not (tmp_path / "unfinished_history.csv").exists()


def test_where_and_how_safely_it_runs_is_free(stopped, stores, tmp_path):
    run(tmp_path, stores[:1], stores[1:], TrainMachine("auto", 0, 3))
    assert not stopped.exists()


class Exploit:
    def __reduce__(self):
        return (open, ("/tmp/lesionmap-exploited", "w"))


@pytest.mark.parametrize("content", [b"", b"no checkpoint", pickle.dumps(Exploit()), None])
def test_an_unfinished_run_that_cannot_be_read_is_named(stopped, stores, tmp_path, content):
    stopped.write_bytes(stopped.read_bytes()[:-1000] if content is None else content)
    with pytest.raises(TrainingError, match=rf"{stopped} cannot be read \(.*Remedy: delete that file; training then"):
        run(tmp_path, stores[:1], stores[1:])
    assert not Path("/tmp/lesionmap-exploited").exists()


def test_sigterm_is_anothers_again_afterwards():
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        stop.pause_point()
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(StopRequestedError):
            stop.pause_point()
    assert signal.getsignal(signal.SIGTERM) == before
