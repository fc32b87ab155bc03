"""A project that is elsewhere now."""

import copy
import shutil

from project import Project


def test_a_project_that_was_moved_has_nothing_to_do_and_names_its_old_place_nowhere(project, unbroken):
    """It was made in the place of `unbroken`. A review says where the slides lie, for QuPath: it is made once more."""
    assert "Nothing to be done" in project.run()
    project.run("review")
    old = str(unbroken.folder).encode()
    assert [name for name, content in project.results().items() if old in content] == []


def test_of_a_copy_without_dates_snakemake_touch_makes_what_it_was(unbroken, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(unbroken.folder, folder, copy_function=shutil.copy)
    project = Project(folder, config=copy.deepcopy(unbroken.config))
    project.run("--touch")
    assert "Nothing to be done" in project.run()
