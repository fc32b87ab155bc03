"""The model that a run uses: of the epoch that is best in the map that inference makes."""

import csv

import pytest
from lesionmap.errors import TrainingError
from lesionmap.files.model_metadata import load_metadata
from lesionmap.files.records import read_json, sha256, write_json, write_table
from lesionmap.network.model import LesionFPN
from lesionmap.network.model_file import save_model
from lesionmap.run.published_model import copy_model, publish_model
from training_parts import NARROW


def finished_run(folder, **best):
    """A run of three epochs; `best` says the epoch that is best by a view."""
    run = folder / "runs/abc"
    run.mkdir(parents=True)
    epochs = {"last": 3} | {f"best_{view}": epoch for view, epoch in best.items()}
    for name, epoch in epochs.items():
        save_model(run / f"{name}.safetensors", LesionFPN(NARROW), NARROW, {"epoch": {"epoch": epoch}})
    rows = [{"epoch": epoch, "val_low_loss": 0.5} for epoch in (1, 2, 3)]
    write_table(run / "history.csv", rows, list(rows[0]))
    write_json(run / "trained.json", {"run": "abc", "sha256": {path.name: sha256(path) for path in run.iterdir()}})
    return run


def publish(folder, run, view):
    """Number of the epoch of the model that is published, and the epochs that the history marks."""
    paths = [folder / name for name in ("model.safetensors", "history.csv", "checkpoints")]
    publish_model(str(run / "trained.json"), *map(str, paths), view=view)
    with open(paths[1], encoding="utf-8") as stream:
        marked = [int(row["epoch"]) for row in csv.DictReader(stream) if row["used"] == "1"]
    assert {path.name for path in paths[2].iterdir()} == {path.name for path in run.glob("*.safetensors")}
    return load_metadata(paths[0])["epoch"]["epoch"], marked


@pytest.mark.parametrize(
    ("best", "view", "epoch"),
    [
        ({"low": 1, "fused": 2}, "low", 1),
        ({"low": 1, "fused": 2}, "fused", 2),  # refined maps
        ({"low": 1}, "fused", 1),  # trained on the low view alone
        ({"high": 2}, "high", 2),
        ({"high": 2}, "low", 2),  # trained on tiles alone, not refined
        ({}, "low", 3),  # without validation
    ],
)
def test_the_epoch_is_the_best_by_the_map_that_inference_makes(tmp_path, best, view, epoch):
    run = finished_run(tmp_path, **best)
    assert publish(tmp_path, run, view) == (epoch, [epoch])


def test_a_copy_leaves_the_run_and_others_as_they_are(tmp_path):
    """Variants of an experiment take their models from the same run."""
    run = finished_run(tmp_path, low=1, fused=2)
    (tmp_path / "runs/other").mkdir()
    before = {path: path.read_bytes() for path in run.iterdir()}
    for view, epoch in (("low", 1), ("fused", 2)):
        model = tmp_path / f"{view}.safetensors"
        copy_model(str(run / "trained.json"), str(model), str(tmp_path / f"{view}.csv"), view=view)
        assert load_metadata(model)["epoch"]["epoch"] == epoch
    assert {path: path.read_bytes() for path in run.iterdir()} == before
    assert (tmp_path / "runs/other").exists()


def test_another_view_is_published_from_the_same_run_and_other_runs_are_deleted(tmp_path):
    run = finished_run(tmp_path, low=1, fused=2)
    (tmp_path / "runs/old").mkdir()
    assert [publish(tmp_path, run, view)[0] for view in ("low", "fused", "low")] == [1, 2, 1]
    assert [path.name for path in run.parent.iterdir()] == ["abc"]


@pytest.mark.parametrize("name", ["best_low.safetensors", "last.safetensors", "history.csv"])
def test_a_file_that_is_not_the_trained_one_is_named_and_nothing_is_published(tmp_path, name):
    run = finished_run(tmp_path, low=1)
    (run / name).write_bytes((run / name).read_bytes()[:-1])
    with pytest.raises(TrainingError, match=rf"{name} is missing, or not as training wrote it.*delete the folder"):
        publish(tmp_path, run, "low")
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    assert name in read_json(run / "trained.json")["sha256"]
