import functools
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lesionmap.errors import ModelError, SettingsError, SlideError, StainError
from lesionmap.files import read_json, write_json
from lesionmap.images import read_png, write_png
from lesionmap.model import LesionFPN, ModelSettings, save_model
from lesionmap.quarantine import write_quarantined
from lesionmap.stain import StainMatch, StainProfile, apply_table
from lesionmap.stain_fit import angles, fit
from lesionmap.stain_match import (
    MatchFiles,
    MatchInputs,
    MatchSettings,
    choose_reference,
    match_slide,
    match_stain,
    mean_concentrations,
)
from lesionmap.stain_pictures import palette
from stained import CAMELYON, DEGENERATE, HE, OTHER_HE, fitted, profile, stained_pixels, unit

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
    assert "p.json is no stain profile (" in error.finding
    assert error.remedy.startswith("set stain.reference to a slide id, auto, or ")


@pytest.mark.parametrize("facts", [{}, {"stain_reference": {"basis": HE.tolist(), "p99": [1, 1]}}])
def test_a_model_of_a_version_without_such_profiles_is_refused(tmp_path, facts):
    error = refused(tmp_path, (model(tmp_path, **facts),))
    assert "m.safetensors is no stain profile (" in error.finding
    assert "model.path" in error.remedy


def test_a_file_that_is_no_model_is_refused(tmp_path):
    (tmp_path / "m.safetensors").write_bytes(b"no model")
    error = refused(tmp_path, (str(tmp_path / "m.safetensors"),), error=ModelError)
    assert "is not a LesionMap model" in error.finding


def match(found, pixels=None, fallback="reference", limits=LIMITS, reference=REFERENCE):
    pixels = np.empty((0, 3), np.uint8) if pixels is None else pixels
    return match_stain("s1", pixels, found, reference, MatchSettings(fallback, limits))


def test_strengths_are_multiplied_by_the_ratio_of_the_p99():
    found = profile(OTHER_HE, p99=(1.2, 1.5))
    assert match(found) == (StainMatch(found, REFERENCE, (1.5 / 1.2, 1.2 / 1.5)), [])


def test_a_slide_is_matched_to_itself_by_nothing():
    assert match(REFERENCE) == (StainMatch(REFERENCE, REFERENCE, (1.0, 1.0)), [])


@pytest.mark.parametrize(
    ("p99", "limits", "ratio", "flagged"),
    [
        ((0.75, 2.4), LIMITS, (2.0, 0.5), []),  # just within
        (
            (0.74, 2.41),
            LIMITS,
            (2.0, 0.5),
            [
                ("haematoxylin: ratio to the reference 2.03", "2.00 used"),
                ("eosin: ratio to the reference 0.50", "0.50 used"),
            ],
        ),
        (
            (0.06, 30.0),
            LIMITS,
            (2.0, 0.5),
            [
                ("haematoxylin: ratio to the reference 25.00", "2.00 used"),
                ("eosin: ratio to the reference 0.04", "0.50 used"),
            ],
        ),
        (
            (1.0, 1.0),
            (1.0, 1.0),
            (1.0, 1.0),
            [
                ("haematoxylin: ratio to the reference 1.50", "1.00 used"),
                ("eosin: ratio to the reference 1.20", "1.00 used"),
            ],
        ),
        ((0.049, 1.2), LIMITS, (1.0, 1.0), [("haematoxylin: too little to measure", "as it is")]),
        ((1.5, 0.0), LIMITS, (1.0, 1.0), [("eosin: too little to measure", "as it is")]),
    ],
)
def test_ratios_are_held_within_limits_and_flagged(p99, limits, ratio, flagged):
    found, flags = match(profile(p99=p99), limits=limits)
    assert found.ratio == pytest.approx(ratio)
    assert len(flags) == len(flagged)
    assert all(flag.startswith(start) and end in flag for flag, (start, end) in zip(flags, flagged, strict=True))


def test_too_few_pixels_leave_strengths_as_they_are():
    found, flags = match(profile(p99=(0.1, 9.0), n_pixels=999))
    assert found.ratio == (1.0, 1.0)
    assert [flag.split(",")[0] for flag in flags] == [f"{s}: too little to measure" for s in ("haematoxylin", "eosin")]


def test_a_fit_with_its_stains_swapped_comes_out_upright():
    found = profile(OTHER_HE, p99=(1.2, 1.5))
    swapped = replace(found, basis=found.basis[::-1], p99=found.p99[::-1])
    (upright, flags), (expected, _) = match(swapped), match(found)
    assert upright == expected
    assert flags == ["stains swapped: so they are nearer to the reference's"]


NEARLY_ALIKE = unit([CAMELYON[0], 0.95 * CAMELYON[1] + 0.05 * CAMELYON[0]])


