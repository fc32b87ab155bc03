"""The files of a cohort's metrics."""

import json

import numpy as np
import pandas as pd
import pytest
from evaluated import judged, lesion, random_slide, record_of, scores_at
from lesionmap.errors import SettingsError
from lesionmap.evaluation.leakage import CHOSEN, INTERNAL, SEEN, UNKNOWN_PATIENTS, UNSEEN, Seen
from lesionmap.evaluation.summary import SummaryFiles, read_slide_table, summarise
from lesionmap.files.records import write_json
from lesionmap.maps.probability import as_probability
from lesionmap.metrics.pixels import Histograms, binary_metrics

N = 8


@pytest.fixture
def files(tmp_path):
    names = ("slides.tsv", "cohort.tsv", "summary.json", "headline.txt", "readers.tsv", "groups.tsv")
    return SummaryFiles(*(str(tmp_path / name) for name in names))


@pytest.fixture
def records():
    slides = [record_of(f"s{n}", *random_slide(n, has_lesion=n != 2)) for n in range(N)]
    for slide in slides[:2]:
        slide |= {
            "lesions": [lesion(detected_at=220), lesion(predicted_pixels=0)],
            "false_positive_scores": scores_at(200, 130),
            **judged(matched=1, false=3),
        }
    slides[7] |= {"split": "val", "patient": "p1"}
    return slides


def summarised(tmp_path, files, records, seen=UNSEEN, **options):
    paths = [str(tmp_path / f"{record['slide']}.json") for record in records]
    for path, record in zip(paths, records, strict=True):
        write_json(path, record)
    summarise(paths, files, 200, seen, **options)
    return json.loads((tmp_path / "summary.json").read_text())


def test_the_summary_holds_every_figure_and_what_curves_are_drawn_from(tmp_path, files, records):
    summary = summarised(tmp_path, files, records)
    test = summary["splits"]["test"]
    assert (test["slides"], test["patients"], test["slides_with_lesion"]) == (7, 7, 6)
    pooled = Histograms.of_record(test["histograms"])
    expected = binary_metrics(pooled, 0.5)
    assert {name: test["metrics"][name]["value"] for name in expected} == pytest.approx(expected)
    assert [row["threshold"] for row in test["sweep"]][::9] == [0.05, 0.5, 0.95]
    assert test["sweep"][9]["dice"] == test["metrics"]["dice"]
    assert test["froc"]["sensitivity"][-1] == 0.5
    assert test["froc"]["false_per_slide"][-1] == pytest.approx(4 / 7)
    assert test["lesions"]["0.5_to_2mm"] == {"annotated": 4, "found": 2}
    assert test["lesions"]["from_2mm"] == {"annotated": 0, "found": 0}
    assert sum(row["pixels"] for row in test["calibration"]) == pooled.counts.sum()
    error = sum(row["pixels"] * abs(row["mean_probability"] - row["share_of_lesion"]) for row in test["calibration"])
    assert error / pooled.counts.sum() == pytest.approx(test["metrics"]["ece"]["value"])
    rules = {"level": 0.95, "least_patients": 5, "min_lesion_um": 200}
    assert summary["rules"] == rules


def test_the_tables_say_the_same(tmp_path, files, records):
    summary = summarised(tmp_path, files, records)["splits"]
    cohort = pd.read_csv(files.cohort, sep="\t", keep_default_na=False)
    for row in cohort.itertuples():
        entry = summary[row.split]["metrics"][row.metric]
        for key in ("value", "low", "high"):
            assert getattr(row, key) == ("NA" if entry[key] is None else f"{entry[key]:.6f}")
        assert (row.slides, row.patients, row.note) == (entry["slides"], entry["patients"], entry["note"])
    assert len(cohort) == sum(len(split["metrics"]) for split in summary.values())
    slides = pd.read_csv(files.slides, sep="\t")
    assert slides["slide"].tolist() == [f"s{n}" for n in range(N)]
    assert slides.loc[0, ["annotated_lesions", "found_lesions", "false_lesions"]].tolist() == [2, 1, 3]
    assert slides.loc[2, ["annotated_mm2", "dice"]].isna().tolist() == [False, True]
    highest = random_slide(3)[0][random_slide(3)[1] != 255].max()
    assert slides.loc[3, "highest_probability"] == pytest.approx(as_probability(highest), abs=1e-6)


