"""What a reader does with the viewer: errors in turn, ruler, second pane, picture, keys; and what the link keeps."""

import io
import json
import re
from base64 import b64decode
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from lesionmap.files.records import read_json
from lesionmap.stain.table import StainMatch, apply_table
from PIL import Image
from playwright.sync_api import Page
from test_viewer import changed, levels_seen, link, open_viewer, picture, place, settle, view_of

__all__ = ["changed"]
SLIDE = "test_1"
CENTRE = """([x, y]) => {
  const { left, top, width, height } = document.getElementById("viewer-map").getBoundingClientRect();
  return [left + width / 2 + x, top + height / 2 + y];
}"""


def click(page: Page, x: float, y: float) -> None:
    """Click the map, so many pixels from its centre."""
    page.mouse.click(*page.evaluate(CENTRE, [x, y]))


def test_errors_come_in_turn_the_largest_first(page: Page, report: Path, screenshots: Path) -> None:
    open_viewer(page, report)
    false = view_of(report)["predicted"]["false"]
    assert len(false) >= 3
    assert all(first["area_mm2"] >= second["area_mm2"] for first, second in pairwise(false))
    status = page.locator("#error-status")
    assert status.inner_text() == f"{len(false)} errors"
    for number, key in ((1, "n"), (2, "n"), (1, "p"), (len(false), "p"), (1, "n")):
        page.keyboard.press(key)
        settle(page)
        name = false[number - 1]["name"]
        assert status.inner_text() == f"error {number} of {len(false)}: false lesion, {name}"
        row = page.locator("tr[aria-current]")
        assert row.get_attribute("data-lesion") == name
        assert row.locator(".error").inner_text() == "false"
    page.screenshot(path=screenshots / "viewer_error.png")


def test_a_missed_lesion_is_an_error(page: Page, report: Path, changed: Callable[..., Path]) -> None:
    view = view_of(report)
    (missed,) = (lesion | {"found": False} for lesion in view["annotated_lesions"])
    for outline in view["annotated"][-1]["outlines"]:
        outline["found"] = False
    open_viewer(page, changed({"annotated": view["annotated"], "annotated_lesions": [missed]}))
    page.locator("#next-error").click()
    settle(page)
    errors = len(view["predicted"]["false"]) + 1
    said = f"error 1 of {errors}: missed lesion, annotated lesion 1"
    assert page.locator("#error-status").inner_text() == said
    assert page.locator("tr[aria-current]").get_attribute("data-lesion") == "annotated 1"
    assert place(page)["x"] == pytest.approx(missed["centroid_xy_lv0"][0], abs=4)
    words = page.locator("#shown label").all_inner_texts()
    assert [text.strip() for text in words if text.strip().startswith("annotated lesions")] == [
        "annotated lesions found: 0",
        "annotated lesions missed: 1 (2 outlines)",
    ]


def test_lesions_are_counted_as_metrics_count_them(page: Page, report: Path) -> None:
    open_viewer(page, report)
    assert "1 annotated lesion (2 outlines): 1 found, 0 missed." in page.locator(".list").inner_text()
    words = [text.strip() for text in page.locator("#shown label").all_inner_texts()]
    verdicts = view_of(report)["predicted"]["verdicts"]
    true = verdicts.get("matched", 0) + verdicts.get("merged", 0)
    assert {
        f"predicted lesions, true: {true}",
        f"predicted lesions, false: {verdicts['false']}",
        "annotated lesions found: 1 (2 outlines)",
        "annotated lesions missed: 0",
    } <= set(words)


def test_a_slide_without_annotation_has_no_errors(page: Page, report: Path) -> None:
    open_viewer(page, report, slide="new_1")
    assert not page.locator("#errors").is_visible()
    page.keyboard.press("n")
    assert page.locator("tr[aria-current]").count() == 0
    assert page.locator("thead th", has_text="Verdict").count() == 0


def test_an_outline_on_the_map_selects_its_row(page: Page, report: Path) -> None:
    open_viewer(page, report)
    row = page.locator("tr[data-lesion^='Lesion']").last
    name = row.get_attribute("data-lesion")
    (outline,) = (each for each in view_of(report)["predicted"]["outlines"] if each["name"] == name)
    x, y = outline["rings"][0][:2]
    open_viewer(page, report, link(x, y, 4))
    page.reload()
    settle(page)
    before = place(page)
    click(page, 0, 0)
    assert page.locator("tr[aria-current]").get_attribute("data-lesion") == name
    assert page.locator("tr[aria-current]").is_visible()
    assert place(page)["x"] == pytest.approx(before["x"], abs=1)
    click(page, -150, 150)