def test_macenko_takes_over_where_it_tells_the_stains_apart():
    pixels, reference = stained_pixels(NEARLY_ALIKE), profile(CAMELYON)
    found = fit(pixels, "vahadane")
    assert found.verdict == "stains too alike"
    by_reference, reference_flags = match(found, pixels, reference=reference)
    assert by_reference.profile.basis == reference.basis
    assert reference_flags[0] == "stain: stains too alike; the reference's basis used"
    by_macenko, flags = match(found, pixels, "macenko", reference=reference)
    other = fit(pixels, "macenko")
    assert by_macenko.profile == replace(other, method="Macenko's basis", verdict="stains too alike")
    assert by_macenko.ratio == (1.5 / other.p99[0], 1.2 / other.p99[1])
    assert flags == ["stain: stains too alike; Macenko's basis used"]


def test_by_the_references_basis_strengths_are_measured_anew():
    pixels = stained_pixels(HE, strength=0.7)
    found, flags = match(fit(pixels[:999], "vahadane"), pixels)
    assert found.profile.basis == REFERENCE.basis
    assert found.profile.n_pixels == 20_000
    assert found.ratio == pytest.approx(np.array(REFERENCE.p99) / fit(pixels, "none").p99)
    assert flags == ["stain: too few stained pixels; the reference's basis used"]


@functools.cache
def fit_of(name, method="vahadane"):
    return fit(DEGENERATE[name].pixels, method)


@pytest.mark.parametrize("name", DEGENERATE)
@pytest.mark.parametrize("fallback", ["reference", "macenko"])
@pytest.mark.parametrize("method", ["vahadane", "macenko", "none"])
def test_slides_that_show_no_two_stains_are_matched_all_the_same(name, method, fallback):
    found = fit_of(name, method)
    matched, flags = match(found, DEGENERATE[name].pixels, fallback)
    assert np.isfinite([*matched.profile.basis[0], *matched.profile.basis[1], *matched.profile.p99]).all()
    assert matched.profile.verdict == found.verdict
    assert (found.verdict == "ok") != any(flag.startswith(f"stain: {found.verdict}; ") for flag in flags)
    assert all(LIMITS[0] <= ratio <= LIMITS[1] for ratio in matched.ratio)
    upright, inverted = (angles(basis, HE).sum() for basis in (matched.profile.basis, matched.profile.basis[::-1]))
    assert upright <= inverted


@pytest.mark.parametrize("name", DEGENERATE)
def test_white_stays_white_in_slides_that_show_no_two_stains(name):
    matched, _ = match(fit_of(name), DEGENERATE[name].pixels, "macenko")
    assert matched.table().reshape(256, 256, 256, 3)[250:, 250:, 250:].min() >= 250


@pytest.mark.parametrize("name", DEGENERATE)
def test_slides_that_show_no_two_stains_are_refused_if_that_is_asked_for(name):
    pixels, found = DEGENERATE[name].pixels, fit_of(name)
    with pytest.raises(StainError) as raised:
        match(found, pixels, "fail")
    error = raised.value
    assert (error.slide, error.stage) == ("s1", "match_stain")
    assert error.finding.startswith(f"its stain could not be fitted: {found.verdict} ({len(pixels)} pixels, stains ")
    assert f"P99 {found.p99[0]:.2f} and {found.p99[1]:.2f}" in error.finding
    assert "stain.fallback: reference" in error.remedy
    assert str(error).startswith("slide s1, match_stain: its stain")


def test_a_sound_slide_is_not_refused():
    pixels = stained_pixels(OTHER_HE)
    found = fit(pixels, "vahadane")
    assert match(found, pixels, "fail") == match(found, pixels, "reference")


def test_mean_concentrations_are_those_the_tissue_was_made_with():
    h = np.random.default_rng(0).uniform(0.2, 1.5, (50_000, 2))
    pixels = np.rint(255 * np.exp(-h @ HE)).astype(np.uint8)
    np.testing.assert_allclose(mean_concentrations(pixels, REFERENCE), h.mean(axis=0), rtol=1e-3)
    assert mean_concentrations(pixels[:0], REFERENCE) is None


def tissue(basis, strength=1.0, seed=0):
    return stained_pixels(basis, 600 * 600, seed, strength).reshape(600, 600, 3)


@pytest.fixture
def reference(tmp_path):
    """Fit and tissue of a slide to match others to."""
    files, _ = fitted(tmp_path, tissue(HE), name="reference", n_pixels=200_000)
    return files.profile, files.tissue


