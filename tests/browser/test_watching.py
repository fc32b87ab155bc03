"""The watch that is kept over all other tests' pages notices what no page may do."""

from pathlib import Path

import pytest
from playwright.sync_api import Page


@pytest.mark.parametrize(
    ("body", "noticed"),
    [
        ("<script>console.error('odd')</script>", ["odd"]),
        ("<script>throw new Error('odd')</script>", ["uncaught: odd"]),
        (
            "<img src='absent.png'>",
            ["Failed to load resource: net::ERR_FILE_NOT_FOUND", "net::ERR_FILE_NOT_FOUND: {folder}/absent.png"],
        ),
        (
            "<img src='http://localhost:9/a.png'>",
            [
                "Failed to load resource: net::ERR_INTERNET_DISCONNECTED",
                "net::ERR_INTERNET_DISCONNECTED: http://localhost:9/a.png",
                "request over a network: http://localhost:9/a.png",
            ],
        ),
        ("<script>console.log('fine')</script><img src='data:image/gif;base64,R0lGODlhAQABAAAAACw='>", []),
    ],
)
def test_what_no_page_may_do_is_noticed(
    page: Page, complaints: list[str], tmp_path: Path, body: str, noticed: list[str]
) -> None:
    (tmp_path / "page.html").write_text(f"<!doctype html><title>A page</title>{body}")
    page.goto((tmp_path / "page.html").as_uri())
    page.wait_for_timeout(100)
    found = sorted(complaints)
    complaints.clear()
    assert found == [text.format(folder=tmp_path.as_uri()) for text in noticed]
