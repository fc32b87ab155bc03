import copy

import pytest
import yaml
from lesionmap.errors import SettingsError
from lesionmap.files.schema import read_schema
from lesionmap.geometry.tiling import TileSpec
from lesionmap.inference.engines import EngineSettings
from lesionmap.inference.settings import MapSettings
from lesionmap.lesions.find_lesions import LesionSettings
from lesionmap.run.config import (
    as_typed,
    check_config,
    check_files,
    inspection_settings,
    judged_view,
    lesion_settings,
    map_settings,
    mapped_as_trained,
    reference_file,
    train_settings,
)
from lesionmap.slides.sheet import read_sheet
from lesionmap.training.settings import TrainSettings
from pyramids import row

pytestmark = pytest.mark.slides


@pytest.fixture
def root(request):
    return request.config.rootpath


@pytest.fixture
def config(root):
    return yaml.safe_load((root / "config/config.yaml").read_text())


@pytest.mark.parametrize("name", ["demo", "recommended"])
def test_a_config_beside_the_default_is_valid_and_has_only_what_differs(root, config, name):
    changes = yaml.safe_load((root / f"config/{name}.yaml").read_text())
    merged = copy.deepcopy(config)
    for section, keys in changes.items():
        if isinstance(keys, dict):
            same = [key for key, value in keys.items() if config[section][key] == value]
            assert not same
            merged[section] |= keys
        else:
            merged[section] = keys
    check(root, merged)


def check(root, config):
    check_config(config, root / "workflow/schemas/config.schema.yaml")


def sheet(root, tmp_path, text, encoding="utf-8", roots=None):
    (tmp_path / "slides.tsv").write_text(text, encoding=encoding, newline="")
    return read_sheet(tmp_path / "slides.tsv", root / "workflow/schemas/slides.schema.yaml", roots)


def test_the_shipped_config_and_sheet_are_valid(root, config):
    check(root, config)
    sheet, roots = config["slides"]["sheet"], config["slides"]["roots"]
    rows = read_sheet(root / sheet, root / "workflow/schemas/slides.schema.yaml", roots)
    assert reference_file(config, rows) is None


def test_frozen_statistics_of_random_weights_are_refused(root, config):
    config["model"] |= {"weights": "none", "norm": "frozen"}
    with pytest.raises(SettingsError, match=r"model.norm: frozen statistics need .* take group or batch"):
        check(root, config)
    config["model"]["norm"] = "group"
    check(root, config)


def test_tiles_alone_are_fused_only_where_tiles_alone_are_trained(root, config):
    config["model"]["fusion"] = "tiles"
    with pytest.raises(SettingsError, match=r"model\.fusion: tiles goes with train\.schedule: high_only"):
        check(root, config)
    for section, key, value in (("model", "path", "shipped.safetensors"), ("train", "schedule", "high_only")):
        check(root, config | {section: config[section] | {key: value}})


def test_the_shipped_config_is_the_methods(config):
    tiles, train, inference = config["tiles"], config["train"], config["inference"]
    assert (tiles["region_px"], tiles["tile_px"], tiles["mpp"]) == (4096, 512, 0.25)
    assert (train["epochs"], train["learning_rate"], train["focal_gamma"], train["focal_alpha"]) == (50, 0.001, 2, 0.75)
    assert (inference["magnification"], inference["batch_size"], inference["threshold"]) == ("patent", 128, 0.5)
    assert (train["schedule"], train["early_stop"], train["stain_jitter"]) == ("joint", None, 0)
    assert config["model"]["fusion"] == "mean"
    assert config["stain"]["method"] == "vahadane"
    assert (config["model"]["backbone"], config["model"]["weights"]) == ("resnet50", "imagenet")


@pytest.mark.parametrize(
    ("changes", "inference", "first_pass"),
    [
        ({}, 2.5, 2.5),
        ({"magnification": "match_training"}, 2.0, 2.0),
        ({"refine": "unsure"}, 0.25, 2.5),
        ({"magnification": "match_training", "refine": "all"}, 0.25, 2.0),
    ],
)
def test_slides_need_the_finest_resolution_at_which_they_are_read(config, changes, inference, first_pass):
    config["inference"] |= changes
    needed = inspection_settings(config)["needed_mpp"]
    assert needed == {"tiles": 0.25, "low_view": 2.0, "inference": inference, "first_pass": first_pass}


