import json
from collections import Counter

import numpy as np
import pytest
from lesionmap.errors import AnnotationError, SettingsError
from lesionmap.experiments.folds import FoldSettings, FoldSlide, assign_folds, read_folds, shared_out, slides_of_fold
from lesionmap.files.records import read_table, write_table
from lesionmap.jobs.quarantine import write_quarantined

SQUARE = [[[0, 0], [9, 0], [9, 9], [0, 9], [0, 0]]]


def slide(name, patient="", site="", identity=None, lesion=True):
    return FoldSlide(name, patient, site, identity or f"content of {name}", lesion)


def cohort(seed=0, n=60):
    """Patients with one to three slides, of three sites of different size, a third of them without lesion."""
    rng = np.random.default_rng(seed)
    found = []
    for patient in range(n):
        site, lesion = f"site {rng.choice(3, p=[0.6, 0.3, 0.1])}", bool(rng.random() < 0.67)
        found += [slide(f"{patient}_{k}", f"p{patient}", site, lesion=lesion) for k in range(rng.integers(1, 4))]
    return found


def folds_of_patients(slides, folds):
    found = {}
    for one in slides:
        found.setdefault(one.patient, set()).add(folds[one.slide])
    return found


def test_slides_of_a_patient_share_a_fold():
    slides = cohort()
    folds = shared_out(slides, FoldSettings(5, 0), {})
    assert folds.keys() == {one.slide for one in slides}
    assert all(len(found) == 1 for found in folds_of_patients(slides, folds).values())
    assert set(folds.values()) == {1, 2, 3, 4, 5}


@pytest.mark.parametrize("seed", range(5))
def test_lesion_and_sites_are_shared_out_evenly(seed):
    slides = cohort(seed, 90)
    folds = shared_out(slides, FoldSettings(5, seed), {})
    for kind in (lambda one: one.lesion, lambda one: (one.lesion, one.site)):
        counts = {}
        for one in slides:
            counts.setdefault(kind(one), Counter())[folds[one.slide]] += 1
        for of_kind in counts.values():
            numbers = [of_kind[fold] for fold in range(1, 6)]
            assert max(numbers) - min(numbers) <= 3, counts  # a patient has at most three slides


def test_what_shares_content_shares_a_fold_through_any_chain():
    slides = [
        slide("a", "p1", identity="x"),
        slide("b", "", identity="x"),  # the same file under another id, whose patient nobody has named
        slide("c", "p1"),
        slide("d", "p2", identity="y"),
        slide("e", "p3", identity="y"),
        *(slide(f"f{number}") for number in range(8)),
    ]
    folds = shared_out(slides, FoldSettings(4, 3), {})
    assert folds["a"] == folds["b"] == folds["c"]
    assert folds["d"] == folds["e"]


def test_slides_without_patient_are_their_own():
    folds = shared_out([slide(name) for name in "abcdef"], FoldSettings(3, 0), {})
    assert Counter(folds.values()) == {1: 2, 2: 2, 3: 2}


def test_no_patient_changes_fold_when_slides_are_added():
    settings, slides = FoldSettings(5, 1), cohort(n=80)
    some = [one for one in slides if int(one.patient[1:]) < 50 or one.slide.endswith("_0")][:70]
    before = shared_out(some, settings, {})
    after = shared_out(slides, settings, before)
    assert {name: after[name] for name in before} == before
    assert all(len(found) == 1 for found in folds_of_patients(slides, after).values())


def test_the_order_of_the_sheet_decides_nothing_and_the_seed_does():
    slides = cohort()
    folds = shared_out(slides, FoldSettings(5, 0), {})
    assert shared_out(slides[::-1], FoldSettings(5, 0), {}) == folds
    assert shared_out(slides, FoldSettings(5, 1), {}) != folds


def test_a_patient_who_was_in_two_folds_goes_where_most_of_its_slides_are():
    known = {"a": 1, "b": 3, "c": 3, "d": 2, "e": 2, "f": 1}
    slides = [slide("a", "p"), slide("b", "p"), slide("c", "p"), *(slide(name) for name in "def")]
    folds = shared_out(slides, FoldSettings(3, 0), known)
    assert folds == {"a": 3, "b": 3, "c": 3, "d": 2, "e": 2, "f": 1}


@pytest.mark.parametrize("n_folds", [3, 5])
def test_every_fold_is_held_out_once_and_chooses_for_one_other(n_folds):
    folds = {f"slide {place}": place % n_folds + 1 for place in range(4 * n_folds)}
    roles = ("train", "val", "held_out")
    of_role = {role: [slides_of_fold(folds, fold, n_folds, role) for fold in range(1, n_folds + 1)] for role in roles}
    for role in ("val", "held_out"):
        assert sorted(name for part in of_role[role] for name in part) == sorted(folds)
    for parts in zip(*of_role.values(), strict=True):
        assert sorted(name for part in parts for name in part) == sorted(folds)
        assert not set(parts[0]) & set(parts[1]) | set(parts[1]) & set(parts[2])
    assert slides_of_fold({"a": 1, "b": 2, "c": 3}, 3, 3, "val") == ["a"]