def test_the_headline_has_intervals_where_there_are_any(tmp_path, files, records):
    metrics = summarised(tmp_path, files, records)["splits"]["test"]["metrics"]
    lines = (tmp_path / "headline.txt").read_text().splitlines()
    dice = "{value:.3f} (95 % {low:.3f}–{high:.3f})".format(**metrics["dice"])
    assert lines[0].startswith(f"lesion, split test (7 slides): Dice {dice}, AUROC ")
    assert lines[3] == "  s2: Dice undefined, AUROC undefined"
    assert lines[8] == "lesion, split val (1 slide): " + lines[9].split(": ")[1]  # the model has not seen it
    assert lines[9].startswith("  s7: Dice ")
    assert lines[10:] == ["internal validation: held-out slides of the same sheet"]


def test_equal_records_give_equal_bytes(tmp_path, files, records):
    summarised(tmp_path, files, records)
    first = (tmp_path / "summary.json").read_bytes()
    summarised(tmp_path, files, records)
    assert (tmp_path / "summary.json").read_bytes() == first


def test_ignored_areas_are_reported_and_slides_with_nothing_else_count_in_no_metric(tmp_path, files, records):
    summary = summarised(tmp_path, files, records)["splits"]
    assert summary["test"]["ignored"] == {"slides": 0, "mm2": 0, "lesions": 0}
    nothing = record_of("all", np.full((3, 5), 200, np.uint8), np.full((3, 5), 255, np.uint8))
    records[3] |= {"ignored_mm2": 0.25} | judged(unjudged=2)
    more = summarised(tmp_path, files, [*records, nothing | {"ignored_mm2": 1.5} | judged(unjudged=1)])["splits"]
    assert more["test"].pop("ignored") == {"slides": 2, "mm2": 1.75, "lesions": 3}
    assert more["test"] == {key: value for key, value in summary["test"].items() if key != "ignored"}
    assert more["val"] == summary["val"]
    slides = pd.read_csv(files.slides, sep="\t", keep_default_na=False).set_index("slide")
    assert slides.loc["s3", ["ignored_mm2", "ignored_lesions"]].tolist() == [0.25, 2]
    columns = ["ignored_mm2", "ignored_lesions", "highest_probability", "specificity"]
    assert slides.loc["all", columns].tolist() == [1.5, 1, "NA", "NA"]
    assert summarised(tmp_path, files, [nothing])["splits"] == {}


def test_no_evaluated_slide_is_said(tmp_path, files):
    assert summarised(tmp_path, files, [])["splits"] == {}
    assert (tmp_path / "headline.txt").read_text() == "no slide was evaluated\n"
    assert len((tmp_path / "cohort.tsv").read_text().splitlines()) == 1


SEEN_BEFORE = {  # s0 was trained on, s3 is of the same patient; s7 was validated on
    "training_slides": {"old_name": "sha256 of s0"},
    "validation_slides": {"s7": "sha256 of s7"},
}


@pytest.fixture
def leaking(records):
    records[0] |= {"patient": "p0"}
    records[3] |= {"patient": "p0"}
    return records


def test_slides_with_leakage_are_left_out_of_their_split_and_marked(tmp_path, files, leaking):
    seen = Seen.of(SEEN_BEFORE, {"old_name": "p0"})
    splits = summarised(tmp_path, files, leaking, seen)["splits"]
    assert list(splits) == ["test", "val", "leaked"]
    assert [splits[group]["slides"] for group in splits] == [5, 1, 2]
    assert [splits[group]["mark"] for group in splits] == ["", CHOSEN, SEEN]
    alone = summarised(tmp_path, files, [leaking[n] for n in (1, 2, 4, 5, 6)])["splits"]["test"]
    assert splits["test"] == alone
    summarised(tmp_path, files, leaking, seen)
    rows = {row["slide"]: row["leakage"] for row in read_slide_table(files.slides)}
    assert {slide: leakage for slide, leakage in rows.items() if leakage} == {
        "s0": "training slide of the model (old_name)",
        "s3": "same patient as a training slide of the model (old_name)",
        "s7": "validation slide of the model (s7)",
    }
    cohort = pd.read_csv(files.cohort, sep="\t", keep_default_na=False)
    assert set(zip(cohort["split"], cohort["mark"], strict=True)) == {("test", ""), ("val", CHOSEN), ("leaked", SEEN)}


