from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from lesionmap.errors import ExportError, LesionMapError, SlideError
from lesionmap.evaluation.findings import SLIDES
from lesionmap.files.records import write_json, write_table
from lesionmap.geometry.tiling import TileSpec
from lesionmap.jobs.quarantine import write_quarantined
from lesionmap.run.conclusion import conclude
from lesionmap.run.quarantine_tables import RunFiles, list_quarantine
from lesionmap.tiles.codec import TileCodec
from lesionmap.tiles.extraction import write_record
from lesionmap.tiles.store import Region, new_store, packed


def test_parts_that_were_left_out_are_listed_with_their_place(tmp_path, records, tables):
    store = str(tmp_path / "NA.h5")
    pixels = np.zeros((1, 32, 32, 3), dtype=np.uint8)
    region = Region((0.0, 0.0), pixels[0], *[pixels[0, ..., 0]] * 2, np.zeros((1, 2), np.uint8), pixels, pixels[..., 0])
    with new_store(store, TileSpec(64, 32, 0.25), {"slide": "NA"}, TileCodec()) as writer:
        writer.append(packed(region, TileCodec()))
        writer.skip((64.0, 128.5, 64.0, 64.0))
        writer.skip((0.0, 64.0, 64.0, 64.0))
    write_record(store, tmp_path / "tiles.json")
    write_json(tmp_path / "inference.json", {"slide": "b", "unreadable": [[0, 10, 20, 30]]})
    results = [str(tmp_path / "inference.json")]
    list_quarantine(
        RunFiles(records, [str(tmp_path / "tiles.json")], results),
        tables.quarantine,
        tables.unreadable,
        tables.failed_exports,
    )
    assert pd.read_csv(tables.unreadable, sep="\t", keep_default_na=False).to_numpy().tolist() == [
        ["NA", "extract_tiles", 64.0, 128.5, 64.0, 64.0],
        ["NA", "extract_tiles", 0.0, 64.0, 64.0, 64.0],
        ["b", "map_slide", 0.0, 10.0, 20.0, 30.0],
    ]


def test_a_slide_that_two_stages_refuse_counts_once_and_is_not_called_used(tmp_path, records, tables, capsys):
    paths = [str(tmp_path / name) for name in ("tiles.json", "b.geojson")]
    for path, stage in zip(paths, ("extract_tiles", "map_slide"), strict=True):
        write_quarantined([path], SlideError(slide="b", stage=stage, finding="damaged", remedy="copy it"))
    list_quarantine(
        RunFiles(records, paths[:1], paths[1:]), tables.quarantine, tables.unreadable, tables.failed_exports
    )
    conclude(tables, str(tmp_path / "end.txt"), fail=False)
    printed = capsys.readouterr().err
    assert "2 of the sheet's slides in quarantine" in printed  # b and c
    assert "used, but flagged" not in printed


@pytest.mark.parametrize("fail", [False, True])
def test_the_end_follows_the_policy(tmp_path, tables, fail, capsys):
    if fail:
        with pytest.raises(LesionMapError, match="everything else is done, except for 1 slide in quarantine"):
            conclude(tables, str(tmp_path / "end.txt"), fail=True)
    else:
        conclude(tables, str(tmp_path / "end.txt"), fail=False)
    assert (tmp_path / "end.txt").exists() is not fail
    printed = capsys.readouterr().err
    assert "Dice 0.9" in printed
    assert "c (inspect_slide): it is empty. Remedy: copy it again." in printed
    assert 'b: it is pale; it is "small"' in printed


@pytest.mark.parametrize("fail", [False, True])
def test_a_failed_export_counts_although_its_slide_is_used(tmp_path, records, tables, fail, capsys):
    failed = ExportError(slide="b", stage="write_dicom", finding="no UID", remedy="export it")
    write_quarantined([str(tmp_path / "b.dcm")], failed)
    files = RunFiles(records[:2], others=[str(tmp_path / "b.dcm")])
    list_quarantine(files, tables.quarantine, tables.unreadable, tables.failed_exports)
    if fail:
        with pytest.raises(LesionMapError, match="everything else is done, except for 1 failed export"):
            conclude(tables, str(tmp_path / "end.txt"), fail=True)
    else:
        conclude(tables, str(tmp_path / "end.txt"), fail=False)
    printed = capsys.readouterr().err
    assert "0 of the sheet's slides in quarantine" in printed
    assert "1 failed export; the results of their slides are complete" in printed
    assert "b (write_dicom): no UID. Remedy: export it." in printed
    assert "b: it is pale" in printed


def test_what_was_found_comes_first_then_what_to_do_then_the_agreement(tmp_path, tables):
    conclude(tables, str(tmp_path / "end.txt"), fail=False)
    assert (tmp_path / "end.txt").read_text().splitlines() == [
        "2 slides mapped: 2 lesions on 1 slide, 1.250 mm² in all, the largest 0.750 mm², on NA; 1 without lesions",
        "  NA: 2 lesions, 1.250 mm², 2.5 % of its tissue",
        "  without lesions: b",
        "1 of the sheet's slides in quarantine",
        "  c (inspect_slide): it is empty. Remedy: copy it again.",
        "used, but flagged:",
        '  b: it is pale; it is "small"',
        "Dice 0.9",
    ]


def test_if_no_slide_can_be_used_the_end_says_so(tmp_path, tables):
    write_table(tables.slides, [], SLIDES)
    conclude(tables, str(tmp_path / "end.txt"), fail=False)
    assert (tmp_path / "end.txt").read_text().startswith("0 slides mapped\n1 of the sheet's slides in quarantine\n")


def test_corrections_of_all_slides_are_summed_up(tmp_path, tables):
    checks = [str(tmp_path / f"{slide}.check.json") for slide in ("NA", "b")]
    for path, accepted in zip(checks, (3, 4), strict=True):
        review = {"accepted": accepted, "edited": 1, "rejected": 0, "deleted": 0, "new": 2}
        write_json(path, {"slide": "NA", "review": review, "flags": []})
    conclude(replace(tables, checks=checks), str(tmp_path / "end.txt"), fail=False)
    said = "reviews of predicted lesions: 7 accepted, 2 edited, 0 rejected, 0 deleted, 4 new"
    assert f"annotations of 2 slides are {said}" in (tmp_path / "end.txt").read_text().splitlines()


def test_what_the_model_has_set_is_said(tmp_path, tables):
    notes = ["stain.method: macenko, from the model", "tiles.mpp: 0.5, from the model"]
    conclude(tables, str(tmp_path / "end.txt"), fail=False, model_notes=notes)
    lines = (tmp_path / "end.txt").read_text().splitlines()
    assert lines[-3:] == ["Dice 0.9", *(f"model: {note}" for note in notes)]


@pytest.mark.parametrize("fail", [False, True])
def test_a_run_without_quarantine_succeeds_under_both_policies(tmp_path, records, tables, fail):
    list_quarantine(RunFiles(records[:2]), tables.quarantine, tables.unreadable, tables.failed_exports)
    conclude(tables, str(tmp_path / "end.txt"), fail=fail)
    assert "0 of the sheet's slides in quarantine" in (tmp_path / "end.txt").read_text()
