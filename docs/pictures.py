"""Take the README's pictures of a finished report; run by `make pictures`."""

import argparse
import io
from pathlib import Path

from chromium import open_chromium
from PIL import Image
from playwright.sync_api import Browser

COLOURS = 256  # so that a picture takes a quarter of the room
FADED_IN_MS = 1000  # tiles of the viewer appear slowly


def take(browser: Browser, page_file: Path, picture: Path, size_px: tuple[int, int]) -> None:
    """Save what a window of this size shows of a page."""
    page = browser.new_page(viewport={"width": size_px[0], "height": size_px[1]}, color_scheme="light")
    page.goto(page_file.as_uri(), wait_until="networkidle")
    page.wait_for_timeout(FADED_IN_MS)
    with Image.open(io.BytesIO(page.screenshot())) as shot:
        shot.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(picture, optimize=True)
    page.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path, help="folder of the report")
    parser.add_argument("pictures", type=Path, help="folder to put them in")
    options = parser.parse_args()
    report, pictures = options.report.resolve(), options.pictures
    with open_chromium() as browser:
        take(browser, report / "index.html", pictures / "report.png", (1280, 1500))
        take(browser, report / "slides/test_1.html", pictures / "slide.png", (1280, 900))


if __name__ == "__main__":
    main()
