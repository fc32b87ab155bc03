"""Slides and annotations as other programs write them, in one sheet: one run, from the doctor to a run of nothing."""

import json
from dataclasses import dataclass
from math import pi
from pathlib import Path

import numpy as np
import openslide
import pandas as pd
import pytest
import tifffile
from lesionmap.annotations.canonical import AnnotationSettings, canonical
from lesionmap.annotations.formats import read_annotation
from lesionmap.slides.slide import load_info
from odd_tiffs import scaled, write_odd_tiff, write_ome_tiff
from project import Project
from shapely.geometry import shape

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared/data"
CASES = DATA / "cases"

pytestmark = [
    pytest.mark.skipif(not DATA.exists(), reason="the real slides of ../shared/data are absent"),
    pytest.mark.xdist_group("cases"),
]

CONFIG = {
    "slides": {"sheet": "slides.tsv", "roots": [".", str(DATA)]},
    "on_quarantine": "fail_at_end",
    "stain": {"reference": "trained", "n_pixels": 50_000},
    "tiles": {"region_px": 1024, "tile_px": 128},
    "model": {"backbone": "resnet18", "weights": "none", "norm": "group"},
    "train": {"schedule": "low_only", "epochs": 12, "learning_rate": 0.0003},
    "inference": {"batch_size": 16},
    "report": {"detail": "none"},
}
ANNOTATED = {  # all of camelyon_1
    "in_um": CASES / "asap_in_um.xml",
    "mask": CASES / "mask_miniswhite_bilevel.tif",
    "halo": CASES / "halo_island.annotations",
    "geopandas": CASES / "geopandas.geojson",
    "nullgeom": CASES / "nullgeom.geojson",
    "coco": CASES / "coco.json",
}
COPIES = ("ome", "sixteen_bits", "webp")  # of camelyon_2, which is "original"
FINISHED = {"trained", "dicom", "original", *COPIES, *ANNOTATED} - {"coco"}
IGNORED_XY = (500, 700, 900, 1000)  # left, top, right, bottom: whole pixels of the map, 10 of the slide
PIXEL_MM2 = 0.25**2 / 1e6


@dataclass(frozen=True)
class Runs:
    """What `snakemake doctor`, a run that fails at its end, one that warns, and one more have printed."""

    project: Project
    doctor: str
    failed: str
    warned: str
    jobs_left: set[str]

    def read(self, name: str) -> str:
        return (self.project.folder / "results" / name).read_text()

    def table(self, name: str) -> pd.DataFrame:
        path = self.project.folder / "results" / name
        return pd.read_csv(path, sep="\t", keep_default_na=False).set_index("slide")


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Runs:
    project = Project(tmp_path_factory.mktemp("cases"), config=CONFIG)
    write_copies(project.folder)
    write_sheet(project.folder)
    doctor = project.run("doctor", "--cores", "2", ok=False)
    failed = project.run("--cores", "2", ok=False)
    project.config = CONFIG | {"on_quarantine": "warn"}
    return Runs(project, doctor, failed, project.run(), project.planned())


