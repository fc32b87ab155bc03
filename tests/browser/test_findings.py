"""What was found comes first on the page, agrees with tables and outlines, and travels with the report's folder."""

import json
import shutil
from collections import Counter
from pathlib import Path
from urllib.parse import unquote, urlsplit

from lesionmap.files.records import read_table
from lesionmap.version import VERSION
from playwright.sync_api import Page
from test_viewer import open_viewer, settle

SECTIONS = ("findings", "quarantine", "glance", "plots", "slides", "methods", "run")


def test_what_was_found_comes_first_then_what_to_do_then_the_agreement(page: Page, report: Path) -> None:
    page.goto((report / "index.html").as_uri())
    tops = [page.locator(f"#{name}").bounding_box() for name in SECTIONS]
    heights = [box["y"] for box in tops if box]
    assert len(heights) == len(SECTIONS)
    assert heights == sorted(heights)


def test_the_first_sentence_and_the_cards_are_those_of_the_tables(page: Page, report: Path) -> None:
    page.goto((report / "index.html").as_uri())
    slides = [row for row in read_table(report.parent / "slides.tsv") if row["state"] == "mapped"]
    lesions = read_table(report.parent / "lesions.tsv")
    largest = max(lesions, key=lambda row: float(row["area_mm2"]))
    lead = page.locator(".lead").inner_text()
    assert lead.startswith(f"{len(slides)} slides mapped: {len(lesions)} lesions on ")
    assert f"{sum(float(row['area_mm2']) for row in lesions):.3f} mm² in all" in lead
    assert f"the largest {float(largest['area_mm2']):.3f} mm², on {largest['slide']}" in lead
    cards = page.locator("#findings li:has(img)")
    names = cards.locator("a:not(:has(img))").all_inner_texts()
    assert names == [row["slide"] for row in sorted(slides, key=lambda row: -float(row["lesion_mm2"]))]
    for name, text in zip(names, cards.all_inner_texts(), strict=True):
        verdicts = Counter(row["verdict"] for row in lesions if row["slide"] == name)
        assert f"{verdicts.total()} lesions, " in text
        assert ("false" in text) == ("" not in verdicts)
        assert "" in verdicts or f"({verdicts['false']} false, " in text


def test_verdicts_are_the_same_in_outlines_tables_list_and_viewer(page: Page, report: Path) -> None:
    open_viewer(page, report)
    content = json.loads((report.parent / "lesions/test_1/lesions.geojson").read_text())
    outlined = {lesion["properties"]["name"]: lesion["properties"]["verdict"] for lesion in content["features"]}
    rows = [row for row in read_table(report.parent / "lesions.tsv") if row["slide"] == "test_1"]
    assert {row["lesion"]: row["verdict"] for row in rows} == outlined
    listed = page.locator("tr[data-lesion^='Lesion']")
    shown = zip(
        listed.locator("th").all_inner_texts(), listed.locator("td:first-of-type").all_inner_texts(), strict=True
    )
    assert dict(shown) == outlined
    counts = Counter(outlined.values())
    (slide,) = (row for row in read_table(report.parent / "slides.tsv") if row["slide"] == "test_1")
    assert {name: int(slide[f"{name}_lesions"]) for name in ("matched", "merged", "false")} == {
        name: counts[name] for name in ("matched", "merged", "false")
    }
    said = page.locator("#shown").inner_text()
    assert f"predicted lesions, true: {counts['matched'] + counts['merged']}" in said
    assert f"predicted lesions, false: {counts['false']}" in said


def test_every_page_says_which_version_made_it_and_when(page: Page, report: Path) -> None:
    for path in sorted(report.rglob("*.html")):
        page.goto(path.as_uri())
        assert page.locator("footer").inner_text().startswith(f"LesionMap {VERSION}, ")


def test_the_folder_of_the_report_travels(page: Page, report: Path, tmp_path: Path) -> None:
    """Alone, without the other results: no dead link, and the viewer works."""
    there = tmp_path / "carried off"
    shutil.copytree(report, there)
    for path in sorted(there.rglob("*.html")):
        page.goto(path.as_uri())
        links = page.eval_on_selector_all("a[href], link[href]", "all => all.map(link => link.href)")
        files = {Path(unquote(urlsplit(link).path)) for link in links if link.startswith("file:")}
        assert [file for file in files if not file.is_file() or not file.is_relative_to(there)] == []
    page.goto((there / "slides/test_1.html").as_uri())
    settle(page)
    assert page.locator("#viewer-map .leaflet-tile-loaded").count() > 0
