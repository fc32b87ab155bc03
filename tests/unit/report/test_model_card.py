"""The model card: all that the file says, nothing that it does not, and names cannot break its Markdown."""

import hashlib
import json
import re
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import yaml
from lesionmap.errors import ModelError, SettingsError
from lesionmap.report.inputs import ReportInputs
from lesionmap.report.model_card import Stated, describe_model, escaped
from lesionmap.tiles.settings import TileSettings
from lesionmap.training.publication import training_metadata
from report_parts import cohort_of, render, summarise_into
from safetensors.numpy import save_file

TILES = TileSettings(4096, 512, 0.25, min_tissue_fraction=0.05)
ORIGIN = {
    "software": "LesionMap 9",
    "code": "c0de",
    "model": {"backbone": "resnet18", "norm": "frozen", "weights": "imagenet"},
    "train": {"epochs": 50, "leave_out_above": {"blur": 1}},
    "versions": {"torch": "9.9"},
}
INPUT = {"stain": {"method": "macenko", "ratio_limits": [0.5, 2.0]}, "slides": {"apply_icc": True}}
EPOCH = {
    "epoch": 7,
    "train_low_loss": 0.5,
    "val_low_loss": 0.012345,
    "val_low_dice": 0.75,
    "val_low_auroc": 0.91234,
    "val_low_calibration_slope": 1.23456,
    "val_low_calibration_intercept": -0.5,
    "val_fused_dice": 0.8,
    "val_fused_auroc": None,
}
STAIN = {"basis": [[0.65, 0.7, 0.29], [0.07, 0.99, 0.11]], "p99": [1.5, 1.25], "method": "vahadane"}
NOTHING = Stated()
OLD = {"architecture": {"backbone": "resnet50", "norm": "group"}, "provenance": {"software": "LesionMap 0.0"}}


@pytest.fixture
def metadata(tmp_path):
    weights = tmp_path / "resnet18.pth"
    weights.write_bytes(b"weights")
    return training_metadata(TILES, INPUT, str(weights), ORIGIN) | {
        "architecture": {"backbone": "resnet18", "norm": "frozen"},
        "stain_reference": STAIN,
        "training_slides": {"train_1": "ab" * 32, "train_2": "cd" * 32},
        "validation_slides": {"val_1": "ef" * 32},
        "patients": {"train_1": "12" * 32, "train_2": "12" * 32},
        "epoch": EPOCH,
    }


def card(folder, metadata, name="CARD.md", stated=NOTHING):
    tensors = {"head.weight": np.zeros((1, 64, 1, 1), dtype=np.float32), "head.bias": np.zeros(1, dtype=np.float32)}
    save_file(tensors, folder / "m.safetensors", metadata={"lesionmap": json.dumps(metadata, sort_keys=True)})
    describe_model(str(folder / "m.safetensors"), str(folder / name), stated)
    return (folder / name).read_text(encoding="utf-8")


def rows(text):
    """First cell → the other cells of every table row."""
    cells = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {first: others for first, *others in cells}


def test_the_function_that_it_names_is_there(tmp_path, metadata):
    (dotted,) = re.findall(r"`([a-z_.]+)\(path\)`", card(tmp_path, metadata))
    module, _, name = dotted.rpartition(".")
    assert callable(getattr(import_module(module), name))


def test_what_training_records_before_its_first_epoch(metadata):
    assert metadata["classes"] == {"background": 0, "lesion": 1, "vessel": 2, "fat": 3, "ignore": 255}
    assert (metadata["target"], metadata["threshold"]) == ("lesion", 0.5)
    assert metadata["mpp"] == {"high": 0.25, "low": 2.0}
    assert metadata["tiles"] == asdict(TILES)
    assert metadata["input"] == INPUT
    assert metadata["backbone_weights"] == {"file": "resnet18.pth", "sha256": hashlib.sha256(b"weights").hexdigest()}
    assert metadata["provenance"] == ORIGIN
    assert "Not a diagnostic device" in metadata["intended_use"]
    assert "MIT" in metadata["licence"]
    assert json.loads(json.dumps(metadata)) == metadata


def test_tiles_that_do_not_fit_are_refused():
    with pytest.raises(SettingsError, match="do not fit"):
        training_metadata(replace(TILES, tile_px=500), INPUT, None, ORIGIN)