def write_copies(folder: Path) -> None:
    """camelyon_2, level by level, as files that OpenSlide does not read; and its annotation with an area to ignore."""
    with openslide.OpenSlide(DATA / "slides/camelyon_2.tif") as slide:
        levels = {
            round(factor): np.asarray(slide.read_region((0, 0), level, slide.level_dimensions[level]).convert("RGB"))
            for level, factor in enumerate(slide.level_downsamples)
        }
    write_ome_tiff(folder / "ome.tif", levels)
    write_odd_tiff(folder / "sixteen_bits.tif", levels, as_stored=scaled("u2", 65535), byteorder=">")
    write_odd_tiff(folder / "webp.tif", levels, compression="webp", compressionargs={"lossless": True})
    content = json.loads((DATA / "annotations/camelyon_2.geojson").read_text())
    left, top, right, bottom = IGNORED_XY
    ring = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
    properties = {"objectType": "annotation", "classification": {"name": "Ignore*"}}
    content["features"].append(
        {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": properties}
    )
    (folder / "original.geojson").write_text(json.dumps(content))


def write_sheet(folder: Path) -> None:
    slides = DATA / "slides"
    rows = [
        ("trained", slides / "camelyon_3.tif", "train", DATA / "masks/camelyon_3.tif", ""),
        ("dicom", CASES / "dicom_j2k.dcm", "inference", "", 2.0),
        ("original", slides / "camelyon_2.tif", "test", "original.geojson", ""),
        *((name, f"{name}.tif", "inference", "", "") for name in COPIES),
        *((name, slides / "camelyon_1.tif", "test", path, "") for name, path in ANNOTATED.items()),
    ]
    lines = ["\t".join(map(str, row)) for row in [("slide", "path", "split", "annotation", "mpp"), *rows]]
    (folder / "slides.tsv").write_text("\n".join(lines) + "\n")


def annotated_px(runs: Runs, slide: str, label: str = "lesion") -> float:
    features = json.loads(runs.read(f"annotations/{slide}.geojson"))["features"]
    return sum(shape(feature["geometry"]).area for feature in features if feature["properties"]["class"] == label)


def test_the_doctor_says_beforehand_what_the_run_finds(runs):
    assert "doctor: 1 error" in runs.doctor
    table = runs.table("doctor.tsv")
    assert set(table.index[table["verdict"] == "error"]) == {"coco"}
    assert "a COCO file" in table["findings"]["coco"]
    assert "config/README.md, Annotations, has a script" in table["remedies"]["coco"]
    assert "lies on tissue: its coordinates seem to be µm" in table["findings"]["in_um"]
    assert "the file of the full resolution is not in its folder" in table["findings"]["dicom"]
    assert "2 µm/px (slide sheet) contradicts the file's own 28.97" in table["findings"]["dicom"]
    for slide in ("trained", "original", *COPIES):
        assert table["verdict"][slide] == "ok"
    ignored_mm2 = 400 * 300 * PIXEL_MM2
    assert float(table["ignored_mm2"]["original"]) == pytest.approx(ignored_mm2)
    assert f"{ignored_mm2:.3f} mm² on 1 slide are ignored: neither trained on nor judged" in runs.doctor


def test_the_run_finishes_all_it_can_and_its_exit_status_follows_the_policy(runs):
    assert "everything else is done, except for 1 slide in quarantine" in runs.failed
    assert runs.table("quarantine.tsv").index.tolist() == ["coco"]
    assert "1 of the sheet's slides in quarantine" in runs.warned
    assert runs.read("conclusion.txt") in runs.warned
    assert runs.jobs_left == set()


def test_coco_is_refused_by_its_name_and_with_a_remedy(runs):
    row = runs.table("quarantine.tsv").loc["coco"]
    assert row["stage"] == "import_annotation"
    assert "a COCO file" in row["finding"]
    assert "config/README.md, Annotations, has a script" in row["remedy"]
    assert f"coco (import_annotation): {row['finding']}. Remedy: {row['remedy']}." in runs.read("conclusion.txt")


def test_every_other_slide_has_its_page_and_its_lesions(runs):
    pages = {path.stem for path in (runs.project.folder / "results/report/slides").glob("*.html")}
    assert pages >= FINISHED
    index = runs.read("report/index.html")
    for slide in FINISHED:
        assert f"slides/{slide}.html" in index
        assert json.loads(runs.read(f"lesions/{slide}/lesions.geojson"))["slide"] == slide


def test_the_lesions_of_a_bare_dicom_file_are_exported(runs):
    """Its file lacks AcquisitionDateTime and more."""
    written = runs.project.folder / "results/lesions/dicom/lesions.dcm"
    assert written.read_bytes()[128:132] == b"DICM"
    assert runs.table("failed_exports.tsv").empty
    assert "failed:" not in runs.read("report/slides/dicom.html")


def test_coordinates_in_um_are_flagged_wherever_a_user_may_look(runs):
    (flag,) = json.loads(runs.read("annotations/in_um.json"))["flags"]
    assert "its coordinates seem to be µm" in flag
    assert f"\n  in_um: annotation: {flag}; " in runs.read("conclusion.txt")
    assert f"annotation: {flag}" in runs.read("report/slides/in_um.html")


@pytest.mark.parametrize("slide", ["mask", "original"])
def test_annotations_that_lie_on_tissue_are_not_flagged(runs, slide):
    assert json.loads(runs.read(f"annotations/{slide}.json"))["flags"] == []
    assert f"{slide}: annotation" not in runs.read("conclusion.txt")


def test_a_mask_that_shows_lesions_white_has_the_area_of_the_outlines(runs):
    info = load_info(runs.project.folder / "results/slides/info/mask.json")
    outlines = read_annotation(str(DATA / "annotations/camelyon_1.xml"), info)
    settings = AnnotationSettings({"Tumor": "lesion", "Exclusion": "hole"}, {}, "refuse")
    expected = canonical(outlines, info, settings)["classes"]["lesion"]["area_mm2"]
    assert annotated_px(runs, "mask") == (tifffile.imread(DATA / "masks/camelyon_1.tif", level=0) == 1).sum()
    assert annotated_px(runs, "mask") * PIXEL_MM2 == pytest.approx(expected, abs=1e-6)


def test_an_island_in_a_negative_region_is_lesion(runs):
    """A rectangle, less a rectangle in it, with an ellipse of 100 px in that."""
    assert annotated_px(runs, "halo") == pytest.approx(800 * 800 - 600 * 600 + pi * 100 * 100, abs=20)


@pytest.mark.parametrize("slide", ["geopandas", "nullgeom"])
def test_geojson_of_other_programs_is_read(runs, slide):
    assert annotated_px(runs, slide) == 400 * 400


@pytest.mark.parametrize("copy", COPIES)
def test_the_same_pixels_in_another_kind_of_tiff_have_the_same_lesions(runs, copy):
    lesions, others = (
        [(lesion["geometry"], lesion["properties"]["measurements"]) for lesion in json.loads(text)["features"]]
        for text in (runs.read(f"lesions/{slide}/lesions.geojson") for slide in ("original", copy))
    )
    assert lesions
    assert others == lesions
    match, other = (json.loads(runs.read(f"stain/matches/{slide}.json"))["profile"] for slide in ("original", copy))
    assert other == match


def test_an_area_to_ignore_is_stated_and_not_judged(runs):
    metrics = runs.table("metrics/slides.tsv")
    assert float(metrics["ignored_mm2"]["original"]) == pytest.approx(400 * 300 * PIXEL_MM2)
    assert (metrics["ignored_mm2"].drop("original").astype(float) == 0).all()
    assert annotated_px(runs, "original", "ignore") == 400 * 300
    left, top, right, bottom = IGNORED_XY
    lesion = tifffile.imread(DATA / "masks/camelyon_2.tif", level=0) == 1
    within = lesion[top:bottom, left:right].sum()
    assert within > 0
    assert annotated_px(runs, "original") == lesion.sum() - within