def test_map_settings_hold_what_decides_a_map_and_no_more(config):
    before = map_settings(config)
    later = {"threshold": 0.4, "smoothing_um": 5, "min_lesion_area_um2": 100}
    config["inference"] |= {"batch_size": 3, **later}
    assert map_settings(config) == before
    assert lesion_settings(config) == later
    config["inference"]["refine"] = "lesion"
    assert map_settings(config) == before | {"refine": "lesion", "threshold": 0.4}
    config["tiles"]["region_px"] = 2048
    assert map_settings(config)["tiles"] != before["tiles"]
    config["inference"]["precision"] = "fp32"
    assert map_settings(config)["precision"] != before["precision"]
    config["inference"]["recalibrate"] = True
    assert map_settings(config)["recalibrate"]
    assert MapSettings.of(map_settings(config), 0.1).recalibrate
    assert MapSettings.of(before, 0.1).tiles == TileSpec(4096, 512, 0.25)


def test_every_mistake_is_named_at_once(root, config):
    wrong = copy.deepcopy(config)
    wrong["train"]["epochs"] = 0
    wrong["train"]["tile_batch"] = "all"
    wrong["train"]["device"] = "gpu"
    wrong["train"]["stain_jitter"] = 0.6
    wrong["train"]["processes"] = 0
    wrong["stain"]["method"] = "reinhard"
    del wrong["tissue"]["mpp"]
    wrong["inference"]["treshold"] = 0.5
    with pytest.raises(SettingsError) as raised:
        check(root, wrong)
    message = str(raised.value)
    assert "train.epochs: 0 is less than the minimum of 1 (passes over all regions)" in message
    assert "train.tile_batch: 'all' is not valid under any of the given schemas (tiles in the network at" in message
    assert "train.device: 'gpu' does not match" in message
    assert "(auto, cpu, cuda or cuda:N)" in message
    assert "train.stain_jitter: 0.6 is greater than the maximum of 0.5" in message
    assert "train.processes: 0 is less than the minimum of 1 (processes that train together" in message
    assert "stain.method: 'reinhard' is not one of ['vahadane', 'macenko', 'none', 'staintools']" in message
    assert "tissue: 'mpp' is a required property" in message
    assert "inference: Additional properties are not allowed ('treshold' was unexpected)" in message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("processes", 4),
        ("tile_batch", "auto"),
        ("device", "cuda:3"),
        ("early_stop", 5),
        ("checkpoint_minutes", 0),
        ("stain_jitter", 0.5),
    ],
)
def test_every_way_to_set_training_is_valid(root, config, key, value):
    config["train"][key] = value
    check(root, config)


def test_where_training_runs_is_no_setting_of_its_result(config):
    kept = train_settings(config)
    assert set(config["train"]) - set(kept) == {"device", "checkpoint_minutes"}


def test_training_in_python_has_the_configs_defaults(config):
    kept = train_settings(config)
    assert TrainSettings(**kept) == TrainSettings(leave_out_above=kept["leave_out_above"])
    assert set(kept["leave_out_above"].values()) == {1}  # as without limits


def test_inference_in_python_has_the_configs_defaults(config):
    asked, inference = map_settings(config), config["inference"]
    assert MapSettings.of(asked, max_unreadable_fraction=0) == MapSettings(TileSpec(4096, 512, 0.25))
    assert EngineSettings(asked["engine"], asked["precision"], inference["batch_size"]) == EngineSettings()
    assert LesionSettings(**lesion_settings(config)) == LesionSettings()


def test_a_region_that_is_no_whole_number_of_tiles_is_refused_at_once(root, config):
    config["tiles"]["region_px"] = 4000
    with pytest.raises(SettingsError, match=r"tiles\.region_px 4000 and tiles\.tile_px 512 do not fit together"):
        check(root, config)


