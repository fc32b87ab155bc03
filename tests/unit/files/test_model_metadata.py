"""Metadata of model files: whatever is in a file, a ModelError that names it, or metadata that can be used."""

import json
import pickle

import numpy as np
import pytest
from lesionmap.errors import ModelError
from lesionmap.files.model_metadata import FOR_MAPS, load_metadata
from safetensors.numpy import save, save_file

GOOD = {
    "architecture": {"backbone": "resnet18", "norm": "group"},
    "tiles": {"region_px": 512, "tile_px": 64, "mpp": 0.25, "codec": "lossless"},
    "stain_reference": {"basis": [[0.6, 0.8, 0.0], [0.0, 1.0, 0.0]], "p99": [1.5, 1.2]},
    "provenance": {"software": "LesionMap 0", "train": {"tile_batch": "auto"}},
    "epoch": {"epoch": 3, "val_low_auroc": None},
}
TENSORS = {"head.bias": np.zeros(1, dtype=np.float32)}


def written(folder, text):
    path = folder / "m.safetensors"
    save_file(TENSORS, path, metadata={"lesionmap": text})
    return path


def refused(path, needed=FOR_MAPS):
    with pytest.raises(ModelError) as raised:
        load_metadata(path, needed)
    assert raised.value.slide is None
    assert str(path) in raised.value.finding
    assert "model.path" in raised.value.remedy
    return raised.value.finding


def test_good_metadata_come_as_they_are(tmp_path):
    assert load_metadata(written(tmp_path, json.dumps(GOOD)), FOR_MAPS) == GOOD


@pytest.mark.parametrize("lacking", ["tiles", "stain_reference", "provenance"])
def test_what_a_card_may_lack_is_needed_for_maps(tmp_path, lacking):
    path = written(tmp_path, json.dumps({key: value for key, value in GOOD.items() if key != lacking}))
    assert lacking not in load_metadata(path)
    assert f"'{lacking}' is a required property" in refused(path)


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ((), [], "[] is not of type 'object'"),
        ((), None, "None is not of type 'object'"),
        (("architecture",), None, "architecture: None is not of type 'object'"),
        (("architecture",), {"backbone": "resnet18"}, "architecture: 'norm' is a required property"),
        (("architecture",), GOOD["architecture"] | {"depth": 9}, "'depth' was unexpected"),
        (("architecture", "backbone"), ["resnet18"], "architecture.backbone: ['resnet18'] is not of type 'string'"),
        (("architecture", "norm"), "layer", "architecture.norm: 'layer' is not one of"),
        (("architecture", "fusion"), 1, "architecture.fusion: 1 is not one of"),
        (("tiles", "mpp"), -0.25, "tiles.mpp: -0.25 is less than the minimum"),
        (("tiles", "mpp"), 0, "tiles.mpp: 0 is less than the minimum"),
        (("tiles", "mpp"), "0.25", "tiles.mpp: '0.25' is not of type 'number'"),
        (("tiles", "tile_px"), 32_000_000, "tiles.tile_px: 32000000 is greater than the maximum"),
        (("tiles", "tile_px"), 65, "tiles.tile_px: 65 is not a multiple of 32"),
        (("tiles", "tile_px"), True, "tiles.tile_px: True is not of type 'integer'"),
        (("tiles",), {"tile_px": 64}, "tiles: 'region_px' is a required property"),
        (("mpp",), {"low": -2}, "mpp.low: -2 is less than"),
        (("input",), [], "input: [] is not of type 'object'"),
        (("input",), {"stain": "vahadane"}, "input.stain: 'vahadane' is not of type 'object'"),
        (("stain_reference",), "train_1", "stain_reference: 'train_1' is not of type 'object'"),
        (("stain_reference", "basis"), [[1, 0, 0]], "stain_reference.basis: "),
        (("stain_reference", "p99"), [1, "2"], "stain_reference.p99.1: '2' is not of type 'number'"),
        (("provenance",), "0.1", "provenance: '0.1' is not of type 'object'"),
        (("provenance", "train"), 5, "provenance.train: 5 is not of type 'object'"),
        (("provenance", "train"), {"tile_batch": 0}, "provenance.train.tile_batch: 0 is not valid"),
        (("epoch",), [1], "epoch: [1] is not of type 'object'"),
        (("epoch", "val_low_threshold"), "0.5", "epoch.val_low_threshold: '0.5' is not of type"),
        (("classes",), {"lesion": "one"}, "classes.lesion: 'one' is not of type 'integer'"),
        (("training_slides",), ["s1"], "training_slides: ['s1'] is not of type 'object'"),
    ],
)
def test_wrong_metadata_are_named_by_their_place(tmp_path, place, value, said):
    content = json.loads(json.dumps(GOOD))
    part = content
    for key in place[:-1]:
        part = part[key]
    if place:
        part[place[-1]] = value
    assert said in refused(written(tmp_path, json.dumps(content if place else value)))


def test_a_long_value_is_cut_short(tmp_path):
    assert len(refused(written(tmp_path, json.dumps(["x" * 10_000])))) < 1000


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no JSON", "JSONDecodeError"),
        ('{"architecture": ', "JSONDecodeError"),
        (json.dumps(GOOD).replace("0.25", "NaN"), "ValueError: NaN is no finite number"),
        (json.dumps(GOOD).replace("0.25", "-Infinity"), "ValueError: -Infinity is no finite number"),
        (json.dumps(GOOD).replace("1.5", "1e999"), "ValueError: 1e999 is no finite number"),
        ("[" * 100_000, "RecursionError"),
    ],
)
def test_text_that_is_no_json_is_refused(tmp_path, text, said):
    assert f"is not a LesionMap model ({said}" in refused(written(tmp_path, text))


def test_a_file_that_is_no_model_is_refused(tmp_path):
    whole = save(TENSORS, metadata={"lesionmap": json.dumps(GOOD)})
    kinds = {"empty": b"", "cut": whole[:40], "short": whole[:-1], "pickle": pickle.dumps(GOOD), "text": b"model\n"}
    kinds |= {"other": save(TENSORS, metadata={"format": "pt"}), "bare": save(TENSORS)}
    for name, content in kinds.items():
        (tmp_path / f"{name}.safetensors").write_bytes(content)
        assert "is not a LesionMap model (" in refused(tmp_path / f"{name}.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    assert "is not a LesionMap model (" in refused(tmp_path / "folder.safetensors")
    assert "absent.safetensors does not exist" in refused(tmp_path / "absent.safetensors")
