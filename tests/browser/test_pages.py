"""Every page of the report in a browser."""

from pathlib import Path

from playwright.sync_api import Page


def test_the_cohorts_page_opens_from_disk(page: Page, report: Path, screenshots: Path) -> None:
    page.goto((report / "index.html").as_uri())
    assert page.title() == "LesionMap report"
    page.screenshot(path=screenshots / "index.png", full_page=True)
