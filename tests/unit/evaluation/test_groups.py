"""Metrics of subgroups of slides."""

import json

import pandas as pd
import pytest
from evaluated import lesion, random_slide, record_of
from lesionmap.evaluation.groups import COLUMNS, group_rows, group_values
from lesionmap.evaluation.leakage import CHOSEN, UNSEEN, Seen
from lesionmap.evaluation.summary import SummaryFiles, summarise
from lesionmap.files.records import write_json
from lesionmap.metrics.pixels import Histograms, binary_metrics

SCANNER = {"s0": "B scan", "s1": "", "s2": "A scan", "s3": "B scan", "s4": "", "s5": "A scan"}
SLIDES = {slide: random_slide(n, has_lesion=n != 2) for n, slide in enumerate(SCANNER)}


@pytest.fixture
def records():
    """Slides s0 and s3 are of one patient; s5 is a validation slide."""
    found = [
        record_of(slide, *parts, lesions=[lesion(), lesion(predicted_pixels=0)]) for slide, parts in SLIDES.items()
    ]
    found[0] |= {"patient": "p"}
    found[3] |= {"patient": "p"}
    found[5] |= {"split": "val"}
    return found


def tabled(folder, records, groups, seen=UNSEEN):
    """The table of subgroups, by split, group, value and metric; and the summary of splits."""
    paths = [str(folder / f"{record['slide']}.json") for record in records]
    for path, record in zip(paths, records, strict=True):
        write_json(path, record)
    names = ("slides.tsv", "cohort.tsv", "summary.json", "headline.txt", "readers.tsv", "groups.tsv")
    summarise(paths, SummaryFiles(*(str(folder / name) for name in names)), 200, seen, groups=groups)
    table = pd.read_csv(folder / "groups.tsv", sep="\t", dtype=str, keep_default_na=False)
    assert tuple(table.columns) == COLUMNS
    return table, json.loads((folder / "summary.json").read_text())["splits"]


def one(table, **where):
    (row,) = (row for _, row in table.iterrows() if all(row[key] == value for key, value in where.items()))
    return row


def test_each_value_has_the_metrics_of_its_slides_alone(tmp_path, records):
    table, splits = tabled(tmp_path, records, {"scanner": SCANNER})
    sizes = table[["split", "group", "group_value", "group_slides", "group_patients"]].drop_duplicates()
    assert sizes.to_numpy().tolist() == [
        ["test", "scanner", "A scan", "1", "1"],
        ["test", "scanner", "B scan", "2", "1"],
        ["test", "scanner", "not stated", "2", "2"],
        ["val", "scanner", "A scan", "1", "1"],
    ]
    assert len(table) == 4 * len(splits["test"]["metrics"])
    pooled = Histograms.of(*SLIDES["s0"]) + Histograms.of(*SLIDES["s3"])
    for name, value in binary_metrics(pooled, 0.5).items():
        assert float(one(table, group_value="B scan", metric=name)["value"]) == pytest.approx(value, abs=1e-6)
    recall = one(table, group_value="not stated", metric="lesion_recall")
    assert recall[["value", "slides", "patients"]].tolist() == ["0.500000", "2", "2"]
    assert recall["note"] == "no interval: fewer than 5 patients"
    undefined = one(table, split="test", group_value="A scan", metric="dice")
    assert undefined[["value", "low", "high", "note"]].tolist() == ["NA", "NA", "NA", "no lesion is annotated"]


def test_a_group_of_all_slides_is_the_split(tmp_path, records):
    table, splits = tabled(tmp_path, records, {"scanner": SCANNER, "site": dict.fromkeys(SCANNER, "here")})
    assert list(table["group"].unique()) == ["scanner", "site"]
    for name, entry in splits["test"]["metrics"].items():
        row = one(table, group="site", split="test", metric=name)
        for key in ("value", "low", "high"):
            assert row[key] == ("NA" if entry[key] is None else f"{entry[key]:.6f}")
        assert (row["slides"], row["note"]) == (str(entry["slides"]), entry["note"])


def test_leaked_slides_and_those_with_nothing_evaluated_are_left_out_and_others_marked(tmp_path, records):
    seen = Seen.of({"training_slides": {"t": "sha256 of s1"}, "validation_slides": {"s5": "sha256 of s5"}})
    records[4]["histograms"] = Histograms.empty().record()
    table, splits = tabled(tmp_path, records, {"scanner": SCANNER}, seen)
    assert "leaked" in splits
    values = table[["split", "group_value", "group_slides", "mark"]].drop_duplicates().to_numpy().tolist()
    assert values == [["test", "A scan", "1", ""], ["test", "B scan", "2", ""], ["val", "A scan", "1", CHOSEN]]


def test_without_groups_the_table_is_empty(tmp_path, records):
    table, _ = tabled(tmp_path, records, {})
    assert table.empty


def test_intervals_are_over_the_patients_of_the_value():
    many = [record_of(f"m{n}", *random_slide(n)) for n in range(14)]
    values = {record["slide"]: "few" if n < 4 else "many" for n, record in enumerate(many)}
    rows = {(row["group_value"], row["metric"]): row for row in group_rows(many, {"site": values}, 200)}
    assert rows["few", "dice"]["low"] == "NA"
    low, value, high = (float(rows["many", "dice"][key]) for key in ("low", "value", "high"))
    assert low < value < high
    assert rows["many", "dice"]["patients"] == 10


def test_values_come_from_the_sheet_and_from_the_verdict_on_the_stain(tmp_path):
    paths = []
    for slide, verdict in (("a", "ok"), ("b", "not H&E")):
        paths.append(str(tmp_path / f"{slide}.json"))
        write_json(paths[-1], {"slide": slide, "fitted": {"verdict": verdict}})
    sheet = {"a": {"scanner": "X", "site": ""}, "b": {"scanner": "", "site": "Y"}}
    found = group_values(["site", "stain", "scanner"], sheet, paths)
    assert list(found) == ["site", "stain", "scanner"]
    assert found["site"] == {"a": "", "b": "Y"}
    assert found["stain"] == {"a": "ok", "b": "not H&E"}
    assert found["scanner"] == {"a": "X", "b": ""}
