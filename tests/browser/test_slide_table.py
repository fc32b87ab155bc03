"""The table of slides on the cohort's page."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page

MISSING = "—"
SLIDES = ["train_1", "train_2", "train_3", "val_1", "test_1", "test_2", "new_1"]  # in the order of the sheet


@pytest.fixture
def table(page: Page, report: Path) -> Page:
    """The cohort's page, opened."""
    page.goto((report / "index.html").as_uri())
    return page


def column(page: Page, name: str) -> list[str]:
    """What stands under a heading, from top to bottom."""
    heads = page.locator("#slide-table thead th").all_inner_texts()
    number = next(n for n, head in enumerate(heads, start=1) if head == name)
    cells = page.locator(f"#slide-table tbody tr :nth-child({number}):is(td, th)").all_inner_texts()
    return [cell.strip() for cell in cells]


def numbers(cells: list[str]) -> list[float]:
    return [float(cell) for cell in cells if cell != MISSING]


def sort_by(page: Page, name: str) -> None:
    page.locator("#slide-table thead button").filter(has_text=re.compile(f"^{name}$")).click()


def test_the_table_has_the_order_of_the_sheet(table: Page) -> None:
    assert column(table, "Slide") == SLIDES


@pytest.mark.parametrize("name", ["Lesions", "Lesion area, mm²", "Dice", "AUROC", "Stain angle, °"])
def test_numbers_sort_as_numbers_and_gaps_come_last(table: Page, name: str) -> None:
    before = column(table, name)
    gaps = [MISSING] * before.count(MISSING)
    assert len(gaps) == (4 if name in ("Dice", "AUROC") else 0)
    for falling in (False, True, False):
        sort_by(table, name)
        after = column(table, name)
        assert numbers(after) == sorted(numbers(before), reverse=falling)
        assert after[len(before) - len(gaps) :] == gaps
        state = table.locator("#slide-table thead th[aria-sort]")
        assert state.all_inner_texts() == [name]
        assert state.get_attribute("aria-sort") == ("descending" if falling else "ascending")
