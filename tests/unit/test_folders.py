from pathlib import Path

import pytest
from lesionmap.folders import folder_written_whole


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
