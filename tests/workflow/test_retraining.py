"""Training again: the last finished model stays until the next one is whole, and no run is lost or in the way."""

import csv
import os
import re
import signal
import subprocess
import time

import pytest
from project import environment
from test_rerun import after_training

BEGINS = "======== a new attempt begins ========"
MODEL = "results/model/lesionmap.safetensors"
LONGER = {"epochs": 400, "checkpoint_minutes": 0}


def published(project):
    """What is in use of the last finished training: path → bytes and date."""
    folder = project.folder / "results/model"
    paths = [folder / name for name in ("lesionmap.safetensors", "history.csv", "learning_curves.svg", "MODEL_CARD.md")]
    paths += (folder / "checkpoints").iterdir()
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}


def unfinished(project):
    return sorted(path.name for path in (project.folder / "results/model").glob("unfinished/[!.]*.pt"))


def history(project):
    """Epochs of the unfinished run, as they are told while it trains; none if there is no file."""
    path = project.folder / "results/model/unfinished_history.csv"
    try:
        with open(path, encoding="utf-8") as stream:
            return [int(row["epoch"]) for row in csv.DictReader(stream)]
    except FileNotFoundError:
        return []


def log(project):
    """The log of training, by attempts."""
    return (project.folder / "logs/train.log").read_text().split(BEGINS)[1:]


def interrupted(project, sign, n_epochs, *, all_processes=True):
    """Run until that many epochs of training are over, then send a signal; all that was told in the history so far."""
    seen = []
    with open(project.folder / "printed.txt", "w", encoding="utf-8") as printed:
        process = subprocess.Popen(
            project.command(), stdout=printed, stderr=printed, env=environment(), start_new_session=True
        )
    while len(seen) < n_epochs or not unfinished(project):
        assert process.poll() is None, project.printed()
        assert (project.folder / MODEL).exists(), "the last model is there while the next one is trained"
        seen = history(project)
        assert seen == list(range(1, len(seen) + 1))
        time.sleep(0.05)
    (os.killpg if all_processes else os.kill)(process.pid, sign)
    process.wait(timeout=120)
    assert process.returncode
    if sign == signal.SIGKILL:
        project.run("--unlock")
    return seen


def maps(project):
    """Dates of the lesion maps."""
    paths = project.folder.glob("results/lesions/*/probability.ome.tif")
    return {path: path.stat().st_mtime_ns for path in paths}


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_changed_interrupted_and_changed_back_nothing_runs(sign, project):
    before, dates, usual = published(project), maps(project), dict(project.config["train"])
    project.config["train"] |= LONGER
    interrupted(project, sign, 2)
    assert published(project) == before
    assert maps(project) == dates, "no map of the old model is made in the run of the new settings"
    assert after_training() <= project.foreseen(), "that model is not taken for the one of the new settings"
    project.config["train"] = usual
    assert "Nothing to be done" in project.run()
    assert published(project) == before


def test_killed_training_goes_on_and_another_one_of_other_settings_is_put_aside(project):
    project.config["train"] |= LONGER
    interrupted(project, signal.SIGKILL, 2)
    (first,) = unfinished(project)
    project.config["train"] |= {"seed": 1}
    interrupted(project, signal.SIGKILL, 1)
    assert re.search(rf"unfinished/{first} is put aside: \n  - train\.seed: 0 there, 1 here\n", log(project)[-1])
    second = next(name for name in unfinished(project) if name != first)

    project.config["train"] |= {"seed": 0}
    seen = interrupted(project, signal.SIGKILL, 4)
    project.config["train"] |= {"seed": 1, "epochs": 400}
    attempts = log(project)
    assert len(attempts) == 4, "the first is of the finished cohort"
    assert f"goes on with results/model/unfinished/{first}: epoch " in attempts[3]
    start = int(re.search(r"goes on with \S+ epoch (\d+)", attempts[3])[1])
    assert start > 1
    closed = [int(number) for number in re.findall(r"\{'epoch': (\d+)", attempts[3])]
    assert closed[0] == start
    assert len(seen) >= 4
    assert unfinished(project) == sorted([first, second])


