"""What a whole run leaves, and what a user is told when something is wrong."""

import json
import subprocess
import sys

import numpy as np
import openslide
import pandas as pd
import pytest
import tifffile
from project import ROOT
from shapely.geometry import shape

ARTEFACTS = [
    "manifest.tsv",
    "quarantine.tsv",
    "slides/unreadable.json",
    "tissue/train_1.tif",
    "annotations/train_2.geojson",
    "stain/test_1.json",
    "stain/test_1.png",
    "tiles/train_1.h5",
    "model/lesionmap.safetensors",
    "model/history.csv",
    "model/checkpoints/last.safetensors",
    "lesions/test_1/probability.tif",
    "lesions/test_1/lesions.tif",
    "lesions/test_1/lesions.geojson",
    "lesions/test_1/overlay.png",
    "metrics/test_1.json",
    "metrics/slides.tsv",
    "metrics/cohort.json",
    "report/index.html",
    "report/slides/test_1.html",
    "conclusion.txt",
]


@pytest.fixture(scope="module")
def results(finished):
    return finished.folder / "results"


@pytest.mark.parametrize("artefact", ARTEFACTS)
def test_every_artefact_is_there(results, artefact):
    assert (results / artefact).stat().st_size > 0


def test_the_bad_slide_is_in_quarantine_with_its_reason(results):
    table = pd.read_csv(results / "quarantine.tsv", sep="\t")
    assert list(table["slide"]) == ["unreadable"]
    assert "does not recognise" in table["finding"][0]
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


@pytest.mark.parametrize("name", ["probability.tif", "lesions.tif"])
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
    assert "everything else is done, but 1 slides are in quarantine" in printed
    assert (project.folder / "results/report/index.html").exists()


def test_an_existing_model_replaces_training(project):
    model = project.folder / "shipped.safetensors"
    (project.folder / "results/model/lesionmap.safetensors").rename(model)
    (project.folder / "results/model/history.csv").unlink()
    project.config["model"]["path"] = "shipped.safetensors"
    planned = project.planned()
    assert "train" not in planned
    assert not any(job.startswith("extract_tiles") for job in planned)
    assert "infer_slide:test_1" in planned


def test_a_bad_annotation_names_slide_and_remedy_and_spares_the_others(project):
    path = project.folder / "annotations/test_1.geojson"
    path.write_text(path.read_text().replace('"Lesion"', '"Lesionn"'))
    printed = project.run(ok=False)
    assert "slide test_1, import_annotation: classes that the config does not map: 'Lesionn'. Remedy: map" in printed
    assert "Traceback" not in (project.folder / "logs/import_annotation/test_1.log").read_text()
    assert not (project.folder / "results/annotations/test_1.geojson").exists()
    assert (project.folder / "results/lesions/train_1/overlay.png").exists()


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
        ("stain", "reference", "nobody", "stain.reference is 'nobody', which is no slide of the sheet"),
        ("stain", "reference", "unreadable", "the stain reference 'unreadable' is in quarantine"),
        ("model", "norm", "frozen", "frozen statistics need pretrained weights"),
    ],
)
def test_config_mistakes_are_said(project, section, key, value, message):
    project.config[section][key] = value
    printed = project.run(ok=False)
    assert message in printed
    assert "Remedy: " in printed


def test_lint_is_clean():
    command = [sys.executable, "-m", "snakemake", "--lint"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
