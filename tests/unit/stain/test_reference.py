import json
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from lesionmap.errors import ModelError, SettingsError, SlideError
from lesionmap.files.pictures import read_png, write_png
from lesionmap.files.records import read_json, write_json
from lesionmap.jobs.quarantine import write_quarantined
from lesionmap.network.model import LesionFPN
from lesionmap.network.model_file import save_model
from lesionmap.network.settings import ModelSettings
from lesionmap.stain.match import MatchSettings, match_stain
from lesionmap.stain.profile import StainProfile, palette
from lesionmap.stain.reference import choose_reference
from stained import HE, OTHER_HE, fitted, profile, stained_pixels

LIMITS = (0.5, 2.0)
REFERENCE = profile(HE, p99=(1.5, 1.2))


def written(tmp_path, slide, found, grey=0):
    """The profile and the picture of a slide, as its fit writes them."""
    facts = {"slide": slide, "profile": asdict(found), "parameters": {}, "provenance": {"identity": slide}}
    paths = str(tmp_path / f"{slide}.json"), str(tmp_path / f"{slide}.png")
    write_json(paths[0], facts)
    write_png(paths[1], np.full((512, 512, 3), grey, np.uint8))
    return paths


def chosen(tmp_path, *pairs):
    """What is written of the choice: profile, picture, table."""
    outputs = [str(tmp_path / "chosen" / name) for name in ("profile.json", "tissue.png", "candidates.tsv")]
    choose_reference([pair[0] for pair in pairs], [pair[1] for pair in pairs if len(pair) > 1], *outputs)
    return read_json(outputs[0]), read_png(outputs[1]), pd.read_csv(outputs[2], sep="\t", keep_default_na=False)


def of_strengths(tmp_path, **strengths):
    """Slides of equal stains; their P99, and the grey of their picture, by slide."""
    return [
        written(tmp_path, slide, profile(p99=p99), grey) for grey, (slide, p99) in enumerate(strengths.items(), start=1)
    ]


def test_a_slide_alone_is_the_reference(tmp_path):
    facts, picture, table = chosen(tmp_path, *of_strengths(tmp_path, a=(1.4, 0.6)))
    assert facts.keys() == {"slide", "profile", "provenance"}
    assert (facts["slide"], facts["provenance"]) == ("a", {"identity": "a"})
    assert StainProfile.of(facts["profile"]) == profile(p99=(1.4, 0.6))
    assert picture.shape == (512, 512, 3)
    assert (picture == 1).all()
    assert table.to_dict("records") == [
        {"slide": "a", "verdict": "ok", "distance_od": 0.0, "p99_haematoxylin": 1.4, "p99_eosin": 0.6, "chosen": "yes"}
    ]


def test_of_several_slides_it_is_the_one_nearest_to_the_medians(tmp_path):
    slides = of_strengths(tmp_path, a=(1.0, 1.0), b=(1.2, 1.6), c=(2.0, 1.4), d=(1.5, 1.1), e=(1.7, 1.7))
    facts, picture, table = chosen(tmp_path, *slides)  # medians 1.5 and 1.4
    assert facts["slide"] == "d"
    assert (picture == 4).all()
    assert table["chosen"].tolist() == ["", "", "", "yes", ""]
    expected = np.hypot([0.5, 0.3, 0.5, 0.0, 0.2], [0.4, 0.2, 0.0, 0.3, 0.3])  # rows of the basis have length 1
    np.testing.assert_allclose(table["distance_od"], expected, atol=1e-6)


def test_the_direction_of_stains_counts_as_their_strength_does(tmp_path):
    slides = [written(tmp_path, slide, profile(basis)) for slide, basis in zip("abc", (OTHER_HE, HE, HE), strict=True)]
    facts, _, table = chosen(tmp_path, *slides)
    assert facts["slide"] == "b"  # the first of those nearest
    apart = np.linalg.norm((OTHER_HE - HE) * [[1.5], [1.2]])
    np.testing.assert_allclose(table["distance_od"], [apart, 0, 0], atol=1e-6)


