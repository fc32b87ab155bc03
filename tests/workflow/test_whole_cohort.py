"""What a whole run leaves, and what a user is told when something is wrong."""

import json
import re
import shutil
import subprocess
import sys
import zipfile

import h5py
import numpy as np
import openslide
import pandas as pd
import pytest
import tifffile
from highdicom.seg import segread
from lesionmap.files.model_metadata import load_metadata
from project import ROOT
from pyramids import damage, write_tiff
from shapely.geometry import shape

ARTEFACTS = [
    "manifest.tsv",
    "quarantine.tsv",
    "slides/unreadable.json",
    "tissue/train_1.tif",
    "annotations/train_2.geojson",
    "annotations/train_2.json",
    "stain/fits/test_1.json",
    "stain/reference/profile.json",
    "stain/reference/candidates.tsv",
    "stain/matches/test_1.json",
    "stain/test_1.png",
    "stain/cohort.tsv",
    "tiles/train_1.h5",
    "model/lesionmap.safetensors",
    "model/history.csv",
    "model/learning_curves.svg",
    "model/MODEL_CARD.md",
    "model/checkpoints/last.safetensors",
    "lesions/test_1/probability.ome.tif",
    "lesions/test_1/lesions.tif",
    "lesions/test_1/lesions.geojson",
    "lesions/test_1/lesions.tsv",
    "lesions/test_1/lesions.json",
    "lesions/test_1/inference.json",
    "lesions/test_1/overlay.png",
    "metrics/slides/test_1.json",
    "unreadable.tsv",
    "lesions.tsv",
    "annotated_lesions.tsv",
    "slides.tsv",
    "metrics/slides.tsv",
    "metrics/cohort.tsv",
    "metrics/readers.tsv",
    "metrics/groups.tsv",
    "metrics/summary.json",
    "metrics/roc.svg",
    "report/index.html",
    "report/stain.html",
    "report/checklist.html",
    "report/checklist.tsv",
    "report/slides/test_1.html",
    "report/viewer/leaflet.js",
    "report/views/test_1/view.js",
    "report/views/train_1/slide/0/0_0.js",
    "report/files/test_1/lesions.geojson",
    "report/tables/lesions.tsv",
    "conclusion.txt",
]


@pytest.fixture(scope="module")
def results(finished):
    return finished.folder / "results"


def quarantine(project):
    table = pd.read_csv(project.folder / "results/quarantine.tsv", sep="\t", keep_default_na=False)
    return table.set_index("slide")


@pytest.mark.parametrize("artefact", ARTEFACTS)
def test_every_artefact_is_there(results, artefact):
    assert (results / artefact).stat().st_size > 0


def test_the_bad_slide_is_in_quarantine_with_its_reason(results):
    table = pd.read_csv(results / "quarantine.tsv", sep="\t")
    assert list(table["slide"]) == ["unreadable"]
    assert "is cut short" in table["finding"][0]
    assert "unreadable" not in set(pd.read_csv(results / "manifest.tsv", sep="\t")["slide"])
    assert "1 of the sheet's slides in quarantine" in (results / "conclusion.txt").read_text()


