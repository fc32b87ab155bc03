"""A tiny cohort that has been through the whole workflow once, and copies of it for each test to change."""

import shutil
from pathlib import Path

import pytest
from filelock import FileLock
from lesionmap.demo.cohort import write_cohort
from project import COHORT, ROOT, Project

SOURCES = ("Snakefile", "workflow", "scripts", "profiles", "envs", "config")


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Project:
    """The tiny cohort after one whole run; shared by all test processes, not to be changed."""
    shared = tmp_path_factory.getbasetemp().parent / "finished-cohort"
    project = Project(shared)
    with FileLock(f"{shared}.lock"):
        if not (shared / "results/conclusion.txt").exists():
            shutil.rmtree(shared, ignore_errors=True)
            write_cohort(shared, COHORT, jpeg_quality=None)
            project.run("--cores", "2")  # for which all other test processes wait
    return project


@pytest.fixture
def project(finished, tmp_path) -> Project:
    """A copy of the finished cohort."""
    shutil.copytree(finished.folder, tmp_path / "project", copy_function=shutil.copy2, symlinks=True)
    return Project(tmp_path / "project")


@pytest.fixture
def checkout(project, tmp_path) -> Path:
    """Another checkout of the workflow, all of whose files are newer than the results."""
    for name in SOURCES:
        origin, target = ROOT / name, tmp_path / "checkout" / name
        target.parent.mkdir(exist_ok=True)
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(origin, target, copy_function=shutil.copy, ignore=ignore) if origin.is_dir() else shutil.copy(
            origin, target
        )
    project.source = tmp_path / "checkout"
    return project.source
