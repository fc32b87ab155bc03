"""What a run found: on a judged slide, one without annotation, and one in quarantine."""

from typing import Any

import pytest
from lesionmap.errors import SlideError
from lesionmap.evaluation.findings import (
    ANNOTATED,
    LESIONS,
    SLIDES,
    CohortFiles,
    FindingsFiles,
    SlideFiles,
    list_findings,
)
from lesionmap.evaluation.findings_in_words import findings_lines, slide_in_words, total_in_words
from lesionmap.files.records import read_table, write_json, write_table
from lesionmap.jobs.quarantine import write_quarantined
from lesionmap.lesions.export import COLUMNS

INFO = {"mpp": 0.5, "bounds_xy_lv0": [100, 2000]}
VERDICTS = {"matched": 1, "merged": 0, "false": 1, "not judged": 0}
MISSED = {"lesion": 2, "found": False, "outlines": 3, "area_mm2": 0.25, "centroid_xy_lv0": [10.0, 20.5]}


def outline(name: str, area_mm2: float, diameter_mm: float, verdict: str = "") -> dict[str, Any]:
    row = dict.fromkeys(COLUMNS, 0) | {"name": name, "area_mm2": area_mm2, "diameter_mm": diameter_mm}
    return row | {"centroid_x": 7.25, "centroid_y": 8.0, "id": f"id of {name}", "verdict": verdict}


@pytest.fixture
def found(tmp_path):
    """All three tables, by name, of slides j (judged), n (not), q (quarantine) and m (map refused)."""

    def of(**changes: Any) -> dict[str, list[dict[str, str]]]:
        splits = {"j": "test", "n": "inference", "q": "train", "m": "test"}
        for slide, split in splits.items():
            record = {"slide": slide, "split": split, "verdict": "ok", "flags": ["pale; old"] if slide == "n" else []}
            write_json(
                tmp_path / f"{slide}.json", record | {"info": INFO} | ({"verdict": "no"} if slide == "q" else {})
            )
        outlines = {
            "j": [outline("Lesion 1", 0.5, 0.1999, "matched"), outline("Lesion 2", 1.5, 2.0, "false")],
            "n": [outline("Lesion 1", 0.1, 0.2)],
        }
        judged = {"verdicts": VERDICTS, "annotated": [MISSED | {"lesion": 1, "found": True}, MISSED]}
        judged["annotated"].append(MISSED | {"lesion": 3, "found": None})
        for slide, rows in outlines.items():
            write_table(tmp_path / f"{slide}.tsv", rows, COLUMNS)
            summary = {"slide": slide, "tissue_mm2": 40.0, "verdicts": None, "annotated": None}
            write_json(tmp_path / f"{slide}.lesions.json", summary | (judged if slide == "j" else {}))
            write_json(tmp_path / f"{slide}.map.json", {"slide": slide, "seam_measure": 1.5})
            fitted = {"verdict": "ok" if slide == "j" else "not H&E"}
            write_json(tmp_path / f"{slide}.stain.json", {"slide": slide, "fitted": fitted, "flags": []})
        lost = SlideError(slide="m", stage="map_slide", finding="unreadable", remedy="copy it")
        write_quarantined([str(tmp_path / f"m.{kind}") for kind in ("lesions.json", "map.json", "tsv")], lost)
        write_json(tmp_path / "j.check.json", {"slide": "j", "flags": []})
        tables = {
            "metrics": [{"slide": "j", "dice": "0.700000", "auroc": "NA", "leakage": ""}],
            "stains": [{"slide": "j", "outlier": ""}, {"slide": "n", "outlier": "ratio_eosin"}],
            "unreadable": [{"slide": "n", "stage": "map_slide"}],
            "failed_exports": [{"slide": "j", "stage": "write_dicom", "finding": "no UID; none"}],
        }
        for name, rows in tables.items():
            write_table(tmp_path / f"{name}.tsv", rows, list(rows[0]))
        for name, content in changes.items():
            write_json(tmp_path / f"{name.replace('_', '.')}.json", content)
        kinds = ("lesions.json", "tsv", "map.json", "stain.json")
        records, maps, stains = (
            [str(tmp_path / f"{slide}{end}") for slide in slides]
            for slides, end in (
                ("jnqm", ".json"),
                ("jnm", ".map.json"),
                ("jn", ".stain.json"),
            )
        )
        lesions = [(str(tmp_path / f"{slide}.{kinds[0]}"), str(tmp_path / f"{slide}.tsv")) for slide in "jnm"]
        files = FindingsFiles(*(str(tmp_path / f"found_{name}.tsv") for name in ("lesions", "annotated", "slides")))
        list_findings(
            SlideFiles(records, lesions, maps, stains, [str(tmp_path / "j.check.json")]),
            CohortFiles(*(str(tmp_path / f"{name}.tsv") for name in tables)),
            files,
            {"j": "p1", "n": None, "q": None, "m": None},
        )
        return {name: read_table(path) for name, path in vars(files).items()}

    return of


