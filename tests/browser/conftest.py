"""A real browser, Debian's Chromium driven by Playwright, and the report that `make demo` leaves."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from chromium import LAPTOP, open_chromium
from playwright.sync_api import Browser, Page, Request

ROOT = Path(__file__).parents[2]
LOCAL = ("file", "data", "blob")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Headless Chromium."""
    with open_chromium() as browser:
        yield browser


@pytest.fixture
def complaints() -> Iterator[list[str]]:
    """What the test's pages did that no page may do: log an error, ask for what is not there, or use a network.

    The test fails if any are left at its end.
    """
    found: list[str] = []
    yield found
    assert found == []


@pytest.fixture
def new_page(browser: Browser, complaints: list[str]) -> Iterator[Callable[..., Page]]:
    """Open a watched page of the size of a laptop, in a context of its own with the options given."""
    contexts = []

    def open_page(**options: object) -> Page:
        context = browser.new_context(**({"viewport": LAPTOP, "offline": True} | options))
        contexts.append(context)
        page = context.new_page()
        _watch(page, complaints)
        return page

    yield open_page
    for context in contexts:
        context.close()


def _watch(page: Page, complaints: list[str]) -> None:
    """Note what a page should not do."""

    def failed(request: Request) -> None:
        if request.failure != "net::ERR_ABORTED":  # the page itself no longer wants it, as a picture out of view
            complaints.append(f"{request.failure}: {request.url}")

    def asked(request: Request) -> None:
        if urlsplit(request.url).scheme not in LOCAL:
            complaints.append(f"request over a network: {request.url}")

    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(f"uncaught: {error}"))
    page.on("requestfailed", failed)
    page.on("request", asked)
    page.on("websocket", lambda socket: complaints.append(f"web socket: {socket.url}"))


@pytest.fixture
def page(new_page: Callable[..., Page]) -> Page:
    """A watched page of the size of a laptop."""
    return new_page()


@pytest.fixture(scope="session")
def report() -> Path:
    """Folder of the demo's report, not to be changed."""
    folder = (ROOT / os.environ.get("DEMO_DIR", "demo") / "results/report").resolve()
    if not (folder / "index.html").is_file():
        pytest.fail(f"There is no report in {folder}; run: make demo")
    return folder


@pytest.fixture(scope="session")
def screenshots() -> Path:
    """Folder of the pictures that tests keep to be looked at; git-ignored."""
    folder = ROOT / "logs/screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