def test_a_row_selects_wherever_it_is_clicked(page: Page, report: Path) -> None:
    open_viewer(page, report)
    page.locator("tr[data-lesion='annotated 1'] td").nth(1).click()
    settle(page)
    assert page.locator("tr[aria-current]").get_attribute("data-lesion") == "annotated 1"
    assert page.locator(".leaflet-overlay-pane path[stroke='#e69f00']").count() == 1


def test_the_link_keeps_selection_toggles_and_pane(new_page: Callable[..., Page], report: Path) -> None:
    first = new_page()
    open_viewer(first, report, link(1200, 1000, 2))
    first.uncheck("#show-fat")
    first.uncheck("#show-probability")
    first.keyboard.press("s")
    first.keyboard.press("n")
    settle(first)
    second = new_page()
    second.goto(first.url)
    settle(second)
    other = new_page()
    open_viewer(other, report)
    fragment = first.url.partition("#")[2]
    other.evaluate("fragment => { location.hash = fragment; }", fragment)
    settle(other)
    selected = first.locator("tr[aria-current]").get_attribute("data-lesion")
    for page in (second, other):
        assert page.locator("#show-fat, #show-probability, #show-false").evaluate_all(
            "boxes => boxes.map(box => box.checked)"
        ) == [False, True, False]
        assert page.locator("tr[aria-current]").get_attribute("data-lesion") == selected
        assert page.locator("#normalised-pane").is_visible()
        assert place(page) == place(first)
    other.evaluate("fragment => { location.hash = fragment; }", link(1200, 1000, 2))
    settle(other)
    assert other.locator("#shown input:not(:checked)").count() == 0
    assert other.locator("tr[aria-current]").count() == 0
    assert not other.locator("#normalised-pane").is_visible()


def test_one_key_hides_all_that_lies_over_the_slide(page: Page, report: Path, screenshots: Path) -> None:
    open_viewer(page, report, link(1200, 1000, 1))
    page.uncheck("#show-fat")
    before = picture(page)
    page.keyboard.press("h")
    page.wait_for_timeout(200)
    assert page.locator("#shown input:checked").count() == 0
    assert (picture(page) != before).any()
    page.screenshot(path=screenshots / "viewer_hidden.png")
    page.keyboard.press("h")
    page.wait_for_timeout(200)
    assert page.locator("#shown input:not(:checked)").count() == 1
    np.testing.assert_array_equal(picture(page), before)


def test_keys_are_listed(page: Page, report: Path) -> None:
    open_viewer(page, report)
    assert not page.locator("#keys dl").is_visible()
    page.keyboard.press("?")
    assert "hide or show all that" in page.locator("#keys dl").inner_text()
    page.keyboard.press("?")
    assert not page.locator("#keys dl").is_visible()


def test_controls_and_map_are_above_the_fold(new_page: Callable[..., Page], report: Path) -> None:
    page = new_page(viewport={"width": 1366, "height": 768})
    open_viewer(page, report)
    for name in ("#threshold", "#shown", ".tools", "#viewer-map"):
        box = page.locator(name).bounding_box()
        assert box
        assert box["y"] + box["height"] <= 768
    assert box["height"] >= 320


def test_the_magnification_is_told(page: Page, report: Path) -> None:
    for zoom, told in ((3, "40×, 0.25 µm/px"), (1, "10×, 1 µm/px"), (0.5, "7.1×, 1.41 µm/px")):
        open_viewer(page, report, link(1200, 1000, zoom))
        assert page.locator(".readout .zoom").inner_text() == told


@pytest.mark.parametrize("zoom", [1, 3])
def test_the_probability_under_the_cursor_is_told(page: Page, report: Path, zoom: int) -> None:

    open_viewer(page, report, link(811, 900, zoom))
    levels = levels_seen(report, {"x": 811, "y": 900, "zoom": 3}, (101, 101))
    scale = 2 ** (3 - zoom)
    for x, y in ((0, 0), (8, -8), (-16, 12)):
        page.mouse.move(*page.evaluate(CENTRE, [x / scale, y / scale]))
        page.wait_for_timeout(200)
        told = float(page.locator(".readout .level").inner_text().split()[1])
        near = levels[50 + y - 10 : 51 + y + 10, 50 + x - 10 : 51 + x + 10]
        assert near.min() - 1 <= told * 255 <= near.max() + 1


def test_the_ruler_measures(page: Page, report: Path, screenshots: Path) -> None:
    open_viewer(page, report, link(1200, 1000, 3))
    page.keyboard.press("m")
    assert page.locator("#ruler").get_attribute("aria-pressed") == "true"
    for x, y in ((-120, -90), (0, 0)):
        click(page, x, y)
    assert page.locator("#ruler-text").inner_text() == "37.5 µm"
    page.screenshot(path=screenshots / "viewer_ruler.png")
    page.keyboard.press("Escape")
    assert page.locator("#ruler-text").inner_text() == ""
    open_viewer(page, report, link(1200, 1000, 0))
    page.reload()
    settle(page)
    page.locator("#ruler").click()
    for x, y in ((-150, 0), (150, 0)):
        click(page, x, y)
    assert page.locator("#ruler-text").inner_text() in {"599.9 µm", "600.0 µm", "600.1 µm"}


