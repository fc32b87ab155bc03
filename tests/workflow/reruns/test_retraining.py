"""Training again: the last finished model stays until the next one is whole, and no run is lost or in the way."""

import csv
import os
import re
import signal
import subprocess
import time
from contextlib import suppress

from project import environment
from test_rerun import after_training

BEGINS = "======== a new attempt begins ========"
MODEL = "results/model/lesionmap.safetensors"
BEST = "last.safetensors"  # there are no validation slides
LONGER = {"epochs": 400, "checkpoint_minutes": 0}


def published(project):
    """What is in use of the last finished training: path → bytes and date."""
    folder = project.folder / "results/model"
    paths = [folder / name for name in ("lesionmap.safetensors", "history.csv", "learning_curves.svg", "MODEL_CARD.md")]
    paths += (folder / "checkpoints").iterdir()
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}


def unfinished(project):
    return sorted(path.name for path in (project.folder / "results/model").glob("unfinished/[!.]*.pt"))


def history(project, start_ns):
    """Epochs of the run that trains, as it tells them; none if it has told nothing since it was started."""
    path = project.folder / "results/model/unfinished_history.csv"
    if not path.exists() or path.stat().st_mtime_ns < start_ns:
        return []
    with open(path, encoding="utf-8") as stream:
        return [int(row["epoch"]) for row in csv.DictReader(stream)]


def of_new_settings():
    """The jobs that follow from other settings of training."""
    return after_training() - {"summarise_tiles"}


def log(project):
    """The log of training, by attempts."""
    return (project.folder / "logs/train.log").read_text().split(BEGINS)[1:]


def interrupted(project, sign, n_epochs):
    """Run until that many epochs of training are over and saved, then send a signal to all processes of the run."""
    seen, start_ns = [], time.time_ns()
    with open(project.folder / "printed.txt", "w", encoding="utf-8") as printed:
        command = ["env", "--default-signal=INT", *project.command()]  # as in a terminal, also if tests run without one
        process = subprocess.Popen(command, stdout=printed, stderr=printed, env=environment(), start_new_session=True)
    try:
        while len(seen) < n_epochs or not unfinished(project):
            assert process.poll() is None, project.printed()
            assert (project.folder / MODEL).exists(), "the last model is there while the next one is trained"
            seen = history(project, start_ns)
            assert seen == list(range(1, len(seen) + 1))
            time.sleep(0.05)
        os.killpg(process.pid, sign)
        assert process.wait(timeout=120)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    if sign == signal.SIGKILL:
        project.run("--unlock")


def maps(project):
    """Dates of the lesion maps."""
    paths = project.folder.glob("results/lesions/*/probability.ome.tif")
    return {path: path.stat().st_mtime_ns for path in paths}


def test_changed_interrupted_and_changed_back_nothing_runs_and_changed_again_it_goes_on(project):
    before, dates, usual = published(project), maps(project), dict(project.config["train"])
    for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        project.config["train"] = usual | LONGER
        interrupted(project, sign, 2)
        assert published(project) == before
        assert maps(project) == dates, "no map of the old model is made in a run of the new settings"
        assert of_new_settings() <= project.foreseen(), "that model is not taken for the one of the new settings"
        project.config["train"] = usual
        assert project.foreseen() == set()
    (first,) = unfinished(project)
    attempts = log(project)
    assert len(attempts) == 4, "one of the finished cohort, and three of this test"
    assert "training starts anew" in attempts[1]
    for attempt in attempts[2:]:
        (start,) = re.findall(rf"goes on with results/model/unfinished/{first}: epoch (\d+), after", attempt)
        assert int(start) > 1
        assert re.findall(r"\{'epoch': (\d+)", attempt)[:1] in ([], [start])

    project.config["train"] = usual | LONGER | {"seed": 1}
    interrupted(project, signal.SIGKILL, 1)
    told = rf"unfinished/{first} is put aside: \n  - train\.seed: 0 there, 1 here\n"
    assert re.search(told, log(project)[-1])
    assert len(unfinished(project)) == 2
    project.config["train"] = usual
    assert "Nothing to be done" in project.run()
    assert published(project) == before


def test_training_that_fails_leaves_the_model_until_one_of_the_new_settings_is_whole(project):
    before, dates = published(project), maps(project)
    (old,) = (project.folder / "results/model/runs").iterdir()
    project.config["train"] |= {"seed": 5, "device": "cuda:7"}
    printed = project.run("--retries", "1", ok=False)
    assert printed.count("LesionMap: train: ") == 2
    assert len(log(project)) == 3
    assert published(project) == before
    assert maps(project) == dates
    assert of_new_settings() <= project.foreseen(), "although Snakemake has noted the settings that failed"

    project.config["train"]["device"] = "cpu"
    assert project.planned(MODEL) == {"train", "publish_model"}
    (new,) = (project.folder / "results/model/runs").iterdir()
    assert new != old
    assert (new / BEST).read_bytes() == (project.folder / MODEL).read_bytes()
    assert published(project).keys() == before.keys()
    assert published(project)[project.folder / MODEL][0] != before[project.folder / MODEL][0]


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
    assert of_new_settings() <= project.foreseen()
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
    (run / BEST).write_bytes(before[:-1])
    (project.folder / MODEL).unlink()
    printed = project.run(MODEL, ok=False)
    path = f"results/model/runs/{run.name}"
    assert f"LesionMap: publish_model: {path}/{BEST} is missing, or not as training wrote it." in printed
    assert f"Remedy: delete the folder {path} and run again: the model is then trained again." in printed
    assert "Traceback" not in printed


def test_all_files_follow_the_umask(finished):
    probe = finished.folder / "umask.txt"
    probe.touch()
    usual = probe.stat().st_mode & 0o777
    probe.unlink()
    found = [path for name in ("results", "logs") for path in (finished.folder / name).rglob("*") if path.is_file()]
    assert [str(path) for path in found if path.stat().st_mode & 0o777 != usual] == []
