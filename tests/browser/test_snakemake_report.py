"""The report that Snakemake makes of the demo (--report), opened from disk."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from playwright.sync_api import Page
from project import ROOT


@pytest.fixture
def snakemake_report(report: Path, tmp_path: Path) -> Path:
    """Its page, unpacked."""
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--directory", str(report.parents[1])]
    configs = ["--configfile", "config/recommended.yaml", "config/demo.yaml", "--report", str(tmp_path / "report.zip")]
    done = subprocess.run([*command, *configs], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(tmp_path / "report.zip") as archive:
        archive.extractall(tmp_path)
    return tmp_path / "report/report.html"


def test_it_shows_a_figure_and_its_caption_without_network(
    page: Page, snakemake_report: Path, screenshots: Path
) -> None:
    page.goto(snakemake_report.as_uri())
    page.get_by_role("link", name="Agreement").first.click()
    row = page.locator("tr", has_text="ROC curve of pixels")
    row.locator("a").first.click()
    picture = page.locator("img[src*='roc.svg']")
    picture.wait_for()
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 100
    row.locator("a").last.click()
    page.get_by_text("Share of lesion pixels predicted as lesion").wait_for()
    page.screenshot(path=screenshots / "snakemake_report.png")
