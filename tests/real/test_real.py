"""What `make real` leaves in results/; run by it."""

import json
from pathlib import Path

import numpy as np
import openslide
import pandas as pd
import pytest
import tifffile
from lesionmap.annotations import Annotation
from lesionmap.slides import load_info
from lesionmap.store import TileStore
from lesionmap.tiling import LESION
from shapely.geometry import shape

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results"
DATA = ROOT.parent / "shared/data"

pytestmark = pytest.mark.skipif(not DATA.exists(), reason="the real slides of ../shared/data are absent")

REASONS = {
    "cmu_small_region": "0.499 µm/px is coarser than the 0.25 µm/px that the split 'train' needs",
    "broken_empty": "is empty (0 bytes)",
    "broken_text": "does not recognise",
    "broken_header": "does not recognise",
    "broken_truncated": "does not recognise",
    "broken_tiles": "level 0, box x=",
}


def test_the_quarantine_is_what_it_should_be():
    table = pd.read_csv(RESULTS / "quarantine.tsv", sep="\t").set_index("slide")
    assert set(table.index) == set(REASONS)
    for slide, reason in REASONS.items():
        assert reason in table["finding"][slide]
    assert set(pd.read_csv(RESULTS / "manifest.tsv", sep="\t")["slide"]) == {
        "camelyon_1",
        "camelyon_2",
        "camelyon_3",
        "camelyon_4",
        "tcga_cr_7395",
    }


@pytest.mark.parametrize("slide", [f"camelyon_{i}" for i in range(1, 5)])
def test_annotations_of_every_kind_are_the_masks_to_the_pixel(slide):
    info = load_info(RESULTS / f"slides/{slide}.json")
    drawn = Annotation(RESULTS / f"annotations/{slide}.geojson").mask((0, 0), info.size_lv0, 1.0)
    np.testing.assert_array_equal(drawn == LESION, tifffile.imread(DATA / f"masks/{slide}.tif", level=0) == 1)


@pytest.mark.parametrize("slide", ["camelyon_1", "camelyon_2", "camelyon_3"])
def test_stored_tiles_have_the_masks_of_their_place(slide):
    mask = tifffile.imread(DATA / f"masks/{slide}.tif", level=0)
    with TileStore(RESULTS / f"tiles/{slide}.h5") as store:
        tile_px = store.spec.tile_px
        checked = 0
        for index in range(len(store)):
            region = store.region(index)
            for (row, column), tile in zip(region.row_col.astype(int), region.masks, strict=True):
                x, y = int(region.xy_lv0[0]) + column * tile_px, int(region.xy_lv0[1]) + row * tile_px
                np.testing.assert_array_equal(tile == LESION, mask[y : y + tile_px, x : x + tile_px] == 1)
                checked += int((tile == LESION).sum())
    assert checked == mask.sum()


@pytest.mark.parametrize("slide", ["camelyon_4", "tcga_cr_7395"])
def test_maps_and_outlines_lie_on_the_slide(slide):
    info = load_info(RESULTS / f"slides/{slide}.json")
    folder = RESULTS / "lesions" / slide
    expected = tuple(int(np.ceil(length * info.mpp / 2.5 - 1e-9)) for length in info.size_lv0)
    with openslide.OpenSlide(folder / "probability.tif") as opened:
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
    metrics = json.loads((RESULTS / "metrics/camelyon_4.json").read_text())["metrics"]
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
