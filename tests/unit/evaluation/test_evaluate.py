"""A slide's maps held against its annotation: pixels, areas, lesions, detections, however many strips there are."""

import numpy as np
import pytest
from lesionmap.evaluation import evaluate as evaluation
from lesionmap.evaluation.evaluate import EvaluatedFiles, Role, evaluate_slide
from lesionmap.files.records import read_json, write_json
from lesionmap.geometry.resampling import block_max
from lesionmap.maps.ome_tiff import MapNotes, write_map
from lesionmap.metrics.pixels import Histograms, binary_metrics
from pyramids import info_of, write_tiff
from shapely.geometry import box, mapping
from tifffile import imwrite

MPP = 2.5
SCALE = 5  # of a slide of 0.5 µm/px
HEIGHT, WIDTH = 300, 240


@pytest.fixture(scope="module")
def info(tmp_path_factory):
    shape = HEIGHT * SCALE, WIDTH * SCALE, 3
    return info_of(write_tiff(tmp_path_factory.mktemp("slide") / "s.tif", np.zeros(shape, np.uint8)), mpp=0.5)


def outline(label, rows, columns):
    """A box of map pixels as an annotation."""
    corners = [SCALE * length for length in (columns.start, rows.start, columns.stop, rows.stop)]
    return {"type": "Feature", "properties": {"class": label}, "geometry": mapping(box(*corners))}


BIG = slice(20, 140), slice(20, 140)  # 300 µm each way
FAR = slice(200, 290), slice(100, 200)
FAT = slice(160, 190), slice(20, 220)
OUTLINES = [outline("lesion", *BIG), outline("lesion", *FAR), outline("fat", *FAT)]


@pytest.fixture
def evaluated(tmp_path, info):
    def evaluate(scores, *, marked=None, tissue=None, unreadable=(), outlines=OUTLINES, second=None):
        tissue = np.ones(scores.shape, bool) if tissue is None else tissue
        marked = scores >= 2**15 if marked is None else marked
        names = ("p.tif", "l.tif", "t.tif", "a.geojson", *([] if second is None else ["b.geojson"]))
        files = EvaluatedFiles(*(str(tmp_path / name) for name in names))
        facts = {"threshold": 0.5, "unreadable": [[SCALE * length for length in box] for box in unreadable]}
        write_map(files.scores, scores, MapNotes("s", "p", MPP, facts))
        write_map(files.lesions, marked, MapNotes("s", "l", MPP, facts), block_max)
        imwrite(files.tissue, tissue.astype(np.uint8) * 255)
        write_json(files.annotation, {"type": "FeatureCollection", "features": list(outlines)})
        if second is not None:
            write_json(files.second, {"type": "FeatureCollection", "features": list(second)})
        role = Role(split="test", patient="p 1")
        output, origin = str(tmp_path / "m.json"), {"code": "abc"}
        evaluate_slide(info, files, output, role=role, tolerance_um=30, provenance=origin)
        return read_json(tmp_path / "m.json")

    return evaluate


LOW, CALLED, FALSE, HIGH = 30_000, 41_000, 45_001, 45_003  # the last two are 1 in steps of 1/255


@pytest.fixture
def scores():
    """The large lesion is found and something in the fat; the other lesion is seen but not called."""
    scores = np.random.default_rng(0).integers(1, LOW, (HEIGHT, WIDTH)).astype(np.uint16)
    scores[BIG[0], 30:150] = CALLED
    scores[50, 60] = HIGH
    scores[170:175, 50:60] = FALSE
    scores[250, 150] = LOW
    return scores


def class_mask():
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[BIG], mask[FAR], mask[FAT] = 1, 1, 3
    return mask


def test_pixels_areas_lesions_and_detections(evaluated, scores):
    record = evaluated(scores)
    assert (record["slide"], record["split"], record["patient"]) == ("s1", "test", "p 1")
    counts = Histograms.of(scores, class_mask())
    assert record["histograms"] == counts.record()
    assert record["metrics"] == binary_metrics(counts, 0.5)
    assert record["undefined"] == {"false_positive_rate_vessel": "no pixel of vessel"}
    pixel_mm2 = MPP**2 / 1e6
    assert record["annotated_mm2"] == pytest.approx((120 * 120 + 90 * 100) * pixel_mm2)
    assert record["predicted_mm2"] == pytest.approx((120 * 120 + 50) * pixel_mm2)
    big, far = sorted(record["lesions"], key=lambda lesion: -lesion["area_mm2"])
    assert big == {
        "area_mm2": pytest.approx(0.09),
        "extent_um": pytest.approx(300 * 2**0.5, abs=1e-3),
        "pixels": 120 * 120,
        "predicted_pixels": 120 * 110,
        "peak_score": HIGH,
        "detection_score": HIGH,
    }
    assert (far["pixels"], far["predicted_pixels"], far["peak_score"], far["detection_score"]) == (9000, 0, LOW, None)
    assert record["false_positive_scores"] == [FALSE]
    assert record["highest_score"] == HIGH


