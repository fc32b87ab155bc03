"""The page on stain."""

import json
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import pytest
from lesionmap.files.records import write_json
from lesionmap.report.inputs import ReportInputs
from lesionmap.stain.comparison import compare_stains
from PIL import Image
from report_parts import (
    CONFIG,
    SPLITS,
    Page,
    change_stain,
    only,
    render,
    stain_match,
    stain_table,
    with_fallback,
    write_found,
)


def test_spread_between_slides(report: Path) -> None:
    page = Page(report / "stain.html")
    assert page.row("Haematoxylin") == ["Haematoxylin", "0.0816", "0.0204", "75.0"]
    assert page.row("Eosin") == ["Eosin", "0.1414", "0.0283", "80.0"]
    assert "Over the 3 slides that show two stains." in page.source


def test_one_slide_has_no_spread(inputs: ReportInputs, tmp_path: Path) -> None:
    page = Page(render(only(inputs, 1), tmp_path) / "stain.html")
    assert "None to compare: it takes at least two slides" in page.source
    assert [row[0] for row in page.rows] == []
    assert "vector of 1 slide and" in page.source


@pytest.mark.parametrize(
    ("reference", "model", "sentence"),
    [
        ("auto", None, "of slide train_1. It was chosen automatically"),
        ("train_1", None, "of slide train_1, which the settings name"),
        ("other/profile.json", None, "of slide train_1 of another run, whose profile the settings name"),
        ("auto", "liver.safetensors", "that the model <code>liver.safetensors</code> was trained on"),
    ],
)
def test_the_page_on_stain_says_how_the_reference_was_chosen(
    inputs: ReportInputs, tmp_path: Path, reference: str, model: str | None, sentence: str
) -> None:
    changes = {"stain": CONFIG["stain"] | {"reference": reference}, "model": CONFIG["model"] | {"path": model}}
    page = Page(render(inputs, tmp_path, **changes) / "stain.html")
    assert page.source.count("All slides are normalised to") == 1
    assert f"All slides are normalised to the stain {sentence}" in page.source
    assert ("results/stain/reference/candidates.tsv" in page.source) == ("automatically" in sentence)


def test_without_odd_stains_the_page_says_so(report: Path) -> None:
    page = Page(report / "stain.html")
    assert "None: every slide shows two stains, and none is flagged or unlike the others." in page.source
    assert not any(row[0] in SPLITS for row in page.rows)
    assert "flagged</li>" not in page.source


def test_odd_stains_are_listed_the_oddest_first(inputs: ReportInputs, tmp_path: Path) -> None:
    change_stain(inputs, "train_1", "angle_to_reference_eosin")
    change_stain(inputs, "Präparat 7%", flags=["<stains swapped>"], angle_to_reference=[12.34, 0.0])
    change_stain(inputs, "new_1", **with_fallback("Macenko's basis", ["stain: not H&E, Macenko's basis used"]))
    page = Page(render(inputs, tmp_path) / "stain.html")
    unlike, swapped = "unlike the other slides: angle to reference eosin", "<stains swapped>"
    used = [
        "not H&E",
        "Macenko's basis",
        "189, 188, 186",
        "53.1",
        "0.0",
        "0.0",
        "2.00",
        "1.25",
        "stain: not H&E, Macenko's basis used",
    ]
    assert [row for row in page.rows if len(row) == 10][1:] == [
        ["new_1", *used],
        ["Präparat 7%", "ok", "vahadane", "189, 188, 186", "36.9", "12.3", "0.0", "2.00", "1.25", swapped],
        ["train_1", "ok", "vahadane", "189, 188, 186", "36.9", "0.5", "1.5", "2.00", "1.25", unlike],
    ]
    assert page.links.count("slides/Pr%C3%A4parat%207%25.html") == 2  # in the table and under the thumbnail
    assert "Labelled, with a line: the flagged slides of the table below." in page.source
    assert swapped not in page.source