def matched_slide(tmp_path, reference, files, name="m", fallback="reference"):
    inputs = MatchInputs(files.profile, files.sample, files.tissue, files.overview, *reference)
    outputs = MatchFiles(*(str(tmp_path / f"{name}{end}") for end in (".json", ".png", "_thumbnails.png")))
    match_slide("s1", inputs, outputs, MatchSettings(fallback, LIMITS), {"code": "abc"})
    return outputs, read_json(outputs.match)


def test_the_files_of_a_match_are_the_same_bytes_again(tmp_path, reference):
    files, record = fitted(tmp_path, tissue(OTHER_HE, strength=0.8))
    outputs, found = matched_slide(tmp_path, reference, files)
    own, goal = (StainProfile.of(read_json(path)["profile"]) for path in (files.profile, reference[0]))
    assert StainMatch.of(found) == StainMatch(own, goal, (goal.p99[0] / own.p99[0], goal.p99[1] / own.p99[1]))
    assert found["angle_to_reference"] == pytest.approx(angles(own.basis, goal.basis).tolist())
    assert found["fitted"]["verdict"] == "ok"
    assert found["fitted"]["basis"] == record["profile"]["basis"]
    assert found["fitted"]["angle"] == pytest.approx(np.degrees(np.arccos(np.dot(*own.basis))))
    assert (found["slide"], found["reference_slide"], found["flags"]) == ("s1", "s1", [])
    assert found["parameters"] == {"fallback": "reference", "ratio_limits": list(LIMITS)}
    assert found["provenance"] == {"code": "abc"}
    pixels = read_png(files.sample).reshape(-1, 3)[: own.n_pixels]
    table = StainMatch.of(found).table()
    assert found["mean_od"]["before"] == mean_concentrations(pixels, goal)
    assert found["mean_od"]["after"] == mean_concentrations(apply_table(table, pixels), goal)
    overview = read_png(files.overview)
    expected = np.concatenate([overview, apply_table(table, overview)], axis=1)
    np.testing.assert_array_equal(read_png(outputs.thumbnails), expected)
    assert read_png(outputs.picture).shape[:2] == (460, 1700)
    again, _ = matched_slide(tmp_path, reference, files, "again")
    for one, two in zip(vars(outputs).values(), vars(again).values(), strict=True):
        assert Path(one).read_bytes() == Path(two).read_bytes()


@pytest.mark.parametrize(("basis", "strength"), [(OTHER_HE, 0.8), (HE, 0.6)])
def test_slides_get_the_stain_of_the_reference(tmp_path, reference, basis, strength):
    goal = StainProfile.of(read_json(reference[0])["profile"])
    own = mean_concentrations(tissue(HE).reshape(-1, 3), goal)
    files, _ = fitted(tmp_path, tissue(basis, strength, seed=1), n_pixels=200_000)
    means = matched_slide(tmp_path, reference, files)[1]["mean_od"]
    before, after = (np.abs(np.array(means[when]) / own - 1).max() for when in ("before", "after"))
    assert after < 0.15
    assert before > 2 * after


@pytest.mark.filterwarnings("error")
def test_a_slide_without_tissue_is_matched_and_shown(tmp_path, reference):
    files, _ = fitted(tmp_path, np.full((300, 300, 3), 250), np.zeros((10, 10)))
    outputs, found = matched_slide(tmp_path, reference, files)
    assert found["mean_od"] == {"before": None, "after": None}
    assert found["ratio"] == [1.0, 1.0]
    assert found["fitted"]["verdict"] == found["profile"]["verdict"] == "too few stained pixels"
    assert (read_png(outputs.thumbnails) >= 250).all()
    assert Path(outputs.picture).stat().st_size > 0


def test_a_reference_in_a_file_is_matched_to_alike_and_shown_by_its_colours(tmp_path, reference):
    files, _ = fitted(tmp_path, tissue(OTHER_HE, strength=0.8))
    (from_slide, expected), (from_file, found) = (
        matched_slide(tmp_path, paths, files, name) for name, paths in (("m", reference), ("n", reference[:1]))
    )
    assert found == expected
    assert Path(from_slide.thumbnails).read_bytes() == Path(from_file.thumbnails).read_bytes()
    shown, colours = read_png(from_slide.picture), read_png(from_file.picture)
    changed = np.flatnonzero((shown != colours).any(axis=(0, 2)))  # columns: those of the third of four pictures
    assert shown.shape[1] * 0.49 < changed.min() < changed.max() < shown.shape[1] * 0.75
    assert len(changed) > 200


def test_a_refused_slide_leaves_no_file(tmp_path, reference):
    files, _ = fitted(tmp_path, np.full((300, 300, 3), 250))
    with pytest.raises(StainError, match="too few stained pixels"):
        matched_slide(tmp_path, reference, files, fallback="fail")
    assert not list(tmp_path.glob("m*"))
