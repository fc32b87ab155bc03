"""Debian's Chromium, as the tests, the benchmark of the report and the README's pictures use it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

LAPTOP = {"width": 1280, "height": 800}


@contextmanager
def open_chromium() -> Iterator[Browser]:
    """Start it without a window; it ends with the block."""
    program = shutil.which("chromium")
    if program is None:
        raise FileNotFoundError("Chromium is missing; install it: apt-get install chromium fonts-dejavu-core")
    without_sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium does not sandbox what root runs
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=without_sandbox)
        yield browser
        browser.close()