def test_the_card_says_all_that_the_file_does(tmp_path, metadata):
    text = card(tmp_path, metadata)
    table = rows(text)
    assert "not recorded" not in text
    assert f"`{hashlib.sha256((tmp_path / 'm.safetensors').read_bytes()).hexdigest()}`" in text
    assert metadata["intended_use"] in text
    assert metadata["licence"] in text
    assert table["Backbone"] == ["resnet18, normalisation frozen"]
    assert table["Numbers in the file"] == ["65"]
    assert table["Backbone started from"] == [
        f"imagenet: resnet18.pth, SHA-256 {hashlib.sha256(b'weights').hexdigest()[:12]}…"
    ]
    assert table["Classes in the masks"] == ["0 background, 1 lesion, 2 vessel, 3 fat, 255 ignore"]
    assert table["Low-resolution view"] == ["2 µm/px"]
    assert table["Regions"] == ["4096 px wide at 0.25 µm/px"]
    assert table["Eosin, optical density R, G, B"] == ["0.07, 0.99, 0.11"]
    assert table["99th percentiles of both"] == ["1.5, 1.25"]
    assert table["train\\_2"] == ["cdcdcdcdcdcd…"]
    assert "Training slides: 2. Patients: 1.\n" in text
    assert "Validation slides: 1. Patients: 0, and 1 slide without one.\n" in text
    assert "      blur: 1\n" in text
    assert "CN 111784671 A, 2020." in text
    assert "  path: lesionmap.safetensors" in text
    shown = text.split("## How slides are read")[1].split("\n## ")[0]
    assert "    stain:\n      method: macenko\n" in shown
    assert "      apply_icc: true\n" in shown


def test_metrics_on_validation(tmp_path, metadata):
    text = card(tmp_path, metadata)
    assert "Of epoch 7," in text
    assert rows(text)["low"] == ["0.01235", "0.75", "0.9123", "1.235", "-0.5"]
    assert rows(text)["fused"] == ["—", "0.8", "—", "—", "—"]
    assert "high" not in rows(text)
    last = card(tmp_path, metadata | {"epoch": {"epoch": 50}, "validation_slides": {}})
    assert "None. The file holds the weights of the last epoch: 50." in last
    assert "Validation slides: 0." in last


def test_random_weights_are_called_so(tmp_path, metadata):
    text = card(
        tmp_path, metadata | {"backbone_weights": training_metadata(TILES, INPUT, None, ORIGIN)["backbone_weights"]}
    )
    assert rows(text)["Backbone started from"] == ["random weights"]


@pytest.mark.parametrize(
    "lacking", ["threshold", "classes", "backbone_weights", "mpp", "validation_slides", "licence", "patients"]
)
def test_what_an_older_file_lacks_is_not_recorded(tmp_path, metadata, lacking):
    text = card(tmp_path, {key: value for key, value in metadata.items() if key != lacking})
    assert 1 <= text.count("not recorded") <= 2


def test_the_oldest_file_has_a_card(tmp_path):
    text = card(tmp_path, OLD)
    assert "Not recorded: the file is of an older version. A run takes these settings from its config" in text
    assert text.count("not recorded") >= 15
    assert "LesionMap models are for research." in text
    assert rows(text)["Regions"] == ["not recorded wide at not recorded"]
    assert "    software: LesionMap 0.0" in text


def test_names_from_a_file_cannot_break_the_card(tmp_path, metadata):
    odd = "x|y`<b>*[l](u)\n\n# head"
    slides = {odd: "ab" * 32}
    origin = ORIGIN | {"code": "```\n# head\n</details>"}
    text = card(tmp_path, metadata | {"training_slides": slides, "provenance": origin})
    assert r"| x\|y\`\<b\>\*\[l\](u) \# head | abababababab… |" in text
    headings = [line for line in text.splitlines() if line.startswith("#")]
    assert "# head" not in headings
    assert not [line for line in text.splitlines() if line.startswith("```") and line not in ("```yaml", "```")]
    assert [line for line in text.splitlines() if "</details>" in line and not line.startswith("    ")] == []


