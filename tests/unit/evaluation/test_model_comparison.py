"""Several models on the same slides."""

import numpy as np
import pandas as pd
import pytest
from evaluated import random_slide, record_of
from lesionmap.errors import ModelError
from lesionmap.evaluation.leakage import SEEN
from lesionmap.evaluation.model_comparison import UNKNOWN, compare_models, compare_with_before
from lesionmap.files.records import read_json, write_json, write_table
from lesionmap.metrics.cohort import with_intervals
from lesionmap.metrics.slide_table import SlideTable

SLIDES = [random_slide(seed, has_lesion=seed % 4 > 0) for seed in range(12)]
OURS = [record_of(f"s{n}", *slide) for n, slide in enumerate(SLIDES)]
WEAKER = [record_of(f"s{n}", np.maximum(levels, 10) - 10, mask) for n, (levels, mask) in enumerate(SLIDES)]


def write_slides(path, slides, leakage):
    """As much of a table of slides as is read."""
    write_table(path, [{"slide": slide, "leakage": leakage.get(slide, "")} for slide in slides], ["slide", "leakage"])


@pytest.fixture
def compared(tmp_path):
    def compare(ours, leakage=None, **others):
        for name, records in {"ours": ours, **others}.items():
            for record in records:
                write_json(tmp_path / name / "slides" / f"{record['slide']}.json", record)
        own = [str(tmp_path / "ours/slides" / f"{record['slide']}.json") for record in ours]
        folders = {name: str(tmp_path / name) for name in others}
        table = str(tmp_path / "slides.tsv")
        write_slides(table, [record["slide"] for record in ours], leakage or {})
        compare_models(own, table, folders, str(tmp_path / "models.tsv"), 200)
        return pd.read_csv(tmp_path / "models.tsv", sep="\t").set_index(["metric", "model"])

    return compare


def test_each_model_has_its_metrics_and_its_difference(compared):
    table = compared(OURS, weaker=WEAKER)
    entries = with_intervals(SlideTable.of(WEAKER, 200))
    expected = next(entry for metric, entry in entries.items() if metric.name == "dice")
    row, own = table.loc[("dice", "weaker")], table.loc[("dice", "this run")]
    for key in ("value", "low", "high"):
        assert row[key] == pytest.approx(expected[key], abs=1e-6)
    assert row["difference"] == pytest.approx(row["value"] - own["value"], abs=2e-6)
    assert np.isnan(own["difference"])
    assert (row["slides"], row["patients"], row["split"]) == (9, 9, "test")


def test_differences_are_of_the_same_patients(compared):
    row = compared(OURS, weaker=WEAKER).loc[("dice", "weaker")]
    assert row["difference_low"] <= row["difference"] <= row["difference_high"]
    assert row["difference_high"] - row["difference_low"] < (row["high"] - row["low"]) / 2
    same = compared(OURS, same=OURS).loc[("dice", "same")]
    assert same["difference"] == 0
    assert same[["difference_low", "difference_high"]].isna().all()  # nobody makes a difference


def test_only_slides_of_equal_content_and_split_are_compared(compared):
    moved = [WEAKER[0] | {"split": "val"}, WEAKER[1] | {"provenance": {"identity": "another"}}, *WEAKER[2:]]
    table = compared(OURS, moved=[*moved, record_of("unknown", *SLIDES[0])])
    assert table.loc[("brier", "moved"), "slides"] == table.loc[("brier", "this run"), "slides"] == 10


def test_patients_are_those_of_this_run(compared):
    ours = [record | {"patient": f"p{n // 2}"} for n, record in enumerate(OURS)]
    assert compared(ours, weaker=WEAKER).loc[("brier", "weaker"), "patients"] == 6


def test_a_model_without_a_common_slide_is_an_error(compared):
    with pytest.raises(ModelError, match=r"evaluation\.compare names .*other for other, which has none"):
        compared(OURS, other=[record_of("elsewhere", *SLIDES[0])])


@pytest.mark.parametrize("theirs", [False, True])
def test_slides_of_which_one_run_evaluated_nothing_are_not_compared(compared, theirs):
    ours, others = [*OURS], [*WEAKER]
    (others if theirs else ours)[3] = record_of(
        OURS[3]["slide"], *(np.full((3, 5), code, np.uint8) for code in (9, 255))
    )
    assert compared(ours, weaker=others).loc[("brier", "weaker"), "slides"] == 11


def test_distances_are_compared_on_the_slides_where_both_models_have_one(compared):
    """The other misses the lesion of the second slide, where this run's model is far off."""
    far = {"tolerance_um": 30, "nsd": 0.25, "hd95_um": 900.0}
    ours = [OURS[0] | {"boundary": far | {"hd95_um": 20.0}}, OURS[1] | {"boundary": far}]
    theirs = [
        OURS[0] | {"boundary": far | {"hd95_um": 50.0}},
        OURS[1] | {"boundary": far | {"nsd": 0, "hd95_um": None}},
    ]
    table = compared(ours, other=theirs)
    assert table.loc[("slide_mean_hd95_um", "this run"), ["value", "slides"]].tolist() == [20, 1]
    assert table.loc[("slide_mean_hd95_um", "other"), ["value", "difference"]].tolist() == [50, 30]
    assert table.loc[("slide_mean_nsd", "other"), ["value", "slides"]].tolist() == [0.125, 2]


