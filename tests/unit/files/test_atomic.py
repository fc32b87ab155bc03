import os
import socket
import subprocess
from pathlib import Path

import pytest
from lesionmap.files.atomic import folder_written_whole, written_whole
from lesionmap.files.records import read_json, write_json


def test_a_failed_write_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "a.json", {"old": True})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"new": float("nan")})
    with pytest.raises(RuntimeError), written_whole(tmp_path / "a.json") as draft:
        draft.write_text("half")
        raise RuntimeError
    assert read_json(tmp_path / "a.json") == {"old": True}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_the_draft_of_a_dead_writer_is_removed_and_that_of_a_living_one_kept(tmp_path):
    dead = subprocess.Popen(["true"])
    dead.wait()
    host = socket.gethostname()
    left, kept = (tmp_path / f".a.{host}-{number}.json" for number in (dead.pid, os.getppid()))
    for draft in (left, kept):
        draft.write_text("half")
    write_json(tmp_path / "a.json", {})
    assert not left.exists()
    assert kept.exists()


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/old").write_text("old")
    with folder_written_whole(tmp_path / "a") as draft:
        (draft / "new").write_text("new")
        assert (tmp_path / "a/old").exists()
    assert names(tmp_path) == ["a", "a/new"]


def test_a_failure_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "b/a").mkdir(parents=True)
    (tmp_path / "b/a/old").write_text("old")
    with pytest.raises(RuntimeError), folder_written_whole(tmp_path / "b/a") as draft:
        (draft / "new").write_text("new")
        raise RuntimeError
    assert names(tmp_path) == ["b", "b/a", "b/a/old"]


def test_what_a_killed_writer_left_is_no_part_of_the_folder(tmp_path: Path) -> None:
    for name in ("c/.a.draft/left", "c/.ab.draft/of another"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("half")
    with folder_written_whole(tmp_path / "c/a") as draft:
        (draft / "new").write_text("new")
    assert names(tmp_path / "c") == [".ab.draft", ".ab.draft/of another", "a", "a/new"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o007, 0o660), (0o077, 0o600)])
def test_a_file_follows_the_umask_whatever_its_writer_makes_of_it(umask, mode, tmp_path, monkeypatch):
    before = os.umask(umask)
    try:
        for name, own in (("private", 0o600), ("open", 0o666), ("executable", 0o755)):
            with written_whole(tmp_path / name) as draft:
                draft.write_text(name)
                draft.chmod(own)
            assert (tmp_path / name).stat().st_mode & 0o777 == mode
            assert (tmp_path / name).read_text() == name
    finally:
        os.umask(before)