def test_of_slides_as_near_as_one_another_it_is_the_first(tmp_path):
    assert chosen(tmp_path, *of_strengths(tmp_path, a=(1.1, 0.3), b=(1.3, 0.9)))[0]["slide"] == "a"


def test_slides_without_two_stains_and_those_in_quarantine_are_left_out(tmp_path):
    slides = of_strengths(tmp_path, a=(1.0, 1.0), b=(1.0, 1.0), c=(1.6, 1.6), d=(1.8, 1.8), e=(1.9, 1.9))
    write_json(slides[0][0], {"slide": "a", "profile": asdict(profile(verdict="faded")), "provenance": {}})
    write_quarantined(slides[1], SlideError(slide="b", stage="find_tissue", finding="no tissue", remedy="remove it"))
    facts, picture, table = chosen(tmp_path, *slides)
    assert facts["slide"] == "d"
    assert (picture == 4).all()
    assert table["slide"].tolist() == ["c", "d", "e"]


def test_a_slide_more_that_is_not_chosen_changes_no_byte(tmp_path):
    slides = of_strengths(tmp_path, a=(1.0, 1.0), b=(1.5, 1.5), c=(1.6, 1.6), d=(1.2, 1.2), e=(1.9, 1.9))
    files = [tmp_path / "chosen" / name for name in ("profile.json", "tissue.png")]
    results = set()
    for some in (slides[1:2], slides[:3], slides):
        chosen(tmp_path, *some)
        results.add(tuple(path.read_bytes() for path in files))
    assert len(results) == 1


def test_a_profile_of_another_run_is_taken_as_it_is_and_shown_by_its_colours(tmp_path):
    earlier, *_ = chosen(tmp_path, *of_strengths(tmp_path, a=(1.4, 0.6)))
    write_json(tmp_path / "shipped.json", earlier)
    facts, picture, table = chosen(tmp_path, (str(tmp_path / "shipped.json"),))
    assert facts == earlier
    np.testing.assert_array_equal(picture, palette(StainProfile.of(earlier["profile"])))
    assert table["slide"].tolist() == ["a"]


def model(tmp_path, **facts):
    settings = ModelSettings("resnet18", "group")
    path = str(tmp_path / "m.safetensors")
    save_model(path, LesionFPN(settings), settings, {"provenance": {"code": "abc"}} | facts)
    return path


def test_the_reference_of_a_model_is_the_one_it_was_trained_with(tmp_path):
    path = model(tmp_path, stain_reference=asdict(REFERENCE))
    facts, picture, _ = chosen(tmp_path, (path,))
    assert facts["slide"] == f"of {path}"
    assert facts["provenance"] == {"code": "abc"}
    assert StainProfile.of(facts["profile"]) == REFERENCE
    np.testing.assert_array_equal(picture, palette(REFERENCE))


def refused(tmp_path, *pairs, error=SettingsError):
    with pytest.raises(error) as raised:
        chosen(tmp_path, *pairs)
    assert not (tmp_path / "chosen").exists()
    return raised.value


def test_a_reference_in_quarantine_is_refused(tmp_path):
    pair = written(tmp_path, "a", profile())
    write_quarantined(pair, SlideError(slide="a", stage="find_tissue", finding="no tissue", remedy="remove it"))
    assert str(refused(tmp_path, pair)) == (
        "choose_reference: the stain reference 'a' is in quarantine: no tissue. "
        "Remedy: choose another slide as stain.reference, or: remove it."
    )


def test_a_reference_without_two_stains_is_refused(tmp_path):
    assert str(refused(tmp_path, written(tmp_path, "a", profile(verdict="faded")))) == (
        "choose_reference: the stain reference 'a' does not show two stains: faded. "
        "Remedy: choose another slide as stain.reference, or auto."
    )