def test_every_lesion_has_a_row(found):
    rows = found()["lesions"]
    assert [list(row) for row in rows] == [list(LESIONS)] * 3
    assert [(row["slide"], row["lesion"], row["verdict"]) for row in rows] == [
        ("j", "Lesion 1", "matched"),
        ("j", "Lesion 2", "false"),
        ("n", "Lesion 1", ""),
    ]
    assert rows[1] | {"mean_probability": "", "max_probability": ""} == {
        "slide": "j",
        "patient": "p1",
        "split": "test",
        "evaluated_as": "test",
        "lesion": "Lesion 2",
        "id": "id of Lesion 2",
        "area_mm2": "1.5",
        "tissue_percent": "3.7500",
        "diameter_mm": "2.0",
        "size": "from_2mm",
        "centroid_x_px": "107.25",
        "centroid_y_px": "2008.00",
        "centroid_x_um": "53.62",
        "centroid_y_um": "1004.00",
        "mean_probability": "",
        "max_probability": "",
        "verdict": "false",
    }
    assert [row["size"] for row in rows] == ["below_0.2mm", "from_2mm", "0.2_to_0.5mm"]


def test_every_annotated_lesion_has_a_row(found):
    rows = found()["annotated"]
    assert [list(row) for row in rows] == [list(ANNOTATED)] * 3
    assert [(row["lesion"], row["verdict"]) for row in rows] == [("1", "found"), ("2", "missed"), ("3", "not judged")]
    assert (rows[1]["centroid_x_px"], rows[1]["centroid_y_um"], rows[1]["outlines"]) == ("10.00", "10.25", "3")


def test_every_slide_of_the_sheet_has_a_row(found):
    rows = {row["slide"]: row for row in found()["slides"]}
    assert list(rows) == ["j", "n", "q", "m"]
    assert list(rows["j"]) == list(SLIDES)
    assert [row["state"] for row in rows.values()] == ["mapped", "mapped", "quarantined", "quarantined"]
    expected = {"lesions": "2", "lesion_mm2": "2.000000", "largest_mm2": "1.500000", "tissue_percent": "5.0000"}
    expected |= {"matched_lesions": "1", "false_lesions": "1", "not_judged_lesions": "0", "annotated_lesions": "2"}
    expected |= {"found_lesions": "1", "missed_lesions": "1", "dice": "0.700000", "auroc": "NA"}
    expected |= {"seam_measure": "1.500000", "stain_verdict": "ok", "flags": "write_dicom failed: no UID, none"}
    assert rows["j"] | expected == rows["j"]
    assert (rows["n"]["false_lesions"], rows["n"]["dice"], rows["n"]["evaluated_as"]) == ("NA", "NA", "")
    unlike = "unlike the other slides: ratio eosin"
    assert rows["n"]["flags"] == f"pale, old; {unlike}; map_slide: 1 part cannot be read and is left out"
    assert (rows["q"]["lesions"], rows["q"]["flags"], rows["m"]["lesions"]) == ("NA", "", "NA")


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ({"slide": "n", "seam_measure": 8.25}, "borders of tiles show in the map (8.2, 1 is none)"),
        ({"slide": "n", "members": [{"seam_measure": 1.0}, {"seam_measure": 9.0}]}, "(9.0, 1 is none)"),
        ({"slide": "n", "seam_measure": 2.0}, ""),
        ({"slide": "n", "seam_measure": None}, ""),
    ],
)
def test_borders_of_tiles_that_show_are_flagged(found, record, told):
    (row,) = (row for row in found(n_map=record)["slides"] if row["slide"] == "n")
    assert ("borders of tiles" in row["flags"]) == bool(told)
    assert told in row["flags"]


def test_flags_of_annotations_are_told(found):
    flags = ["only 3 % of it lies on tissue"]
    (row,) = (row for row in found(j_check={"slide": "j", "flags": flags})["slides"] if row["slide"] == "j")
    assert row["flags"].startswith("annotation: only 3 % of it lies on tissue; ")


def test_in_words(found):
    rows = found()["slides"]
    total = "2 slides mapped: 3 lesions on 2 slides, 2.100 mm² in all, the largest 1.500 mm², on j; 0 without lesions"
    assert total_in_words(rows) == total
    assert slide_in_words(rows[0]) == "2 lesions, 2.000 mm², 5 % of its tissue (1 false, 1 missed)"
    assert slide_in_words(rows[1]) == "1 lesion, 0.100 mm², 0.25 % of its tissue"
    assert list(findings_lines(rows)) == [total, f"  j: {slide_in_words(rows[0])}", f"  n: {slide_in_words(rows[1])}"]
    none = [row | {"lesions": "0", "slide": f"s{n}"} for n, row in enumerate(rows[:1] * 22)]
    *start, last = findings_lines(none)
    assert start == ["22 slides mapped: no lesion on any of them"]
    assert last.endswith("s18 (1 missed), s19 (1 missed) and 2 more")
    mixed = [rows[1] | {"lesions": "0"}, none[0], none[1] | {"missed_lesions": "0"}]
    assert list(findings_lines(mixed))[-1] == "  without lesions: s0 (1 missed), n, s1"
    many = [rows[0] | {"slide": f"s{n}"} for n in range(23)]
    assert list(findings_lines(many))[-1] == "  and 3 more with less (results/slides.tsv)"
