"""Runs that faults befall, and what they are held against."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from project import Project, environment

# No job of their own; a download, for which there is no network; what removes slides that are off the sheet.
TARGETS = {"all", "slides", "tissue", "annotations", "stain", "tiles", "model", "maps", "metrics", "experiments"}
# The same jobs as others with other paths, and those that divide and compare: a run of theirs takes minutes.
OF_EXPERIMENTS = {
    *("assign_folds", "train_fold", "publish_fold_model", "export_fold_model", "map_held_out", "map_ensemble"),
    *("find_held_out_lesions", "evaluate_held_out", "compare_variants", "plot_variants", "report_experiments"),
}
SPARED = {*TARGETS, *OF_EXPERIMENTS, "fetch_backbone", "prune_listed"}
# They say how long the run took, and where it took place.
OF_ONE_RUN = {"report/index.html", "review/slides.tsv", "review/import.groovy"}


@dataclass(frozen=True)
class Fault:
    """What befalls the first job of each rule of a project, by injected/sitecustomize.py.

    Parameters
    ----------
    project : Project
    notes : Path
        An empty folder, which then has a file for each rule that the fault has befallen.
    kind : str
        ``killed job``, ``killed run`` or ``full disk``.
    """

    project: Project
    notes: Path
    kind: str

    def attempt(self, *targets: str) -> tuple[bool, str]:
        """Run Snakemake; whether it ended well, and what it printed."""
        injected = os.pathsep.join(
            [str(Path(__file__).parent / "injected"), *filter(None, [os.environ.get("PYTHONPATH")])]
        )
        fault = {"FAULT": self.kind, "FAULT_NOTES": str(self.notes), "PYTHONPATH": injected}
        done = subprocess.run(
            self.project.command(*targets),
            capture_output=True,
            text=True,
            env=environment() | fault,
            timeout=600,
            check=False,
            start_new_session=True,
        )
        return done.returncode == 0, done.stdout + done.stderr

    def befallen(self) -> set[str]:
        """The rules that the fault has befallen."""
        return {path.name for path in self.notes.iterdir() if not path.suffix}


def rules(project: Project) -> set[str]:
    """Those of the workflow that a fault can befall."""
    listed = project.run("--list-rules").splitlines()
    found = {line.split(" ")[0] for line in listed if " (" in line}
    assert "train" in found
    return found - SPARED


def differing(project: Project, unbroken: Project) -> set[str]:
    """The results that are not those of an unbroken run."""
    ours, theirs = project.results(), unbroken.results()
    return {name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)} - OF_ONE_RUN
