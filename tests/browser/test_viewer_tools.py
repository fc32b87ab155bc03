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
from lesionmap.formatting import counted
from lesionmap.stain.table import StainMatch, apply_table
from matplotlib import colormaps
from PIL import Image
from playwright.sync_api import Page
from test_viewer import COUNT_COLOURS, changed, levels_seen, link, open_viewer, picture, place, settle, view_of

__all__ = ["changed"]
SLIDE = "test_1"
CENTRE = """([x, y]) => {
  const { left, top, width, height } = document.getElementById("viewer-map").getBoundingClientRect();
  return [left + width / 2 + x, top + height / 2 + y];
}"""


def click(page: Page, x: float, y: float) -> None:
    """Click the map, so many pixels from its centre."""
    page.mouse.click(*page.evaluate(CENTRE, [x, y]))


def second_pane(page: Page) -> str:
    """What the second pane shows; empty if there is none."""
    pressed = page.locator("#second-pane [aria-pressed=true]")
    assert page.locator("#other-pane").is_visible() == bool(pressed.count())
    return pressed.get_attribute("value") or "" if pressed.count() else ""


def test_errors_come_in_turn_the_largest_first(page: Page, report: Path, screenshots: Path) -> None:
    open_viewer(page, report)
    false = view_of(report)["predicted"]["false"]
    assert len(false) >= 2
    assert all(first["area_mm2"] >= second["area_mm2"] for first, second in pairwise(false))
    status = page.locator("#error-status")
    assert status.inner_text() == counted(len(false), "error")
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
    first.locator("#second-pane button[value=normalised]").click()
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
        assert second_pane(page) == "normalised"
        assert place(page) == place(first)
    other.evaluate("fragment => { location.hash = fragment; }", link(1200, 1000, 2))
    settle(other)
    assert other.locator("#shown input:not(:checked)").count() == 0
    assert other.locator("tr[aria-current]").count() == 0
    assert second_pane(other) == ""


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
    table = page.locator(".list .scroll").first
    assert table.evaluate("box => box.scrollWidth - box.clientWidth") == 0


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
    page.locator("#second-pane button[value=normalised]").click()
    settle(page)
    page.wait_for_timeout(500)
    read = """id => [...document.querySelectorAll(`#${id} .leaflet-tile-pane canvas`)].map(tile => (
      [tile.dataset.tile, tile.toDataURL()]))"""
    scanned, normalised = (dict(page.evaluate(read, name)) for name in ("viewer-map", "other-map"))
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
    page.locator("#second-pane button").first.click()
    settle(page)
    assert place(page)["x"] == pytest.approx(1200, abs=2)
    page.locator("#other-map").focus()
    page.keyboard.press("ArrowRight")
    settle(page)  # else zooming ends the move
    page.keyboard.press("+")
    settle(page)
    found = place(page)
    assert found["x"] > 1220
    assert found["zoom"] == 2.5


def test_a_key_leads_through_the_second_panes(page: Page, report: Path) -> None:
    open_viewer(page, report, link(1200, 1000, 2))
    for kind in ("scanned", "normalised", "map", "", "scanned"):
        page.keyboard.press("s")
        settle(page)
        assert second_pane(page) == kind
        assert place(page)["x"] == pytest.approx(1200, abs=2)
    page.locator("#second-pane button[value=scanned]").click()
    assert second_pane(page) == ""


def test_the_second_pane_shows_the_slide_without_the_tint(page: Page, report: Path) -> None:
    open_viewer(page, report, link(1200, 1000, 2, threshold=0.01, opacity=1))
    page.add_style_tag(content=".leaflet-control-container, .leaflet-overlay-pane { display: none }")
    page.locator("#second-pane button[value=scanned]").click()
    settle(page)
    tinted, plain = picture(page), picture(page, "#other-map")
    page.uncheck("#show-probability")
    settle(page)
    difference = np.abs(picture(page).astype(int) - plain)
    assert (difference.max(axis=2) <= 2).mean() > 0.99
    assert (np.abs(tinted.astype(int) - plain).max(axis=2) > 20).mean() > 0.1


def test_the_second_pane_shows_the_whole_map(page: Page, report: Path, screenshots: Path) -> None:
    """In the colours of the one scale, whatever the threshold is; 0 is clear."""
    open_viewer(page, report, link(811, 900, 3, threshold=0.99))
    page.locator("#second-pane button[value=map]").click()
    settle(page)
    page.screenshot(path=screenshots / "viewer_map_pane.png")
    page.add_style_tag(content=".leaflet-control-container, .leaflet-overlay-pane { display: none }")
    seen = picture(page, "#other-map")[1:-1, 1:-1].astype(int)
    levels = levels_seen(report, place(page), seen.shape[1::-1])
    assert len(np.unique(levels)) > 20
    colours = np.round(colormaps["viridis"](np.arange(256))[:, :3] * 255).astype(int)
    glass = picture(page, "#other-map")[1:-1, 1:-1][levels == 0]
    expected = colours[levels]
    same = (np.abs(seen - expected).max(axis=2) <= 2)[levels > 0]
    assert same.mean() > 0.99
    assert glass.size == 0 or (glass == glass[0]).all()


