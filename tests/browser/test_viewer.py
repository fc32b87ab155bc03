"""The deep-zoom viewer of a slide's page: what it shows is what the files say."""

import io
import json
import math
import re
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import numpy as np
import pytest
import tifffile
from lesionmap.viewer.view import as_script
from matplotlib import colormaps
from PIL import Image
from playwright.sync_api import Page

SLIDE = "test_1"
WITHOUT_CONTROLS = ".leaflet-control-container { display: none }"
OUTLINE_COLOURS = {
    "true": "0,0,0",
    "false": "213,94,0",
    "found": "0,114,178",
    "vessel": "140,81,10",
    "fat": "0,158,115",
}
COUNT_COLOURS = """() => {
  const canvas = document.querySelector(".leaflet-overlay-pane canvas");
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  const counts = {};
  for (let n = 0; n < pixels.length; n += 4) {
    if (pixels[n + 3] === 255) {
      const colour = pixels.slice(n, n + 3).join();
      counts[colour] = (counts[colour] || 0) + 1;
    }
  }
  return counts;
}"""


def address(report: Path, fragment: str = "", slide: str = SLIDE) -> str:
    return (report / f"slides/{slide}.html").as_uri() + fragment


def link(x: float, y: float, zoom: float, threshold: float = 0.5, opacity: float = 0.5) -> str:
    return f"#x={x}&y={y}&zoom={zoom}&threshold={threshold}&opacity={opacity}"


def view_of(report: Path, slide: str = SLIDE) -> dict[str, Any]:
    text = (report / f"views/{slide}/view.js").read_text(encoding="ascii")
    told = text.removeprefix("window.lesionmapView = JSON.parse('").removesuffix("');\n")
    content: dict[str, Any] = json.loads(told.replace("\\\\", "\\"))
    return content


def lowest_of(report: Path, slide: str = SLIDE) -> tuple[float, int]:
    """The threshold of a slide's lesions, and the level of the map that it rounds to."""
    threshold = json.loads((report.parent / f"lesions/{slide}/lesions.json").read_text())["threshold"]
    return threshold, math.floor(threshold * 255 + 0.5)


def settle(page: Page) -> None:
    """Wait until no tile is loading and nothing moves."""
    page.wait_for_load_state()
    page.wait_for_timeout(100)  # in which a movement begins
    page.wait_for_function(
        "() => !document.querySelector('.leaflet-zoom-anim, .leaflet-pan-anim') &&"
        " [...document.querySelectorAll('.leaflet-tile')].every(t => t.classList.contains('leaflet-tile-loaded'))"
    )
    page.wait_for_timeout(150)


def open_viewer(page: Page, report: Path, fragment: str = "", slide: str = SLIDE) -> None:
    page.goto(address(report, fragment, slide))
    settle(page)


def place(page: Page) -> dict[str, float]:
    """What the page's address says of the view."""
    told = {key: value for key, (value,) in parse_qs(page.evaluate("location.hash.slice(1)")).items()}
    return {key: float(told[key]) for key in ("x", "y", "zoom", "threshold", "opacity")}


def picture(page: Page, name: str = "#viewer-map") -> np.ndarray:
    """The map as it is seen, (H, W, 3)."""
    with Image.open(io.BytesIO(page.locator(name).screenshot())) as image:
        return np.asarray(image.convert("RGB"))


def levels_seen(report: Path, place: dict[str, float], size_px: tuple[int, int], slide: str = SLIDE) -> np.ndarray:
    """Probability × 255 of each pixel of the map on the screen, computed from the slide's own file; (H, W)."""
    view = view_of(report, slide)
    levels = tifffile.imread(report.parent / f"lesions/{slide}/probability.ome.tif", series=0, level=0)
    per_map_px = math.sqrt(view["probability"]["pixel_mm2"]) * 1000 / view["mpp"]  # level-0 pixels
    scale = 2.0 ** (view["native"] - place["zoom"])
    finest = 2.0 ** (view["native"] - view["probability"]["zoom"])
    index = []
    for centre, length, n in zip((place["x"], place["y"]), size_px, levels.shape[::-1], strict=True):
        first = math.floor(centre / scale - length / 2 + 0.5)  # Leaflet has whole pixels
        pixel = np.floor((first + np.arange(length) + 0.5) * scale / finest)  # of the finest tiles
        at = np.floor((pixel + 0.5) * finest / per_map_px).astype(int)
        index.append(np.where((at >= 0) & (at < n), at, -1))
    known = (index[1][:, None] >= 0) & (index[0] >= 0)
    return np.where(known, levels[index[1][:, None], index[0]], 0)