def test_training_that_fails_leaves_the_model_and_maps_nothing_with_it(project):
    """Whatever made it fail, also when it is tried again: Snakemake alone would note the settings that failed."""
    before, dates, usual = published(project), maps(project), dict(project.config["train"])
    project.config["train"] |= {"learning_rate": 1e30, "epochs": 3}
    for _ in range(2):
        printed = project.run("--retries", "1", ok=False)
        assert "LesionMap: train: the loss is no longer finite at region" in printed
        assert published(project) == before
        assert maps(project) == dates
        assert "map_slide" not in printed.split("Error in rule train")[1].split("Trying to restart")[0]
        assert after_training() <= project.foreseen()
    assert len(log(project)) == 5
    project.config["train"] = usual
    assert "Nothing to be done" in project.run()


def test_training_that_fails_without_a_slide_leaves_the_model_and_is_planned_again(project):
    """No file is newer than the model: what tells the next run is the set of slides."""
    before, sheet = published(project), project.folder / "slides.tsv"
    rows = sheet.read_text()
    sheet.write_text("".join(line for line in rows.splitlines(keepends=True) if not line.startswith("train_2\t")))
    project.config["train"] |= {"device": "cuda:7"}  # which trains nothing anew
    project.run(ok=False)
    assert published(project) == before
    assert {"train", "publish_model", "map_slide:test_1"} <= project.foreseen()
    sheet.write_text(rows)
    assert {"train", "publish_model"} <= project.foreseen()
    project.config["train"] |= {"device": "cpu"}
    project.run("results/model/lesionmap.safetensors")
    assert {path: content for path, (content, _) in published(project).items()} == {
        path: content for path, (content, _) in before.items()
    }
    assert "is already the result of these settings and data: nothing to train" in log(project)[-1]


def test_a_finished_run_is_not_trained_again_and_ends_a_run_that_waits_for_it(project):
    """As after tile stores were made again with the same content: train alone, and there is nothing to do after it."""
    before = published(project)
    for store in project.folder.glob("results/tiles/*.h5"):
        os.utime(store)
    assert after_training() - {"summarise_tiles"} <= project.foreseen()
    (record,) = (project.folder / "results/model/runs").glob("*/trained.json")
    project.run(str(record.relative_to(project.folder)))
    assert "is already the result of these settings and data: nothing to train" in log(project)[-1]
    assert published(project) == before
    assert "Nothing to be done" in project.run()


def test_a_lost_or_damaged_run_is_named_with_what_to_do(project):
    (run,) = (project.folder / "results/model/runs").iterdir()
    before = (project.folder / MODEL).read_bytes()
    (project.folder / MODEL).unlink()
    assert project.planned(MODEL) == {"publish_model"}
    assert (project.folder / MODEL).read_bytes() == before
    (run / "best.safetensors").write_bytes(before[:-1])
    (project.folder / MODEL).unlink()
    printed = project.run(MODEL, ok=False)
    path = f"results/model/runs/{run.name}"
    assert f"LesionMap: publish_model: {path}/best.safetensors is missing, or not as training wrote it." in printed
    assert f"Remedy: delete the folder {path} and run again: the model is then trained again." in printed
    assert "Traceback" not in printed


def test_other_settings_replace_the_finished_run(project):
    (old,) = (project.folder / "results/model/runs").iterdir()
    project.config["train"] |= {"seed": 5}
    assert project.planned(MODEL) == {"train", "publish_model"}
    (new,) = (project.folder / "results/model/runs").iterdir()
    assert new != old
    assert (new / "best.safetensors").read_bytes() == (project.folder / MODEL).read_bytes()


def test_all_files_follow_the_umask(finished):
    probe = finished.folder / "umask.txt"
    probe.touch()
    usual = probe.stat().st_mode & 0o777
    probe.unlink()
    found = [path for name in ("results", "logs") for path in (finished.folder / name).rglob("*") if path.is_file()]
    assert [str(path) for path in found if path.stat().st_mode & 0o777 != usual] == []