def test_tile_stores_are_read_with_h5py_and_hdf5plugin_alone(results):
    code = (
        "import h5py, hdf5plugin, json, sys\n"
        "f = h5py.File(sys.argv[1])\n"
        "assert f['low/image'].shape[1:] == (64, 64, 3) and f['high/image'].shape[1:] == (64, 64, 3)\n"
        "assert f['high/image'][:].std() > 0 and set(f['low/mask'][:].ravel()) <= {0, 1, 2, 3, 255}\n"
        "assert len(f['tiles/region']) == len(f['tiles/row_col']) == len(f['high/mask'])\n"
        "assert json.loads(f.attrs['provenance'])['identity'] == f.attrs['identity']\n"
        "assert 'lesionmap' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code, str(results / "tiles/train_1.h5")], check=True)


@pytest.mark.parametrize("name", ["probability.ome.tif", "lesions.tif"])
def test_maps_open_in_tifffile_and_openslide(results, name):
    path = results / "lesions/test_1" / name
    pixels = tifffile.imread(path, series=0, level=0)
    assert pixels.shape == (80, 99)  # 990 × 800 px at a tenth
    with openslide.OpenSlide(path) as slide:
        assert slide.dimensions == (99, 80)
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(2.5)
        seen = np.asarray(slide.read_region((0, 0), 0, (99, 80)))[..., 0]
    np.testing.assert_array_equal(seen, pixels)


def test_outlines_cover_the_binary_map(results):
    content = json.loads((results / "lesions/test_1/lesions.geojson").read_text())
    area = sum(shape(feature["geometry"]).area for feature in content["features"])
    lesions = tifffile.imread(results / "lesions/test_1/lesions.tif") > 0
    assert area == pytest.approx(lesions.sum() * 100)
    assert all(feature["properties"]["objectType"] == "annotation" for feature in content["features"])


def test_fail_at_end_finishes_the_cohort_and_then_fails(project):
    project.config["on_quarantine"] = "fail_at_end"
    printed = project.run(ok=False)
    assert "everything else is done, except for 1 slide in quarantine" in printed
    assert (project.folder / "results/report/index.html").exists()


def test_an_existing_model_replaces_training(project):
    model = project.folder / "shipped.safetensors"
    (project.folder / "results/model/lesionmap.safetensors").rename(model)
    (project.folder / "results/model/history.csv").unlink()
    project.config["model"]["path"] = "shipped.safetensors"
    planned = project.planned()
    assert not {"train", "plot_learning_curves"} & planned
    assert {"export_model", "describe_model"} <= planned
    assert not any(job.startswith("extract_tiles") for job in planned)
    assert "map_slide:test_1" in planned


def test_a_bad_annotation_goes_into_quarantine_and_spares_the_others(project):
    path = project.folder / "annotations/train_2.xml"
    whole = path.read_text()
    path.write_text(whole.replace('"Lesion"', '"Lesionn"'))
    printed = project.run()
    assert "slide train_2, import_annotation: classes that the config does not map: 'Lesionn'; the file has" in printed
    assert "Traceback" not in (project.folder / "logs/import_annotation/train_2.log").read_text()
    rows = quarantine(project).loc[["train_2"], ["stage", "split"]].to_numpy().tolist()
    assert rows == [["import_annotation", "train"]]
    for name in ("annotations/train_2.geojson", "tiles/train_2.h5"):  # no store, no outlines: the reason instead
        content = json.loads((project.folder / "results" / name).read_text())
        assert content["quarantined"]["stage"] == "import_annotation"
    model = load_metadata(project.folder / "results/model/lesionmap.safetensors")
    assert set(model["training_slides"]) == {"train_1"}
    assert "train_2 (import_annotation): classes" in (project.folder / "results/conclusion.txt").read_text()
    path.write_text(whole)
    project.run("results/model/lesionmap.safetensors")
    model = load_metadata(project.folder / "results/model/lesionmap.safetensors")
    assert set(model["training_slides"]) == {"train_1", "train_2"}


def test_damage_found_by_a_later_stage_spares_the_cohort(project):
    """Of 12 × 12 boxes of 512 px an inspection reads 64; twelve of the others are damaged."""
    slide = project.folder / "slides/train_1.tif"
    image = tifffile.imread(slide, level=0)
    write_tiff(slide, np.tile(image, (8, 7, 1))[:6144, :6144])
    inspected = set(np.linspace(0, 143, 64).round().astype(int))
    others = sorted(set(range(144)) - inspected)[:12]
    damage(slide, *[(box % 12 * 512 + 100, box // 12 * 512 + 100) for box in others])
    printed = project.run()
    assert "slide train_1, extract_tiles: " in printed
    table = quarantine(project).loc[["train_1"]]
    assert table["stage"].tolist() == ["extract_tiles", "map_slide"]
    assert table["finding"].str.contains("boxes cannot be read, more than 5 %").all()
    model = load_metadata(project.folder / "results/model/lesionmap.safetensors")
    assert set(model["training_slides"]) == {"train_2"}


def test_a_blank_slide_goes_into_quarantine_with_all_that_follows(project):
    """With DICOM asked for, which the others then have."""
    slide = project.folder / "slides/test_1.tif"
    write_tiff(slide, np.full_like(tifffile.imread(slide, level=0), 245))
    project.config["exports"] = {"dicom": "always"}
    project.run()
    assert quarantine(project).loc[["test_1"], "stage"].tolist() == ["find_tissue"]
    results = project.folder / "results"
    assert "no tissue was found" in (results / "report/index.html").read_text()
    assert not (results / "report/slides/test_1.html").exists()
    assert "find_tissue" in (results / "report/views/test_1/quarantined.json").read_text()
    for name in ("stain/fits/test_1.json", "stain/test_1.png", "metrics/slides/test_1.json"):
        assert "find_tissue" in (results / name).read_text()
    for name in ("probability.ome.tif", "lesions.tif", "lesions.tsv", "lesions.dcm"):
        assert "find_tissue" in (results / "lesions/test_1" / name).read_text()
    segmentation = segread(results / "lesions/train_1/lesions.dcm")
    found = segmentation.get_total_pixel_matrix(combine_segments=True) > 0
    np.testing.assert_array_equal(found, tifffile.imread(results / "lesions/train_1/lesions.tif") > 0)


def repainted(project, slide, colours):
    """Replace a slide's picture by one with the same tissue in other colours; `colours` maps (H, W, 3) uint8."""
    path = project.folder / f"slides/{slide}.tif"
    write_tiff(path, colours(tifffile.imread(path, level=0)))


def ink(image):
    """Everything but glass is blue ink, with soft edges."""
    strength = 1 - image.min(axis=2, keepdims=True) / 255
    return np.rint(255 - strength * (255 - np.array([30, 50, 190]))).astype(np.uint8)


def brown(image):
    """What was eosin is DAB (Ruifrok & Johnston 2001), and where there is much of it no haematoxylin is left."""
    od = -np.log(np.maximum(image, 1) / 255)
    stains = np.linalg.lstsq(np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]]).T, od.reshape(-1, 3).T, rcond=None)[0]
    stains = np.maximum(stains, 0) * [np.where(stains[1] < 0.3, 1, 0), np.ones_like(stains[1])]
    dab = stains.T @ np.array([[0.65, 0.70, 0.29], [0.27, 0.57, 0.78]])
    return np.rint(255 * np.exp(-dab)).astype(np.uint8).reshape(image.shape)


@pytest.mark.parametrize(("colours", "verdict"), [(ink, "one stain"), (brown, "not H&E")])
def test_a_slide_without_two_stains_gets_its_verdict_and_is_mapped(project, colours, verdict):
    repainted(project, "test_1", colours)
    project.run()
    match = json.loads((project.folder / "results/stain/matches/test_1.json").read_text())
    assert match["profile"]["verdict"] == verdict
    assert match["profile"]["basis"] == match["reference"]["basis"]
    assert list(quarantine(project).index) == ["unreadable"]
    assert verdict.replace("&", "&amp;") in (project.folder / "results/report/stain.html").read_text()
    assert (project.folder / "results/lesions/test_1/probability.ome.tif").exists()


def test_a_slide_without_two_stains_is_quarantined_if_the_policy_says_so(project):
    repainted(project, "test_1", ink)
    project.config["stain"]["fallback"] = "fail"
    project.run()
    row = quarantine(project).loc["test_1"]
    assert row["stage"] == "match_stain"
    assert "its stain could not be fitted: one stain" in row["finding"]
    assert "stain.fallback: reference" in row["remedy"]


def test_a_reference_without_two_stains_stops_the_run_and_is_named(project):
    repainted(project, "train_1", brown)
    printed = project.run(ok=False)
    assert "the stain reference 'train_1' does not show two stains: not H&E. Remedy: choose another slide" in printed


def test_a_run_that_cannot_go_on_still_says_what_is_in_quarantine(project):
    for name in ("train_1.geojson", "train_2.xml"):
        path = project.folder / "annotations" / name
        path.write_text(path.read_text().replace('"Lesion"', '"Lesionn"'))
    printed = project.run(ok=False)
    assert "train: every training slide is in quarantine. Remedy: see results/quarantine.tsv" in printed
    assert "LesionMap, so far: 3 of the sheet's slides in quarantine" in printed
    assert set(quarantine(project).index) == {"unreadable", "train_1", "train_2"}


def test_a_blank_stain_reference_stops_the_run_and_is_named(project):
    slide = project.folder / "slides/train_1.tif"
    write_tiff(slide, np.full_like(tifffile.imread(slide, level=0), 245))
    printed = project.run(ok=False)
    assert "the stain reference 'train_1' is in quarantine: no tissue was found. Remedy: choose another" in printed
    assert quarantine(project).loc["train_1", "stage"] == "find_tissue"


def test_the_doctor_lists_problems_writes_tables_and_fails(project):
    printed = project.run("doctor", ok=False)
    assert "unreadable" in printed
    assert "is cut short" in printed
    assert "doctor: 1 error (listed above and in results/doctor.tsv)" in printed
    table = pd.read_csv(project.folder / "results/doctor.tsv", sep="\t", keep_default_na=False).set_index("slide")
    assert table["verdict"].to_dict() == {"train_1": "ok", "train_2": "ok", "test_1": "ok", "unreadable": "error"}
    costs = json.loads((project.folder / "results/doctor.json").read_text())["costs"]
    stores = project.folder / "results/tiles"
    with h5py.File(stores / "train_1.h5") as one, h5py.File(stores / "train_2.h5") as other:
        regions, tiles = (len(one[key]) + len(other[key]) for key in ("regions/xy", "tiles/region"))
    assert costs["regions"] == regions
    assert costs["tiles"] == pytest.approx(tiles, rel=0.02)


def test_the_doctor_passes_a_sound_sheet(project):
    sheet = project.folder / "slides.tsv"
    sheet.write_text("".join(line for line in sheet.open() if not line.startswith("unreadable")))
    assert "3 usable slides" in project.run("doctor")


def test_a_path_outside_the_roots_is_refused_before_anything_runs(project):
    sheet = project.folder / "slides.tsv"
    sheet.write_text(sheet.read_text() + "leak\t../elsewhere.tif\tinference\t\t\n")
    assert "(leak), path: ../elsewhere.tif is not in slides.roots (.)" in project.run(ok=False)
    project.config["slides"]["roots"] = None
    assert "leak" in project.run("--dry-run")


def test_a_missing_slide_is_quarantined_and_comes_back(project):
    slide = project.folder / "slides/test_1.tif"
    slide.rename(project.folder / "elsewhere.tif")
    project.run()
    table = pd.read_csv(project.folder / "results/quarantine.tsv", sep="\t")
    assert "test_1.tif does not exist" in table.set_index("slide")["finding"]["test_1"]
    (project.folder / "elsewhere.tif").rename(slide)
    project.run()
    assert "test_1" in set(pd.read_csv(project.folder / "results/manifest.tsv", sep="\t")["slide"])


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("train", "epochs", "many", r"train.epochs: 'many' is not of type 'integer' (passes over all regions)"),
        ("train", "epoch", 3, "Additional properties are not allowed ('epoch' was unexpected)"),
        ("stain", "reference", "nobody", "stain.reference is 'nobody', which is neither a slide of the sheet nor a"),
        ("stain", "reference", "unreadable", "the stain reference 'unreadable' is in quarantine"),
        ("model", "norm", "frozen", "frozen statistics need pretrained weights"),
    ],
)
def test_config_mistakes_are_said(project, section, key, value, message):
    project.config[section][key] = value
    printed = project.run(ok=False)
    assert message in printed
    assert "Remedy: " in printed


