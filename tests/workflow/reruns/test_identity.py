"""Exchanged, touched and moved files, and a slide's new role: what runs again, and which bytes stay."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from lesionmap.demo.cohort import write_slide
from lesionmap.demo.painting import DemoSlide
from lesionmap.files.records import read_json
from pydicom.uid import generate_uid
from test_job import job
from test_rerun import ALL_SLIDES, PER_COHORT, after_mapping, of
from vendor_slides import write_instance, write_mirax, write_vms

MANIFEST, ANNOTATIONS = "results/manifest.tsv", "results/annotations.tsv"


def inspected(*slides):
    return of("inspect_slide", *slides) | {"build_manifest"}


def identity(project, slide):
    return read_json(project.folder / f"results/slides/{slide}.json")["info"]["identity"]


def edit_sheet(project, old, new):
    sheet = project.folder / "slides.tsv"
    text = sheet.read_text()
    assert old in text
    sheet.write_text(text.replace(old, new))


def of_both(*rules):
    return {f"{rule}:{slide}" for rule in rules for slide in ("train_2", "test_1")}


def test_slides_exchanged_by_renaming_are_refused_by_jobs_and_inspected_by_the_next_run(project):
    one, other = (project.folder / f"slides/{slide}.tif" for slide in ("train_2", "test_1"))
    before = {slide: identity(project, slide) for slide in ALL_SLIDES}
    one.rename(project.folder / "aside")
    other.rename(one)
    (project.folder / "aside").rename(other)
    printed = project.run(*job(project, "find_tissue", "test_1"), ok=False)
    assert "slide test_1, find_tissue: slides/test_1.tif is not the file that was inspected. Remedy: " in printed
    assert project.planned(MANIFEST) == inspected("train_2", "test_1")
    assert identity(project, "test_1") == before["train_2"]
    assert identity(project, "train_2") == before["test_1"]
    assert project.planned(ANNOTATIONS) == of_both("import_annotation") | {"list_annotations"}
    later = project.foreseen()
    assert of_both("find_tissue", "fit_stain", "match_stain", "check_annotation") <= later
    assert {"extract_tiles:train_2", "train"} | after_mapping() <= later
    unharmed = ("inspect_slide", "import_annotation", "find_tissue", "fit_stain", "match_stain", "extract_tiles")
    assert not of_both("inspect_slide") & later
    assert not {f"{rule}:train_1" for rule in unharmed} & later


def many_cornered(path, corners=30_000):
    """Replace an annotation by one whose canonical form is larger than what Snakemake compares by content."""
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    ring = np.round(np.stack([500 + 150 * np.cos(angle), 400 + 100 * np.sin(angle)], axis=1), 4).tolist()
    geometry = {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}
    feature = {"type": "Feature", "geometry": geometry, "properties": {"classification": {"name": "Tumor"}}}
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))


def test_annotations_run_again_what_they_change_whatever_their_date(project):
    path = project.folder / "annotations/test_1.geojson"
    before = path.stat()
    many_cornered(path)
    os.utime(path, ns=(0, before.st_mtime_ns - 10**15))  # as after cp -p or a restore
    rules = ("check_annotation", "find_lesions", "cut_view", "evaluate_slide")
    follows = {f"{rule}:test_1" for rule in rules} | PER_COHORT
    assert project.planned() == {"import_annotation:test_1", "list_annotations"} | follows
    results = project.results()
    assert len(results["annotations/test_1.geojson"]) > 1_000_000
    path.touch()
    assert project.planned() == {"import_annotation:test_1", "list_annotations"}
    path.write_text(json.dumps(json.loads(path.read_text()), indent=2))
    project.config["annotations"] = {"classes": {"in no file": "vessel"}}
    shown = {"describe_model", "render_report", "conclude"}  # the report shows the whole config
    assert project.planned() == of("import_annotation", *ALL_SLIDES) | {"list_annotations"} | shown
    after = project.results()
    assert {name for name in results if after[name] != results[name]} == {
        *("report/index.html", "model/MODEL_CARD.md", "report/tables/model/MODEL_CARD.md"),
    }
    assert "Nothing to be done" in project.run()


def test_a_moved_slide_is_inspected_and_no_more_and_is_read_where_it_is(project, tmp_path):
    """The stain reference, on which all slides depend."""
    before = project.results()
    archive = tmp_path / "archive"
    archive.mkdir()
    shutil.move(project.folder / "slides/train_1.tif", archive / "S-1.tif")
    edit_sheet(project, "slides/train_1.tif", str(archive / "S-1.tif"))
    project.config["slides"]["roots"] = None
    assert project.planned() == inspected("train_1") | {"render_report", "conclude"}  # the report shows the config
    after = project.results()
    changed = {name for name in before if after[name] != before[name]}
    assert changed == {"slides/location/train_1.json", "report/index.html"}
    project.run(*job(project, "find_tissue", "train_1"))
    assert project.results() == after


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("train_2.tif\ttrain", "train_2.tif\tval", {"train", "evaluate_slide:train_2"}),
        ("test_1.tif\ttest", "test_1.tif\tinference", {"cut_view:test_1", *PER_COHORT}),
    ],
)
def test_another_split_runs_again_what_depends_on_the_role(project, old, new, expected):
    edit_sheet(project, old, new)
    slide = old.split(".")[0]
    assert project.planned(MANIFEST) == inspected(slide)
    project.run(ANNOTATIONS)
    later = project.foreseen()
    assert expected <= later
    of_content = ("inspect_slide", "find_tissue", "import_annotation", "check_annotation", "fit_stain", "match_stain")
    of_content += ("draw_stain", "extract_tiles")
    assert not {f"{rule}:{name}" for rule in of_content for name in ALL_SLIDES} & later


def noise(seed):
    return np.random.default_rng(seed).integers(90, 250, (320, 512, 3), dtype=np.uint8)


def write_series(folder: Path, image: np.ndarray) -> None:
    """A DICOM slide without suffixes: the finest level is ``a``, a coarser one ``b``."""
    folder.mkdir()
    series = generate_uid()
    for factor, name in ((1, "a"), (4, "b")):
        resampled, level = factor > 1, image[::factor, ::factor]
        write_instance(folder / name, level, 0.25 * factor, resampled=resampled, SeriesInstanceUID=series)


def test_slides_of_several_files_are_inspected_again_when_one_is_mended_or_exchanged(project, tmp_path):
    slides = project.folder / "slides"
    write_mirax(slides / "m.mrxs", noise(1), 0.25, corner_px=(0, 0), grid=(4, 3))
    write_series(slides / "dicom", noise(2))
    write_vms(slides / "v.vms", noise(3), 0.25)
    late = {slides / "m": tmp_path / "m", slides / "dicom/a": tmp_path / "a", slides / "v 0.jpg": tmp_path / "v"}
    for path, elsewhere in late.items():
        path.rename(elsewhere)
    with open(project.folder / "slides.tsv", "a", encoding="utf-8") as sheet:
        for name, file in (("m", "m.mrxs"), ("d", "dicom/b"), ("v", "v.vms")):
            row = {"slide": name, "path": f"slides/{file}", "split": "inference", "upsample": "true"}
            columns = (project.folder / "slides.tsv").read_text().splitlines()[0].split("\t")
            sheet.write("\t".join(row.get(column, "") for column in columns) + "\n")
    assert project.planned(MANIFEST) == inspected("m", "d", "v")
    records = [read_json(project.folder / f"results/slides/{slide}.json") for slide in "mdv"]
    assert [record["verdict"] for record in records] == ["quarantined", "ok", "quarantined"]
    assert records[1]["info"]["size_lv0"] == [128, 80]
    for path, elsewhere in late.items():
        elsewhere.rename(path)  # with their old dates
    assert project.planned(MANIFEST) == inspected("m", "d", "v")
    whole = {slide: identity(project, slide) for slide in "mdv"}
    assert len(set(whole.values())) == 3
    assert read_json(project.folder / "results/slides/d.json")["info"]["size_lv0"] == [512, 320]
    assert "Nothing to be done" in project.run(MANIFEST)
    other = tmp_path / "other"
    other.mkdir()
    write_mirax(other / "m.mrxs", noise(4), 0.25, corner_px=(0, 0), grid=(4, 3))
    write_vms(other / "v.vms", noise(5), 0.25)
    (other / "m/Data0000.dat").replace(slides / "m/Data0000.dat")
    (other / "m/Index.dat").replace(slides / "m/Index.dat")
    (other / "v 1.jpg").replace(slides / "v 1.jpg")
    assert project.planned(MANIFEST) == inspected("m", "v")
    assert not {identity(project, slide) for slide in "mv"} & set(whole.values())
    assert identity(project, "d") == whole["d"]


def test_ids_may_be_the_names_of_the_cohorts_files(project):
    names = ("summary", "spread", "cohort")
    with open(project.folder / "slides.tsv", "a", encoding="utf-8") as sheet:
        for number, name in enumerate(names):
            sheet.write(write_slide(project.folder, None, DemoSlide(name, 700, 600, 20 + number, "inference")))
    project.run("results/stain/spread.json", "results/metrics/summary.json")
    assert set(read_json(project.folder / "results/stain/spread.json")) != {"profile"}
    assert of("map_slide", *names) <= project.foreseen()