def test_a_codec_for_tiles_that_are_not_stored_is_refused(root, config):
    config["tiles"] |= {"store": "none", "codec": "jpeg"}
    with pytest.raises(SettingsError, match=r"tiles\.codec: jpeg has no effect with store: none"):
        check(root, config)


def test_several_processes_on_one_gpu_are_refused(root, config):
    config["train"] |= {"processes": 2, "device": "cuda:1"}
    with pytest.raises(SettingsError, match=r"train\.device: cuda:1 is one GPU, and processes: 2 need one each"):
        check(root, config)


@pytest.mark.parametrize("processes", ["two", "auto", 1.5])
def test_processes_are_a_whole_number(root, config, processes):
    config["train"]["processes"] = processes
    with pytest.raises(SettingsError, match=r"train\.processes: .* is not of type 'integer'"):
        check(root, config)


def test_values_of_the_command_line_get_the_types_that_the_schema_wants(root, config):
    """Snakemake reads ``--config 'train={epochs: 3}'`` as YAML whose values are all text."""
    text = """
      slides: {roots: [/data, s3://b], copies: {most_gb: 1.5}, apply_icc: 'true', mpp_from_objective: '10'}
      annotations: {classes: {'1': lesion, Tumor: fat}, mask_values: {'7': vessel}}
      stain: {white_point: [243, 240.5, 242], reference: '17', ratio_limits: ['0.5', '2']}
      train: {epochs: '3', tile_batch: auto, learning_rate: '2e-4', leave_out_above: {blur: '0.5'}}
      model: {path: 'null'}
      evaluation: {compare: {'2': 'false'}}
      on_quarantine: warn
    """
    typed = as_typed(yaml.load(text, yaml.BaseLoader), read_schema(root / "workflow/schemas/config.schema.yaml"))
    assert typed["slides"] == {
        "roots": ["/data", "s3://b"],
        "copies": {"most_gb": 1.5},
        "apply_icc": True,
        "mpp_from_objective": 10,
    }
    assert typed["annotations"] == {"classes": {"1": "lesion", "Tumor": "fat"}, "mask_values": {"7": "vessel"}}
    assert typed["stain"] == {"white_point": [243, 240.5, 242], "reference": "17", "ratio_limits": [0.5, 2]}
    assert typed["train"]["epochs"] == 3
    assert type(typed["train"]["epochs"]) is int
    assert typed["train"]["tile_batch"] == "auto"
    assert typed["train"]["leave_out_above"] == {"blur": 0.5}
    assert typed["model"] == {"path": None}
    assert typed["evaluation"] == {"compare": {"2": "false"}}
    assert as_typed(config, read_schema(root / "workflow/schemas/config.schema.yaml")) == config


@pytest.mark.parametrize("value", ["three", "[3", "3.5", "", ["3"], {"n": "3"}])
def test_a_value_that_fits_in_no_way_is_named_as_it_was_given(root, config, value):
    config["train"]["epochs"] = value
    typed = as_typed(config, read_schema(root / "workflow/schemas/config.schema.yaml"))
    assert typed["train"]["epochs"] == value
    with pytest.raises(SettingsError, match=r"train\.epochs: .* is not of type 'integer'"):
        check(root, typed)


def test_files_that_a_config_names_must_be_there(tmp_path, monkeypatch, config):
    monkeypatch.chdir(tmp_path)
    check_files(config)
    config["model"] |= {"weights": "own.pth"}
    config["evaluation"]["compare"] = {"last year": "old/metrics", "here": "new"}
    (tmp_path / "new").mkdir()
    (tmp_path / "old").mkdir()
    with pytest.raises(SettingsError) as raised:
        check_files(config)
    assert "\n  - model.weights: there is no file own.pth\n" in str(raised.value)
    assert "\n  - evaluation.compare: there is no folder old/metrics (last year)\n" in str(raised.value)
    assert str(raised.value).count("  - ") == 2
    assert f"relative ones start at the working directory, {tmp_path}" in str(raised.value)
    (tmp_path / "old/metrics").mkdir()
    config["model"]["path"] = "old"  # a folder, and with a model no weights are read
    with pytest.raises(SettingsError, match=r"\n  - model\.path: there is no file old\n\. "):
        check_files(config)
    (tmp_path / "m.safetensors").touch()
    config["model"]["path"] = "m.safetensors"
    check_files(config)


