"""What a run takes from the model of ``model.path``, and what its config may say beside it."""

import copy
import json
import re
from dataclasses import asdict

import pytest
import yaml
from lesionmap.errors import ModelError, SettingsError
from lesionmap.files.records import write_json
from lesionmap.files.schema import read_schema
from lesionmap.network.model import LesionFPN
from lesionmap.network.model_file import save_model
from lesionmap.network.settings import ModelSettings
from lesionmap.run.config import inference_mpp, judged_view
from lesionmap.run.model_settings import INPUT_KEYS, OF_SLIDES, adopt_model, input_settings
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from stained import PROFILE

KIND = ModelSettings("resnet18", "group", "max")
OTHER = {  # than the defaults, in every key
    "slides": {"apply_icc": True, "mpp_from_objective": 10.0},
    "tissue": {"mpp": 4.0, "min_area_um2": 500, "min_hole_um2": 600},
    "stain": {
        "method": "macenko",
        "fallback": "fail",
        "ratio_limits": [0.25, 3.0],
        "n_pixels": 20_000,
        "seed": 7,
        "white_point": [240.0, 238.0, 241.0],
    },
}
TILES = {"region_px": 512, "tile_px": 64, "mpp": 0.5}


@pytest.fixture
def schema(request):
    return request.config.rootpath / "workflow/schemas/config.schema.yaml"


@pytest.fixture
def config(request, tmp_path):
    """The shipped one, and a model to use."""
    content = yaml.safe_load((request.config.rootpath / "config/config.yaml").read_text())
    content["model"]["path"] = str(tmp_path / "m.safetensors")
    return content


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "m.safetensors"
    save_model(path, LesionFPN(KIND), KIND, {})
    with safe_open(path, "numpy") as file:
        return load_file(path), json.loads(file.metadata()["lesionmap"])


@pytest.fixture
def model(tmp_path, weights):
    """A function that writes the model with changed metadata; None removes a key."""
    tensors, own = weights

    def write(**changes):
        whole = own | {"tiles": TILES, "provenance": {"software": "LesionMap 9"}, "input": OTHER}
        whole |= {"stain_reference": asdict(PROFILE)} | changes
        kept = {key: value for key, value in whole.items() if value is not None}
        save_file(tensors, tmp_path / "m.safetensors", metadata={"lesionmap": json.dumps(kept)})

    return write


@pytest.mark.parametrize(
    ("schedule", "refine", "said"),
    [
        ("joint", "none", "trained to have it fused with its tiles (train.schedule: joint)"),
        ("sequential", "none", "trained to have it fused with its tiles (train.schedule: sequential)"),
        ("joint", "unsure", None),
        ("low_only", "none", None),
        ("high_only", "all", None),
    ],
)
def test_without_a_model_the_config_stays_and_maps_that_differ_from_training_are_named(
    config, schema, schedule, refine, said
):
    config["model"]["path"] = None
    config["train"]["schedule"], config["inference"]["refine"] = schedule, refine
    run = adopt_model(config, schema)
    assert run.config == config
    assert len(run.notes) == bool(said)
    assert all(said in note for note in run.notes)


@pytest.mark.parametrize("refine", ["none", "unsure", "lesion", "all"])
def test_a_network_of_tiles_alone_maps_by_tiles_alone(config, schema, refine):
    config["model"]["path"] = None
    config["train"]["schedule"], config["inference"]["refine"] = "high_only", refine
    asked = copy.deepcopy(config)
    run = adopt_model(config, schema)
    assert config == asked
    assert run.config["inference"] == asked["inference"] | {"refine": "all"}
    assert judged_view(run.config) == "high"
    said = [note for note in run.notes if note.startswith(f"inference.refine: all instead of {refine}, since")]
    assert len(said) == len(run.notes) == (refine != "all")


@pytest.mark.parametrize(
    ("fusion", "schedule", "refine", "view", "n_notes"),
    [
        ("tiles", "high_only", "all", "high", 1),
        ("tiles", None, "all", "high", 1),
        ("mean", "high_only", "none", "low", 0),  # of a version that did not name the fusion
        ("mean", "joint", "none", "low", 1),
        ("mean", "low_only", "none", "low", 0),
        ("mean", None, "none", "low", 0),
    ],
)
def test_a_shipped_model_is_mapped_as_it_was_trained_whatever_schedule_the_config_has(
    config, schema, model, fusion, schedule, refine, view, n_notes
):
    """The config's schedule is that of a training that does not take place."""
    trained = {"train": {"schedule": schedule}} if schedule else {}
    model(
        input=input_settings(config),
        architecture={"backbone": "resnet50", "norm": "frozen", "fusion": fusion},
        provenance={"software": "LesionMap 9"} | trained,
    )
    config["train"]["schedule"] = "high_only" if fusion == "mean" else "joint"
    run = adopt_model(config, schema)
    assert (run.config["inference"]["refine"], judged_view(run.config)) == (refine, view)
    assert len([note for note in run.notes if note.startswith("inference.refine")]) == n_notes


