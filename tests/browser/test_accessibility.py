"""No page breaks a rule of axe-core, light or dark, also with what the viewer opens."""

from collections.abc import Callable
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page
from test_pages import KINDS

DESKTOP = {"width": 1366, "height": 768}


def broken(page: Page) -> list[tuple[str, list[str]]]:
    """Broken rules of axe-core, each with the elements that break it."""
    found = Axe().run(page, options={"preload": False}).response["violations"]
    return [(rule["id"], [node["html"][:200] for node in rule["nodes"]]) for rule in found]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", KINDS)
def test_no_page_breaks_a_rule(report: Path, new_page: Callable[..., Page], name: str, scheme: str) -> None:
    page = new_page(color_scheme=scheme, viewport=DESKTOP)
    page.goto((report / name).as_uri())
    assert broken(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nor_does_the_viewer_with_all_of_it_open(report: Path, new_page: Callable[..., Page], scheme: str) -> None:
    page = new_page(color_scheme=scheme, viewport=DESKTOP)
    page.goto((report / "slides/test_1.html").as_uri())
    page.locator("#keys summary").click()
    page.locator("#second-pane button[value=map]").click()
    page.locator("#next-error").click()
    page.locator("#ruler").click()
    assert broken(page) == []
