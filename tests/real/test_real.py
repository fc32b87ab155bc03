"""What `make real` leaves in results/; run by it."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import openslide
import pandas as pd
import pytest
import tifffile
import yaml
from imagecodecs import jpeg8_decode, jpeg8_encode
from lesion_maps import accept, write_outlines
from lesionmap.annotations.canonical import AnnotationSettings, import_annotation
from lesionmap.annotations.classes import LESION
from lesionmap.annotations.masks import Annotation
from lesionmap.geometry.tiling import map_size
from lesionmap.run.config import tile_settings
from lesionmap.slides.reader_selection import choose_reader
from lesionmap.slides.slide import Slide, load_info
from lesionmap.tiles.extraction import Extraction, extract_tiles
from lesionmap.tiles.settings import TileSettings
from lesionmap.tiles.store import TileStore
from lesionmap.tissue.quality import is_blurred
from pyramids import info_of
from scipy.ndimage import gaussian_filter
from shapely.geometry import shape

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results"
DATA = ROOT.parent / "shared/data"
SLIDES = sorted((DATA / "slides").glob("*"))

pytestmark = pytest.mark.skipif(not DATA.exists(), reason="the real slides of ../shared/data are absent")

REASONS = {
    "cmu_small_region": "0.499 µm/px (file) is coarser than the 0.25 µm/px that the split 'train' needs",
    "broken_empty": "empty.tif is empty (0 bytes)",
    "broken_text": "text.svs is text, not an image (it begins with 'not a slide')",
    "broken_header": "broken.svs is base64 text, as made for mail, not the slide itself",
    "broken_truncated": "truncated.tif is cut short: image 0 ends at byte 1738890, the file at 1500000",
    "broken_tiles": "boxes cannot be read, more than 5 %; the first: level 0, box x=",
}


def test_the_quarantine_is_what_it_should_be():
    table = pd.read_csv(RESULTS / "quarantine.tsv", sep="\t").set_index("slide")
    assert set(table.index) == set(REASONS)
    for slide, reason in REASONS.items():
        assert reason in table["finding"][slide]
        assert table["stage"][slide] == "inspect_slide"
        assert table["remedy"][slide]
    assert set(pd.read_csv(RESULTS / "manifest.tsv", sep="\t")["slide"]) == {
        "camelyon_1",
        "camelyon_2",
        "camelyon_3",
        "camelyon_4",
        "tcga_cr_7395",
    }


@pytest.mark.parametrize("slide", [f"camelyon_{i}" for i in range(1, 5)])
def test_annotations_of_every_kind_are_the_masks_to_the_pixel(slide):
    info = load_info(*(RESULTS / f"slides/{part}/{slide}.json" for part in ("info", "location")))
    drawn = Annotation(RESULTS / f"annotations/{slide}.geojson").mask((0, 0), info.size_lv0, 1.0)
    np.testing.assert_array_equal(drawn == LESION, tifffile.imread(DATA / f"masks/{slide}.tif", level=0) == 1)


@pytest.mark.parametrize("slide", [f"camelyon_{i}" for i in range(1, 5)])
def test_canonical_areas_are_the_masks(slide):
    content = json.loads((RESULTS / f"annotations/{slide}.geojson").read_text())
    pixels = int((tifffile.imread(DATA / f"masks/{slide}.tif", level=0) == 1).sum())
    assert content["classes"]["lesion"]["area_mm2"] == pytest.approx(pixels * 0.25**2 / 1e6, abs=1e-6)
    assert (content["repaired"], content["ignored"], content["outside"]["polygons"]) == ({}, {}, 0)


@pytest.mark.parametrize("bounds", [(0, 0), (37, 11)])
@pytest.mark.parametrize("scale", [1.0, 10.0])
@pytest.mark.parametrize("slide", [f"camelyon_{i}" for i in range(1, 5)])
def test_annotation_mask_map_outlines_and_back(tmp_path, slide, scale, bounds):
    info = replace(
        load_info(*(RESULTS / f"slides/{part}/{slide}.json" for part in ("info", "location"))), bounds_xy_lv0=bounds
    )
    size = map_size(info.size_lv0, scale)
    mask = Annotation(RESULTS / f"annotations/{slide}.geojson").mask((0, 0), size, scale) == LESION
    write_outlines(tmp_path / "lesions.geojson", mask, mask.astype(np.uint8), scale, info)
    accept(tmp_path / "lesions.geojson")
    settings = AnnotationSettings({"Accepted": "lesion"}, {}, "refuse")
    import_annotation(str(tmp_path / "lesions.geojson"), info, str(tmp_path / "back.geojson"), settings)
    back = Annotation(tmp_path / "back.geojson").mask((0, 0), size, scale) == LESION
    assert mask.any()
    assert (back & mask).sum() / (back | mask).sum() >= 0.995


@pytest.mark.parametrize("path", SLIDES, ids=lambda path: path.stem)
def test_tiles_read_directly_have_the_pixels_of_openslide(path):
    info = info_of(str(path), mpp=0.5)
    assert choose_reader(info, "auto", "test").reader == "tiff"
    width, height = info.size_lv0
    with Slide(info, "test") as slide, Slide(replace(info, reader="tiff"), "test") as direct:
        for x, y in ((0, 0), (width - 777, height - 555), (width // 3, height // 2)):
            np.testing.assert_array_equal(*(reader.read((x, y), (777, 555), 0.5) for reader in (slide, direct)))


@pytest.mark.parametrize(("name", "most"), [("cmu_small_region.svs", 3), ("tcga_cr_7395.svs", 1)])
def test_aperio_slides_are_read_to_the_pixel(name, most):
    """JPEG and JPEG 2000, against another decoder."""
    info = info_of(str(DATA / "slides" / name), mpp=0.5)
    expected = tifffile.imread(info.path, series=0, level=0)[1003:1203, 777:1077]
    with Slide(info, "test") as slide:
        found = slide.read((777, 1003), (300, 200), 0.5)
    assert np.abs(found.astype(int) - expected).max() <= most


def test_the_colour_profile_is_recorded():
    assert json.loads((RESULTS / "slides/tcga_cr_7395.json").read_text())["icc_profile"]
    assert json.loads((RESULTS / "slides/camelyon_1.json").read_text())["icc_profile"] is None


def test_the_doctor_is_done_in_half_a_minute_and_fails():
    started = time.monotonic()
    command = [sys.executable, "-m", "snakemake", "doctor", "--cores", "2", "--configfile", "tests/real/config.yaml"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "doctor: 5 errors" in done.stderr
    assert time.monotonic() - started < 30
    assert done.returncode == 1
    table = pd.read_csv(RESULTS / "doctor.tsv", sep="\t", keep_default_na=False).set_index("slide")
    assert set(table.index[table["verdict"] == "error"]) == set(REASONS) - {"broken_tiles"}
    assert "of an overview cannot be read" in table["findings"]["broken_tiles"]  # too little to decide on that alone
    assert {"camelyon_1", "camelyon_4", "tcga_cr_7395"} <= set(table.index[table["verdict"] == "ok"])


@pytest.fixture
def a_test_slides_store(tmp_path):
    """Tiles of camelyon_4, which the run only maps, being a test slide."""
    info = load_info(*(RESULTS / f"slides/{part}/camelyon_4.json" for part in ("info", "location")))
    settings = yaml.safe_load((ROOT / "config/config.yaml").read_text())["tiles"] | {"region_px": 1024, "tile_px": 128}
    stain = str(RESULTS / "stain/matches/camelyon_4.json")
    inputs = [str(RESULTS / part) for part in ("tissue/camelyon_4.tif", "annotations/camelyon_4.geojson")]
    asked = Extraction.of(TileSettings(**tile_settings({"tiles": settings})), 0.0, stain)
    extract_tiles(info, *inputs, str(tmp_path / "camelyon_4.h5"), asked, provenance={})
    return tmp_path / "camelyon_4.h5"


@pytest.mark.parametrize("slide", ["camelyon_1", "camelyon_2", "camelyon_3", "camelyon_4"])
def test_stored_tiles_have_the_masks_of_their_place(slide, a_test_slides_store):
    mask = tifffile.imread(DATA / f"masks/{slide}.tif", level=0)
    with TileStore(a_test_slides_store if slide == "camelyon_4" else RESULTS / f"tiles/{slide}.h5") as store:
        tile_px = store.spec.tile_px
        checked = 0
        for index in range(len(store)):
            region = store.region(index)
            for (row, column), tile in zip(region.row_col.astype(int), region.masks, strict=True):
                x, y = int(region.xy_lv0[0]) + column * tile_px, int(region.xy_lv0[1]) + row * tile_px
                np.testing.assert_array_equal(tile == LESION, mask[y : y + tile_px, x : x + tile_px] == 1)
                checked += int((tile == LESION).sum())
    assert checked == mask.sum()


def test_real_tissue_in_focus_is_not_called_blurred_and_tissue_out_of_focus_is():
    """0.75 µm (σ) out of focus, and stored as a JPEG like the slide itself."""
    judged = []
    for slide in ("camelyon_1", "camelyon_2", "camelyon_3"):
        with TileStore(RESULTS / f"tiles/{slide}.h5") as store:
            assert store.quality("blur").max() < 0.05
            assert store.quality("pen").max() == 0
            images = store.region(0).images
            for image in images[(np.ptp(images, axis=3) > 30).mean(axis=(1, 2)) > 0.5]:
                soft = gaussian_filter(image, (3, 3, 0))
                judged.append(is_blurred(jpeg8_decode(jpeg8_encode(soft, level=80)), store.spec.mpp))
    assert np.mean(judged) > 0.95


@pytest.mark.parametrize("slide", ["camelyon_4", "tcga_cr_7395"])
def test_maps_and_outlines_lie_on_the_slide(slide):
    info = load_info(*(RESULTS / f"slides/{part}/{slide}.json" for part in ("info", "location")))
    folder = RESULTS / "lesions" / slide
    expected = tuple(int(np.ceil(length * info.mpp / 2.5 - 1e-9)) for length in info.size_lv0)
    with openslide.OpenSlide(folder / "probability.ome.tif") as opened:
        assert opened.dimensions == expected
    lesions = tifffile.imread(folder / "lesions.tif", level=0) > 0
    features = json.loads((folder / "lesions.geojson").read_text())["features"]
    scale = 2.5 / info.mpp
    assert sum(shape(f["geometry"]).area for f in features) == pytest.approx(lesions.sum() * scale**2, rel=0.02)
    for feature in features:
        left, top, right, bottom = shape(feature["geometry"]).bounds
        assert 0 <= left < right <= info.size_lv0[0]
        assert 0 <= top < bottom <= info.size_lv0[1]


def test_the_test_slide_has_been_evaluated():
    metrics = json.loads((RESULTS / "metrics/slides/camelyon_4.json").read_text())["metrics"]
    assert 0 <= metrics["dice"] <= 1
    assert metrics["auroc"] is not None
    assert metrics["false_positive_rate_vessel"] is None  # no vessel is annotated there


def test_the_report_has_a_page_for_each_readable_slide():
    assert {path.stem for path in (RESULTS / "report/slides").glob("*.html")} == {
        "camelyon_1",
        "camelyon_2",
        "camelyon_3",
        "camelyon_4",
        "tcga_cr_7395",
    }
