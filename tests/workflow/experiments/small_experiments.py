"""A tiny cohort and its experiments: slides of seven patients or fewer, two variants, three folds, two seeds."""

import yaml
from lesionmap.demo.painting import DemoSlide
from lesionmap.files.records import write_table
from project import TINY, Project

COHORT = (
    *(DemoSlide(f"train_{n}", 1000 + 8 * n, 780 - 6 * n, n, "train", "qupath") for n in range(1, 5)),
    *(DemoSlide(f"val_{n}", 960 + 8 * n, 800 - 6 * n, 4 + n, "val", "asap") for n in (1, 2, 3)),
    DemoSlide("test_1", 990, 800, 8, "test", "qupath"),
    DemoSlide("new", 900, 700, 9, "inference"),
)
PATIENTS = {"train_1": "p1", "val_1": "p1", "train_2": "p2", "val_2": "p2"}  # as in no split that holds
EXPERIMENTS = {
    "variants": {"plain": {}, "low_only": {"train": {"schedule": "low_only"}}},
    "folds": 3,
    "seeds": [0, 1],
    "ensemble": "low_only",
}
COLUMNS = ("slide", "path", "split", "annotation", "mpp", "patient", "site")


def write_rows(folder, rows):
    """Write the slide sheet."""
    named = [row | {"patient": PATIENTS.get(row["slide"], ""), "site": "north"} for row in rows]
    write_table(folder / "slides.tsv", named, COLUMNS)


def experiments_project(folder):
    """The project in a folder, with its experiments."""
    project = Project(folder)
    project.config = yaml.safe_load(yaml.safe_dump(TINY | {"experiments": EXPERIMENTS}))
    return project
