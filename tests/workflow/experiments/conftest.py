"""A tiny cohort whose variants have been compared once, and copies of it for each test to change."""

import shutil

import pytest
from filelock import FileLock
from lesionmap.demo.cohort import write_cohort
from lesionmap.files.records import read_table
from small_experiments import COHORT, experiments_project, write_rows


@pytest.fixture(scope="session")
def finished_experiments(tmp_path_factory):
    """The cohort after one whole run of its experiments; shared by all test processes, not to be changed."""
    shared = tmp_path_factory.getbasetemp().parent / "finished-experiments"
    project = experiments_project(shared)
    with FileLock(f"{shared}.lock"):
        if not (shared / "results/experiments/report.html").exists():
            shutil.rmtree(shared, ignore_errors=True)
            write_cohort(shared, COHORT, jpeg_quality=None)
            write_rows(shared, read_table(shared / "slides.tsv"))
            project.run("--cores", "2", "experiments", timeout_s=1800)  # 184 jobs
    return project


@pytest.fixture
def project(finished_experiments, tmp_path):
    """A copy of it."""
    shutil.copytree(finished_experiments.folder, tmp_path / "project", copy_function=shutil.copy2)
    return experiments_project(tmp_path / "project")
