"""Areas that an annotator marks as not to be judged, from the annotation file to loss and metrics, counted by hand.

The slide has 900×700 px. A lesion of 400×300 px (x 100–500, y 60–360) lies partly under an outline of the class Ignore*
(x 402–640, y 200–500). A second one covers all of the region at (512, 512).
"""

import json
import math

import numpy as np
import pytest
import tifffile
import torch
import yaml
from evaluated import scores_at, scores_of
from lesionmap.annotations.canonical import AnnotationSettings, import_annotation
from lesionmap.errors import SlideError
from lesionmap.evaluation.evaluate import EvaluatedFiles, Role, evaluate_slide
from lesionmap.files.records import read_json
from lesionmap.geometry.resampling import block_max
from lesionmap.geometry.tiling import TileSpec
from lesionmap.maps.ome_tiff import MapNotes, write_map
from lesionmap.network.thread_pool import ThreadPool
from lesionmap.stain.table import StainMatch
from lesionmap.tiles.codec import TileCodec
from lesionmap.tiles.extraction import Extraction, extract_tiles, write_record
from lesionmap.tiles.store import TileStore
from lesionmap.training.dataset import RegionDataset, RegionLoader
from lesionmap.training.updates import RegionSteps
from pyramids import info_of, write_tiff
from shapely.geometry import box, mapping
from stained import PROFILE
from training_parts import UNCHANGED, network, passes, settings

