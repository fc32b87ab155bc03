import errno
import json
import os
from pathlib import Path

import pytest
from defusedxml import ElementTree
from lesionmap.errors import AnnotationError, ExportError, RemoteError, SettingsError, SlideError, StorageError
from lesionmap.files.records import read_json, write_json
from lesionmap.jobs.quarantine import export_job, in_folder, plot_job, quarantined, slide_job, usable, write_quarantined

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


def export(tmp_path, paths, **options):
    return export_job("s1", str(tmp_path / "logs/write_dicom/s1.log"), *paths, **options)


@pytest.fixture
def log(tmp_path):
    (tmp_path / "logs/write_dicom").mkdir(parents=True)
    return tmp_path / "logs/write_dicom/s1.log"


def test_whatever_goes_wrong_in_an_export_is_recorded(tmp_path, paths, log, capsys, caplog):
    with export(tmp_path, paths, instead="set exports.dicom to never"):
        raise AttributeError("ContributionDateTime;\n it  is absent " + "x" * 999)
    for path in paths[1]:
        failed = quarantined(path)
        assert isinstance(failed, ExportError)
        assert (failed.slide, failed.stage) == ("s1", "write_dicom")
        told = "it ended with an error that nobody foresaw (AttributeError: ContributionDateTime, it is absent xxx"
        assert failed.finding.startswith(told)
        assert len(failed.finding) < 400
        assert failed.remedy == (
            f"set exports.dicom to never, and report it with {log} (delete {paths[1][0]} to try again)"
        )
        assert list(read_json(path)) == ["failed_export"]
    assert usable(paths[1]) == []
    assert "LesionMap: slide s1, write_dicom: it ended" in capsys.readouterr().err
    assert "Traceback" in caplog.text


def test_what_an_export_itself_says_is_recorded_as_it_is(tmp_path, paths, log):
    with export(tmp_path, paths):
        raise SlideError(slide="s1", stage="anything", finding="no UID", remedy="export it")
    assert str(quarantined(paths[1][0])) == "slide s1, write_dicom: no UID. Remedy: export it."


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.EIO, "Input/output error"),
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("write failed (errno = 28)"),  # as HDF5 says it
        ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
        StorageError(stage="write_dicom", finding="full", remedy="free space"),
        RemoteError(stage="write_dicom", finding="no answer", remedy="run again"),
    ],
)
def test_what_the_machine_causes_fails_an_export_too(tmp_path, paths, log, error):
    with pytest.raises((SystemExit, Exception)) as ended, export(tmp_path, paths):
        try:
            raise error
        except Exception as cause:
            raise ValueError("a library's own words") if isinstance(error, OSError | MemoryError) else cause from cause
    assert not isinstance(ended.value, AssertionError)
    assert not any(map(os.path.exists, paths[1]))


@pytest.mark.parametrize("error", [FileNotFoundError(errno.ENOENT, "No such file"), OSError("image file is truncated")])
def test_errors_of_files_and_paths_are_no_failures_of_the_machine(tmp_path, paths, log, error):
    with export(tmp_path, paths):
        raise error
    assert isinstance(quarantined(paths[1][0]), ExportError)


def test_an_export_of_a_slide_in_quarantine_hands_the_reason_on(tmp_path, paths, log):
    write_quarantined(paths[0][1:], REASON)
    with pytest.raises(SystemExit), export(tmp_path, paths):
        raise AssertionError
    assert not isinstance(quarantined(paths[1][0]), ExportError)
    assert str(quarantined(paths[1][0])) == str(REASON)


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


def plots(tmp_path):
    log, outputs = tmp_path / "logs/plot_metrics.log", [str(tmp_path / name) for name in ("roc.svg", "froc.svg")]
    return plot_job(str(log), outputs), outputs


def test_a_plot_that_fails_says_so_in_its_place(tmp_path, capsys, caplog):
    job, outputs = plots(tmp_path)
    with job:
        raise KeyError("<froc> & roc")
    for path in outputs:
        texts = [part.text for part in ElementTree.parse(path).getroot()]
        assert texts[0] == "This plot could not be made (KeyError: '<froc> & roc')."
        assert texts[1] == f"Report it with {tmp_path}/logs/plot_metrics.log; delete the plot's file to try again."
    assert "LesionMap: plot_metrics: This plot could not be made" in capsys.readouterr().err
    assert "Traceback" in caplog.text


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (OSError(errno.ENOSPC, "full"), SystemExit),
        (MemoryError(), MemoryError),
        (SettingsError(stage="s", finding="f", remedy="r"), SystemExit),
    ],
)
def test_plots_fail_by_the_machine_and_by_inputs(tmp_path, error, raised):
    job, outputs = plots(tmp_path)
    with pytest.raises(raised), job:
        raise error
    assert not any(Path(path).exists() for path in outputs)
