import json
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from lesionmap.errors import StainError
from lesionmap.files.records import write_json
from lesionmap.jobs.quarantine import write_quarantined
from lesionmap.stain.comparison import OUTLIER_COLUMNS, compare_stains, outliers
from lesionmap.stain.table import StainMatch
from stained import HE, profile

PLAIN = {"angle": 30.0, "to_reference": (1.0, 2.0), "ratio": (1.1, 0.9), "before": (0.4, 0.3), "after": (0.5, 0.4)}


def written(tmp_path, slide, verdict="ok", flags=(), **changes):
    """What the match of a slide writes, with the figures that are compared."""
    facts = PLAIN | changes
    found = StainMatch(profile(HE, verdict=verdict), profile(), facts["ratio"]).as_record() | {
        "slide": slide,
        "angle_to_reference": facts["to_reference"],
        "fitted": {"verdict": verdict, "basis": HE.tolist(), "angle": facts["angle"]},
        "mean_od": {"before": facts["before"], "after": facts["after"]},
        "white_point": {"colour": [189.0, 188.5, 186.0], "source": "glass"},
        "flags": list(flags),
    }
    write_json(tmp_path / f"{slide}.json", found)
    return str(tmp_path / f"{slide}.json")


def compared(tmp_path, *paths):
    outputs = str(tmp_path / "cohort.tsv"), str(tmp_path / "spread.json")
    compare_stains(paths, *outputs)
    table = pd.read_csv(outputs[0], sep="\t", keep_default_na=False, na_values={"mean_od_before_eosin": ["nan"]})
    return table.set_index("slide"), json.loads((tmp_path / "spread.json").read_text())


def test_each_slide_has_its_row(tmp_path):
    paths = [written(tmp_path, "a"), written(tmp_path, "b", "faded", ["odd", "very odd"], ratio=(2.0, 0.5))]
    table, _ = compared(tmp_path, *paths)
    known = asdict(profile())
    assert table.loc["a"].to_dict() == {
        **{key: known[key] for key in ("method", "n_pixels", "reconstruction_error")},
        "white_point": "189, 188.5, 186",
        "white_point_source": "glass",
        "p99_haematoxylin": 1.5,
        "p99_eosin": 1.2,
        "verdict": "ok",
        "outlier": "",
        "flags": "",
        "angle": 30.0,
        "angle_to_reference_haematoxylin": 1.0,
        "angle_to_reference_eosin": 2.0,
        "ratio_haematoxylin": 1.1,
        "ratio_eosin": 0.9,
        "mean_od_before_haematoxylin": 0.4,
        "mean_od_before_eosin": 0.3,
        "mean_od_after_haematoxylin": 0.5,
        "mean_od_after_eosin": 0.4,
    }
    assert table.loc["b", ["verdict", "flags", "ratio_eosin"]].tolist() == ["faded", "odd; very odd", 0.5]


def test_the_spread_is_the_standard_deviation_over_slides(tmp_path):
    means = {"a": ((0.2, 0.3), (0.4, 0.4)), "b": ((0.4, 0.9), (0.45, 0.4)), "c": ((0.9, 0.6), (0.5, 0.4))}
    paths = [written(tmp_path, slide, before=before, after=after) for slide, (before, after) in means.items()]
    _, spread = compared(tmp_path, *paths)
    assert spread["slides"] == 3
    before, after = np.std([0.2, 0.4, 0.9]), np.std([0.4, 0.45, 0.5])
    assert spread["haematoxylin"] == pytest.approx({"before": before, "after": after, "fall": 1 - after / before})
    assert spread["eosin"] == pytest.approx({"before": np.std([0.3, 0.6, 0.9]), "after": 0, "fall": 1}, abs=1e-12)