def test_outlines_selection_ruler_and_cursor_are_in_both_panes(page: Page, report: Path) -> None:
    open_viewer(page, report, link(1200, 1000, 1))
    page.locator("#second-pane button[value=scanned]").click()
    page.keyboard.press("n")
    settle(page)
    drawn = """id => document.querySelectorAll(`#${id} .leaflet-overlay-pane path[stroke='#e69f00']`).length"""
    assert [page.evaluate(drawn, name) for name in ("viewer-map", "other-map")] == [1, 1]
    inked = """id => { const canvas = document.querySelector(`#${id} .leaflet-overlay-pane canvas`);
      return canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.some(value => value > 0); }"""
    assert [page.evaluate(inked, name) for name in ("viewer-map", "other-map")] == [True, True]
    for kind in ("true", "false", "found", "missed", "vessel", "fat"):
        page.uncheck(f"#show-{kind}")
    settle(page)
    assert [page.evaluate(inked, name) for name in ("viewer-map", "other-map")] == [False, False]
    page.keyboard.press("m")
    box = page.locator("#other-map").bounding_box()
    assert box
    for x in (40, 140):
        page.mouse.click(box["x"] + x, box["y"] + 60)
    um = view_of(report)["mpp"] * 2 ** (view_of(report)["native"] - place(page)["zoom"]) * 100
    assert float(page.locator("#ruler-text").inner_text().split()[0]) == pytest.approx(um, rel=0.01)
    rings = """id => document.querySelectorAll(`#${id} .leaflet-overlay-pane path[stroke='#000000']`).length"""
    assert page.evaluate(rings, "viewer-map") == 4  # the ruler's line and ends, and where the cursor is
    assert page.evaluate(rings, "other-map") == 3


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


def test_both_panes_are_saved(page: Page, report: Path) -> None:
    open_viewer(page, report, link(1200, 1000, 1))
    page.locator("#second-pane button[value=map]").click()
    settle(page)
    page.add_style_tag(content=".leaflet-control-container { display: none }")
    page.wait_for_timeout(100)
    panes = [picture(page, name)[1:-1, 1:-1].astype(int) for name in ("#viewer-map", "#other-map")]
    with page.expect_download() as download:
        page.locator("#save-picture").click()
    with Image.open(download.value.path()) as image:
        saved = np.asarray(image.convert("RGB")).astype(int)
    height = panes[0].shape[0]
    first, second = page.evaluate("() => window.lesionmapViewer.maps.map(map => map.getSize().x)")
    assert saved.shape[1] == first + 6 + second
    for start, width, seen in ((0, first, panes[0]), (first + 6, second, panes[1])):
        part = saved[:height, start : start + width]
        assert (np.abs(part - seen[:, :width]).max(axis=2) <= 4).mean() > 0.95


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


def test_the_small_map_is_dragged(page: Page, report: Path) -> None:
    open_viewer(page, report, link(1200, 1000, 3))
    box = page.locator(".overview canvas").bounding_box()
    assert box
    width, height = view_of(report)["size"]
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 3, box["y"] + box["height"] / 2, steps=5)
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] / 3, steps=5)
    page.mouse.up()
    settle(page)
    assert place(page)["x"] == pytest.approx(width / 4, abs=width / 60)
    assert place(page)["y"] == pytest.approx(height / 3, abs=height / 60)
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    settle(page)
    assert place(page)["x"] == pytest.approx(width / 4, abs=width / 60)


def test_lesions_that_are_not_judged_are_told_apart_and_are_no_errors(
    page: Page, report: Path, changed: Callable[..., Path]
) -> None:
    view = view_of(report)
    first = view["predicted"]["false"][0]["name"]
    (outline,) = (each for each in view["predicted"]["outlines"] if each["name"] == first)
    outline["verdict"] = "not judged"
    n_false = view["predicted"]["verdicts"]["false"] - 1
    view["predicted"]["false"] = view["predicted"]["false"][1:]
    view["predicted"]["verdicts"] |= {"false": n_false, "not judged": 1}
    (annotated,) = (lesion | {"found": None} for lesion in view["annotated_lesions"])
    for each in view["annotated"][-1]["outlines"]:
        each["found"] = None
    kept = {name: view[name] for name in ("predicted", "annotated")}
    open_viewer(page, changed(kept | {"annotated_lesions": [annotated]}))
    assert page.locator("#error-status").inner_text() == counted(n_false, "error")
    words = [text.strip() for text in page.locator("#shown label").all_inner_texts()]
    assert {"predicted lesions, not judged: 1", f"predicted lesions, false: {n_false}"} <= set(words)
    assert "annotated lesions not judged: 1 (2 outlines)" in words
    x, y = outline["rings"][0][:2]
    page.evaluate("fragment => { location.hash = fragment; }", link(x, y, 3, opacity=0))
    settle(page)
    colours = page.evaluate(COUNT_COLOURS)
    assert colours.get("77,77,77", 0) > 50
    page.uncheck("#show-unjudged")
    settle(page)
    assert page.evaluate(COUNT_COLOURS).get("77,77,77", 0) == 0


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
