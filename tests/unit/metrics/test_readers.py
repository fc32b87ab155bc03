"""Agreement of a model and two readers over several slides, by hand."""

import numpy as np
import pytest
from evaluated import random_slide, record_of
from lesionmap.metrics.intervals import FISHER, LINEAR, interval
from lesionmap.metrics.pairs import PAIRS, pixel_agreement
from lesionmap.metrics.readers import SCALES, reader_agreement
from sklearn.metrics import cohen_kappa_score

MODEL_1, MODEL_2, READERS = PAIRS


def twice_read(n, counts, boundaries, patient=None):
    """A record; of each pair numbers of pixels (TP, FP, FN, TN), and NSD and HD95."""
    names = ("tp", "fp", "fn", "tn", "nsd", "hd95_um")
    of_pairs = [dict(zip(names, (*pair, *far), strict=True)) for pair, far in zip(counts, boundaries, strict=True)]
    readers = dict(zip(PAIRS, of_pairs, strict=True))
    return record_of(f"s{n}", *random_slide(n), readers=readers, patient=patient)


def entries_of(records):
    return {(row["pair"], row["metric"]): row for row in reader_agreement(records)}


def test_pixels_of_all_slides_count_together_and_boundaries_slide_by_slide():
    first = twice_read(0, [(8, 2, 4, 86), (5, 5, 1, 89), (6, 0, 6, 88)], [(0.5, 10.0), (0.25, 30.0), (0.75, 5.0)])
    other = twice_read(1, [(0, 3, 0, 97), (0, 3, 0, 97), (0, 0, 0, 100)], [(0.0, None), (0.0, None), (None, None)])
    found = entries_of([first, other])
    assert list(found) == [(pair, metric) for pair in PAIRS for metric in SCALES]
    expected = {"dice": 16 / 25, "iou": 8 / 17, "precision": 8 / 13, "recall": 8 / 12, "specificity": 183 / 188}
    assert {name: found[MODEL_1, name]["value"] for name in expected} == pytest.approx(expected)
    assert found[READERS, "dice"]["value"] == pytest.approx(12 / 18)
    assert found[MODEL_1, "dice"]["difference"] == pytest.approx(16 / 25 - 12 / 18)
    assert "difference" not in found[MODEL_2, "dice"]
    means = {pair: found[pair, "slide_mean_nsd"]["value"] for pair in PAIRS}
    assert means == pytest.approx({MODEL_1: 0.25, MODEL_2: 0.125, READERS: 0.75})
    assert found[MODEL_1, "slide_mean_nsd"]["difference"] == pytest.approx(0.5 - 0.75)  # of the slide that has both
    assert found[MODEL_1, "slide_mean_hd95_um"]["value"] == 10
    assert found[MODEL_1, "slide_mean_hd95_um"]["difference"] == 5
    slides = {name: found[MODEL_1, name]["slides"] for name in ("dice", "kappa", "specificity", "slide_mean_nsd")}
    assert slides == {"dice": 1, "kappa": 2, "specificity": 2, "slide_mean_nsd": 2}
    assert found[READERS, "slide_mean_nsd"]["slides"] == 1


def test_kappa_is_that_of_scikit_learn():
    """It is symmetrical, and counts what both call free of lesion."""
    counts = {"tp": 8, "fp": 2, "fn": 5, "tn": 85}
    one, other = (np.repeat(labels, list(counts.values())) for labels in ([1, 1, 0, 0], [1, 0, 1, 0]))
    assert pixel_agreement(counts)["kappa"] == pytest.approx(cohen_kappa_score(one, other))
    assert pixel_agreement({"tp": 1, "fp": 3, "fn": 4, "tn": 0})["kappa"] < 0
    assert pixel_agreement({"tp": 0, "fp": 0, "fn": 0, "tn": 9})["kappa"] is None
    assert pixel_agreement({"tp": 0, "fp": 4, "fn": 0, "tn": 9})["dice"] is None


def cohort(n_patients=8):
    """Two slides a patient; the model agrees with reader 1 about as the second reader does."""
    rng, records = np.random.default_rng(5), []
    for n in range(2 * n_patients):
        counts = [(*rng.integers(20, 60, 3), 400) for _ in PAIRS]
        boundaries = [(rng.uniform(0.3, 0.8), rng.uniform(20, 200)) for _ in PAIRS]
        records.append(twice_read(n, counts, boundaries, patient=f"p{n // 2}"))
    return records


def test_intervals_are_from_a_jackknife_over_patients_and_differences_are_paired():
    records = cohort()
    found = entries_of(records)

    def kappa_of(members, pair):
        sums = {name: sum(record["readers"][pair][name] for record in members) for name in ("tp", "fp", "fn", "tn")}
        return pixel_agreement(sums)["kappa"]

    parts = [[record for record in records if record["patient"] != f"p{n}"] for n in range(8)]
    without = {pair: np.array([kappa_of(part, pair) for part in parts]) for pair in PAIRS}
    expected = interval(kappa_of(records, MODEL_1), without[MODEL_1], 8, FISHER)
    row = found[MODEL_1, "kappa"]
    assert (row["low"], row["high"], row["slides"], row["patients"]) == pytest.approx(
        (expected.low, expected.high, 16, 8)
    )
    difference = kappa_of(records, MODEL_1) - kappa_of(records, READERS)
    expected = interval(difference, without[MODEL_1] - without[READERS], 8, LINEAR)
    assert (row["difference_low"], row["difference_high"]) == pytest.approx((expected.low, expected.high))
    for row in found.values():
        assert row["low"] < row["value"] < row["high"]


def test_what_is_undefined_is_said():
    nothing = [twice_read(0, [(0, 0, 0, 9)] * 3, [(None, None)] * 3)]
    for row in reader_agreement(nothing):
        if row["metric"] == "specificity":
            assert (row["value"], row["note"]) == (1.0, "no interval: fewer than 5 patients")
        else:
            assert (row["value"], row["low"], row.get("difference")) == (None, None, None)
            assert row["note"] == "the pair has too little lesion for it, or none"