def test_the_viewer_opens_with_the_whole_slide(page: Page, report: Path, screenshots: Path) -> None:
    open_viewer(page, report)
    assert page.locator("#viewer-map").is_visible()
    assert not page.locator("figure.overlay").is_visible()
    assert page.locator("canvas.leaflet-tile").count() >= 1
    assert page.locator("#threshold").input_value() == str(lowest_of(report)[1])
    assert page.locator("#threshold-reset").is_disabled()
    page.screenshot(path=screenshots / "viewer.png")


@pytest.mark.parametrize("zoom", [0, 1, 3])
def test_the_slider_acts_on_the_pixels_of_the_map(page: Page, report: Path, zoom: int) -> None:
    open_viewer(page, report, link(1200, 1000, zoom, opacity=1))
    page.add_style_tag(content=WITHOUT_CONTROLS)
    for box in page.locator("#shown input:not(#show-probability)").all():
        box.uncheck()
    seen = picture(page)
    levels = levels_seen(report, {"x": 1200, "y": 1000, "zoom": zoom}, seen.shape[1::-1])
    assert len(np.unique(levels)) > 50
    page.uncheck("#show-probability")
    bare = picture(page)
    page.check("#show-probability")
    colours = np.rint(colormaps["viridis"](np.arange(256))[:, :3] * 255).astype(np.uint8)
    for least in (1, 90, 128, 129, 200, 255):
        page.locator("#threshold").fill(str(least))
        page.wait_for_timeout(100)
        expected = np.where((levels >= least)[..., None], colours[levels], bare)
        np.testing.assert_array_equal(picture(page)[1:-1, 1:-1], expected[1:-1, 1:-1])


def test_one_step_of_the_slider_is_one_level(page: Page, report: Path) -> None:
    open_viewer(page, report)
    counts, (threshold, level) = np.array(view_of(report)["probability"]["counts"]), lowest_of(report)
    pixel_mm2 = (json.loads((report.parent / f"lesions/{SLIDE}/inference.json").read_text())["map"]["mpp"] / 1000) ** 2
    page.locator("#threshold").focus()
    assert page.locator("#threshold-text").inner_text() == f"{threshold:g}: {counts[level:].sum() * pixel_mm2:.3f} mm²"
    page.keyboard.press("ArrowRight")
    shown, above = round((level + 1) / 255, 3), level + 1
    assert page.locator("#threshold-text").inner_text() == f"{shown:g}: {counts[above:].sum() * pixel_mm2:.3f} mm²"
    table = page.locator("#probability-mask").get_attribute("tableValues")
    assert table == " ".join(["0"] * above + ["1"] * (256 - above))
    assert place(page)["threshold"] == shown
    page.locator("#threshold-reset").click()
    assert page.locator("#threshold-text").inner_text().startswith(f"{threshold:g}: ")
    assert place(page)["threshold"] == round(level / 255, 3)


def test_opacity_is_that_of_the_map_alone(page: Page, report: Path) -> None:
    open_viewer(page, report, link(1200, 1000, 0, opacity=1))
    full = picture(page).astype(int)
    page.locator("#opacity").fill("0")
    bare = picture(page).astype(int)
    page.locator("#opacity").fill("50")
    half = picture(page)
    assert np.abs(half - (full + bare) / 2).max() <= 1.5
    assert (full != bare).any()