def test_the_headline_is_without_leakage_and_the_rest_stands_below_with_its_mark(tmp_path, files, leaking):
    splits = summarised(tmp_path, files, leaking, Seen.of(SEEN_BEFORE | {"patients": {}}, {"old_name": "p0"}))["splits"]
    lines = (tmp_path / "headline.txt").read_text().splitlines()
    dice = {group: f"{splits[group]['metrics']['dice']['value']:.3f}" for group in splits}
    assert lines[0].startswith(f"lesion, split test (5 slides): Dice {dice['test']}, AUROC ")
    assert [line.split(":")[0] for line in lines[1:6]] == ["  s1", "  s2", "  s4", "  s5", "  s6"]
    assert lines[6].startswith(f"not independent of the model: split val (1 slide): Dice {dice['val']}, AUROC ")
    assert lines[6].endswith(f"; {CHOSEN}")
    assert lines[7].endswith(" (validation slide of the model (s7))")
    assert lines[8].startswith(f"not independent of the model: leaked slides (2 slides): Dice {dice['leaked']}, AUROC ")
    assert lines[8].endswith(f"; {SEEN}")
    assert lines[9].startswith("  s0: Dice ")
    assert lines[10].startswith("  s3: Dice ")
    assert lines[10].endswith(" (same patient as a training slide of the model (old_name))")
    assert lines[11:] == [INTERNAL]


def test_without_a_slide_that_is_free_of_leakage_there_is_no_headline(tmp_path, files, leaking):
    seen = Seen.of(SEEN_BEFORE)
    summarised(tmp_path, files, [leaking[0], leaking[7]], seen)
    lines = (tmp_path / "headline.txt").read_text().splitlines()
    assert lines[0] == "no evaluated slide is independent of the model, so there is no headline metric"
    assert [line.split(" (")[0] for line in lines[1::2]] == [
        "not independent of the model: split val",
        "not independent of the model: leaked slides",
        INTERNAL,
    ]
    assert lines[-1] == UNKNOWN_PATIENTS


def test_a_model_of_another_run_is_validated_externally_by_what_it_has_not_seen(tmp_path, files, leaking):
    seen = Seen.of(SEEN_BEFORE | {"run": "0123456789abcdef"})
    summary = summarised(tmp_path, files, leaking[:3], seen, external=True)
    model = "a model of another run (run 0123456789ab)"
    assert summary["validation"].startswith(f"external validation of {model}, trained on ")
    assert ": on 2 of 3 evaluated slides, which are not among those, " in summary["validation"]
    assert summary["validation"] in (tmp_path / "headline.txt").read_text().splitlines()


def twice_read(record, *counts, boundary=(0.5, 40.0)):
    """A record with numbers of pixels (TP, FP, FN, TN) of each pair."""
    pairs = ("model–reader 1", "model–reader 2", "reader 2–reader 1")
    of_boundary = dict(zip(("nsd", "hd95_um"), boundary, strict=True))
    found = [dict(zip(("tp", "fp", "fn", "tn"), of_pair, strict=True)) | of_boundary for of_pair in counts]
    return record | {"readers": dict(zip(pairs, found, strict=True))}


def test_the_agreement_of_readers_is_of_the_slides_that_two_have_annotated(tmp_path, files, records):
    counts = (30, 10, 10, 50), (20, 20, 0, 60), (15, 5, 25, 55)
    summarised(tmp_path, files, [twice_read(records[0], *counts), *records[1:4], twice_read(records[7], *counts)])
    table = pd.read_csv(files.readers, sep="\t", keep_default_na=False, dtype=str)
    table = table.set_index(["split", "pair", "metric"])
    assert list(table.index.unique(0)) == ["test", "val"]
    assert set(table["slides"]) == {"1"}
    assert table.loc[("test", "model–reader 1", "dice"), ["value", "low", "difference"]].tolist() == [
        f"{60 / 80:.6f}",
        "NA",
        f"{60 / 80 - 30 / 60:.6f}",
    ]
    assert table.loc[("val", "reader 2–reader 1", "recall"), ["value", "difference"]].tolist() == ["0.375000", "NA"]
    summarised(tmp_path, files, records)
    assert len((tmp_path / "readers.tsv").read_text().splitlines()) == 1


def test_leakage_that_is_refused_writes_nothing(tmp_path, files, leaking):
    with pytest.raises(SettingsError, match=r"summarise: 1 evaluated slide not .*: s0 \(training slide .* is refuse"):
        summarised(tmp_path, files, leaking, Seen.of(SEEN_BEFORE), on_leakage="refuse")
    assert not (tmp_path / "slides.tsv").exists()
    assert "test" in summarised(tmp_path, files, leaking[1:], Seen.of(SEEN_BEFORE), on_leakage="refuse")["splits"]
