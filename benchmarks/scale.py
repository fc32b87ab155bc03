"""How long Snakemake plans cohorts of 100, 1,000 and 10,000 slides, and in how much memory; ``make bench-scale``.

That a cohort is done is not assumed but asked of Snakemake, which must find nothing to do, and after a change just the
jobs that follow from it. The last line is the one to quote.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import yaml
from lesionmap.demo.cohort import write_cohort
from lesionmap.demo.painting import DemoSlide
from lesionmap.files.records import read_json, read_table, write_table
from lesionmap.run.costs import SPLITS_OF_RULE
from scale_cohort import (
    ANNOTATIONS,
    MANIFEST,
    link_files,
    multiply,
    multiply_inspection,
    own_files,
    write_floor,
    write_sheet,
)

ROOT = Path(__file__).parents[1]
ADDED, CHANGED = 100, "changed"
N_FOLDS = 5  # config/config.yaml
EACH = (  # rules that experiments run once for each slide that takes part
    *("find_tissue", "fit_stain", "match_stain", "extract_tiles"),
    *("map_held_out", "find_held_out_lesions", "evaluate_held_out"),
)
FIRST = {"inspect_slide", "build_manifest"}  # what a run does before it knows the rest
SETTINGS: dict[str, Any] = {
    "slides": {"sheet": "slides.tsv"},
    "on_quarantine": "warn",
    "tissue": {"mpp": 4.0, "min_area_um2": 500, "min_hole_um2": 500},
    "stain": {"n_pixels": 20000},
    "tiles": {"region_px": 512, "tile_px": 64},
    "model": {"backbone": "resnet18", "weights": "none", "norm": "group"},
    "train": {"epochs": 1, "tile_batch": 16},
    "inference": {"batch_size": 16},
}
ROW = "{:<10} {:>6}  {:<22} {:>7} {:>7} {:>8}  {}\n"


@dataclass(frozen=True)
class Mode:
    """A kind of cohort.

    Parameters
    ----------
    slides : tuple of DemoSlide
        Those that really go through the workflow.
    mix : tuple of str
        Whose copies the others are, in turn.
    changed : str
        Whose copy is the slide that changes, and those that are added: one that no weight is fitted to.
    cohort, changed_cohort : frozenset of str
        Rules of the cohort that are to run from scratch, and when one slide has changed.
    """

    name: str
    slides: tuple[DemoSlide, ...]
    mix: tuple[str, ...]
    changed: str
    cohort: frozenset[str]
    changed_cohort: frozenset[str]


SHOWN = frozenset({"compare_stains", "list_findings", "list_quarantine", "render_report", "conclude"})
EVALUATED = SHOWN | {"summarise", "plot_metrics"}
TRAINED = EVALUATED | {
    "choose_reference",
    "train",
    "publish_model",
    "export_model",
    "plot_learning_curves",
    "describe_model",
    "summarise_tiles",
}
MODES = (
    Mode(
        "training",
        (
            DemoSlide("stem-train-a", 1000, 780, 1, "train", "qupath"),
            DemoSlide("stem-train-b", 1010, 770, 2, "train", "qupath"),
            DemoSlide("stem-val", 980, 790, 3, "val", "qupath"),
            DemoSlide("stem-test", 990, 800, 4, "test", "qupath"),
        ),
        ("stem-train-a", "stem-train-b", "stem-train-a", "stem-train-b", "stem-val", "stem-test", "stem-test"),
        "stem-test",
        TRAINED,
        EVALUATED,
    ),
    Mode(
        "inference",
        (DemoSlide("stem-new", 1000, 780, 1, "inference"),),
        ("stem-new",),
        "stem-new",
        EVALUATED | {"choose_reference", "export_model", "describe_model", "summarise_tiles"},
        SHOWN,
    ),
)


@dataclass(frozen=True)
class Plan:
    """What one call of Snakemake took, on the clock and of processors, and the jobs that it announced, by rule."""

    seconds: float
    cpu_s: float
    rss_mb: float
    jobs: Mapping[str, int]

    def expect(self, jobs: Mapping[str, int], what: str) -> "Plan":
        """Itself, if its jobs are those that it should have."""
        if dict(self.jobs) != dict(jobs):
            raise SystemExit(f"{what}: planned\n  {sorted(self.jobs.items())}\ninstead of\n  {sorted(jobs.items())}")
        return self


@dataclass(frozen=True)
class Project:
    """A folder that Snakemake is run in, and what it is told."""

    folder: Path
    options: tuple[str, ...]

    def run(self, *arguments: str) -> Plan:
        """Call Snakemake with some arguments more."""
        command = [sys.executable, "-m", "snakemake", "--cores", "2", *arguments, *self.options]
        printed = self.folder / "printed.txt"
        start = time.perf_counter()
        with open(printed, "w", encoding="utf-8") as stream:
            process = subprocess.Popen(command, cwd=self.folder, stdout=stream, stderr=subprocess.STDOUT)  # noqa: S603  # our own
            _, status, usage = os.wait4(process.pid, 0)
        seconds, text = time.perf_counter() - start, printed.read_text(encoding="utf-8")
        if status:
            raise SystemExit(f"Snakemake failed:\n{text[-5000:]}")
        return Plan(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, _jobs(text))

    def plan(self) -> Plan:
        """That of a dry run which prints numbers of jobs only, as to print each takes its time, too."""
        return self.run("--dry-run", "--quiet", "rules")


def _jobs(printed: str) -> dict[str, int]:
    """Jobs by rule, of the last table that Snakemake printed; empty if there is nothing to be done."""
    if "Job stats:" not in printed:
        return {}
    table = printed.rsplit("Job stats:", 1)[1].split("total")[0]
    counts = re.findall(r"^(\w+) +(\d+)$", table, flags=re.MULTILINE)
    return {rule: int(count) for rule, count in counts if rule != "all"}


def ours(folder: Path) -> Project:
    """LesionMap in a folder."""
    options = ["--snakefile", str(ROOT / "Snakefile"), "--workflow-profile", str(ROOT / "profiles/default")]
    return Project(folder, (*options, "--configfile", "config.yaml"))


def floor(folder: Path) -> Project:
    """A bare workflow of the same files in the same folder; it has no parameters that could have changed."""
    options = ["--snakefile", "floor.smk", "--workflow-profile", "none", "--rerun-triggers", "mtime", "input"]
    return Project(folder, tuple(options))


def finish_few(mode: Mode, folder: Path, model: Path | None) -> None:
    """Take the mode's slides through the whole workflow."""
    write_cohort(folder, mode.slides, jpeg_quality=None)
    settings = SETTINGS
    if model:
        shutil.copy2(model, folder / "model.safetensors")
        settings = SETTINGS | {"model": {**SETTINGS["model"], "path": "model.safetensors"}}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    ours(folder).run()
    ours(folder).plan().expect({}, "after a whole run")