def test_a_lesion_of_the_list_is_brought_into_view_and_marked(page: Page, report: Path, screenshots: Path) -> None:
    tables = {path.parent.name: path.read_text().count("\n") for path in report.parent.glob("lesions/*/lesions.tsv")}
    slide = max(tables, key=lambda name: tables[name])
    open_viewer(page, report, slide=slide)
    rows = page.locator("tr[data-lesion]")
    assert rows.count() >= 2
    for number in range(rows.count()):
        row = rows.nth(number)
        if number == 1:
            row.get_by_role("button").focus()
            page.keyboard.press("Enter")
        else:
            row.get_by_role("button").click()
        settle(page)
        lesion = {axis: float(row.get_attribute(f"data-{axis}") or "nan") for axis in ("x", "y")}
        found = place(page)
        pixel = 2 ** (view_of(report, slide)["native"] - found["zoom"])
        assert abs(found["x"] - lesion["x"]) <= pixel
        assert abs(found["y"] - lesion["y"]) <= pixel
        assert page.locator("tr[aria-current]").count() == 1
        assert row.get_attribute("aria-current") == "true"
        mark = page.locator(".leaflet-overlay-pane path[stroke='#e69f00']").bounding_box()
        viewer = page.locator("#viewer-map").bounding_box()
        assert mark
        assert viewer
        assert viewer["x"] < mark["x"] < mark["x"] + mark["width"] < viewer["x"] + viewer["width"]
        assert viewer["y"] < mark["y"] < mark["y"] + mark["height"] < viewer["y"] + viewer["height"]
    page.screenshot(path=screenshots / "viewer_lesion.png")


@pytest.mark.parametrize("kind", list(OUTLINE_COLOURS))
def test_outlines_can_be_hidden_by_class(page: Page, report: Path, kind: str) -> None:
    open_viewer(page, report)
    before = page.evaluate(COUNT_COLOURS)
    assert min(before[colour] for colour in OUTLINE_COLOURS.values()) > 20
    page.locator(f"#show-{kind}").focus()
    for shown in (False, True):
        page.keyboard.press("Space")
        page.wait_for_timeout(150)
        after = page.evaluate(COUNT_COLOURS)
        for other, colour in OUTLINE_COLOURS.items():
            if other == kind and not shown:
                assert colour not in after
            else:  # but for what lies on top where outlines cross
                assert after[colour] == pytest.approx(before[colour], rel=0.5)


def test_outlines_lie_where_the_files_say(page: Page, report: Path) -> None:
    open_viewer(page, report, link(1200, 1000, 3, opacity=0))
    for kind in ("true", "false", "vessel", "fat"):
        page.uncheck(f"#show-{kind}")
    page.add_style_tag(content=WITHOUT_CONTROLS)
    seen = picture(page)
    blue = (np.abs(seen.astype(int) - (0, 114, 178)).max(axis=2) < 3).nonzero()
    features = json.loads((report.parent / f"annotations/{SLIDE}.geojson").read_text())["features"]
    lesions = [feature["geometry"]["coordinates"] for feature in features if feature["properties"]["class"] == "lesion"]
    edges = np.concatenate([_points(ring) for rings in lesions for ring in rings])
    corner = np.floor(np.array([1200, 1000]) - np.array(seen.shape[1::-1]) / 2 + 0.5)
    drawn = np.stack(blue[::-1], axis=1) + 0.5 + corner
    nearest = np.array([np.hypot(*(edges - point).T).min() for point in drawn[::7]])
    assert len(nearest) > 50
    assert nearest.max() < 3  # half the line, the rounding of its points, and what is smoothed


def _points(ring: list[list[float]]) -> np.ndarray:
    """Points along a ring, a quarter of a pixel apart."""
    found = [np.linspace(start, end, max(2, int(4 * math.dist(start, end)))) for start, end in pairwise(ring)]
    return np.concatenate(found)