def test_a_hundred_odd_stains_are_listed_and_the_rest_counted(inputs: ReportInputs, tmp_path: Path) -> None:
    record = json.loads(Path(inputs.records[0]).read_text())
    paths = [(str(tmp_path / f"{n}.json"), str(tmp_path / f"{n}.stain.json")) for n in range(107)]
    for n, (record_path, stain_path) in enumerate(paths):
        write_json(record_path, record | {"slide": f"slide_{n}"})
        match = {"flags": ["odd"], "angle_to_reference": [0.0, n / 10]}
        write_json(stain_path, stain_match(f"slide_{n}") | match)
        write_found(tmp_path, str(n), f"slide_{n}")
    names = ("stain_pictures", "stain_thumbnails", "outlines", "lesion_tables", "overlays", "views")
    same = {name: [getattr(inputs, name)[0]] * len(paths) for name in names}
    records, stains = zip(*paths, strict=True)
    compare_stains(stains, stain_table(inputs), inputs.stain_spread)
    report = render(replace(inputs, records=records, stains=stains, **same), tmp_path)
    page = Page(report / "stain.html")
    listed = [row for row in page.rows if len(row) == 10][1:]
    assert [row[0] for row in listed] == [f"slide_{n}" for n in range(106, 6, -1)]
    assert "And 7 more, which are marked below" in page.source
    assert "Labelled, with a line: the first 20 slides of the table below." in page.source
    drawn = (report / "figures" / "stain_vectors.svg").read_text()
    assert [n for n in range(107) if f"<!-- slide_{n} -->" in drawn] == list(range(87, 107))
    assert len(page.images) == 1 + 107


def test_all_slides_are_shown_before_and_after(inputs: ReportInputs, tmp_path: Path) -> None:
    change_stain(inputs, "new_1", "ratio_eosin")
    report = render(inputs, tmp_path)
    page = Page(report / "stain.html")
    shown = page.images[1:]
    assert [image["alt"] for image in shown] == [f"Slide {slide} before and after normalisation" for slide in SPLITS]
    assert all(image["loading"] == "lazy" for image in shown)
    assert unquote(str(shown[1]["src"])) == "figures/Präparat 7%_stain_thumbnails.png"
    with Image.open(report / unquote(str(shown[1]["src"]))) as picture:
        assert picture.size == (400, 200)
    assert page.source.count('class="marked"') == 1
    assert '<a href="slides/train_1.html">train_1</a> – reference</li>' in page.source
    assert '<a href="slides/new_1.html">new_1</a> – flagged</li>' in page.source


def test_odd_stains_are_labelled_where_they_were_fitted(inputs: ReportInputs, tmp_path: Path) -> None:
    change_stain(
        inputs, "new_1", **with_fallback("the reference's basis", ["stain: not H&E, the reference's basis used"])
    )
    drawn = (render(inputs, tmp_path) / "figures" / "stain_vectors.svg").read_text()
    assert "<!-- new_1 -->" in drawn
    assert "<!-- train_1 -->" not in drawn
    assert "<!-- 1.2 -->" in drawn  # its blue, of which green has none, is drawn at the edge
    assert "<!-- 1e6 -->" not in drawn


def test_swapped_stains_are_drawn_in_the_right_order(inputs: ReportInputs, report: Path, tmp_path: Path) -> None:
    swapped = {"verdict": "ok", "basis": stain_match("new_1")["profile"]["basis"][::-1], "angle": 36.87}
    change_stain(inputs, "new_1", fitted=swapped)
    drawn = (render(inputs, tmp_path / "swapped") / "figures" / "stain_vectors.svg").read_bytes()
    assert drawn == (report / "figures" / "stain_vectors.svg").read_bytes()


def test_many_stain_vectors_are_drawn_as_pixels(
    inputs: ReportInputs, report: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "<image" not in (report / "figures" / "stain_vectors.svg").read_text()
    monkeypatch.setattr("lesionmap.report.stain_page.MOST_VECTORS", 2)
    drawn = [render(inputs, tmp_path / name) / "figures" / "stain_vectors.svg" for name in ("first", "second")]
    assert "<image" in drawn[0].read_text()
    assert drawn[0].read_bytes() == drawn[1].read_bytes()