def test_a_large_cohort_is_counted_and_its_first_slides_are_listed(tmp_path, metadata):
    text = card(tmp_path, metadata | {"training_slides": {f"s{n:03}": "ab" * 32 for n in range(103)}})
    assert "Training slides: 103." in text
    assert [name for name in rows(text) if name.startswith("s0")] == [f"s{n:03}" for n in range(100)]
    assert "And 3 more, which the model file names." in text


def test_the_same_file_gives_the_same_card(tmp_path, metadata):
    assert card(tmp_path, metadata) == card(tmp_path, metadata, "again.md")


def test_a_file_that_is_no_model_has_no_card(tmp_path):
    (tmp_path / "m.safetensors").write_bytes(b"no model")
    with pytest.raises(ModelError, match="is not a LesionMap model"):
        describe_model(str(tmp_path / "m.safetensors"), str(tmp_path / "CARD.md"))
    assert not (tmp_path / "CARD.md").exists()


def test_values_are_escaped():
    assert escaped("a_b  c\n| d") == r"a\_b c \| d"
    assert escaped(None) == "—"
    assert escaped(0.5) == "0.5"


def front_matter(text):
    return yaml.safe_load(text.split("---\n")[1])


@pytest.mark.parametrize("odd", ['it\'s "x": y', "- a\n---\nb: [", "#head | `x` {1}", "yes", "Größe: 5 µm"])
def test_the_front_matter_is_yaml_whatever_is_stated(tmp_path, metadata, odd):
    text = card(tmp_path, metadata, stated=Stated(contact=odd, organ=odd, scanner=odd, hardware=odd, license=odd))
    assert text.startswith("---\nlicense: ")
    end = text.index("\n---\n\n# Model card: ")
    found = yaml.safe_load(text[4:end])
    assert (found["license"], found["tags"][-1], found["pipeline_tag"]) == (odd, odd, "image-segmentation")
    assert rows(text)["Contact"] == rows(text)["Scanners"] == [escaped(odd)]
    assert rows(text)["Hardware of the training"] == [escaped(odd)]


def test_the_front_matter_has_the_metrics_of_validation(tmp_path, metadata):
    text = card(tmp_path, metadata)
    found = front_matter(text)
    (result,) = found["model-index"][0]["results"]
    assert {metric["name"]: metric["value"] for metric in result["metrics"]} == {
        "loss, low view": 0.012345,
        "dice, low view": 0.75,
        "auroc, low view": 0.91234,
        "calibration_slope, low view": 1.23456,
        "calibration_intercept, low view": -0.5,
        "dice, fused view": 0.8,
    }
    assert result["dataset"]["split"] == "validation"
    assert "license" not in found
    assert [rows(text)[name] for name in ("Organ", "Contact", "Licence of the weights")] == [["not stated"]] * 3


def test_a_file_without_validation_has_no_model_index(tmp_path, metadata):
    assert "model-index" not in front_matter(card(tmp_path, metadata | {"epoch": {"epoch": 50}}))


def test_the_reports_copy_ends_with_the_evaluation(inputs: ReportInputs, tmp_path: Path) -> None:
    card = (render(inputs, tmp_path) / "tables/model/MODEL_CARD.md").read_text()
    assert card.startswith("as it is\n## Evaluation in this run\n")
    assert "| test | 1 | 1 | dice | 0.900 |\n" in card
    summarise_into(inputs, cohort_of(tmp_path))
    card = (render(inputs, tmp_path / "six") / "tables/model/MODEL_CARD.md").read_text()
    entry = json.loads(Path(inputs.summary).read_text())["splits"]["test"]["metrics"]["dice"]
    assert f"| test | 6 | 6 | dice | 0.857 ({entry['low']:.3f} to {entry['high']:.3f}) |" in card
    summarise_into(inputs, [])
    card = (render(inputs, tmp_path / "none") / "tables/model/MODEL_CARD.md").read_text()
    assert card.endswith("No slide that is independent of the model was evaluated.\n")


def test_the_card_says_what_classes_of_annotations_meant(tmp_path, metadata) -> None:
    text = card(tmp_path, metadata, stated=Stated(classes={"Tumor|x": "lesion", "Fat": "fat"}))
    assert f"{escaped('Tumor|x')} → lesion, Fat → fat" in text
    assert "Classes of annotations" not in card(tmp_path, metadata, stated=Stated())
