from importlib.metadata import version
from subprocess import run

from lesionmap.software import commit, versions


def git(folder, *arguments):
    name = ("-c", "user.name=someone", "-c", "user.email=someone@example.org")
    return run(["git", "-C", folder, *name, *arguments], check=True, capture_output=True, text=True).stdout.strip()


def test_the_commit_is_that_of_the_checkout_and_says_if_files_were_changed(tmp_path):
    git(tmp_path, "init")
    (tmp_path / "file").write_text("as committed")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "--message", "first")
    git(tmp_path, "tag", "v1")
    head = git(tmp_path, "rev-parse", "HEAD")[:12]
    assert commit(tmp_path) == head
    (tmp_path / "file").write_text("changed")
    assert commit(tmp_path) == f"{head}-dirty"


def test_without_a_checkout_there_is_no_commit(tmp_path):
    assert commit(tmp_path) is None


def test_versions_are_those_that_are_installed():
    assert versions()["torch"] == version("torch")
