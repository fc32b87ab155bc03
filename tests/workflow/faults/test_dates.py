"""Clocks that are wrong: files dated in the future make no run fail late, rerun for ever, or reuse what is old."""

import os
import time

import pytest

HOUR = 3600


def dated(path, seconds):
    date = time.time() + seconds
    os.utime(path, (date, date))


def test_a_slide_from_the_future(project):
    """It is taken for changed when its date changes, and once more when that has passed; its bytes are the same."""
    slide = project.folder / "slides/train_1.tif"
    assert slide.stat().st_size > 1_000_000  # above which Snakemake goes by time, not by checksum
    for hours in (24, -1, 25):
        dated(slide, hours * HOUR)
        assert project.planned() == {"inspect_slide:train_1", "build_manifest"}
        assert "Nothing to be done" in project.run()
    project.run("--forcerun", "find_tissue", "extract_tiles", "--until", "extract_tiles")  # which read it


def test_an_annotation_from_the_future(project):
    """As for a slide: it is imported again, and nothing follows."""
    path = project.folder / "annotations/train_1.geojson"
    for hours in (24, -1):
        dated(path, hours * HOUR)
        assert project.planned() == {"import_annotation:train_1", "list_annotations"}
    assert "Nothing to be done" in project.run()


@pytest.mark.parametrize("name", ["tiles/train_1.h5", "tissue/test_1.tif"])
def test_results_from_the_future_are_refused_before_any_work_and_dated_anew_by_touch(project, name):
    path = project.folder / "results" / name
    dated(path, HOUR)
    project.run("--dry-run")
    printed = project.run("--forcerun", "conclude", ok=False)
    assert f"results dated in the future: 1, of which results/{name} by 60 minutes" in printed
    assert "Remedy: set the clock right" in printed
    assert "rule conclude" not in printed.split("results dated in the future")[1]
    project.run("--touch", "--forceall")
    assert path.stat().st_mtime <= time.time()
    assert "Nothing to be done" in project.run()
