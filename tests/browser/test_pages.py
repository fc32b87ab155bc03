"""Every page of the report: opens from disk, its links lead somewhere, it serves keyboard, print and dark."""

import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from PIL import Image
from playwright.sync_api import Page

KINDS = (  # new_1 has no annotation
    *("index.html", "stain.html", "model.html", "checklist.html", "slides/test_1.html", "slides/new_1.html"),
)
LEAST_CONTRAST = 4.5  # of text, WCAG 2.2 AA

# Texts with the ratio of their colour's luminance to that of what lies behind them, by WCAG's definition.
CONTRASTS = """() => {
  const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
  const linear = part => part <= 0.04045 * 255 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4;
  const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const behind = element => {
    if (!element) return [255, 255, 255];
    const [r, g, b, alpha = 1] = numbers(getComputedStyle(element).backgroundColor);
    if (alpha === 1) return [r, g, b];
    const below = behind(element.parentElement);
    return [r, g, b].map((part, n) => alpha * part + (1 - alpha) * below[n]);
  };
  const owns = element => [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
  return [...document.body.querySelectorAll("*")].filter(e => e.checkVisibility() && owns(e)).map(element => {
    const both = [numbers(getComputedStyle(element).color), behind(element)].map(luminance);
    return [(Math.max(...both) + 0.05) / (Math.min(...both) + 0.05), element.textContent.trim().slice(0, 60)];
  });
}"""

# What a keyboard must reach. Of radio buttons of one name Tab reaches the chosen one, and the arrows the others.
INTERACTIVE = """() => {
  const all = [...document.querySelectorAll("a[href], button, input, select, textarea, summary, [tabindex='0']")];
  const skipped = element => element.disabled || (element.type === "radio" && !element.checked);
  window.interactive = all.filter(element => element.checkVisibility({visibilityProperty: true}) && !skipped(element));
  return interactive.map(element => element.outerHTML.slice(0, 100));
}"""
FOCUS = """() => {
  const element = document.activeElement;
  const {outlineStyle, outlineWidth} = getComputedStyle(element);
  const outlined = outlineStyle !== "none" && parseFloat(outlineWidth) >= 1;
  return element === document.body ? null : [interactive.indexOf(element), outlined, element.outerHTML.slice(0, 100)];
}"""
LOAD_ALL_PICTURES = """() => Promise.all([...document.images].map(image => {
  image.loading = "eager";
  return image.decode().then(() => image.naturalWidth, () => 0).then(width => [width, image.src]);
}))"""


def all_pages(report: Path) -> list[Path]:
    """Cohort, stain, model, checklist, and the demo's seven slides."""
    pages = sorted(report.rglob("*.html"))
    assert len(pages) >= 11
    return pages


def open_page(page: Page, path: Path) -> None:
    page.goto(path.as_uri())
    page.wait_for_load_state()


def on_disk(address: str) -> Path:
    return Path(unquote(urlsplit(address).path))


def test_every_page_opens_from_disk(page: Page, report: Path) -> None:
    for path in all_pages(report):
        open_page(page, path)
        assert page.title().endswith("LesionMap report")
        assert page.locator("h1").is_visible()


def test_every_link_to_a_file_leads_to_one(page: Page, report: Path) -> None:
    for path in all_pages(report):
        open_page(page, path)
        links = page.eval_on_selector_all("a[href], link[href]", "all => all.map(link => link.href)")
        files = {on_disk(link) for link in links if link.startswith("file:")}
        inside = {file for file in files if file.is_relative_to(report)}
        assert len(inside) >= 2
        assert [str(file) for file in files if not file.is_file()] == []


def test_every_jump_leads_to_a_place(page: Page, report: Path) -> None:
    for path in all_pages(report):
        open_page(page, path)
        dead = """all => all.filter(a => a.hash && a.pathname === location.pathname)
            .filter(a => !document.getElementById(decodeURIComponent(a.hash.slice(1)))).map(a => a.outerHTML)"""
        assert page.eval_on_selector_all("a[href^='#']", dead) == []


def test_every_picture_is_shown(page: Page, report: Path) -> None:
    for path in all_pages(report):
        open_page(page, path)
        pictures = page.evaluate(LOAD_ALL_PICTURES)
        assert len(pictures) >= 2 or path.name in ("model.html", "checklist.html")
        assert [source for width, source in pictures if width == 0] == []


def tab_stops(page: Page, most: int) -> list[tuple[int, bool, str]]:
    """Where Tab leads until it leaves the page: number among the interactive, whether it is outlined, its HTML."""
    stops = []
    for _ in range(most):
        page.keyboard.press("Tab")
        if (stop := page.evaluate(FOCUS)) is None:
            break
        stops.append(tuple(stop))
    return stops


@pytest.mark.parametrize("name", KINDS)
def test_tab_reaches_everything_and_shows_where_it_is(page: Page, report: Path, name: str) -> None:
    open_page(page, report / name)
    interactive = page.evaluate(INTERACTIVE)
    assert len(interactive) >= 10
    stops = tab_stops(page, most=2 * len(interactive))
    reached = {number for number, _, _ in stops}
    assert [element for number, element in enumerate(interactive) if number not in reached] == []
    assert [element for _, outlined, element in stops if not outlined] == []


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_light_and_dark(
    page: Page, report: Path, screenshots: Path, name: str, scheme: str
) -> None:
    page.emulate_media(color_scheme=scheme)
    open_page(page, report / name)
    page.evaluate(LOAD_ALL_PICTURES)
    page.screenshot(path=screenshots / f"{Path(name).stem}_{scheme}.png", full_page=True)
    paper = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", paper)[:3])) < 3 * 128) == (scheme == "dark")
    contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) >= 30
    assert [found for found in contrasts if found[0] < LEAST_CONTRAST] == []


@pytest.mark.parametrize("name", KINDS)
def test_a_laptop_shows_the_pages_whole_width(page: Page, report: Path, name: str) -> None:
    open_page(page, report / name)
    widths = "() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    shown, room = page.evaluate(widths)
    assert shown <= room == 1280


def test_without_javascript_the_whole_table_is_there(new_page: Callable[..., Page], report: Path) -> None:
    tables = []
    for enabled in (True, False):
        page = new_page(java_script_enabled=enabled)
        open_page(page, report / "index.html")
        tables.append([row.inner_text().split() for row in page.locator("#slide-table tbody tr:visible").all()])
    assert len(tables[0]) == 7
    assert tables[0] == tables[1]


@pytest.mark.parametrize("javascript", [True, False], ids=["with JavaScript", "without"])
def test_a_printed_slide_shows_its_map(
    new_page: Callable[..., Page], report: Path, screenshots: Path, javascript: bool
) -> None:
    page = new_page(java_script_enabled=javascript)
    open_page(page, report / "slides/test_1.html")
    printed = page.pdf(path=screenshots / f"test_1_{'with' if javascript else 'without'}_javascript.pdf", format="A4")
    sizes = re.findall(rb"/Subtype /Image\s*/Width (\d+)\s*/Height (\d+)", printed)
    with Image.open(report / "figures/test_1_overlay.png") as picture:
        assert picture.size in [(int(width), int(height)) for width, height in sizes]
    page.emulate_media(media="print")
    assert page.locator("img[src$='test_1_overlay.png']").is_visible()