def test_defaults_of_the_schema_are_those_of_the_config(config, schema):
    sections = read_schema(schema)["properties"]
    found = {
        (section, key): part["default"]
        for section, content in sections.items()
        for key, part in content.get("properties", {}).items()
        if "default" in part
    }
    assert found == {place: config[place[0]][place[1]] for place in found}
    brought = {(section, key) for section, keys in INPUT_KEYS.items() for key in keys} - OF_SLIDES
    brought |= {("tiles", key) for key in TILES} | {("model", key) for key in ("backbone", "norm", "fusion")}
    assert brought <= set(found)


def test_a_config_of_defaults_takes_all_that_the_model_brings(config, schema, model):
    model()
    before = copy.deepcopy(config)
    run = adopt_model(config, schema)
    assert config == before
    of_slides = {"mpp_from_objective": None, "white_point": "auto"}
    assert input_settings(run.config) == {
        section: {key: of_slides.get(key, value) for key, value in content.items()}
        for section, content in OTHER.items()
    }
    assert {key: run.config["tiles"][key] for key in TILES} == TILES
    assert (run.config["model"]["backbone"], run.config["model"]["norm"]) == ("resnet18", "group")
    assert run.config["model"]["fusion"] == "max"
    assert run.config["stain"]["reference"] == "auto"
    assert inference_mpp(run.config | {"inference": {"magnification": "match_training"}}) == 4.0  # 0.5 · 512 / 64
    assert run.notes[:2] == (
        "slides.apply_icc: True, from the model",
        "slides.mpp_from_objective: None, as the config says of its slides; that of the training slides was 10.0",
    )
    assert "stain.method: macenko, from the model" in run.notes
    assert len(run.notes) == 11 + 3 + 3


def test_a_config_with_the_models_own_values_agrees(config, schema, model):
    model()
    for section, content in OTHER.items():
        config[section] |= content
    config["tiles"] |= TILES
    config["model"] |= asdict(KIND)
    run = adopt_model(config, schema)
    assert run.config == config
    assert run.notes == ()


def test_other_values_are_refused_all_at_once_with_what_to_write(config, schema, model):
    model()
    config["stain"] |= {"method": "staintools", "ratio_limits": [0.5, 2.5], "n_pixels": 20_000}
    config["tissue"]["mpp"] = 12
    config["tiles"]["tile_px"] = 256
    config["model"]["norm"] = "batch"
    with pytest.raises(SettingsError) as raised:
        adopt_model(config, schema)
    assert raised.value.finding.splitlines()[1:] == [
        "  - tissue.mpp: 4.0 in the model, 12 in the config",
        "  - stain.method: macenko in the model, staintools in the config",
        "  - stain.ratio_limits: [0.25, 3.0] in the model, [0.5, 2.5] in the config",
        "  - tiles.tile_px: 64 in the model, 256 in the config",
        "  - model.norm: group in the model, batch in the config",
    ]
    assert config["model"]["path"] in raised.value.finding
    written = yaml.safe_load(raised.value.remedy.split("\n\n")[1].split("\nTo use")[0])
    for section, content in written.items():
        config[section] |= content
    assert adopt_model(config, schema).config["tiles"]["tile_px"] == 64


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("slides", "apply_icc", True),
        ("tissue", "mpp", 6.0),
        ("tissue", "min_area_um2", 0),
        ("tissue", "min_hole_um2", 1),
        ("stain", "method", "none"),
        ("stain", "fallback", "macenko"),
        ("stain", "ratio_limits", [0.5, 1.0]),
        ("stain", "n_pixels", 400_000),
        ("stain", "seed", 1),
        ("tiles", "region_px", 2048),
        ("tiles", "tile_px", 256),
        ("tiles", "mpp", 0.5),
        ("model", "backbone", "resnet34"),
        ("model", "norm", "batch"),
        ("model", "fusion", "learned"),
    ],
)
def test_each_setting_of_the_images_is_the_models(config, schema, model, section, key, value):
    """The model is of the defaults, and the config asks for something else."""
    tiles = {name: config["tiles"][name] for name in TILES}
    model(input=input_settings(config), tiles=tiles, architecture={"backbone": "resnet50", "norm": "frozen"})
    assert adopt_model(config, schema).notes == ()
    config[section][key] = value
    with pytest.raises(SettingsError, match=rf"\n  - {section}\.{key}: .* in the model, .* in the config\n\. Remedy"):
        adopt_model(config, schema)


def test_facts_about_slides_are_the_configs(config, schema, model):
    model(input=input_settings(config))
    config["stain"]["white_point"] = [230, 231, 232]
    run = adopt_model(config, schema)
    assert run.config["stain"]["white_point"] == [230, 231, 232]
    said = "stain.white_point: [230, 231, 232], as the config says of its slides; that of the training slides was auto"
    assert said in run.notes


