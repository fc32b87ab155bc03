"""How long Snakemake plans a cohort of 100, 1,000 and 10,000 slides, and in how much memory; ``make bench-scale``.

A few painted slides go through the whole workflow. Every other slide of a cohort is one of them under another name: its
files are hard links, its records in .snakemake are those of the original with the name exchanged. That such a cohort is
done is not assumed but asked of Snakemake, which must find nothing to do, and after a change just the jobs that follow.
The last line is the one to quote.
"""

import argparse
import base64
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import yaml
from lesionmap.demo import DemoSlide, write_cohort
from lesionmap.files import read_json, sha256, write_text
from lesionmap.manifest import build_manifest

ROOT = Path(__file__).parents[1]
ADDED = 100
COHORT = (
    DemoSlide("stem-train-a", 1000, 780, 1, "train", "qupath"),
    DemoSlide("stem-train-b", 1010, 770, 2, "train", "qupath"),
    DemoSlide("stem-val", 980, 790, 3, "val", "qupath"),
    DemoSlide("stem-test", 990, 800, 4, "test", "qupath"),
)
MIX = ("stem-train-a", "stem-train-b", "stem-train-a", "stem-train-b", "stem-val", "stem-test", "stem-test")
TO_MAP = (DemoSlide("stem-new", 1000, 780, 1, "inference"),)
SMALL = {
    "slides": {"sheet": "slides.tsv"},
    "on_quarantine": "warn",
    "tissue": {"mpp": 4.0, "min_area_um2": 500, "min_hole_um2": 500},
    "stain": {"n_pixels": 20000},
    "tiles": {"region_px": 512, "tile_px": 64},
    "model": {"backbone": "resnet18", "weights": "none", "norm": "group"},
    "train": {"epochs": 1, "tile_batch": 16},
    "inference": {"batch_size": 16},
}


@dataclass(frozen=True)
class Plan:
    """What one call of Snakemake took, and the jobs that it announced, by rule."""

    seconds: float
    rss_mb: float
    jobs: Mapping[str, int]


@dataclass(frozen=True)
class Project:
    """A folder that Snakemake is run in, the Snakefile, and what else it is told."""

    folder: Path
    snakefile: Path
    options: tuple[str, ...] = ()

    def run(self, *arguments: str) -> Plan:
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(self.snakefile), "--cores", "2"]
        command += ["--workflow-profile", str(ROOT / "profiles/default"), *arguments, *self.options]
        log = self.folder / "printed.txt"
        start = time.perf_counter()
        with open(log, "w", encoding="utf-8") as printed:
            process = subprocess.Popen(command, cwd=self.folder, stdout=printed, stderr=subprocess.STDOUT)
            _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        text = log.read_text(encoding="utf-8")
        if status:
            raise SystemExit(f"Snakemake failed:\n{text[-5000:]}")
        return Plan(seconds, usage.ru_maxrss / 1024, _jobs(text))

    def plan(self, *arguments: str) -> Plan:
        """What a dry run takes; only numbers of jobs are printed, as printing tens of thousands takes its time, too."""
        return self.run("--dry-run", "--quiet", "rules", *arguments)



def _jobs(printed: str) -> dict[str, int]:
    """Jobs by rule, from the first table that Snakemake prints; empty if there is nothing to be done."""
    if "Nothing to be done" in printed:
        return {}
    table = printed.split("Job stats:", 1)[1].split("\n\n", 1)[0]
    counts = re.findall(r"^(\w+) +(\d+)$", table, flags=re.MULTILINE)
    return {rule: int(count) for rule, count in counts if rule not in ("total", "all")}


class Records:
    """Snakemake's records of finished outputs: a JSON file each in .snakemake/metadata."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / ".snakemake/metadata"
        self.folder.mkdir(parents=True, exist_ok=True)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Outputs, and their records as they stand."""
        for path in self.folder.iterdir():
            yield base64.urlsafe_b64decode(path.name).decode(), path.read_text(encoding="utf-8")

    def write(self, output: str, record: str) -> None:
        (self.folder / base64.urlsafe_b64encode(output.encode()).decode()).write_text(record, encoding="utf-8")


def multiply(stem: Path, target: Path, copies: Mapping[str, Sequence[str]], *, done: bool = True) -> None:
    """Make a finished folder of few slides one of many.

    Parameters
    ----------
    stem, target : Path
        The first stays as it is.
    copies : mapping
        Slide of `stem` → names under which `target` has it.
    done : bool
        False: only slides and annotations are there, no results.
    """
    rows = _rows(stem)
    sheet = [rows[slide].replace(slide, copy) for slide in copies for copy in copies[slide]]
    write_text(target / "slides.tsv", "\n".join([rows["slide"], *sheet, ""]))
    shutil.copy(stem / "config.yaml", target)
    for folder in ("slides", "annotations", *(["results"] if done else [])):
        for path in sorted((stem / folder).rglob("*")):
            _link(path, path.relative_to(stem), target, copies)
