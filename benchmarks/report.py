"""How long the page of many slides takes to load, and the demo's report to be made; run by `make bench-report`.

The last line is the one to quote.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
from chromium import LAPTOP, open_chromium
from large_cohort import render_large
from playwright.sync_api import Browser

REPEATS = 5
STAGES = ("plot_metrics", "render_report")  # whose jobs make the report
DRAWN = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


def load_s(browser: Browser, index: Path) -> float:
    """Seconds until a page is loaded and drawn, in a new window without a cache."""
    page = browser.new_page(viewport=LAPTOP)
    start = time.perf_counter()
    page.goto(index.as_uri(), wait_until="load")
    page.evaluate(DRAWN)
    seconds = time.perf_counter() - start
    page.close()
    return seconds


def jobs_s(benchmarks: Path) -> float:
    """Seconds that the jobs of the report took, one after another, by Snakemake's own measurement."""
    files = [path for stage in STAGES for path in (benchmarks / f"{stage}.tsv", *(benchmarks / stage).glob("*.tsv"))]
    return sum(float(pd.read_csv(path, sep="\t")["s"].sum()) for path in files if path.exists())


def megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, help="folder of the demo's results")
    parser.add_argument("--slides", type=int, default=200)
    options = parser.parse_args()
    results, slides = options.results, options.slides
    with tempfile.TemporaryDirectory() as folder, open_chromium() as browser:
        start = time.perf_counter()
        index = render_large(results, Path(folder), slides) / "index.html"
        made_s, made_mb = time.perf_counter() - start, megabytes(index.parent)
        sys.stdout.write(f"report of {slides} slides: made in {made_s:.1f} s, tables included; {made_mb:.0f} MB\n")
        load_s(browser, index)  # the first has to wait for the browser itself
        loads = [load_s(browser, index) for _ in range(REPEATS)]
    sys.stdout.write(f"its page, loaded {REPEATS} times: " + " ".join(f"{seconds:.2f}" for seconds in loads) + " s\n")
    demo_s, demo_mb = jobs_s(results / "benchmarks"), megabytes(results / "report")
    sys.stdout.write(
        f"report: slides={slides} load_s={statistics.median(loads):.2f} demo_s={demo_s:.1f} demo_mb={demo_mb:.1f}\n"
    )


if __name__ == "__main__":
    main()