def test_a_link_leads_back_to_the_view(new_page: Callable[..., Page], report: Path) -> None:
    first = new_page()
    open_viewer(first, report)
    assert first.evaluate("location.hash") == ""
    open_viewer(first, report, link(1200, 1000, 1))
    first.locator("#viewer-map").focus()
    for key in ("+", "+", "ArrowRight", "ArrowDown"):
        first.keyboard.press(key)
        settle(first)
    first.locator("#threshold").fill("77")
    first.locator("#opacity").fill("85")
    first.evaluate("document.activeElement.blur()")
    told = place(first)
    assert (told["zoom"], told["threshold"], told["opacity"]) == (2, 0.302, 0.85)
    assert (told["x"], told["y"]) != (1200, 1000)
    second = new_page()
    second.goto(first.url)
    settle(second)
    difference = picture(second).astype(int) - picture(first)
    assert np.abs(difference).max() <= 4  # of the outlines' soft edges
    assert second.locator("#threshold").input_value() == "77"
    assert second.locator("#opacity").input_value() == "85"


def test_a_changed_address_is_followed(page: Page, report: Path) -> None:
    open_viewer(page, report, link(1200, 1000, 1))
    page.evaluate(f"location.hash = '{link(700, 900, 3, 0.8, 0.3)}'")
    settle(page)
    assert page.locator(".place").inner_text() == "Centre: 700, 900 px; 175, 225 µm"
    assert page.locator("#threshold").input_value() == "204"
    assert page.locator("#opacity").input_value() == "30"


@pytest.mark.parametrize("fragment", ["#facts", "#x=1&y=&zoom=2", "#x=a&y=b&zoom=c", "#zoom=99&x=1e999&y=0", "#%%%"])
def test_an_odd_address_shows_the_whole_slide(page: Page, report: Path, fragment: str) -> None:
    open_viewer(page, report)
    whole = picture(page)
    open_viewer(page, report, fragment)
    np.testing.assert_array_equal(picture(page), whole)


def test_the_scale_bar_is_true(page: Page, report: Path) -> None:
    view = view_of(report)
    for zoom in (0, 1.5, 3, 5):
        open_viewer(page, report, link(1200, 1000, zoom))
        bar = page.locator(".leaflet-control-scale-line")
        number, unit = bar.inner_text().split()
        um = float(number) * {"µm": 1, "mm": 1000}[unit]
        um_per_px = view["mpp"] * 2 ** (view["native"] - zoom)
        width = bar.evaluate("element => parseFloat(element.style.width)")
        assert width == pytest.approx(um / um_per_px, abs=0.51)
        assert 40 <= width <= 160