def test_a_model_of_an_older_version_leaves_the_config_and_says_what_is_unknown(config, schema, model):
    model(input=None, architecture={"backbone": "resnet18", "norm": "group"})
    config["stain"]["method"] = "macenko"
    run = adopt_model(config, schema)
    assert input_settings(run.config) == input_settings(config)
    assert run.config["tiles"]["tile_px"] == 64
    (unknown,) = [note for note in run.notes if note.startswith("UNKNOWN: slides.apply_icc, ")]
    assert "stain.method, " in unknown
    model(input={"stain": {"method": "macenko"}})
    (unknown,) = [note for note in adopt_model(config, schema).notes if note.startswith("UNKNOWN: ")]
    assert "stain.method" not in unknown
    assert "stain.fallback" in unknown


def test_a_reference_beside_the_models_is_refused_or_said(config, schema, model, tmp_path):
    model(input=None)
    record = {"slide": "a", "profile": asdict(PROFILE), "provenance": {}}
    config["stain"]["reference"] = str(tmp_path / "profile.json")
    write_json(config["stain"]["reference"], record)
    adopt_model(config, schema)
    write_json(config["stain"]["reference"], record | {"profile": asdict(PROFILE) | {"p99": [1.5, 1.25]}})
    with pytest.raises(SettingsError, match=r"stain\.reference: another stain in the model than in .*profile\.json"):
        adopt_model(config, schema)
    config["stain"]["reference"] = "s1"
    assert "stain.reference: that of the model, whatever s1 is" in adopt_model(config, schema).notes


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"architecture": {"backbone": "vgg16", "norm": "group"}}, r"model\.backbone: 'vgg16' is not one of"),
        ({"input": {"stain": {"method": "reinhard"}}}, r"stain\.method: 'reinhard' is not one of"),
        ({"input": {"stain": {"method": ["vahadane"]}}}, r"stain\.method: \['vahadane'\] is not one of"),
        ({"input": {"stain": {"ratio_limits": [2.0, 0.5]}}}, r"stain\.ratio_limits: the least, 2\.0, is above"),
        ({"input": {"tissue": {"mpp": -8}}}, r"tissue\.mpp: -8 is less than the minimum"),
        ({"input": {"slides": {"apply_icc": "yes"}}}, r"slides\.apply_icc: 'yes' is not of type 'boolean'"),
        ({"input": {"stain": {"colours": 3}}}, r"does not know: stain\.colours\. Remedy: use .* \(LesionMap 9\)"),
        ({"input": {"model": {"path": "/etc/passwd"}}}, r"does not know: model\.path"),
        ({"tiles": TILES | {"mpp": -0.25}}, r"tiles\.mpp: -0\.25 is less than"),
        ({"tiles": TILES | {"mpp": 3}}, r"tiles\.mpp: 3 is greater than the maximum of 2"),
        ({"tiles": TILES | {"region_px": 500}}, r"tiles\.region_px 500 and tiles\.tile_px 64 do not fit together"),
        ({"tiles": None}, "'tiles' is a required property"),
        ({"stain_reference": {"basis": PROFILE.basis}}, "is not a stain profile"),
    ],
)
def test_impossible_settings_of_a_model_are_the_models_fault(config, schema, model, changes, said):
    model(**changes)
    with pytest.raises(ModelError, match=said) as raised:
        adopt_model(config, schema)
    assert config["model"]["path"] in raised.value.finding


def test_a_model_that_is_not_there_is_said(config, schema):
    with pytest.raises(ModelError, match=r"m\.safetensors does not exist\. Remedy: correct model\.path"):
        adopt_model(config, schema)


def test_rules_take_what_a_model_may_set_from_the_settings_of_the_run(request):
    """Beside training and its tiles, which a run with a model does without."""
    direct = r'(?<!SETTINGS\.)config\["tissue"\]|(?<!SETTINGS\.)config\["stain"\](?!\["reference"\])'
    direct += r'|config\["slides"\]\["apply_icc"\]|\b(?:map_settings|inspection_settings|inference_mpp)\(config\)'
    rules = request.config.rootpath / "workflow/rules"
    assert {path.name: found for path in rules.glob("*.smk") if (found := re.findall(direct, path.read_text()))} == {}


def test_a_model_that_cannot_be_recalibrated_is_refused_before_the_first_job(config, schema, model):
    config["inference"] |= {"recalibrate": True, "refine": "all"}
    low = {"val_low_calibration_intercept": 0.5, "val_low_calibration_slope": 2.0}
    model(epoch=low)
    with pytest.raises(ModelError, match=r"m\.safetensors has no calibration for maps of the fused view"):
        adopt_model(config, schema)
    model(epoch=low | {"val_fused_calibration_intercept": 0.5, "val_fused_calibration_slope": 2.0})
    adopt_model(config, schema)