def test_slides_that_were_not_fitted_and_those_in_quarantine_do_not_spread(tmp_path):
    paths = [written(tmp_path, "a"), written(tmp_path, "b", before=(0.8, 0.3))]
    expected = compared(tmp_path, *paths)[1]
    faded = written(tmp_path, "c", "faded", before=(0.01, 0.01))
    lost = written(tmp_path, "d", before=(9.0, 9.0))
    write_quarantined([lost], StainError(slide="d", stage="match_stain", finding="faded", remedy="remove it"))
    table, spread = compared(tmp_path, *paths, faded, lost)
    assert list(table.index) == ["a", "b", "c"]
    assert spread == expected
    assert spread["slides"] == 2


@pytest.mark.parametrize("slides", ["", "a", "ab"])
def test_slides_alone_alike_or_absent_have_no_spread(tmp_path, slides):
    table, spread = compared(tmp_path, *(written(tmp_path, slide) for slide in slides))
    assert list(table.index) == list(slides)
    nothing = {"before": None, "after": None, "fall": None}
    assert spread == {"haematoxylin": nothing, "eosin": nothing, "slides": len(slides)}


def test_a_slide_without_pixels_is_listed_without_means(tmp_path):
    paths = [written(tmp_path, "a", "too few stained pixels", before=None, after=None), written(tmp_path, "b")]
    table, spread = compared(tmp_path, *paths)
    assert table["mean_od_before_eosin"].isna().tolist() == [True, False]
    assert spread["slides"] == 1
    assert spread["eosin"]["fall"] is None


def frame(column, values):
    same = {"verdict": "ok"} | dict.fromkeys(OUTLIER_COLUMNS, 1.0)
    return pd.DataFrame({name: [value] * len(values) for name, value in same.items()} | {column: values})


@pytest.mark.parametrize(
    ("column", "values", "odd"),
    [
        # quartiles 10 and 30, fences at -20 and 60
        ("angle", [0, 10, 20, 30, 61], [4]),
        ("angle", [0, 10, 20, 30, 59], []),
        ("angle", [-21, 10, 20, 30, 40], [0]),
        ("angle", [10, 10, 10, 10, 14.9], []),  # too small a difference to matter
        ("angle", [10, 10, 10, 10, 15.1], [4]),
        ("angle_to_reference_eosin", [9, 9, 14.1, 9, 9], [2]),
        ("angle_to_reference_eosin", [9, 9, 0, 9, 9], []),  # the reference itself, or near it
        ("ratio_haematoxylin", [1, 1, 1, 1.24, 1], []),
        ("ratio_haematoxylin", [1, 1, 1, 1.26, 1], [3]),
        ("ratio_eosin", [1, 1, 0.74, 1, 1], [2]),
        ("ratio_eosin", [1, 1, 9, 1], []),  # too few slides to say
        ("reconstruction_error", [0, 0, 0, 0, 9], []),  # not compared
    ],
)
def test_outliers_lie_beyond_tukeys_fences(column, values, odd):
    expected = [column if index in odd else "" for index in range(len(values))]
    assert outliers(frame(column, values)) == expected


def test_slides_that_were_not_fitted_are_compared_but_do_not_count():
    found = frame("angle", [10, 10, 10, 10, 10, 80, 80, 80])
    found["verdict"] = ["ok"] * 5 + ["one stain"] * 3
    assert outliers(found) == [""] * 5 + ["angle"] * 3
    found["verdict"] = ["ok"] * 4 + ["one stain"] * 4
    assert outliers(found) == [""] * 8  # four are too few


def test_outliers_of_a_cohort_are_named_in_its_table(tmp_path):
    paths = [written(tmp_path, slide) for slide in "abcd"]
    table, _ = compared(tmp_path, *paths, written(tmp_path, "e", angle=40.0, ratio=(2.0, 0.9)))
    assert table["outlier"].to_dict() == dict.fromkeys("abcd", "") | {"e": "angle, ratio_haematoxylin"}
    assert list(compared(tmp_path)[0].columns) == list(table.columns)
