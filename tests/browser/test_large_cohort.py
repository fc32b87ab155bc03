"""The page of a large cohort."""

from collections import Counter
from pathlib import Path

from large_cohort import render_large
from playwright.sync_api import Page

SLIDES = 200


def test_the_page_of_200_slides_shows_them_all(page: Page, report: Path, screenshots: Path, tmp_path: Path) -> None:
    index = render_large(report.parent, tmp_path, SLIDES) / "index.html"
    page.goto(index.as_uri())
    rows = page.locator("#slide-table tbody tr:visible")
    assert rows.count() == SLIDES
    splits = Counter(row.inner_text().split("\t")[2] for row in rows.all())
    assert splits == {"train": 85, "test": 58, "val": 28, "inference": 29}  # 28 of each, then four more
    page.get_by_label("Show slides with").fill("test_1")
    assert page.locator("#slide-count").inner_text() == f"{rows.count()} of {SLIDES} shown"
    assert rows.count() == 29
    page.screenshot(path=screenshots / "large_cohort.png")