def test_boundaries_of_another_tolerance_are_not_compared(compared):
    others = [record | {"boundary": record["boundary"] | {"tolerance_um": 25}} for record in WEAKER]
    with pytest.raises(ModelError, match=r"the same evaluation\.boundary_tolerance_um"):
        compared(OURS, weaker=others)


def test_records_of_another_version_are_not_compared(compared):
    older = [{key: value for key, value in record.items() if key != "false_positive_scores"} for record in WEAKER]
    with pytest.raises(ModelError, match="as this version evaluates them"):
        compared(OURS, older=older)


def test_no_other_model_gives_an_empty_table(compared):
    assert compared(OURS).empty


def test_slides_with_leakage_into_either_model_are_compared_apart(compared, tmp_path):
    theirs = {"s1": "same patient as a training slide of the model (x)", "s9": ""}
    (tmp_path / "weaker").mkdir()
    write_slides(tmp_path / "weaker/slides.tsv", [record["slide"] for record in WEAKER], theirs)
    table = compared(OURS, {"s0": "training slide of the model (y)"}, weaker=WEAKER).reset_index()
    brier = table[table["metric"] == "brier"].fillna("")
    assert brier[["split", "model", "slides", "mark"]].to_numpy().tolist() == [
        ["test", "this run", 10, ""],
        ["test", "weaker", 10, ""],
        ["leaked", "this run", 2, SEEN],
        ["leaked", "weaker", 2, SEEN],
    ]


def test_unknown_leakage_into_another_model_is_said(compared, tmp_path):
    (tmp_path / "older").mkdir()
    write_table(tmp_path / "older/slides.tsv", [{"slide": "s0"}], ["slide"])
    table = compared(OURS, {"s0": "training slide of the model (y)"}, older=WEAKER, none=WEAKER).reset_index()
    marks = table[table["metric"] == "brier"].set_index(["model", "split"])["mark"]
    for name in ("older", "none"):
        assert marks[name].to_dict() == {"test": UNKNOWN, "leaked": f"{SEEN}; {UNKNOWN}"}


# --- Before and after corrections


def held_against(records, *digests):
    """Records whose annotations have these digests; the last is that of all others."""
    of_each = [*digests, *[digests[-1]] * (len(records) - len(digests))]
    return [
        record | {"provenance": record["provenance"] | {"annotation": digest}}
        for record, digest in zip(records, of_each, strict=True)
    ]


@pytest.fixture
def with_before(tmp_path):
    def compare(before, after, leakage=None):
        for name, records in (("after", after), ("before", before)):
            for record in records:
                write_json(tmp_path / name / "slides" / f"{record['slide']}.json", record)
            write_slides(tmp_path / name / "slides.tsv", [record["slide"] for record in records], leakage or {})
        own = [str(tmp_path / "after/slides" / f"{record['slide']}.json") for record in after]
        outputs = [str(tmp_path / name) for name in ("t.tsv", "t.json")]
        compare_with_before(own, str(tmp_path / "after/slides.tsv"), str(tmp_path / "before"), *outputs, 200)
        table = pd.read_csv(outputs[0], sep="\t").set_index(["metric", "model"])
        return table, read_json(outputs[1])

    return compare


def test_the_model_after_corrections_is_compared_with_that_before(compared, with_before):
    table, counts = with_before(held_against(WEAKER, "a"), held_against(OURS, "a"))
    assert counts == {"compared": 12, "changed": 0, "not_comparable": 0, "any_map": True}
    reverse = compared(OURS, weaker=WEAKER).loc[("dice", "weaker")]
    row = table.loc[("dice", "after")]
    assert row["difference"] == -reverse["difference"]
    assert (row["difference_low"], row["difference_high"]) == (-reverse["difference_high"], -reverse["difference_low"])
    assert table.loc[("dice", "before"), "value"] == reverse["value"]
    assert table.loc[("dice", "before"), "split"] == "test"


def test_slides_whose_annotation_has_changed_or_that_are_evaluated_otherwise_are_left_out_and_counted(with_before):
    before = held_against(WEAKER[:11], "other", "other", "a")
    before[5] = before[5] | {"split": "val"}
    table, counts = with_before(before, held_against(OURS, "a"))
    assert counts == {"compared": 8, "changed": 2, "not_comparable": 1, "any_map": True}
    assert table.loc[("brier", "after"), "slides"] == table.loc[("brier", "before"), "slides"] == 8


def test_slides_that_either_model_has_seen_are_apart_and_patients_are_those_of_this_run(with_before):
    after = [record | {"patient": f"p{n // 2}"} for n, record in enumerate(held_against(OURS, "a"))]
    leakage = {"s1": "training slide of the model (s1)"}
    table = with_before(held_against(WEAKER, "a"), after, leakage)[0].reset_index().set_index(["metric", "split"])
    own = table.loc[("brier", "test")]
    assert (set(own["slides"]), set(own["patients"])) == ({11}, {6})
    assert set(table.loc[("brier", "leaked"), "mark"]) == {SEEN}


def test_maps_that_are_still_the_same_are_not_compared(with_before):
    before = held_against(OURS, "a")
    after = [record | {"provenance": record["provenance"] | {"code": "new"}} for record in before]
    table, counts = with_before(before, after)
    assert len(table) == 0
    assert counts == {"compared": 12, "changed": 0, "not_comparable": 0, "any_map": False}


def test_without_a_common_slide_there_is_nothing_to_compare(with_before):
    table, counts = with_before(held_against(OURS[:3], "a"), held_against(OURS[3:], "a"))
    assert (len(table), counts["compared"], counts["changed"]) == (0, 0, 0)