def test_snakemakes_own_report_has_every_figure_with_its_caption(project):
    shutil.copytree(project.folder / "results/metrics", project.folder / "other")
    project.config["evaluation"] = {"compare": {"the same": "other"}}
    project.run()
    project.run("--report", "report.zip")
    with zipfile.ZipFile(project.folder / "report.zip") as folder:
        page = folder.read("report/report.html").decode()
        parts = {path.rsplit("/", 1)[-1]: folder.getinfo(path).file_size for path in folder.namelist()}
    results = json.loads(re.search(r"var results = (\{.*\});", page)[1])
    charts = ("roc", "precision_recall", "froc", "calibration", "thresholds", "areas", "lesion_sizes", "decision_curve")
    of_cohort = {f"results/metrics/{name}.svg" for name in charts}
    of_cohort |= {f"results/metrics/{name}.tsv" for name in ("slides", "cohort", "readers", "groups", "models")}
    of_cohort |= {f"results/{name}.tsv" for name in ("lesions", "annotated_lesions", "slides")}
    of_cohort |= {"results/model/learning_curves.svg", "results/model/MODEL_CARD.md"}
    pictures = [("overlay", "png"), ("stain", "jpg")]
    of_slides = {
        f"results/report/figures/{slide}_{picture}.{kind}": {"slide": slide, "picture": picture}
        for slide in ("train_1", "train_2", "test_1")
        for picture, kind in pictures
    }
    assert set(results) == of_cohort | of_slides.keys()
    for path, entry in results.items():
        assert entry["caption"].count("<p>") >= 1
        assert "system-message" not in entry["caption"]  # of docutils, if a caption is not valid
        assert entry["labels"] == of_slides.get(path, entry["labels"])
        assert parts[path.rsplit("/", 1)[-1]] > 0
    assert "<p>Slide test_1 as scanned." in results["results/report/figures/test_1_overlay.png"]["caption"]
    description = json.loads(re.search(r"var workflow_desc = (\".*\");", page)[1])
    assert "The model was trained on the sheet" in description
    assert "system-message" not in description


def test_every_caption_is_of_an_output():
    rules = "".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    captions = {path.name for path in (ROOT / "workflow/report").glob("*.rst")}
    assert set(re.findall(r"report/(\w+\.rst)", rules)) == captions - {"workflow.rst"}


def test_lint_is_clean():
    command = [sys.executable, "-m", "snakemake", "--lint"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
