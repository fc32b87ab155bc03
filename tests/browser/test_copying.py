"""The methods section and its references, copied from the cohort's page."""

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page

LAST = "doi:10.1214/aos/1176345462"
NO_CLIPBOARD = "Object.defineProperty(navigator, 'clipboard', {value: undefined})"


def pressed(page: Page, report: Path, name: str) -> str:
    """Press a button of the cohort's page; what it then says."""
    page.goto((report / "index.html").as_uri())
    page.evaluate("() => document.querySelectorAll('details').forEach(each => each.open = true)")
    button = page.get_by_role("button", name=name)
    button.click()
    said = page.locator("p", has=button).get_by_role("status")
    said.filter(has_text=".").wait_for()
    return said.inner_text()


@pytest.mark.parametrize(
    ("name", "first"),
    [("Copy the text", "LesionMap 0.2.0 follows patent"), ("Copy the BibTeX", "@misc{lesionmap_patent,")],
)
def test_text_is_copied(new_page: Callable[..., Page], report: Path, name: str, first: str) -> None:
    page = new_page(permissions=["clipboard-read", "clipboard-write"])
    assert pressed(page, report, name) == "Copied."
    copied = page.evaluate("() => navigator.clipboard.readText()")
    assert copied.startswith(first)
    assert "10.1214/aos/1176345462" in copied
    if name == "Copy the text":
        assert "\n[7] Efron B, Stein C. The jackknife" in copied
        assert copied.endswith(LAST)


def test_where_there_is_no_clipboard_the_text_is_selected(page: Page, report: Path) -> None:
    page.add_init_script(NO_CLIPBOARD)
    assert pressed(page, report, "Copy the text").startswith("Selected: copy it with Ctrl+C")
    selected = page.evaluate("() => getSelection().toString().trim()")
    assert selected.startswith("LesionMap 0.2.0 follows patent")
    assert selected.endswith(LAST)


def test_without_javascript_there_is_nothing_to_press(new_page: Callable[..., Page], report: Path) -> None:
    page = new_page(java_script_enabled=False)
    page.goto((report / "index.html").as_uri())
    assert page.locator("#methods-text").is_visible()
    assert page.locator("button:visible, #slide-filter:visible").count() == 0