SIZE = 900, 700
SPEC = TileSpec(region_px=512, tile_px=128, mpp=0.25)  # factor 4
OUTLINES = (
    ("Tumor", (100, 60, 500, 360)),
    ("Ignore*", (402, 200, 640, 500)),
    ("Ignore*: fold", (512, 512, 900, 700)),
)


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    """Folder and metadata of a slide that is all tissue."""
    folder = tmp_path_factory.mktemp("slide")
    image = np.random.default_rng(0).integers(90, 200, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
    tifffile.imwrite(folder / "tissue.tif", np.full((SIZE[1] // 10, SIZE[0] // 10), 255, dtype=np.uint8))
    return folder, info_of(write_tiff(folder / "s.tif", image))


def annotated(slide, tmp_path, pytestconfig, outlines):
    """The canonical annotation of QuPath outlines, by the classes of the default config."""
    config = yaml.safe_load((pytestconfig.rootpath / "config/config.yaml").read_text(encoding="utf-8"))
    features = [
        {"type": "Feature", "geometry": mapping(box(*corners)), "properties": {"classification": {"name": name}}}
        for name, corners in outlines
    ]
    (tmp_path / "qupath.geojson").write_text(json.dumps(features))
    output = str(tmp_path / "a.geojson")
    import_annotation(str(tmp_path / "qupath.geojson"), slide[1], output, AnnotationSettings(**config["annotations"]))
    return output


def tiled(slide, annotation, tmp_path, least=0.1):
    folder, info = slide
    how = Extraction(SPEC, least, 0.0, StainMatch(PROFILE, PROFILE, (1.0, 1.0)), TileCodec())
    extract_tiles(info, str(folder / "tissue.tif"), annotation, str(tmp_path / "s.h5"), how, provenance={})
    return str(tmp_path / "s.h5")


@pytest.fixture
def annotation(slide, tmp_path, pytestconfig):
    return annotated(slide, tmp_path, pytestconfig, OUTLINES)


def test_the_canonical_annotation_says_what_is_ignored(annotation):
    classes = read_json(annotation)["classes"]
    assert classes["ignore"] == {"polygons": 2, "area_mm2": pytest.approx((238 * 300 + 388 * 188) / 16e6, abs=1e-6)}
    assert classes["lesion"] == {"polygons": 1, "area_mm2": pytest.approx((400 * 300 - 98 * 160) / 16e6, abs=1e-6)}


def test_tiles_have_255_there_and_nothing_that_is_ignored_whole_is_stored(slide, annotation, tmp_path):
    with TileStore(tiled(slide, annotation, tmp_path)) as store:
        regions = {part.xy_lv0: part for part in (store.region(index) for index in range(len(store)))}
        assert list(regions) == [(0, 0), (512, 0), (0, 512)]  # (512, 512) has only what is ignored
        first, second = regions[0, 0], regions[512, 0]
        assert np.bincount(first.masks.ravel(), minlength=256)[[0, 1, 255]].tolist() == [
            512 * 512 - (400 * 300 - 98 * 160) - 110 * 300,
            400 * 300 - 98 * 160,
            110 * 300,
        ]
        # x 400–403 is one pixel of the low view: half is ignored, so what is judged wins
        assert np.bincount(first.low_mask.ravel(), minlength=256)[[0, 1, 255]].tolist() == [7819, 6540, 27 * 75]
        assert first.low_mask[[49, 50, 124, 125], 101].tolist() == [1, 255, 255, 0]
        assert first.low_mask[60, [24, 25, 100, 101, 127]].tolist() == [0, 1, 1, 255, 255]
        assert len(first.masks) == 16
        # x 512–639 and y 256–383 are ignored whole; the slide ends in the last column of tiles
        kept = [[row, column] for row in range(4) for column in range(4) if (row, column) != (2, 0)]
        assert second.row_col.tolist() == kept
        assert (second.low_mask[50:125, :32] == 255).all()
        assert (second.low_mask[:, 97:] == 255).all()
        assert (second.low_mask == 255).sum() == 75 * 32 + 128 * 31
        assert store.class_pixels()[:2].tolist() == [
            [512 * 512 - 104320 - 33000, 104320, 0, 0],
            [388 * 512 - 128 * 300, 0, 0, 0],
        ]
    write_record(str(tmp_path / "s.h5"), str(tmp_path / "s.json"))
    assert read_json(tmp_path / "s.json")["lesion_mm2"] == pytest.approx(104320 / 16e6)


def test_the_share_of_tissue_is_of_what_is_judged(slide, tmp_path, pytestconfig):
    """All but 80 of 128 columns of the low view of the region at (0, 512), which has 47 rows on the slide."""
    outlines = [("Ignore*", (0, 0, 900, 512)), ("Ignore*", (512, 512, 900, 700)), ("Ignore*", (320, 512, 512, 700))]
    annotation = annotated(slide, tmp_path, pytestconfig, outlines)
    share = 80 * 47 / 128**2
    with TileStore(tiled(slide, annotation, tmp_path, share)) as store:
        assert [store.region(index).xy_lv0 for index in range(len(store))] == [(0, 512)]
        assert store.region(0).row_col.tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
    with pytest.raises(SlideError, match="no region has 23% tissue or an annotation, besides what is of the"):
        tiled(slide, annotation, tmp_path, share + 1e-6)


def test_a_slide_that_is_ignored_whole_cannot_be_trained_on(slide, tmp_path, pytestconfig):
    annotation = annotated(slide, tmp_path, pytestconfig, [("Tumor", (10, 10, 99, 99)), ("Ignore*", (0, 0, *SIZE))])
    with pytest.raises(SlideError, match="look at the tissue mask and the annotation"):
        tiled(slide, annotation, tmp_path, 0)


def test_the_losses_are_means_over_what_is_judged(slide, annotation, tmp_path):
    """Of a network that says σ(0.4) everywhere, so that T1, T2 and their fusion are the same."""
    model = network()
    torch.nn.init.zeros_(model.head.weight)
    torch.nn.init.constant_(model.head.bias, 0.4)
    optimiser, how = torch.optim.Adam(model.parameters(), lr=0.0), settings(schedule="sequential")
    loader = RegionLoader(RegionDataset([tiled(slide, annotation, tmp_path)]), torch.device("cpu"), True)
    p = 1 / (1 + math.exp(-0.4))
    lesion, other = 0.75 * (1 - p) ** 2 * -math.log(p), 0.25 * p**2 * -math.log(1 - p)

    def mean(n_lesion, n_other):
        return pytest.approx((n_lesion * lesion + n_other * other) / (n_lesion + n_other), rel=1e-9)

    with ThreadPool(1) as pool:
        steps = RegionSteps(passes(model, pool), optimiser, how)
        first, second, _ = loader.tensors((number, UNCHANGED) for number in range(3))
        losses = steps.low(first) | steps.rest(first)
        assert losses == {
            "low": mean(6540, 7819),
            "high": mean(104320, 512 * 512 - 104320 - 33000),
            "fused": mean(6540, 7819),
        }
        assert steps.low(second) | steps.rest(second) == {name: mean(0, 1) for name in ("low", "high", "fused")}


def test_metrics_are_of_what_is_judged(slide, annotation, tmp_path):
    """A map of 90×70 px: lesion x 10–49, y 6–35; ignored x 40–63, y 20–49 and x 51–89, y 51–69."""
    folder, info = slide
    probability_u8 = np.full((70, 90), 20, np.uint8)
    probability_u8[10:45, 30:70] = 200  # 40·35 px, of which 24·25 ignored, and 20·26 − 10·16 lesion
    probability_u8[47:49, 50:56] = 250  # ignored
    paths = [str(tmp_path / name) for name in ("p.tif", "l.tif")]
    facts = {"threshold": 0.5, "unreadable": []}
    write_map(paths[0], scores_of(probability_u8 / 255), MapNotes("s", "p", 2.5, facts))
    write_map(paths[1], probability_u8 > 127, MapNotes("s", "l", 2.5, facts), block_max)
    files = EvaluatedFiles(*paths, str(folder / "tissue.tif"), annotation)
    evaluate_slide(info, files, str(tmp_path / "m.json"), role=Role("test", None), tolerance_um=30, provenance={})
    record = read_json(tmp_path / "m.json")
    tp, fp, fn = 360, 440, 40 * 30 - 160 - 360
    tn = 90 * 70 - 24 * 30 - 39 * 19 - tp - fp - fn
    assert record["metrics"]["dice"] == pytest.approx(2 * tp / (2 * tp + fp + fn))
    assert record["metrics"]["specificity"] == record["metrics"]["false_positive_rate_rest"] * -1 + 1
    assert record["metrics"]["specificity"] == pytest.approx(tn / (tn + fp))
    squares = (tp * 55**2 + fp * 200**2 + fn * 235**2 + tn * 20**2) / 255**2
    assert record["metrics"]["brier"] == pytest.approx(squares / (tp + fp + fn + tn), rel=1e-3)
    assert record["annotated_mm2"] == pytest.approx(1040 * 6.25e-6)
    assert record["predicted_mm2"] == pytest.approx(800 * 6.25e-6)
    assert record["ignored_mm2"] == pytest.approx((24 * 30 + 39 * 19) * 6.25e-6)
    (lesion,) = record["lesions"]
    assert (lesion["pixels"], lesion["predicted_pixels"], lesion["detection_score"]) == (1040, 360, scores_at(200)[0])
    assert (record["false_positive_scores"], record["verdicts"]["not judged"]) == ([], 1)
