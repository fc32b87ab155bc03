"""Numbers of jobs, by hand; against real runs: tests/workflow/test_uses.py."""

import pytest
import yaml
from lesionmap.run.costs import backbone_to_fetch, job_counts
from lesionmap.run.settings import RunSettings

READABLE = [("train", "aperio"), ("train", None), ("train", "dicom"), ("val", "dicom"), ("test", "aperio")]
READABLE += [("inference", "dicom"), ("inference", "trestle")]
SPLITS = [*(split for split, _ in READABLE), "test", "inference"]  # two slides are in quarantine
OF_EVERY = ("find_tissue", "fit_stain", "match_stain", "draw_stain", "map_slide", "find_lesions", "cut_view")
ONCE = {
    "build_manifest",
    "choose_reference",
    "compare_stains",
    "summarise_tiles",
    "export_model",
    "describe_model",
    "summarise",
    "all",
}
ONCE |= {"list_annotations", "plot_metrics", "list_quarantine", "list_findings", "render_report", "conclude"}


@pytest.fixture
def config(request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return yaml.safe_load((request.config.rootpath / "config/config.yaml").read_text(encoding="utf-8"))


def counted(config):
    return job_counts(SPLITS, READABLE, RunSettings.of(config))


def test_each_rule_counts_the_slides_of_its_splits(config):
    counts = counted(config)
    per_slide = dict.fromkeys(OF_EVERY, 7) | {"inspect_slide": 9, "import_annotation": 6, "check_annotation": 5}
    per_slide |= {"extract_tiles": 4, "evaluate_slide": 2, "write_dicom": 3}
    once = dict.fromkeys((*ONCE, "train", "publish_model", "plot_learning_curves", "fetch_backbone"), 1)
    assert counts == per_slide | once


def test_annotations_of_second_readers_are_imported(config):
    counts = job_counts(SPLITS, READABLE, RunSettings.of(config), second_readers=2)
    assert counts.pop("import_second_annotation") == 2
    assert counts == counted(config)


def test_a_given_model_is_not_trained(config):
    config["model"]["path"] = "lesionmap.safetensors"
    assert {rule for rule, count in counted(config).items() if count == 1} == ONCE
    assert "extract_tiles" not in counted(config)


@pytest.mark.parametrize(("dicom", "count"), [("always", 7), ("auto", 3), ("never", None)])
def test_lesions_are_written_as_dicom_for_the_slides_asked_for(config, dicom, count):
    config["exports"]["dicom"] = dicom
    assert counted(config).get("write_dicom") == count


def test_models_are_compared_if_there_are_others(config):
    assert "compare_models" not in counted(config)
    config["evaluation"]["compare"] = {"older": "../older/results/metrics"}
    assert counted(config)["compare_models"] == 1


def test_maps_are_compared_with_those_that_were_last_reviewed(config, tmp_path):
    assert "compare_with_before" not in counted(config)
    (tmp_path / "results/review/before").mkdir(parents=True)
    assert counted(config)["compare_with_before"] == 1


def test_the_backbone_is_fetched_once_and_only_for_training_from_imagenet(config, tmp_path):
    assert backbone_to_fetch(RunSettings.of(config)) == "resources/backbone/resnet50.pth"
    config["model"] |= {"weights": "none", "norm": "group"}
    assert backbone_to_fetch(RunSettings.of(config)) is None
    config["model"] |= {"weights": "imagenet"}
    (tmp_path / "resources/backbone").mkdir(parents=True)
    (tmp_path / "resources/backbone/resnet50.pth").touch()
    assert backbone_to_fetch(RunSettings.of(config)) is None
    assert "fetch_backbone" not in counted(config)
