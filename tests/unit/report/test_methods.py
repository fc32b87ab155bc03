"""The methods section in each mode of a run: a wrong number in it fails."""

import re
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluated import lesion, record_of, scores_of
from lesionmap.files.records import write_json
from lesionmap.report.inputs import ReportInputs
from report_parts import CONFIG, make_model, only, render, summarise_into

SEEN = {
    "training_slides": {"t1": "ab", "t2": "cd"},
    "validation_slides": {"v1": "ef"},
    "patients": {"t1": "12", "t2": "12"},
    "epoch": {"epoch": 7},
    "chosen_by": "low",
}
SETTINGS = {
    "schedule": "low_only",
    "learning_rate": 0.002,
    "decay_rate": 0.25,
    "epochs": 9,
    "focal_gamma": 1.5,
    "focal_alpha": 0.6,
    "augment": False,
    "seed": 3,
    "tile_batch": 8,
}
NETWORK = {"backbone": "resnet34", "weights": "none", "norm": "group", "fusion": "max"}
CUT = {"mpp": 0.5, "region_px": 2048, "tile_px": 256}


def methods(inputs: ReportInputs, folder: Path, **changes: Any) -> str:
    """The text without its marks and line ends."""
    page = (render(inputs, folder, **changes) / "index.html").read_text()
    text = page.split('<div id="methods-text">')[1].split("<ol")[0]
    return " ".join(unescape(re.sub("<[^>]*>", "", text)).split())


def trained(inputs: ReportInputs, folder: Path, **metadata: Any) -> ReportInputs:
    return replace(inputs, model=make_model(folder / "other.safetensors", **metadata))


def given(inputs: ReportInputs) -> tuple[ReportInputs, dict[str, Any]]:
    """As of a run with model.path."""
    return replace(inputs, history=None, learning_curves=None), CONFIG["model"] | {"path": "/models/m.safetensors"}


def test_a_run_that_trained(inputs: ReportInputs, tmp_path: Path) -> None:
    text = methods(trained(inputs, tmp_path, **SEEN), tmp_path)
    assert (
        "It mapped 3 slides (train: 1, test: 1, inference: 1). 1 slide was left out, as a stage could not use it ("
        in text
    )
    assert "(inspect_slide: 1)." in text
    assert "by the method of Vahadane et al. [2] (seed 0)." in text
    assert "those of the reference, slide train_1. The ratios" in text
    assert "trained on 2 training slides (patients: 1) with the focal loss [5] (γ = 2.0, weight of lesion 0.75)" in text
    rate = "(learning rate 0.001, which rose linearly over the first 50 updates, divided by 1 + 0.05 · epoch"
    assert f"{rate}; micro-batches of 4 tiles; seed 0) for 3 epochs; for every region," in text
    assert "The weights of epoch 2 were used, which had the lowest loss of the low map on 1 validation slide (" in text
    assert "at least 0.5 (set before the run) are lesion." in text
    assert "The test group has 1 evaluated slide of 1 patient, 1 with lesion, with 2 annotated lesions." in text
    assert "second reader" not in text
    assert "to ignore" not in text
    assert re.search(r"Software: LesionMap \d+\.\d+\.\d+.*; Python 3\.\d+\.\d+, .*torch 2\.", text)


def test_without_warm_up_and_decay_none_is_named(inputs: ReportInputs, tmp_path: Path) -> None:
    train = CONFIG["train"] | {"warmup_updates": 0, "decay_rate": 0, "processes": 2}
    text = methods(inputs, tmp_path, train=train)
    assert "(learning rate 0.001; micro-batches of 4 tiles; seed 0) for 3 epochs; for every 2 regions together," in text
    assert "The weights of epoch 2 were used. For the maps" in text


def test_a_given_model_is_described_by_its_file(inputs: ReportInputs, tmp_path: Path) -> None:
    origin = {"software": "LesionMap 9", "train": SETTINGS, "model": NETWORK}
    files, model = given(trained(inputs, tmp_path, **SEEN, provenance=origin, tiles=CUT))
    text = methods(files, tmp_path, model=model)
    assert "those of the reference, which came with the model." in text
    assert re.search(
        "No network was trained in this run; that of the model file with SHA-256 [0-9a-f]{64} was used, which", text
    )
    assert "cut at 0.5 µm/px into regions of 2048 × 2048 pixels." in text
    assert "on ResNet-34 [4] (normalisation: group)" in text
    assert "pretrained" not in text
    assert (
        "(learning rate 0.002, divided by 1 + 0.25 · epoch; micro-batches of 8 tiles; seed 3) for at most 9 epochs;"
        in text
    )
    assert "one update was made on the reduced view; its tiles were not used." in text
    assert "The weights of epoch 7 were used, which had" in text
    assert "/models" not in text


def test_a_given_model_that_says_nothing_of_its_training(inputs: ReportInputs, tmp_path: Path) -> None:
    files, model = given(inputs)
    text = methods(files, tmp_path, model=model)
    assert "trained beforehand with the focal loss [5]; its file does not record how." in text
    assert "learning rate" not in text


def test_inference_alone_claims_no_evaluation(inputs: ReportInputs, tmp_path: Path) -> None:
    summarise_into(inputs, [])
    text = methods(inputs, tmp_path)
    assert "No map was compared with an annotation." in text
    assert "CAMELYON16" not in text
    assert "Intervals" not in text


def test_where_all_slides_are_in_quarantine_no_method_is_claimed(inputs: ReportInputs, tmp_path: Path) -> None:
    summarise_into(inputs, [])
    text = methods(only(inputs, 0), tmp_path)
    said = (
        "which follows patent application CN 111784671 A [1], mapped no slide. 1 slide was left out, as a stage could"
    )
    assert said in text
    assert "stain" not in text


@pytest.mark.parametrize(
    ("inference", "sentence"),
    [
        ({"threshold": "validation"}, "at least 0.5 (the threshold with the best Dice on the validation slides) are"),
        ({"smoothing_um": 10}, "are lesion. Lesions were smoothed with a Gaussian of 10 µm."),
        ({"min_lesion_area_um2": 2500}, "are lesion. Lesions smaller than 2500 µm² were dropped."),
        ({"overlap": 0.25, "flips": True}, "with an overlap of 0.25 of a tile's side and the mean over mirror images"),
    ],
)
def test_what_is_done_with_the_maps(inputs: ReportInputs, tmp_path: Path, inference: Any, sentence: str) -> None:
    assert sentence in methods(inputs, tmp_path, inference=CONFIG["inference"] | inference)


def test_ignored_areas_are_counted(inputs: ReportInputs, tmp_path: Path) -> None:
    path = str(tmp_path / "r.metrics.json")
    mask = np.array([1] * 10 + [0] * 10, dtype=np.uint8)
    write_json(path, record_of("r", scores_of([1] * 20), mask, lesions=[lesion()] * 3, ignored_mm2=0.375))
    summarise_into(inputs, [path])
    text = methods(inputs, tmp_path)
    assert "with 3 annotated lesions." in text
    assert "Areas that the annotation says to ignore (0.375 mm² on 1 slide) were not evaluated." in text
