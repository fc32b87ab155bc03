import re
from html.parser import HTMLParser

import pytest
from lesionmap.experiments.page import write_page
from lesionmap.files.records import write_json, write_table

PLOTS = {"Metrics": "x/variants.svg", "Learning curves": "x/learning_curves.svg"}


class Cells(HTMLParser):
    """The rows of a page's tables as lists of texts."""

    def __init__(self, page):
        super().__init__()
        self.rows, self._open = [], False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self.rows[-1].append("")
            self._open = True

    def handle_endtag(self, tag):
        if tag in ("th", "td"):
            self._open = False

    def handle_data(self, data):
        if self._open:
            self.rows[-1][-1] = f"{self.rows[-1][-1]} {data}".strip()


def entry(variant, metric, value, **changes):
    found = {"variant": variant, "metric": metric, "value": value, "low": None, "high": None, "note": ""}
    return found | {"seed_sd": 0.012, "fold_sd": None} | changes


@pytest.fixture
def rendered(tmp_path):
    """Write a page from a summary; returns its text."""

    def write(**changes):
        costs = {"variant": "a&b", "recipe": "0" * 8, "trainings": 6, "training_hours": 1.5, "training_cpu_hours": None}
        costs |= {"training_peak_gb": 2.25, "maps": 12, "mapping_hours": 0.5, "mapping_cpu_hours": 0.25}
        summary = {
            "folds": 3,
            "seeds": 2,
            "slides": 6,
            "left_out": {},
            "leaked_test_slides": [],
            "held_out": [
                entry("a&b", "slide_mean_dice", 0.5, low=0.4, high=0.65),
                entry("a&b", "dice", None, note="no lesion"),
            ],
            "tested": [],
            "differences": [],
            "costs": [costs | {"mapping_peak_gb": 1.0}],
        }
        rows = [
            {"slide": name, "patient": patient, "site": site, "lesion": lesion, "fold": fold}
            for name, patient, site, lesion, fold in (
                ("s1", "p", "x", 1, 1),
                ("s2", "p", "y", 0, 1),
                ("s3", "", "", 1, 2),
                ("s4", "", "", 0, 2),
            )
        ]
        write_json(tmp_path / "summary.json", summary | changes)
        write_table(tmp_path / "folds.tsv", rows, list(rows[0]))
        slides = [
            {"variant": "a&b", "run": run, "fold": fold, "slide": slide, "dice": dice}
            for run, fold, slide, dice in (
                ("seed_0", 2, "s3", "0.5"),
                ("seed_1", 2, "s3", "0.25"),
                ("seed_0", 1, "s2", "NA"),
                ("seed_1", 1, "s2", "NA"),
                ("ensemble", "NA", "t1", "0.9"),
            )
        ]
        write_table(tmp_path / "slides.tsv", slides, list(slides[0]))
        names = [str(tmp_path / name) for name in ("summary.json", "slides.tsv", "folds.tsv", "report.html")]
        write_page(*names, plots=PLOTS, variants={"a&b": "{'train': {'epochs': 2}}"}, n_folds=3)
        return (tmp_path / "report.html").read_text()

    return write


def test_metrics_have_intervals_spreads_and_reasons(rendered):
    rows = Cells(rendered()).rows
    assert ["a&b", "0.500 (0.400 to 0.650) seeds ± 0.012", "— seeds ± 0.012 no lesion"] in rows


def test_every_held_out_slide_has_its_dice(rendered):
    rows = Cells(rendered()).rows
    assert ["s3", "2", "0.375"] in rows
    assert ["s2", "1", "—"] in rows
    assert not [row for row in rows if row[0] == "t1"]


def test_folds_are_counted_by_hand(rendered):
    rows = Cells(rendered()).rows
    assert ["1", "2", "1", "1", "2"] in rows  # one patient, two sites
    assert ["2", "2", "2", "1", "—"] in rows
    assert ["3", "0", "0", "0", "—"] in rows


def test_costs_and_what_is_missing(rendered):
    assert ["a&b", "0" * 8, "6", "1.500", "—", "2.25", "12", "0.500", "0.250", "1.00"] in Cells(rendered()).rows


def test_differences_say_who_is_subtracted_from_whom(rendered):
    difference = {"metric": "slide_mean_dice", "variant": "c", "minus": "a&b", "difference": -0.1, "low": -0.3}
    difference |= {"high": 0.05, "p": 0.0312, "p_holm": 0.0625, "patients": 6, "note": ""}
    page = rendered(differences=[difference, difference | {"metric": "auprc"}])
    expected = ["Dice, mean of slides", "c − a&b", "-0.100 (-0.300 to 0.050)", "0.0312", "0.0625", "6"]
    assert [row for row in Cells(page).rows if "c − a&b" in row] == [expected]
    assert "differences" not in re.sub(r"differences\.tsv", "", rendered())  # one variant has none


def test_test_slides_and_slides_left_out_are_told(rendered):
    page = rendered(
        tested=[entry("a&b", "slide_mean_dice", 0.75), entry("a&b", "dice", 0.8)],
        left_out={"s9": "a seed_0: slide s9, map_slide: torn"},
        leaked_test_slides=["t3"],
    )
    assert ["a&b", "0.750", "0.800"] in Cells(page).rows
    assert "<li>s9: a seed_0: slide s9, map_slide: torn</li>" in page
    assert "seen them or their patients: t3" in page


def test_the_page_opens_without_a_network(rendered):
    links = re.findall(r'(?:src|href)="([^"]+)"', rendered())
    assert {"variants.svg", "learning_curves.svg", "table.tsv"} <= set(links)
    assert not [link for link in links if "//" in link]