def test_a_detection_just_beside_an_outline_is_in_it_and_one_farther_off_is_not(evaluated):
    scores = np.zeros((HEIGHT, WIDTH), np.uint16)
    scores[60, 154] = CALLED  # its centre is 36.25 µm from the outline
    scores[80, 155] = FALSE  # 38.75 µm
    record = evaluated(scores, outlines=OUTLINES[:1])
    assert record["lesions"][0]["detection_score"] == CALLED
    assert record["lesions"][0]["predicted_pixels"] == 0
    assert record["false_positive_scores"] == [FALSE]


def test_the_lesions_are_those_of_the_lesion_map_and_the_pixels_those_of_the_probability(evaluated, scores):
    postprocessed = np.zeros(scores.shape, bool)
    postprocessed[BIG] = True
    record = evaluated(scores, marked=postprocessed)
    assert record["metrics"] == binary_metrics(Histograms.of(scores, class_mask()), 0.5)
    assert not any(record["false_positive_scores"])
    assert record["predicted_mm2"] == pytest.approx(120 * 120 * MPP**2 / 1e6)


def test_outside_tissue_only_what_is_annotated_counts_and_what_is_unreadable_never(evaluated, scores):
    tissue = np.zeros(scores.shape, bool)
    record = evaluated(scores, tissue=tissue, unreadable=[(0, 0, WIDTH, 100)])
    mask = class_mask()
    mask[mask == 0] = 255
    mask[:100] = 255
    assert record["histograms"] == Histograms.of(scores, mask).record()
    assert record["predicted_mm2"] == pytest.approx((40 * 110 + 50) * MPP**2 / 1e6)
    assert sorted(lesion["detection_score"] or 0 for lesion in record["lesions"]) == [
        0,
        CALLED,
    ]  # its highest is not seen
    assert record["highest_score"] == FALSE


def with_ignored(scores):
    """Over the right part of the large lesion and beyond, around the detection in fat, and where nothing is seen."""
    ignored = [(slice(10, 90), slice(100, 160)), (slice(165, 185), slice(40, 70)), (slice(200, 210), slice(0, 30))]
    mask = class_mask()
    for rows, columns in ignored:
        mask[rows, columns] = 255
    lesions = box(100, 100, 700, 700).difference(box(500, 50, 800, 450))
    features = [outline("ignore", *place) for place in ignored]
    features += [{"type": "Feature", "properties": {"class": "lesion"}, "geometry": mapping(lesions)}, OUTLINES[1]]
    fat = box(100, 800, 1100, 950).difference(box(200, 825, 350, 925))
    return mask, [*features, {"type": "Feature", "properties": {"class": "fat"}, "geometry": mapping(fat)}]


def test_what_is_to_be_ignored_is_in_no_metric_and_is_reported(evaluated, scores):
    mask, outlines = with_ignored(scores)
    scores[20, 120] = 60_000  # the highest, but in what is ignored
    record = evaluated(scores, outlines=outlines)
    counts = Histograms.of(scores, mask)
    assert counts.counts.sum() == HEIGHT * WIDTH - 80 * 60 - 20 * 30 - 10 * 30
    assert record["histograms"] == counts.record()
    assert record["metrics"] == binary_metrics(counts, 0.5)
    pixel_mm2 = MPP**2 / 1e6
    assert record["ignored_mm2"] == pytest.approx((80 * 60 + 20 * 30 + 10 * 30) * pixel_mm2)
    assert record["annotated_mm2"] == pytest.approx((120 * 120 - 70 * 40 + 90 * 100) * pixel_mm2)
    assert record["predicted_mm2"] == pytest.approx((120 * 120 - 70 * 50) * pixel_mm2)
    big = max(record["lesions"], key=lambda lesion: lesion["area_mm2"])
    assert (big["pixels"], big["predicted_pixels"]) == (120 * 120 - 70 * 40, 120 * 110 - 70 * 40)
    assert (big["peak_score"], big["detection_score"]) == (HIGH, HIGH)
    assert record["verdicts"]["not judged"] == 1
    assert not any(record["false_positive_scores"])


def test_what_is_unreadable_or_no_tissue_is_not_called_ignored(evaluated, scores):
    mask, outlines = with_ignored(scores)
    tissue = np.zeros(scores.shape, bool)
    record = evaluated(scores, outlines=outlines, tissue=tissue, unreadable=[(0, 0, WIDTH, 50)])
    mask[mask == 0] = 255
    mask[:50] = 255
    assert record["histograms"] == Histograms.of(scores, mask).record()
    assert record["ignored_mm2"] == pytest.approx((40 * 60 + 20 * 30 + 10 * 30) * MPP**2 / 1e6)
    assert record["verdicts"]["not judged"] == 1