@pytest.fixture
def files(tmp_path):
    """A manifest of slides a to f, their annotations (a and b have lesion), and a table to write."""
    rows = [{"slide": name, "identity": f"content of {name}"} for name in "abcdef"]
    write_table(tmp_path / "manifest.tsv", rows, ["slide", "identity"])
    paths = []
    for name in "abcdef":
        kind = "lesion" if name in "ab" else "vessel"
        features = [{"properties": {"class": kind}, "geometry": {"type": "Polygon", "coordinates": SQUARE}}]
        path = tmp_path / f"{name}.geojson"
        path.write_text(json.dumps({"features": features}))
        paths.append(str(path))
    return str(tmp_path / "manifest.tsv"), paths, str(tmp_path / "folds.tsv")


def sheet(names, **patients):
    return {name: {"patient": patients.get(name, ""), "site": "north"} for name in names}


def test_the_table_says_who_is_where(files):
    manifest, annotations, table = files
    assign_folds(manifest, annotations, sheet("abcdef", a="p1", c="p1"), table, FoldSettings(3, 4))
    rows = {row["slide"]: row for row in read_table(table)}
    expected = {"slide": "a", "patient": "p1", "site": "north", "lesion": "1", "folds": "3", "seed": "4"}
    assert expected.items() <= rows["a"].items()
    assert [rows[name]["lesion"] for name in "abcdef"] == ["1", "1", "0", "0", "0", "0"]
    assert rows["a"]["fold"] == rows["c"]["fold"] != rows["b"]["fold"]


@pytest.mark.parametrize(
    ("n", "folds", "remedy"), [(4, 5, "set it to 4 or less"), (2, 3, "add annotated slides"), (0, 3, "add annotated")]
)
def test_fewer_patients_than_folds_are_refused(files, n, folds, remedy):
    manifest, annotations, table = files
    of_patient = {name: f"p{place % n}" for place, name in enumerate("abcdef")} if n else {}
    with pytest.raises(SettingsError, match=f"folds is {folds}.* of {n} patients.*Remedy: {remedy}"):
        assign_folds(manifest, annotations, sheet("abcdef" if n else "", **of_patient), table, FoldSettings(folds, 0))


def test_slides_that_cannot_be_used_come_back_to_their_fold_and_keep_it_for_their_patient(files):
    manifest, annotations, table = files
    settings, rows = FoldSettings(3, 0), sheet("abcde", a="p", b="q")
    assign_folds(manifest, annotations, rows, table, settings)
    before = read_folds(table)
    write_quarantined([annotations[1]], AnnotationError(slide="b", stage="s", finding="f", remedy="r"))
    assign_folds(manifest, annotations, sheet("bcdef", b="q", f="p"), table, settings)  # a left, f came
    after = read_folds(table)
    assert {name: after[name] for name in "abcde"} == before
    assert after["f"] == before["a"]


def test_pruned_slides_are_forgotten(files):
    manifest, annotations, table = files
    assign_folds(manifest, annotations, sheet("abcdef"), table, FoldSettings(3, 0))
    assign_folds(manifest, annotations, sheet("bcdef"), table, FoldSettings(3, 0), excluded=["a"])
    assert read_folds(table).keys() == set("bcdef")


def test_another_number_or_seed_divides_anew(files):
    manifest, annotations, table = files
    found = []
    for settings in (FoldSettings(3, 0), FoldSettings(6, 0), FoldSettings(3, 0), FoldSettings(3, 7)):
        assign_folds(manifest, annotations, sheet("abcdef"), table, settings)
        found.append(read_folds(table))
    assert found[0] == found[2] != found[3]
    assert set(found[1].values()) == {1, 2, 3, 4, 5, 6}


def test_a_patient_that_is_named_later_leaves_no_slide_behind(files, caplog):
    manifest, annotations, table = files
    assign_folds(manifest, annotations, sheet("abcdef"), table, FoldSettings(3, 0))
    before = read_folds(table)
    other = next(name for name in "bcdef" if before[name] != before["a"])
    assign_folds(manifest, annotations, sheet("abcdef", **{"a": "p", other: "p"}), table, FoldSettings(3, 0))
    after = read_folds(table)
    assert after["a"] == after[other]
    assert "moves to fold" in caplog.text
    assert sum(before[name] != after[name] for name in "abcdef") == 1
