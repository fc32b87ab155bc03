"""A working directory of the workflow, as tests run and change it."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from lesionmap.demo.painting import DemoSlide

ROOT = Path(__file__).parents[2]
TINY = {
    "slides": {"sheet": "slides.tsv"},
    "on_quarantine": "warn",
    "tissue": {"mpp": 4.0, "min_area_um2": 500, "min_hole_um2": 500},
    "stain": {"reference": "train_1", "n_pixels": 20000},
    "tiles": {"region_px": 512, "tile_px": 64},
    "model": {"backbone": "resnet18", "weights": "none", "norm": "group"},
    "train": {"epochs": 1, "warmup_updates": 0, "tile_batch": 16},
    "inference": {"batch_size": 16},
}
COHORT = (
    DemoSlide("train_1", 1000, 780, 1, "train", "qupath"),
    DemoSlide("train_2", 1010, 770, 2, "train", "asap"),
    DemoSlide("test_1", 990, 800, 3, "test", "qupath"),
    DemoSlide("unreadable", 900, 700, 4, "inference", truncated=True),
)


@dataclass
class Project:
    """A working directory with its slides, config and results, and the checkout that it is run from."""

    folder: Path
    source: Path = ROOT
    profile: Path | None = None  # that of one workstation
    config: dict = field(default_factory=lambda: yaml.safe_load(yaml.safe_dump(TINY)))

    def command(self, *arguments: str) -> list[str]:
        (self.folder / "config.yaml").write_text(yaml.safe_dump(self.config))
        config = str(self.folder / "config.yaml")
        machine = [] if self.profile else ["--cores", "1"]
        return [
            *(sys.executable, "-m", "snakemake", "--snakefile", str(self.source / "Snakefile")),
            *("--workflow-profile", str(self.profile or self.source / "profiles/default")),
            *("--directory", str(self.folder), *machine, *arguments, "--configfile", config),
        ]

    def run(self, *arguments: str, ok: bool = True, timeout_s: int = 600) -> str:
        """Run Snakemake; return all that it printed."""
        done = subprocess.run(
            self.command(*arguments), capture_output=True, text=True, env=environment(), timeout=timeout_s, check=False
        )
        printed = done.stdout + done.stderr
        assert (done.returncode == 0) == ok, printed
        return printed

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start Snakemake and leave it to itself; what it prints goes to printed.txt."""
        with open(self.folder / "printed.txt", "w", encoding="utf-8") as printed:
            return subprocess.Popen(
                self.command(*arguments), stdout=printed, stderr=subprocess.STDOUT, text=True, env=environment()
            )

    def printed(self) -> str:
        """What the Snakemake that was started last has printed so far."""
        return (self.folder / "printed.txt").read_text()

    def planned(self, *targets: str) -> set[str]:
        """The jobs of a run, as rule or rule:slide; empty if there is nothing to be done.

        Taken from a real run, since a dry run does not know what a checkpoint will change.
        """
        return jobs(self.run(*targets))

    def foreseen(self) -> set[str]:
        """The same of a dry run, which takes a tenth of the time: what it knows of if no checkpoint runs."""
        return jobs(self.run("--dry-run"))

    def results(self) -> dict[str, bytes]:
        """All artefacts but those with times: path → bytes."""
        folder = self.folder / "results"
        timed = ("benchmarks", "summary.tsv", "doctor.tsv", "doctor.json", "machine_costs.json")
        files = [path for path in folder.rglob("*") if path.is_file() and not set(timed) & set(path.parts)]
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def environment() -> dict[str, str]:
    """This process's environment, as a user's would be."""
    return {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}


def jobs(printed: str) -> set[str]:
    """The jobs that a run announced."""
    blocks = re.split(r"\n(?:local)?(?:rule|checkpoint) ", "\n" + printed)[1:]
    found = set()
    for block in blocks:
        slide = re.search(r"wildcards: slide=(\S+)", block.split("\n\n")[0].split("\n[")[0])
        found.add(block.split(":")[0] + (f":{slide[1]}" if slide else ""))
    return found - {"all"}
