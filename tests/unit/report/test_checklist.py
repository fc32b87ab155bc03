"""The checklist: items are those of the guidelines, and answered only by what the run really has."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from lesionmap.evaluation.leakage import Seen
from lesionmap.files.records import read_json, read_table, write_json, write_table, write_text
from lesionmap.report.checklist import GUIDELINES
from lesionmap.report.checklist_facts import RUN_FACTS
from lesionmap.report.checklist_metrics import METRIC_FACTS
from lesionmap.report.inputs import ReportInputs
from report_parts import CONFIG, Page, cohort_of, make_model, only, render, summarise_into, with_slides

AUTHOR = "for the author"
TRAINED = {
    "training_slides": {"t1": "sha256 of t1", "t2": "sha256 of t2", "t3": "sha256 of t3"},
    "validation_slides": {"v1": "sha256 of v1"},
    "patients": {"t1": "aa" * 32, "t2": "aa" * 32, "t3": "bb" * 32, "v1": "cc" * 32},
    "tiles": {"region_px": 1024, "tile_px": 128, "mpp": 0.5, "min_tissue_fraction": 0.05},
    "epoch": {"epoch": 7},
    "chosen_by": "fused",
    "backbone_weights": {"file": "resnet18.pth", "sha256": "12ab"},
    "provenance": {
        "software": "LesionMap 9",
        "train": {"epochs": 9, "seed": 3, "focal_alpha": 0.8, "focal_gamma": 1.5, "leave_out_above": {"blur": 0.25}},
    },
}
TRIPOD = """
1 2 3a 3b 3c 4 5a 5b 6a 6b 6c 7 8a 8b 8c 9a 9b 9c 10 11 12a 12b 12c 12d 12e 12f 12g 13 14 15 16 17
18a 18b 18c 18d 18e 18f 19 20a 20b 20c 21 22 23a 23b 24 25 26 27a 27b 27c
"""
Rows = dict[tuple[str, str], dict[str, str]]


def checklist(report: Path) -> Rows:
    """Rows of the table, by guideline and item; those of Metrics Reloaded by their topic."""
    rows = read_table(report / "checklist.tsv")
    return {(row["guideline"], row["topic" if row["guideline"] == "Metrics Reloaded" else "item"]): row for row in rows}


def of_status(rows: Rows, guideline: str, status: str) -> list[str]:
    return [item for (name, item), row in rows.items() if (name, row["status"]) == (guideline, status)]


@pytest.fixture
def judged(inputs: ReportInputs, tmp_path: Path) -> ReportInputs:
    """Eight test slides of eight patients, two without lesion, judged by a model that records how it was made."""
    paths = cohort_of(tmp_path, without_lesion=2)
    for number, path in enumerate(paths):
        write_json(path, read_json(path) | {"patient": f"p{number}"})
    summarise_into(inputs, paths, Seen.of(TRAINED))
    model = make_model(tmp_path / "trained.safetensors", **TRAINED)
    return with_slides(replace(inputs, model=model), tmp_path, [f"s{n}" for n in range(8)])


def test_the_items_are_those_of_the_guidelines() -> None:
    claim, tripod, metrics = yaml.safe_load(GUIDELINES.read_text(encoding="utf-8"))["guidelines"]
    items = [
        [str(item.get("item")) for section in guideline["sections"] for item in section["items"]]
        for guideline in (claim, tripod)
    ]
    assert items[0] == [str(number) for number in range(1, 45)]
    assert items[1] == TRIPOD.split()
    assert metrics["key"] == "metrics"


def test_every_fact_has_a_place_and_answers_an_item() -> None:
    asked = yaml.safe_load(GUIDELINES.read_text(encoding="utf-8"))
    items = [item for guide in asked["guidelines"] for section in guide["sections"] for item in section["items"]]
    assert all(item.keys() & {"facts", "also", "write"} for item in items)
    named = {fact for item in items for fact in (*item.get("facts", []), *item.get("also", []))}
    assert named == asked["facts"].keys() == {*RUN_FACTS, *METRIC_FACTS}


def test_a_run_that_knows_little_claims_little(report: Path) -> None:
    """One test slide of one patient; an old model file, which records nothing of its making."""
    rows = checklist(report)
    assert " ".join(of_status(rows, "CLAIM 2024", "answered")) == "9 12 22 23 27 28 32"
    assert " ".join(of_status(rows, "CLAIM 2024", "partly")) == "8 13 14 16 17 19 21 26 30 31 35 36 37 39 42 43"
    assert " ".join(of_status(rows, "TRIPOD+AI", "answered")) == "9a 9b 9c 11 12b 12f 24 27a"
    assert rows["CLAIM 2024", "25"]["to_write"] == "settings of training: the model file does not record them"
    assert rows["CLAIM 2024", "29"]["status"] == AUTHOR
    assert rows["CLAIM 2024", "18"]["to_write"].startswith("give a second annotation")
    assert rows["CLAIM 2024", "1"]["facts"] == ""


def test_without_a_slide_nothing_of_slides_is_claimed(inputs: ReportInputs, tmp_path: Path) -> None:
    summarise_into(inputs, [])
    rows = checklist(render(only(inputs, 0), tmp_path))
    assert " ".join(of_status(rows, "CLAIM 2024", "answered")) == "12 22 23 27"
    assert of_status(rows, "Metrics Reloaded", "answered") == ["No or invalid output"]
    assert rows["CLAIM 2024", "35"]["facts"].startswith("Of 1 slide in the sheet, 0 were mapped, 0 of these")


def test_facts_are_those_of_the_run(judged: ReportInputs, tmp_path: Path) -> None:
    rows = checklist(render(judged, tmp_path))
    said = {item: row["facts"] for (guideline, item), row in rows.items() if guideline == "CLAIM 2024"}
    assert said["13"] == "Test: aperio 8. µm/px of the slides: 0.25."
    assert said["10"] == (
        "Training regions without annotation and with less than 0.05 of tissue were left out, and those with larger "
        "shares than: blur 0.25."
    )
    assert said["12"].startswith("1 slide in quarantine, 0 failed exports.")
    assert said["17"] == "Test: 8 slides of 8 patients are annotated, 6 with lesion."
    assert said["20"] == "By patient: the model has seen no slide of a patient of the test slides."
    assert said["21"] == (
        "Model: 3 training slides (Patients: 2), 1 validation slide (Patients: 1). Test: 8 slides of 8 patients, 6 "
        "with lesion."
    )
    assert said["24"] == "Backbone from resnet18.pth, SHA-256 12ab. All other weights are random, seed 3."
    assert said["26"].startswith("Epoch 7, the one with the lowest loss of the fused map on 1 validation slide. ")
    assert said["35"] == (
        "Of 9 slides in the sheet, 8 were mapped, 8 of these were held against an annotation. In quarantine: 1."
    )
    entry = read_json(judged.summary)["splits"]["test"]["metrics"]["dice"]
    assert said["37"].startswith(f"Test: Dice {entry['value']:.3f} ({entry['low']:.3f} to {entry['high']:.3f}); AUROC")
    assert said["39"].startswith("Worst slides, with pictures. Lowest Dice: s5, s4, s3. Largest false area on slides")
    names = "Lesion, Tumor, tumor, metastasis, Accepted, Annotated: lesion, 1 in"
    assert said["14"].startswith(f"Outlines or masks. Lesion is what these call: {names}")
    assert "weight 0.8 of lesion, 0.2 of the rest, γ = 1.5" in rows["TRIPOD+AI", "13"]["facts"]
    assert said["25"] == (
        "Adam, focal loss. epochs: 9, seed: 3, focal_alpha: 0.8, focal_gamma: 1.5, leave_out_above: blur 0.25."
    )
    assert rows["Metrics Reloaded", "Small structures"]["facts"].endswith("by extent: 0.5 to 2 mm 3 of 6.")
    assert " ".join(of_status(rows, "CLAIM 2024", "answered")) == "9 10 12 20 22 23 24 25 27 28 29 32 37"
    assert " ".join(of_status(rows, "CLAIM 2024", AUTHOR)) == "1 2 3 4 5 6 7 11 15 16 18 33 34 40 41 44"
    assert " ".join(of_status(rows, "TRIPOD+AI", "answered")) == "7 9a 9b 9c 11 12b 12f 13 21 24 27a"
    assert of_status(rows, "Metrics Reloaded", "partly") == [
        "Classification: which slides have lesion",
        "Errors weigh unequally",
        "How a score becomes a decision",
        "Calibration is asked for",
        "Prevalence as in the population",
    ]
    assert of_status(rows, "Metrics Reloaded", AUTHOR) == ["Boundaries matter", "Raters differ"]


def test_splits_are_by_patient_only_if_every_patient_is_known(judged: ReportInputs, tmp_path: Path) -> None:
    table = Path(judged.slide_table)
    table.write_text(table.read_text().replace("\tp2", "\tNA"))
    rows = checklist(render(judged, tmp_path / "one"))
    one, alone = rows["CLAIM 2024", "20"], rows["TRIPOD+AI", "21"]
    assert alone["status"] == "partly"
    assert alone["facts"].endswith("A slide without a patient in the sheet counts as a patient of its own.")
    assert (one["status"], one["facts"]) == (
        "partly",
        "By the content of slides. The patient is unknown of 1 of 8 test slides and of 0 of 4 slides of the model.",
    )
    table.write_text(table.read_text().replace("\tNA\n", "\tp2\n"))
    patients = {name: digest for name, digest in TRAINED["patients"].items() if name != "t3"}
    model = make_model(tmp_path / "m.safetensors", **TRAINED | {"patients": patients})
    rows = checklist(render(replace(judged, model=model), tmp_path / "other"))
    other, of_model = rows["CLAIM 2024", "20"], rows["TRIPOD+AI", "21"]
    assert of_model["status"] == "partly"
    assert "3 training slides (Patients: 1, and 1 slide without one)" in of_model["facts"]
    assert "of 0 of 8 test slides and of 1 of 4 slides of the model" in other["facts"]


def test_what_is_left_out_as_leaked_is_said(inputs: ReportInputs, judged: ReportInputs, tmp_path: Path) -> None:
    paths = [str(tmp_path / f"s{n}.metrics.json") for n in range(8)]
    summarise_into(judged, paths, Seen.of(TRAINED | {"training_slides": {"t": "sha256 of s4"}}))
    row = checklist(render(judged, tmp_path))["CLAIM 2024", "20"]
    assert row["facts"] == (
        "By patient: the model has seen no slide of a patient of the test slides. Left out as leaked: 1 slide."
    )
    assert row["status"] == "answered"


def with_table(name: str, row: dict[str, str] | None, **_: Any) -> Callable[[ReportInputs], None]:
    def write(inputs: ReportInputs) -> None:
        path = Path(inputs.summary).parents[1] / name
        path.parent.mkdir(exist_ok=True)
        write_table(path, [row] if row else [], list(row or {"pair": ""}))

    return write


def with_entries(*names: str, **changes: Any) -> Callable[[ReportInputs], None]:
    """Metrics and other parts of the summary that not every run has."""

    def write(inputs: ReportInputs) -> None:
        summary = read_json(inputs.summary)
        summary["splits"]["test"]["metrics"] |= {key: {"value": 0.5, "low": 0.25, "high": 0.75} for key in names}
        summary["splits"]["test"] |= changes
        write_json(inputs.summary, summary)

    return write


def without_curve(inputs: ReportInputs) -> None:
    """As a summary of an older version, without decision curves."""
    summary = read_json(inputs.summary)
    del summary["splits"]["test"]["decision_curve"]
    write_json(inputs.summary, summary)


GROUPS = {"evaluation": CONFIG["evaluation"] | {"groups": ["site"]}}
RECALIBRATED = {"inference": CONFIG["inference"] | {"recalibrate": True}}
SLOPE = with_entries("calibration_slope", "calibration_intercept")
CURVE = with_entries(decision_curve=[{"threshold": 0.5, "net_benefit": 0.1}])


@pytest.mark.parametrize(
    ("item", "prepare", "config", "status"),
    [
        (("CLAIM 2024", "18"), with_table("metrics/readers.tsv", None), {}, AUTHOR),
        (("CLAIM 2024", "18"), with_table("metrics/readers.tsv", {"pair": "model–reader 2"}), {}, "answered"),
        (("Metrics Reloaded", "Raters differ"), with_table("metrics/readers.tsv", {"pair": "a"}), {}, "answered"),
        (("CLAIM 2024", "30"), with_table("metrics/groups.tsv", {"group": "site"}), {}, "partly"),
        (("CLAIM 2024", "30"), with_table("metrics/other.tsv", {"group": "site"}), GROUPS, "partly"),
        (("CLAIM 2024", "30"), with_table("metrics/groups.tsv", {"group": "site"}), GROUPS, "answered"),
        (("TRIPOD+AI", "23b"), with_table("metrics/groups.tsv", {"group": "site"}), GROUPS, "answered"),
        (("TRIPOD+AI", "12f"), with_entries(), {}, "answered"),  # that they are not
        (("TRIPOD+AI", "12f"), with_entries(), RECALIBRATED, "answered"),
        (("Metrics Reloaded", "Calibration is asked for"), SLOPE, {}, "answered"),
        (("TRIPOD+AI", "12e"), without_curve, {}, "partly"),
        (("Metrics Reloaded", "Boundaries matter"), with_entries(), {}, AUTHOR),
        (("Metrics Reloaded", "Boundaries matter"), with_entries("slide_mean_nsd"), {}, "partly"),
        (
            ("Metrics Reloaded", "Boundaries matter"),
            with_entries("slide_mean_nsd", "slide_mean_hd95_um"),
            {},
            "answered",
        ),
    ],
)
def test_what_not_every_run_has_is_claimed_where_it_is(
    judged: ReportInputs,
    tmp_path: Path,
    item: tuple[str, str],
    prepare: Callable[[ReportInputs], None],
    config: dict[str, Any],
    status: str,
) -> None:
    moved = in_metrics(judged, tmp_path)
    prepare(moved)
    assert checklist(render(moved, tmp_path, **config))[item]["status"] == status


def in_metrics(inputs: ReportInputs, folder: Path) -> ReportInputs:
    """The same with its summary in a folder of results."""
    summary = folder / "results/metrics/summary.json"
    write_text(summary, Path(inputs.summary).read_text())
    return replace(inputs, summary=str(summary))


def test_measures_and_plots_need_all_three(judged: ReportInputs, tmp_path: Path) -> None:
    SLOPE(judged)
    CURVE(judged)
    row = checklist(render(judged, tmp_path))["TRIPOD+AI", "12e"]
    assert row["status"] == "answered"
    assert "calibration slope 0.500 (0.250 to 0.750)" in row["facts"]
    assert "decision curve" in row["facts"]


def test_validation_is_internal_or_external(judged: ReportInputs, tmp_path: Path) -> None:
    own = checklist(render(judged, tmp_path / "own"))
    assert [own["CLAIM 2024", item]["status"] for item in ("32", "33")] == ["answered", AUTHOR]
    given = {"model": CONFIG["model"] | {"path": "other.safetensors"}}
    unlabelled = checklist(render(judged, tmp_path / "unlabelled", **given))
    assert [unlabelled["CLAIM 2024", item]["status"] for item in ("32", "33")] == [AUTHOR, "partly"]
    label = "external validation: the model was trained on 3 slides, none of them among these"
    write_json(judged.summary, read_json(judged.summary) | {"any name": label})
    external = checklist(render(judged, tmp_path / "external", **given))["CLAIM 2024", "33"]
    assert (external["status"], external["facts"]) == ("answered", label)


def test_experiments_are_named_once_their_tables_are_there(judged: ReportInputs, tmp_path: Path) -> None:
    asked = {"experiments": {"variants": {"low": {}, "joint": {}}, "folds": 3, "seeds": [0, 5], "ensemble": True}}
    moved = in_metrics(judged, tmp_path)
    before = checklist(render(moved, tmp_path / "before", **asked))
    assert not [row for row in before.values() if "Experiments:" in row["facts"]]  # they were asked for, and not run
    for name in ("table", "folds", "differences"):
        with_table(f"experiments/{name}.tsv", {"variant": "low"})(moved)
    rows = checklist(render(moved, tmp_path / "after", **asked))
    assert rows["CLAIM 2024", "19"]["facts"].endswith(
        "Experiments: 3 folds, in which no patient is in two; seeds 0, 5."
    )
    assert rows["CLAIM 2024", "30"]["facts"].endswith("Experiments: folds and seeds of each variant: low, joint.")
    assert rows["CLAIM 2024", "29"]["facts"].endswith("paired differences of variants, with intervals.")
    assert "mean of the folds' models" in rows["CLAIM 2024", "27"]["facts"]


def test_a_threshold_from_validation_slides_has_a_reason(judged: ReportInputs, tmp_path: Path) -> None:
    fixed = checklist(render(judged, tmp_path / "fixed"))["TRIPOD+AI", "15"]
    assert (fixed["status"], fixed["to_write"].split(",")[0]) == ("partly", "say why this threshold")
    chosen = {"inference": CONFIG["inference"] | {"threshold": "validation"}}
    row = checklist(render(judged, tmp_path / "chosen", **chosen))["TRIPOD+AI", "15"]
    assert row["status"] == "answered"
    assert row["facts"].endswith("Lesion from a probability of 0.5 on: the best Dice on the validation slides.")


def test_links_lead_to_sections_that_are_there(report: Path, judged: ReportInputs, tmp_path: Path) -> None:
    for folder in (report, render(judged, tmp_path / "judged")):
        links = [link for link in Page(folder / "checklist.html").links if not link.startswith("../")]
        jumps = {tuple(link.split("#")) for link in links if "#" in link}
        assert len(jumps) >= 8
        for page, section in jumps:
            assert f'id="{section}"' in (folder / (page or "checklist.html")).read_text(), (page, section)


def test_page_and_table_say_the_same(judged: ReportInputs, tmp_path: Path) -> None:
    report = render(judged, tmp_path)
    page, table = Page(report / "checklist.html"), read_table(report / "checklist.tsv")
    shown = [row for row in page.rows if len(row) == 5 and row[2] != "Status"]
    assert [row[:3] for row in shown] == [[row["item"] or "—", row["topic"], row["status"]] for row in table]
    counts = [of_status(checklist(report), "CLAIM 2024", status) for status in ("answered", "partly", AUTHOR)]
    said = " ".join(" ".join(page.said).split())
    assert "CLAIM 2024 : {} answered, {} partly, {} for the author.".format(*map(len, counts)) in said
    assert sum(map(len, counts)) == 44
    assert "checklist.html" in Page(report / "index.html").links


def test_names_from_a_model_file_are_text(judged: ReportInputs, tmp_path: Path) -> None:
    model = make_model(tmp_path / "odd.safetensors", **TRAINED | {"chosen_by": "<b>x</b>"})
    source = (render(replace(judged, model=model), tmp_path) / "checklist.html").read_text()
    assert "&lt;b&gt;x&lt;/b&gt;" in source
    assert "<b>" not in source
    assert json.dumps("<b>") not in source