def copies_of(mode: Mode, few: Path, n: int) -> dict[str, list[str]]:
    """Names of `n` slides by the slide that they are copies of; the stain reference, on which all hang, has none."""
    reference = read_json(few / "results/stain/reference/profile.json").get("slide")
    copies = {slide.name: [slide.name] for slide in mode.slides}
    copies[mode.changed].append(CHANGED)
    of = [slide for slide in mode.mix if slide != reference]
    for number, slide in enumerate(islice(cycle(of), n - len(mode.slides) - 1)):
        copies[slide].append(f"slide_{number:05}")
    return copies


def jobs_after_inspection(mode: Mode, copies: Mapping[str, list[str]], cohort: frozenset[str]) -> dict[str, int]:
    """What is to be done for some slides once the manifest lists them."""
    jobs = Counter(cohort)
    for slide in mode.slides:
        for rule in (rule for rule, splits in SPLITS_OF_RULE.items() if slide.split in splits):
            jobs[rule] += len(copies.get(slide.name, ()))
    return {rule: count for rule, count in jobs.items() if count}


class Measured:
    """The plans of one cohort, printed as they are made."""

    def __init__(self, mode: str, n: int) -> None:
        self.mode, self.n = mode, n
        self.plans: dict[str, Plan] = {}

    def add(self, what: str, plan: Plan, jobs: Mapping[str, int]) -> None:
        """Keep and print a plan, if its jobs are those that it should have."""
        self.plans[what] = plan.expect(jobs, f"{self.mode}, {self.n} slides, {what}")
        numbers = f"{plan.seconds:.1f}", f"{plan.cpu_s:.1f}", f"{plan.rss_mb:.0f}"
        sys.stdout.write(ROW.format(self.mode, self.n, what, *numbers, f"{sum(jobs.values())} jobs"))
        sys.stdout.flush()

    def add_first(self, what: str, plan: Plan, n_inspected: int) -> None:
        """The same of a plan before the manifest, which knows of the other rules just that they will follow."""
        jobs = {rule: count for rule, count in plan.jobs.items() if rule in FIRST}
        self.add(
            what, Plan(plan.seconds, plan.cpu_s, plan.rss_mb, jobs), {"inspect_slide": n_inspected, "build_manifest": 1}
        )

    def quoted(self) -> str:
        """The line of the largest cohort."""
        seconds = {what: plan.seconds for what, plan in self.plans.items()}
        rss_mb = max(plan.rss_mb for what, plan in self.plans.items() if "floor" not in what)
        return (
            f"scale: n={self.n} cold={seconds['cold']:.1f}s noop={seconds['noop']:.1f}s "
            f"one_changed={seconds['one changed']:.1f}s rss_mb={rss_mb:.0f}\n"
        )