def test_the_second_pane_has_the_colours_that_the_network_sees(page: Page, report: Path, screenshots: Path) -> None:
    open_viewer(page, report, link(1200, 1000, 3, opacity=0))
    page.keyboard.press("h")
    page.keyboard.press("s")
    settle(page)
    page.wait_for_timeout(500)
    read = """id => [...document.querySelectorAll(`#${id} .leaflet-tile-pane canvas`)].map(tile => (
      [tile.dataset.tile, tile.toDataURL()]))"""
    scanned, normalised = (dict(page.evaluate(read, name)) for name in ("viewer-map", "normalised-map"))
    both = [key for key in normalised if key in scanned]
    assert both
    match = StainMatch.of(read_json(report.parent / f"stain/matches/{SLIDE}.json"))
    table = match.table()
    compared = 0
    for key in both:
        before, after = (pixels_of(tiles[key]) for tiles in (scanned, normalised))
        if before[..., 3].all():
            compared += 1
            np.testing.assert_array_equal(after[..., :3], apply_table(table, np.ascontiguousarray(before[..., :3])))
    assert compared
    page.screenshot(path=screenshots / "viewer_normalised.png")


def pixels_of(address: str) -> np.ndarray:

    with Image.open(io.BytesIO(b64decode(address.partition(",")[2]))) as image:
        return np.asarray(image.convert("RGBA"))


def test_the_panes_move_together(page: Page, report: Path) -> None:
    open_viewer(page, report, link(1200, 1000, 2))
    page.locator("#second-pane").click()
    settle(page)
    assert place(page)["x"] == pytest.approx(1200, abs=2)
    page.locator("#normalised-map").focus()
    page.keyboard.press("ArrowRight")
    settle(page)  # else zooming ends the move
    page.keyboard.press("+")
    settle(page)
    found = place(page)
    assert found["x"] > 1220
    assert found["zoom"] == 2.5


def test_the_view_is_saved_as_a_picture(page: Page, report: Path) -> None:
    open_viewer(page, report, link(1200, 1000, 1))
    page.add_style_tag(content=".leaflet-control-container { display: none }")
    page.wait_for_timeout(100)
    seen = picture(page)
    with page.expect_download() as download:
        page.locator("#save-picture").click()
    assert re.fullmatch(rf"{SLIDE}_\d+_\d+\.png", download.value.suggested_filename)
    with Image.open(download.value.path()) as image:
        saved = np.asarray(image.convert("RGB")).astype(int)
    height, width = seen.shape[0] - 2, seen.shape[1] - 2  # without the border
    assert saved.shape[0] > height + 60
    difference = np.abs(saved[:height, :width] - seen[1:-1, 1:-1])
    assert (difference.max(axis=2) <= 4).mean() > 0.95  # but for the outlines' soft edges


def test_the_small_map_leads_anywhere(page: Page, report: Path) -> None:
    open_viewer(page, report, link(1200, 1000, 3))
    canvas = page.locator(".overview canvas")
    box = canvas.bounding_box()
    assert box
    canvas.click(position={"x": box["width"] / 4, "y": box["height"] / 2})
    settle(page)
    width, height = view_of(report)["size"]
    assert place(page)["x"] == pytest.approx(width / 4, abs=width / 60)
    assert place(page)["y"] == pytest.approx(height / 2, abs=height / 60)
    seen = page.locator(".overview .seen").bounding_box()
    assert seen
    assert seen["x"] + seen["width"] / 2 - box["x"] == pytest.approx(box["width"] / 4, abs=2)


def test_negative_samples_can_be_gone_to(page: Page, changed: Callable[..., Path]) -> None:
    open_viewer(page, changed({"negatives": [[100, 200, 1124, 1224], [1500, 300, 2524, 1324]]}))
    page.locator("#negative-list button").nth(1).click()
    settle(page)
    assert place(page)["x"] == pytest.approx(2012, abs=6)
    assert place(page)["y"] == pytest.approx(812, abs=6)
    assert page.locator("li[aria-current]").inner_text() == "2012, 812"


def test_a_view_says_what_its_tiles_are(report: Path) -> None:
    text = (report / f"views/{SLIDE}/slide/0/0_0.js").read_text(encoding="ascii")
    assert text.startswith('lesionmapTile("slide/0/0_0","/9j/')
    assert json.dumps(text).count("lesionmapTile") == 1
