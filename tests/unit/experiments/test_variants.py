from pathlib import Path

import pytest
import yaml
from lesionmap.errors import SettingsError
from lesionmap.experiments.variants import changes_in_words, ensembles_of, variants_of

ROOT = Path(__file__).parents[3]
SCHEMA = ROOT / "workflow/schemas/config.schema.yaml"


def config(**variants):
    found = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    return found | {"experiments": found["experiments"] | {"variants": variants}}


def test_the_config_itself_is_the_only_variant_if_none_is_named():
    (variant,) = variants_of(config(), SCHEMA).values()
    assert variant.name == "config"
    assert variant.config == config()


def test_a_variant_changes_its_keys_and_no_others():
    asked = config(plain={}, low={"train": {"schedule": "low_only", "leave_out_above": {"blur": 0.5}}})
    plain, low = variants_of(asked, SCHEMA).values()
    assert low.config["train"] == plain.config["train"] | {
        "schedule": "low_only",
        "leave_out_above": {"blur": 0.5, "pen": 1, "fold": 1},
    }
    assert low.config["inference"] == plain.config["inference"]
    assert asked["train"]["schedule"] == "joint"
    assert (low.view, plain.view) == ("low", "low")


def test_variants_share_a_recipe_if_their_weights_are_the_same():
    found = variants_of(
        config(
            plain={},
            same={"train": {"epochs": 50}},
            fused={"inference": {"refine": "all", "threshold": "validation"}},
            longer={"train": {"epochs": 51}},
            group={"model": {"norm": "group"}},
            random={"model": {"weights": "none", "norm": "group"}},
        ),
        SCHEMA,
    )
    recipes = {name: variant.recipe for name, variant in found.items()}
    assert recipes["plain"] == recipes["same"] == recipes["fused"]
    assert len(set(recipes.values())) == 4
    assert found["fused"].view == "fused"


def test_a_variant_that_is_trained_on_tiles_alone_is_mapped_by_them():
    (variant,) = variants_of(config(high={"train": {"schedule": "high_only"}}), SCHEMA).values()
    assert (variant.view, variant.config["inference"]["refine"]) == ("high", "all")


def test_neither_seed_nor_machine_decides_a_recipe():
    first, second = config(), config()
    second["train"] |= {"seed": 7, "device": "cpu", "checkpoint_minutes": 1}
    (one,), (other,) = (variants_of(asked, SCHEMA).values() for asked in (first, second))
    assert one.recipe == other.recipe


def test_changes_are_told_key_by_key():
    changes = {"train": {"epochs": 3, "leave_out_above": {"blur": 0.5}}, "inference": {"unsure": [0.2, 0.8]}}
    said = "train.epochs: 3, train.leave_out_above.blur: 0.5, inference.unsure: [0.2, 0.8]"
    assert changes_in_words(changes) == said
    assert changes_in_words({}) == "the config as it is"


def test_texts_of_the_command_line_become_numbers():
    (variant,) = variants_of(config(v={"train": {"epochs": "3"}}), SCHEMA).values()
    assert variant.config["train"]["epochs"] == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tiles": {"mpp": 0.5}}, r"variants\.v\.tiles: variants share slides and tiles.*evaluation\.compare"),
        ({"trian": {}}, r"variants\.v\.trian: variants share"),
        ({"train": 3}, r"variants\.v\.train: write the keys"),
        ({"train": {"epoch": 3}}, r"variants\.v\.train\.epoch: there is no such key; the config has schedule, epochs"),
        ({"train": {"seed": 3}}, r"train\.seed: set experiments\.seeds"),
        ({"train": {"device": "cpu"}}, r"train\.device: set it for the whole run"),
        ({"inference": {"batch_size": 2}}, r"inference\.batch_size: set it for the whole run"),
        ({"model": {"path": "x"}}, r"model\.path: experiments train their own"),
        ({"train": {"epochs": 0}}, r"experiments\.variants\.v: .*train\.epochs: 0 is less than the minimum"),
        ({"model": {"weights": "none"}}, r"experiments\.variants\.v: .*model\.norm: frozen statistics need"),
    ],
)
def test_what_no_variant_can_be_is_refused(changes, message):
    with pytest.raises(SettingsError, match=f"(?s){message}"):
        variants_of(config(plain={}, v=changes), SCHEMA)


def test_all_that_is_wrong_is_told_at_once():
    with pytest.raises(SettingsError, match=r"(?s)a\.tiles.*b\.train\.seed"):
        variants_of(config(a={"tiles": {}}, b={"train": {"seed": 1}}), SCHEMA)


def test_an_ensemble_is_of_one_variant_of_all_or_of_none():
    assert ensembles_of(True, ["a", "b"]) == ["a", "b"]
    assert ensembles_of(False, ["a", "b"]) == []
    assert ensembles_of("b", ["a", "b"]) == ["b"]
    with pytest.raises(SettingsError, match="ensemble is c, but the variants are a, b"):
        ensembles_of("c", ["a", "b"])
