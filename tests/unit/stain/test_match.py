import functools
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from lesionmap.errors import StainError
from lesionmap.files.pictures import read_png
from lesionmap.files.records import read_json
from lesionmap.stain.fit import angles, fit
from lesionmap.stain.match import MatchSettings, match_slide, match_stain, mean_concentrations
from lesionmap.stain.plots import PlotFiles, draw_stain
from lesionmap.stain.profile import StainProfile
from lesionmap.stain.table import StainMatch, apply_table
from stained import CAMELYON, DEGENERATE, HE, OTHER_HE, fitted, profile, stained_pixels, unit

LIMITS = (0.5, 2.0)
REFERENCE = profile(HE, p99=(1.5, 1.2))


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
        ((0.049, 1.2), LIMITS, (1.0, 1.0), [("haematoxylin: too little to measure", "not changed")]),
        ((1.5, 0.0), LIMITS, (1.0, 1.0), [("eosin: too little to measure", "not changed")]),
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
    assert flags == ["stains swapped, as that brings them nearer to the reference's"]


NEARLY_ALIKE = unit([CAMELYON[0], 0.95 * CAMELYON[1] + 0.05 * CAMELYON[0]])


def test_macenko_takes_over_where_it_tells_the_stains_apart():
    pixels, reference = stained_pixels(NEARLY_ALIKE), profile(CAMELYON)
    found = fit(pixels, "vahadane")
    assert found.verdict == "stains too alike"
    by_reference, reference_flags = match(found, pixels, reference=reference)
    assert by_reference.profile.basis == reference.basis
    assert reference_flags[0] == "stain: stains too alike, the reference's basis used"
    by_macenko, flags = match(found, pixels, "macenko", reference=reference)
    other = fit(pixels, "macenko")
    assert by_macenko.profile == replace(other, method="Macenko's basis", verdict="stains too alike")
    assert by_macenko.ratio == (1.5 / other.p99[0], 1.2 / other.p99[1])
    assert flags == ["stain: stains too alike, Macenko's basis used"]


def test_by_the_references_basis_strengths_are_measured_anew():
    pixels = stained_pixels(HE, strength=0.7)
    found, flags = match(fit(pixels[:999], "vahadane"), pixels)
    assert found.profile.basis == REFERENCE.basis
    assert found.profile.n_pixels == 20_000
    assert found.ratio == pytest.approx(np.array(REFERENCE.p99) / fit(pixels, "none").p99)
    assert flags == ["stain: too few stained pixels, the reference's basis used"]


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
    assert (found.verdict == "ok") != any(flag.startswith(f"stain: {found.verdict}, ") for flag in flags)
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


class Outputs(NamedTuple):
    match: str
    picture: str
    thumbnails: str


def matched_slide(tmp_path, reference, files, name="m", fallback="reference"):
    match, picture, thumbnails = (str(tmp_path / f"{name}{end}") for end in (".json", ".png", "_thumbnails.png"))
    settings = MatchSettings(fallback, LIMITS)
    paths = files.profile, files.sample, reference[0], match
    match_slide("s1", *paths, settings=settings, provenance={"code": "abc"})
    draw_stain(PlotFiles(match, files.sample, files.tissue, files.overview, *reference[1:]), picture, thumbnails)
    return Outputs(match, picture, thumbnails), read_json(match)


def test_the_files_of_a_match_are_the_same_bytes_again(tmp_path, reference):
    files, record = fitted(tmp_path, tissue(OTHER_HE, strength=0.8))
    outputs, found = matched_slide(tmp_path, reference, files)
    own, goal = (StainProfile.of(read_json(path)["profile"]) for path in (files.profile, reference[0]))
    assert StainMatch.of(found) == StainMatch(own, goal, (goal.p99[0] / own.p99[0], goal.p99[1] / own.p99[1]))
    assert found["angle_to_reference"] == pytest.approx(angles(own.basis, goal.basis).tolist())
    assert found["fitted"]["verdict"] == "ok"
    assert found["fitted"]["basis"] == record["profile"]["basis"]
    assert found["fitted"]["angle"] == pytest.approx(np.degrees(np.arccos(np.dot(*own.basis))))
    assert (found["slide"], found["reference_slide"]) == ("s1", "s1")
    assert found["flags"] == ["white point 255, 255, 255 assumed, as the slide shows no glass: see stain.white_point"]
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
    for one, two in zip(outputs, again, strict=True):
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
