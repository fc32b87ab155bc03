import pandas as pd
import pytest
from lesionmap.errors import ExportError, SlideError
from lesionmap.files.records import write_json
from lesionmap.jobs.quarantine import write_quarantined
from lesionmap.run.quarantine_tables import RunFiles, list_quarantine, show_quarantine


def test_one_table_has_what_every_stage_found(tmp_path, records, tables):
    reason = SlideError(slide="NA", stage="extract_tiles", finding="2 of 3 boxes cannot be read", remedy="copy it")
    other = SlideError(slide="b", stage="import_annotation", finding="classes", remedy="map them")
    paths = [str(tmp_path / name) for name in ("tiles.json", "NA.geojson", "metrics.json")]
    write_quarantined(paths[:1], reason)
    write_json(paths[1], {"slide": "NA", "unreadable": []})
    write_quarantined(paths[2:], other)
    list_quarantine(
        RunFiles(records, paths[:1], paths[1:2], paths[2:]), tables.quarantine, tables.unreadable, tables.failed_exports
    )
    table = pd.read_csv(tables.quarantine, sep="\t", keep_default_na=False)
    assert table.to_numpy().tolist() == [
        ["c", "train", "inspect_slide", "it is empty", "copy it again"],
        ["NA", "train", "extract_tiles", "2 of 3 boxes cannot be read", "copy it"],
        ["b", "test", "import_annotation", "classes", "map them"],
    ]


def test_a_reason_that_is_handed_on_is_listed_once(tmp_path, records, tables):
    reason = SlideError(slide="b", stage="find_tissue", finding="no tissue", remedy="remove it")
    paths = [str(tmp_path / name) for name in ("b.geojson", "metrics.json")]
    write_quarantined(paths, reason)
    list_quarantine(RunFiles(records, others=paths), tables.quarantine, tables.unreadable, tables.failed_exports)
    assert list(pd.read_csv(tables.quarantine, sep="\t", keep_default_na=False)["slide"]) == ["c", "b"]


def test_a_failed_export_puts_no_slide_into_quarantine(tmp_path, records, tables):
    failed = ExportError(slide="b", stage="write_dicom", finding="no UID", remedy="export it")
    handed_on = SlideError(slide="NA", stage="find_tissue", finding="no tissue", remedy="remove it")
    paths = [str(tmp_path / name) for name in ("b.dcm", "NA.dcm")]
    write_quarantined(paths[:1], failed)
    write_quarantined(paths[1:], handed_on)
    list_quarantine(RunFiles(records, others=paths), tables.quarantine, tables.unreadable, tables.failed_exports)
    assert list(pd.read_csv(tables.quarantine, sep="\t", keep_default_na=False)["slide"]) == ["c", "NA"]
    table = pd.read_csv(tables.failed_exports, sep="\t", keep_default_na=False)
    assert table.to_numpy().tolist() == [["b", "test", "write_dicom", "no UID", "export it"]]


def test_a_run_that_stops_shows_what_is_in_quarantine_so_far(tmp_path, records, tables, capsys):
    reason = SlideError(slide="NA", stage="find_tissue", finding="no tissue", remedy="remove it")
    write_quarantined([str(tmp_path / "NA.tif")], reason)
    files = RunFiles(records, others=[str(tmp_path / "NA.tif")])
    assert show_quarantine(files, tables.quarantine, tables.unreadable, tables.failed_exports)
    printed = capsys.readouterr().err
    assert "LesionMap, so far: 2 of the sheet's slides in quarantine" in printed
    assert "NA (find_tissue): no tissue" in printed
    assert not show_quarantine(files, tables.quarantine, tables.unreadable, tables.failed_exports)
    assert capsys.readouterr().err == ""  # nothing new
    assert show_quarantine(RunFiles(records[:2]), tables.quarantine, tables.unreadable, tables.failed_exports)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("kind", ["tiles", "maps", "others"])
def test_slides_that_any_stage_refused_are_listed(tmp_path, records, tables, kind):
    path = str(tmp_path / "refused.json")
    write_quarantined([path], SlideError(slide="b", stage="some_stage", finding="damaged", remedy="copy it"))
    list_quarantine(RunFiles(records, **{kind: [path]}), tables.quarantine, tables.unreadable, tables.failed_exports)
    table = pd.read_csv(tables.quarantine, sep="\t")
    assert table[["slide", "stage"]].to_numpy().tolist() == [["c", "inspect_slide"], ["b", "some_stage"]]
    assert pd.read_csv(tables.unreadable, sep="\t").empty