@pytest.mark.parametrize("rows", [1, 37, 1000])
def test_strips_of_any_height_give_the_same(evaluated, scores, monkeypatch, rows):
    _, outlines = with_ignored(scores)
    second = [outline("ignore", slice(60, 70), slice(0, 50)), outline("lesion", slice(15, 130), slice(30, 150))]
    whole = evaluated(scores, outlines=outlines, second=second)
    monkeypatch.setattr(evaluation, "ROWS_AT_ONCE", rows)
    assert evaluated(scores, outlines=outlines, second=second) == whole


def test_a_slide_without_lesion_says_why_metrics_are_undefined(evaluated, scores):
    record = evaluated(scores, outlines=[])
    assert record["lesions"] == []
    assert record["undefined"]["dice"] == record["undefined"]["auroc"] == "no lesion is annotated"
    assert record["metrics"]["specificity"] > 0.5
    assert record["false_positive_scores"] == [FALSE, HIGH]


ROWS = slice(20, 80)


def in_box(columns):
    marked = np.zeros((HEIGHT, WIDTH), bool)
    marked[ROWS, columns] = True
    return marked


@pytest.mark.parametrize(
    ("unreadable", "share"), [((), (80 + 24 + 24) / 240), ([(0, 50, WIDTH, 250)], (40 + 12 + 24) / 120)]
)
def test_boundaries_are_compared_where_neither_is_cut(evaluated, unreadable, share):
    """Two boxes of 60 × 60 px, 20 px apart, of which 12 are near; 40 sides of the top are shared, and of the bottom.

    Unreadable rows take away the bottom, and leave 30 of the 60 rows.
    """
    scores, outlines = np.zeros((HEIGHT, WIDTH), np.uint16), [outline("lesion", ROWS, slice(60, 120))]
    record = evaluated(scores, marked=in_box(slice(40, 100)), outlines=outlines, unreadable=unreadable)
    assert record["boundary"] == {"tolerance_um": 30, "nsd": pytest.approx(share), "hd95_um": 50.0}
    assert record["readers"] is None
    record = evaluated(scores, marked=scores > 0, outlines=outlines, unreadable=unreadable)
    assert record["boundary"] == {"tolerance_um": 30, "nsd": 0.0, "hd95_um": None}
    assert record["undefined"]["hd95_um"] == "only one of the two has lesion"


def test_model_and_two_readers_are_compared_where_neither_reader_ignores(evaluated):
    """Boxes of 60 × 60 px at columns 40, 60 and 50; the second reader ignores the first 10 of their rows."""
    marked, first = in_box(slice(40, 100)), [outline("lesion", ROWS, slice(60, 120))]
    second = [outline("ignore", slice(20, 30), slice(0, WIDTH)), outline("lesion", ROWS, slice(50, 110))]
    scores, tissue = np.where(marked, CALLED, LOW).astype(np.uint16), np.zeros((HEIGHT, WIDTH), bool)
    tissue[:90] = True
    record = evaluated(scores, marked=marked, tissue=tissue, outlines=first, second=second)
    assert {**record, "readers": None} == evaluated(scores, marked=marked, tissue=tissue, outlines=first)
    expected = {"model–reader 1": (2000, 1000), "model–reader 2": (2500, 500), "reader 2–reader 1": (2500, 500)}
    assert list(record["readers"]) == list(expected)
    for pair, (tp, wrong) in expected.items():
        found = record["readers"][pair]
        counts = (tp, wrong, wrong, 80 * WIDTH - tp - 2 * wrong)
        assert tuple(found[name] for name in ("tp", "fp", "fn", "tn")) == counts
        assert found["dice"] == found["precision"] == found["recall"] == pytest.approx(tp / 3000)
        assert found["undefined"] == {}
    assert [record["readers"][pair]["hd95_um"] for pair in expected] == [50.0, 25.0, 25.0]
    assert record["readers"]["reader 2–reader 1"]["nsd"] == 1.0
    # Of 50 + 60 + 50 sides: half of the bottom and 12, and 12 to either end of the right or left ones, cut or not.
    assert record["readers"]["model–reader 1"]["nsd"] == pytest.approx((40 + 12 + 24) / 160)


def test_what_a_second_reader_alone_has_annotated_counts_for_the_readers_off_tissue(evaluated):
    scores = np.zeros((HEIGHT, WIDTH), np.uint16)
    place = slice(5, 12), slice(7, 20)
    record = evaluated(scores, tissue=scores > 0, outlines=[], second=[outline("lesion", *place)])
    found = record["readers"]["reader 2–reader 1"]
    assert [found[name] for name in ("tp", "fp", "fn", "tn")] == [0, 7 * 13, 0, 0]
    assert record["histograms"]["counts"] == [[], [], [], []]