def test_a_cohort_without_any_reference_is_refused(tmp_path):
    assert str(refused(tmp_path)) == (
        "choose_reference: there is no training slide to choose the stain reference from. "
        "Remedy: name one as stain.reference."
    )
    pairs = [written(tmp_path, slide, profile(verdict="one stain")) for slide in "ab"]
    write_quarantined(pairs[1], SlideError(slide="b", stage="find_tissue", finding="no tissue", remedy="remove it"))
    error = refused(tmp_path, *pairs)
    assert error.finding == "none of 2 training slides has a stain that can be the reference"
    assert "results/stain/fits/" in error.remedy
    assert "stain.reference" in error.remedy


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"\xff\xfe",
        b"[]",
        b'"a"',
        b"{}",
        b'{"slide": "a", "provenance": {}, "profile": {}}',
        b'{"slide": "a", "provenance": {}, "profile": {"basis": 1, "p99": [1, 1]}}',
        b'{"slide": "a", "provenance": {}, "profile": {"basis": [[1, 0, 0], [0, 1, 0]], "p99": [1, 1]}}',
    ],
)
def test_a_file_that_is_no_profile_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "p.json").write_bytes(content)
    error = refused(tmp_path, (str(tmp_path / "p.json"),))
    assert "p.json is not a stain profile (" in error.finding
    assert error.remedy.startswith("set stain.reference to a slide id, auto, or ")


def test_a_model_without_a_reference_is_refused(tmp_path):
    error = refused(tmp_path, (model(tmp_path),), error=ModelError)
    assert "'stain_reference' is a required property" in error.finding
    assert "model.path" in error.remedy


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"n_pixels": None}, "missing 1 required positional argument"),
        ({"colour": "red"}, "unexpected keyword argument 'colour'"),
        ({"basis": [[0.0, 0.0, 0.0], HE[1].tolist()]}, "are not of length 1"),
        ({"basis": [HE[0].tolist(), (2 * HE[1]).tolist()]}, "are not of length 1"),
        ({"p99": [1.0, -0.5]}, "the percentiles [1.0, -0.5] are not all 0 or more"),
        ({"white_point": [240.0, 0.0, 240.0]}, "the white point [240.0, 0.0, 240.0] is not above 0"),
        ({"white_point": [240.0, 256.0, 240.0]}, "the white point [240.0, 256.0, 240.0] is not above 0"),
        ({"white_point": [240.0, 240.0]}, "of the shapes (2, 3), (2,), (2,)"),
        ({"white_point": ["a", "b", "c"]}, "could not convert string to float"),
    ],
)
def test_a_model_with_an_impossible_reference_is_refused(tmp_path, changes, said):
    record = {key: value for key, value in (asdict(REFERENCE) | changes).items() if value is not None}
    error = refused(tmp_path, (model(tmp_path, stain_reference=record),), error=ModelError)
    assert "the stain reference in " in error.finding
    assert said in error.finding
    assert "model.path" in error.remedy


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_a_profile_with_numbers_that_are_none_is_refused(tmp_path, number):
    record = json.dumps({"slide": "a", "provenance": {}, "profile": asdict(REFERENCE) | {"p99": [7.25, 1]}})
    (tmp_path / "p.json").write_text(record.replace("7.25", number))
    assert "are not all 0 or more)" in refused(tmp_path, (str(tmp_path / "p.json"),)).finding


def test_a_file_that_is_no_model_is_refused(tmp_path):
    (tmp_path / "m.safetensors").write_bytes(b"no model")
    error = refused(tmp_path, (str(tmp_path / "m.safetensors"),), error=ModelError)
    assert "is not a LesionMap model" in error.finding


def match(found, pixels=None, fallback="reference", limits=LIMITS, reference=REFERENCE):
    pixels = np.empty((0, 3), np.uint8) if pixels is None else pixels
    return match_stain("s1", pixels, found, reference, MatchSettings(fallback, limits))


def tissue(basis, strength=1.0, seed=0):
    return stained_pixels(basis, 600 * 600, seed, strength).reshape(600, 600, 3)


@pytest.fixture
def reference(tmp_path):
    """Fit and tissue of a slide to match others to."""
    files, _ = fitted(tmp_path, tissue(HE), name="reference", n_pixels=200_000)
    return files.profile, files.tissue
