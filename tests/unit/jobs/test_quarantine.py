import json

import pytest
from lesionmap.errors import AnnotationError, SettingsError, SlideError
from lesionmap.files.records import write_json
from lesionmap.jobs.quarantine import in_folder, quarantined, slide_job, usable, write_quarantined

pytestmark = pytest.mark.slides
REASON = SlideError(slide="s1", stage="find_tissue", finding="no tissue was found", remedy="remove it")


@pytest.fixture
def paths(tmp_path):
    inputs = [str(tmp_path / name) for name in ("a.json", "b.tif")]
    write_json(inputs[0], {"fine": True})
    (tmp_path / "b.tif").write_bytes(b"II*\0")
    return inputs, [str(tmp_path / name) for name in ("out.h5", "out.png")]


def job(tmp_path, paths, slide="s1"):
    return slide_job(slide, str(tmp_path / "log"), *paths)


def test_a_job_that_succeeds_is_left_alone(tmp_path, paths):
    with job(tmp_path, paths):
        write_json(paths[1][0], {})
    assert not (tmp_path / "out.png").exists()
    assert usable([*paths[0], paths[1][0]]) == [*paths[0], paths[1][0]]


def test_an_error_about_the_slide_takes_the_place_of_every_output(tmp_path, paths, capsys, caplog):
    with job(tmp_path, paths):
        raise AnnotationError(slide="s1", stage="import_annotation", finding="it is odd", remedy="mend it")
    expected = {"slide": "s1", "stage": "import_annotation", "finding": "it is odd", "remedy": "mend it"}
    for path in paths[1]:
        with open(path, encoding="utf-8") as stream:
            assert json.load(stream) == {"quarantined": expected}
        assert str(quarantined(path)) == "slide s1, import_annotation: it is odd. Remedy: mend it."
    assert "slide s1, import_annotation: it is odd" in capsys.readouterr().err
    assert "slide s1, import_annotation: it is odd" in caplog.text
    assert usable(paths[1]) == []


def test_a_reason_among_the_inputs_is_handed_on_without_running_the_job(tmp_path, paths):
    write_quarantined(paths[0][1:], REASON)
    ran = []
    with pytest.raises(SystemExit) as ended, job(tmp_path, paths):
        ran.append(True)
    assert ended.value.code == 0
    assert not ran
    assert [str(quarantined(path)) for path in paths[1]] == [str(REASON)] * 2


@pytest.mark.parametrize("error", [SettingsError(stage="config", finding="x", remedy="y"), ValueError("a bug")])
def test_errors_that_are_not_the_slides_fail_the_job(tmp_path, paths, error):
    with pytest.raises((SystemExit, ValueError)) as ended, job(tmp_path, paths):
        raise error
    assert not isinstance(ended.value, SystemExit) or "config: x" in str(ended.value.code)
    assert not (tmp_path / "out.h5").exists()


def test_folders_and_absent_files_are_no_reasons(tmp_path):
    assert quarantined(str(tmp_path)) is None
    assert quarantined(str(tmp_path / "absent")) is None


def test_the_reason_of_a_folder_lies_in_it(tmp_path):
    folder = tmp_path / "view"
    folder.mkdir()
    (folder / "view.js").write_text("{}")
    assert quarantined(str(folder)) is None
    write_quarantined([in_folder(str(folder))], REASON)
    assert str(quarantined(str(folder))) == str(REASON)
    assert quarantined(str(tmp_path / "nowhere")) is None
