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
    """The numbers in cells, some of which say that they are not independent of the model."""
    return [float(cell.split()[0]) for cell in cells if cell != MISSING]


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


def shown(page: Page) -> list[str]:
    """Names of the slides that can be seen."""
    return page.locator("#slide-table tbody tr:visible th").all_inner_texts()


def announced(page: Page) -> str:
    return page.locator("#slide-count[aria-live=polite]").inner_text()


def test_words_and_the_split_narrow_the_table_down_and_the_count_is_announced(table: Page) -> None:
    assert announced(table) == "7 of 7 shown"
    words, split = table.get_by_label("Show slides with"), table.get_by_label("of the split")
    words.fill("TRAIN")
    assert (shown(table), announced(table)) == (SLIDES[:3], "3 of 7 shown")
    words.fill("_1")
    assert shown(table) == ["train_1", "val_1", "test_1", "new_1"]
    split.select_option("test")
    assert (shown(table), announced(table)) == (["test_1"], "1 of 7 shown")
    words.fill("_1 nothing")
    assert (shown(table), announced(table)) == ([], "0 of 7 shown")
    words.fill("")
    assert shown(table) == ["test_1", "test_2"]
    split.select_option("all")
    assert (shown(table), announced(table)) == (SLIDES, "7 of 7 shown")


def test_the_table_is_sorted_and_filtered_by_keyboard_alone(table: Page) -> None:
    table.get_by_label("Show slides with").focus()
    table.keyboard.type("train")
    table.keyboard.press("Enter")  # which sends nothing and loads nothing
    for _ in range(3):  # the split, the table's frame, the heading Slide
        table.keyboard.press("Tab")
    for _ in range(2):
        table.keyboard.press("Enter")
    assert table.url.endswith("index.html")
    assert shown(table) == ["train_3", "train_2", "train_1"]


@pytest.mark.parametrize("verdict", ["ok", "odd"])
def test_slides_are_found_by_their_verdict(table: Page, verdict: str) -> None:
    verdicts = zip(SLIDES, column(table, "Verdict"), strict=True)
    expected = [name for name, found in verdicts if found.split(":")[0] == verdict]
    table.get_by_label("Show slides with").fill(verdict)
    assert shown(table) == expected