def measure(mode: Mode, few: Path, many: Path, n: int) -> Measured:
    """Plan a cohort of `n` slides from scratch, done, with a changed slide and with a hundred more."""
    copies, measured = copies_of(mode, few, n), Measured(mode.name, n)
    everything = jobs_after_inspection(mode, copies, mode.cohort)
    multiply(few, many / "cold", copies, done=False)
    write_floor(few, copies, many / "cold")
    annotated = sum(len(copies[slide.name]) for slide in mode.slides if slide.split != "inference")
    before = {"inspect_slide": n, "build_manifest": 1}  # no file is made from the table of annotations
    before |= {"import_annotation": annotated} if annotated else {}
    measured.add("cold, floor", floor(many / "cold").plan(), everything | before)
    measured.add_first("cold, to first job", ours(many / "cold").plan(), n)
    multiply_inspection(few, many / "cold", copies)
    measured.add("cold", ours(many / "cold").plan(), everything)
    if "train" in mode.cohort:
        measure_experiments(mode, many / "cold", copies, measured)
    shutil.rmtree(many / "cold")

    multiply(few, many / "done", copies, done=True)
    write_floor(few, copies, many / "done")
    measured.add("noop, floor", floor(many / "done").plan(), {})
    measured.add("noop", ours(many / "done").plan(), {})
    measure_added(mode, few, many / "done", copies, measured)
    measure_changed(mode, many / "done", measured)
    shutil.rmtree(many / "done")
    return measured


def measure_experiments(mode: Mode, many: Path, copies: Mapping[str, list[str]], measured: Measured) -> None:
    """Plan experiments with five folds from scratch, once it is known which slide is in which."""
    rows = read_table(many / MANIFEST)
    own = [row | {"identity": f"{number:064x}"} for number, row in enumerate(rows)]  # copies would share a fold
    dates = (many / MANIFEST).stat()
    write_table(many / MANIFEST, own, list(rows[0]))
    os.utime(many / MANIFEST, ns=(dates.st_atime_ns, dates.st_mtime_ns))
    ours(many).run("results/experiments/folds.tsv")
    n = sum(len(copies[slide.name]) for slide in mode.slides if slide.split in ("train", "val"))
    jobs = dict.fromkeys(("train_fold", "publish_fold_model", "export_fold_model"), N_FOLDS) | dict.fromkeys(EACH, n)
    once = ("choose_reference", "compare_variants", "plot_variants", "report_experiments", "experiments")
    plan = ours(many).run("--dry-run", "experiments", "--quiet", "rules")
    measured.add("experiments, 5 folds", plan, jobs | dict.fromkeys(once, 1))


def measure_added(mode: Mode, few: Path, many: Path, copies: dict[str, list[str]], measured: Measured) -> None:
    """Plan a hundred slides more, and take them out again."""
    names = [f"added_{number:03}" for number in range(ADDED)]
    added = {slide: names if slide == mode.changed else [] for slide in copies}
    link_files(few, many, added, "slides", "annotations")
    more = copies | {mode.changed: copies[mode.changed] + names}
    write_sheet(few, many, more)
    measured.add_first("100 added, to first job", ours(many).plan(), ADDED)
    multiply_inspection(few, many, more)
    measured.add("100 added", ours(many).plan(), jobs_after_inspection(mode, added, mode.changed_cohort))
    write_sheet(few, many, copies)
    multiply_inspection(few, many, copies)


def measure_changed(mode: Mode, many: Path, measured: Measured) -> None:
    """Plan the jobs that follow from other bytes in one slide."""
    own_files(many, CHANGED)
    with open(many / f"slides/{CHANGED}.tif", "ab") as slide:
        slide.write(b"changed")
    measured.add_first("one changed, to first job", ours(many).plan(), 1)
    ours(many).run(MANIFEST)
    ours(many).run(ANNOTATIONS)
    one = jobs_after_inspection(mode, {mode.changed: [CHANGED]}, mode.changed_cohort)
    measured.add("one changed", ours(many).plan(), one)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slides", type=int, nargs="+", default=[100, 1000, 10000])
    parser.add_argument(
        "--folder", type=Path, help="where there are 3 GB and half a million files to spare; default: /tmp"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="lesionmap-scale-") as name:
        folder, model, largest = Path(name), None, []
        sys.stdout.write(ROW.format("cohort", "slides", "plan", "s", "CPU s", "RSS MB", ""))
        for mode in MODES:
            few = folder / mode.name
            finish_few(mode, few, model)
            model = few / "results/model/lesionmap.safetensors"
            largest.append([measure(mode, few, folder / "many", n) for n in options.slides][-1])
    worst = max(largest, key=lambda measured: measured.plans["noop"].seconds)
    sys.stdout.write(f"the slower of both kinds is {worst.mode}:\n{worst.quoted()}")


if __name__ == "__main__":
    main()