def test_the_pixel_under_the_cursor_is_told(page: Page, report: Path) -> None:
    open_viewer(page, report, link(1200, 1000, 3))
    box = page.locator("#viewer-map").bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] / 2 + 10, box["y"] + box["height"] / 2 - 40)
    told = re.fullmatch(r"x, y: (\d+), (\d+) px; (\d+), (\d+) µm", page.locator(".place").inner_text())
    assert told
    x, y, *um = map(int, told.groups())
    assert abs(x - 1210) <= 1
    assert abs(y - 960) <= 1
    assert um == [x // 4, y // 4]


def test_only_the_wanted_tiles_are_asked_for(page: Page, report: Path) -> None:
    view = view_of(report)
    there = {
        f"{folder}/{zoom}/{x}_{row}.js"
        for folder, runs in (("slide", view["picture"]["tiles"]), ("probability", view["probability"]["tiles"]))
        for zoom, row, first, last in runs
        for x in range(first, last + 1)
    }
    asked: set[str] = set()
    page.on("request", lambda request: asked.add(request.url.partition(f"/views/{SLIDE}/")[2]))
    for zoom in range(6):
        open_viewer(page, report, link(0, 0, zoom))
        open_viewer(page, report, link(2600, 2100, zoom))
    assert {name for name in asked if name.count("/") == 2} <= there
    assert any(name.startswith("slide/3/") for name in asked)


@pytest.fixture
def changed(report: Path, tmp_path: Path) -> Callable[[dict[str, Any]], Path]:
    """Make a copy of one slide's part of the report, of whose view some facts are changed."""

    def change(facts: dict[str, Any]) -> Path:
        copy = tmp_path / "report"
        for name in ("viewer", f"views/{SLIDE}", "figures"):
            shutil.copytree(report / name, copy / name)
        (copy / "slides").mkdir()
        shutil.copy(report / f"slides/{SLIDE}.html", copy / "slides")
        text = f"window.lesionmapView = {as_script(view_of(report) | facts)};\n"
        (copy / f"views/{SLIDE}/view.js").write_text(text)
        return copy

    return change


def test_a_lesion_that_is_not_outlined_is_brought_into_view(page: Page, changed: Callable[..., Path]) -> None:
    predicted = {"n": 3, "verdicts": {}, "false": [], "outlines": []}
    open_viewer(page, changed({"predicted": predicted}))
    row = page.locator("tr[data-lesion]").first
    row.get_by_role("button").click()
    settle(page)
    found = place(page)
    assert found["zoom"] == 3
    assert abs(found["x"] - float(row.get_attribute("data-x") or "nan")) <= 1
    assert page.locator(".leaflet-overlay-pane path").count() == 0


def test_names_of_classes_are_shown_as_they_are(page: Page, changed: Callable[..., Path]) -> None:
    hostile = "<img src=x onerror='window.broken = 1'></script><script>window.broken = 1</script>"
    ring = [100, 100, 200, 100, 200, 200]
    vessel = {"class": "vessel", "names": [hostile], "n": 1, "outlines": [{"name": hostile, "rings": [ring]}]}
    open_viewer(page, changed({"annotated": [vessel]}))
    assert page.locator("label", has=page.locator("#show-vessel")).inner_text() == f"annotated vessel – {hostile} (1)"
    assert page.evaluate("window.broken") is None


def test_what_is_not_judged_is_outlined_as_such_with_its_area(page: Page, changed: Callable[..., Path]) -> None:
    outline = {"name": "Ignore*", "rings": [[100, 100, 200, 100, 200, 200]]}
    ignored = {"class": "ignore", "names": ["Ignore*", "pen"], "n": 2, "area_mm2": 0.0361, "outlines": [outline] * 2}
    open_viewer(page, changed({"annotated": [ignored]}))
    label = page.locator("label", has=page.locator("#show-ignore"))
    assert label.inner_text() == "not judged – Ignore*, pen (2, 0.036 mm²)"
    assert label.locator("line").get_attribute("stroke-dasharray") == "14 4 2 4 2 4"


def test_what_is_not_shown_is_said(page: Page, report: Path, changed: Callable[..., Path]) -> None:
    view = view_of(report)
    few = {
        "detail": {"mode": "lesions", "lesions": 8, "without": 3},
        "picture": view["picture"] | {"damaged": 2},
        "predicted": view["predicted"] | {"n": 6000},
    }
    open_viewer(page, changed(few))
    assert page.locator("#viewer-notes").inner_text() == (
        "Shown down to 2.0 µm/px, and in full resolution around lesions and in the negative samples. "
        "3 of 8 lesions are beyond the limit of what is shown so and lack it in part or wholly. "
        "Parts of 2 tiles cannot be read and are left empty. "
        f"Of 6000 outlines the {len(view['predicted']['outlines'])} largest are drawn."
    )


def test_paper_and_pages_without_script_show_the_picture(new_page: Callable[..., Page], report: Path) -> None:
    plain = new_page(java_script_enabled=False)
    plain.goto(address(report))
    printed = new_page()
    open_viewer(printed, report)
    printed.emulate_media(media="print")
    for page in (plain, printed):
        assert page.locator("figure.overlay img").is_visible()
        assert not page.locator("#viewer").is_visible()


def test_a_slide_without_annotation_has_its_lesions_alone(page: Page, report: Path) -> None:
    open_viewer(page, report, slide="new_1")
    assert page.locator("#shown label").count() == 2
    assert page.locator("#show-predicted").is_checked()


def test_the_viewer_fills_the_screen(page: Page, report: Path, screenshots: Path) -> None:
    open_viewer(page, report)
    page.locator("#full-screen").click()
    page.wait_for_function("document.fullscreenElement !== null")
    settle(page)
    box = page.locator("#viewer-map").bounding_box()
    assert box
    assert box["height"] > 500
    assert page.locator("tr[data-lesion]").first.is_visible()
    page.screenshot(path=screenshots / "viewer_full_screen.png")