def test_a_missing_stain_profile_is_told_with_the_place_it_is_looked_for(tmp_path, monkeypatch, config):
    monkeypatch.chdir(tmp_path)
    config["stain"]["reference"] = "profile.json"
    with pytest.raises(SettingsError, match=rf"nor a profile \(\.json\) that exists in {tmp_path}\. "):
        reference_file(config, {"s1": row("x.svs")})


def test_class_names_and_mask_values_must_be_text(root, config):
    config["annotations"]["classes"][1] = "fat"
    config["annotations"]["mask_values"][4] = "fat"
    with pytest.raises(
        SettingsError, match=r"annotations.classes: 1 is not of type 'string'(.|\n)*mask_values: 4 is not"
    ):
        check(root, config)


@pytest.mark.parametrize(
    ("reference", "model", "file"),
    [
        ("s1", None, None),
        ("auto", None, None),
        ("{folder}/profile.json", None, "{folder}/profile.json"),
        ("auto", "m.safetensors", "m.safetensors"),
        ("s1", "m.safetensors", "m.safetensors"),  # a model's own reference goes first
        ("{folder}/profile.json", "m.safetensors", "m.safetensors"),
    ],
)
def test_the_reference_is_a_slide_or_in_a_file(tmp_path, config, reference, model, file):
    (tmp_path / "profile.json").write_text("{}")
    config["stain"]["reference"], config["model"]["path"] = reference.format(folder=tmp_path), model
    expected = file and file.format(folder=tmp_path)
    assert reference_file(config, {"s1": row("x.svs")}) == expected


@pytest.mark.parametrize("reference", ["b", "absent.json", "{folder}/s1.svs", "{folder}"])
def test_a_reference_that_is_neither_slide_nor_profile_is_refused(tmp_path, config, reference):
    (tmp_path / "s1.svs").touch()
    config["stain"]["reference"] = reference.format(folder=tmp_path)
    with pytest.raises(SettingsError, match=r"neither a slide of the sheet nor a profile .* e\.g\. s1, or set auto"):
        reference_file(config, {"s1": row("x.svs")})


@pytest.mark.parametrize("white", ["automatic", [255, 255], [255, 300, 255], [20, 30, 40], 255])
def test_a_white_point_is_auto_or_a_bright_colour(root, config, white):
    config["stain"]["white_point"] = [243, 240.5, 242]
    check(root, config)
    config["stain"]["white_point"] = white
    with pytest.raises(SettingsError, match=r"stain\.white_point: .* \(?.*colour of bare glass"):
        check(root, config)


@pytest.mark.parametrize(("section", "key"), [("stain", "ratio_limits"), ("inference", "unsure")])
def test_limits_the_wrong_way_round_are_refused(root, config, section, key):
    config[section][key] = [0.9, 0.5]
    said = rf"{section}\.{key}: the least, 0\.9, is above the largest, 0\.5; take \[0\.5, 0\.9\]"
    with pytest.raises(SettingsError, match=said):
        check(root, config)


@pytest.mark.parametrize(
    ("schedule", "fusion", "refine", "view"),
    [
        ("joint", "mean", "none", "low"),
        ("joint", "learned", "all", "fused"),
        ("high_only", "mean", "lesion", "high"),
        ("high_only", "mean", "none", "high"),
        ("low_only", "mean", "none", "low"),
    ],
)
def test_the_epoch_is_judged_by_the_map_that_inference_makes(config, schedule, fusion, refine, view):
    config["train"]["schedule"], config["model"]["fusion"] = schedule, fusion
    config["inference"]["refine"] = refine
    assert judged_view(mapped_as_trained(config)) == view
