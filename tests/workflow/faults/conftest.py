"""A cohort that is as small as it can be, after an unbroken run of every rule, and before any."""

import copy
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from disks import Disk
from filelock import FileLock
from lesionmap.demo.cohort import write_cohort
from lesionmap.demo.painting import DemoSlide
from lesionmap.files.records import read_table, write_table
from project import Project

SMALLEST = (
    DemoSlide("train_1", 780, 620, 1, "train", "qupath"),
    DemoSlide("test_1", 680, 540, 3, "test", "qupath"),
)


def add_second_reader(folder):
    """Let a second reader, who agrees with the first, annotate the test slide."""
    shutil.copy(folder / "annotations/test_1.geojson", folder / "annotations/second.geojson")
    rows = read_table(folder / "slides.tsv")
    second = {"test_1": "annotations/second.geojson"}
    write_table(
        folder / "slides.tsv",
        [row | {"annotation_2": second.get(row["slide"], "")} for row in rows],
        [*rows[0], "annotation_2"],
    )


@pytest.fixture(scope="session")
def unbroken(tmp_path_factory) -> Project:
    """The cohort after a run of all rules; shared by all test processes, not to be changed."""
    shared = tmp_path_factory.getbasetemp().parent / "unbroken-cohort"
    project = Project(shared)
    project.config["exports"] = {"dicom": "always"}
    with FileLock(f"{shared}.lock"):
        other = shared / "other"
        if not other.exists():
            write_cohort(shared, SMALLEST, jpeg_quality=None)
            add_second_reader(shared)
            project.run()
            shutil.copytree(shared / "results/metrics", other)
        project.config["evaluation"] = {"compare": {"the same": "other"}}
        project.run()
        project.run("doctor")
        project.run("prune")
        project.run("review")
        project.run()  # which compares with what was reviewed
    return project


@pytest.fixture
def new(unbroken, tmp_path) -> Callable[[str], Project]:
    """A function that gives the cohort as it is before any run, in a folder of some name."""

    def create(name: str) -> Project:
        folder = tmp_path / name
        for part in ("slides", "annotations", "other"):
            shutil.copytree(unbroken.folder / part, folder / part)
        shutil.copy(unbroken.folder / "slides.tsv", folder)
        return Project(folder, config=copy.deepcopy(unbroken.config))

    return create


@pytest.fixture
def project(unbroken, tmp_path) -> Project:
    """A copy of the finished cohort."""
    shutil.copytree(unbroken.folder, tmp_path / "project", copy_function=shutil.copy2, symlinks=True)
    return Project(tmp_path / "project", config=copy.deepcopy(unbroken.config))


@pytest.fixture
def disk() -> Iterator[Callable[..., Disk]]:
    """A function that mounts something on a folder, for the time of a test."""
    mounted = []

    def mount(folder: Path, *what: str) -> Disk:
        (made := Disk(folder)).mount(*what)
        mounted.append(made)
        return made

    yield mount
    for made in mounted:
        made.unmount()
