"""Compared with SciPy's own permutation test, with metrics computed one cohort at a time, and by hand."""

from itertools import product

import numpy as np
import pytest
from evaluated import lesion, random_slide, record_of, scores_at
from lesionmap.experiments.statistics import (
    COMPARED,
    REPORTED,
    Pair,
    differences,
    entries,
    exchange_test,
    holm,
    over_seeds,
)
from lesionmap.metrics.cohort import metrics_of
from lesionmap.metrics.intervals import LINEAR, interval
from lesionmap.metrics.slide_table import SlideTable
from scipy.stats import permutation_test

METRIC = {metric.name: metric for metric in REPORTED}


def records(seed, n, shift=0.0, patients=None):
    """Slides with the same lesions for any shift, which makes maps better."""
    found = []
    for number in range(n):
        scores, mask = random_slide(100 * seed + number, has_lesion=number % 4 != 3)
        moved = np.clip(scores.astype(int) + (1024 * shift * np.where(mask == 1, 1, -1)).astype(int), 1, 65535)
        detected = None if number % 3 else 150 + number
        lesions = [lesion(detected_at=detected)] if number % 4 != 3 else []
        false = scores_at(*range(100, 100 + number % 3))
        patient = patients[number] if patients else None
        found.append(
            record_of(f"s{number}", moved.astype(np.uint16), mask, lesions=lesions, patient=patient)
            | {"false_positive_scores": false}
        )
    return found


def of_seeds(*parts):
    return [SlideTable.of(part, 0) for part in parts]


def value(table, name):
    return metrics_of(table, np.ones((1, len(table.patient))))[METRIC[name]].item()


def test_the_mean_over_seeds_and_its_spread():
    tables = of_seeds(records(1, 8), records(2, 8), records(3, 8))
    found = {entry["metric"]: entry for entry in entries(tables, np.array([1, 1, 2, 2, 2, 3, 3, 3]))}
    for name in ("dice", "slide_mean_auroc", "froc_score", "lesion_recall"):
        values = [value(table, name) for table in tables]
        assert found[name]["value"] == pytest.approx(np.mean(values))
        assert found[name]["seed_sd"] == pytest.approx(np.std(values, ddof=1))


def test_the_spread_over_folds_is_that_of_metrics_within_them():
    parts = [records(seed, 8) for seed in (1, 2)]
    fold = np.array([2, 1, 2, 1, 1, 3, 3, 3])
    found = {entry["metric"]: entry for entry in entries(of_seeds(*parts), fold)}
    of_fold = []
    for number in (1, 2, 3):
        inside = [[record for record, its in zip(part, fold, strict=True) if its == number] for part in parts]
        of_fold.append(np.mean([value(table, "dice") for table in of_seeds(*inside)]))
    assert found["dice"]["fold_sd"] == pytest.approx(np.std(of_fold, ddof=1))


def test_one_seed_and_one_fold_have_no_spread():
    found = {entry["metric"]: entry for entry in entries(of_seeds(records(1, 6)), np.ones(6, dtype=int))}
    assert found["dice"]["seed_sd"] is None
    assert found["dice"]["fold_sd"] is None


def test_the_interval_leaves_out_a_patient_from_all_seeds():
    patients = ["a", "a", "b", "c", "d", "d", "e", "f", "g", "h"]
    parts = [records(seed, 10, patients=patients) for seed in (1, 2)]
    found = {entry["metric"]: entry for entry in entries(of_seeds(*parts), np.ones(10, dtype=int))}["dice"]
    without = []
    for patient in dict.fromkeys(patients):
        left = [[record for record in part if record["patient"] != patient] for part in parts]
        without.append(np.mean([value(table, "dice") for table in of_seeds(*left)]))
    expected = interval(found["value"], np.array(without), 6, METRIC["dice"].scale)
    assert (found["low"], found["high"]) == pytest.approx((expected.low, expected.high))
    assert found["patients"] == 6  # c and f have no lesion


def test_a_metric_that_one_seed_does_not_define_is_undefined():
    blank = [record | {"metrics": {}} for record in records(1, 6)]
    healthy = [record_of(f"s{number}", random_slide(number)[0], np.zeros((40, 50), np.uint8)) for number in range(6)]
    found = {entry["metric"]: entry for entry in entries(of_seeds(blank, healthy), np.ones(6, dtype=int))}
    assert found["dice"]["value"] is None


def compared(n, shift, patients=None):
    """Pairs of a first and a better second variant, for two seeds."""
    first = [records(seed, n, patients=patients) for seed in (1, 2)]
    second = [records(seed, n, shift * (1 + seed / 3), patients) for seed in (1, 2)]
    return [Pair(*of_seeds(own, other, own + other)) for own, other in zip(first, second, strict=True)]


def together(n, shift, patients=None):
    return [pair.together for pair in compared(n, shift, patients)]


def test_differences_are_paired():
    pairs = compared(8, 0.3)
    found = {one.metric: one for one in differences(pairs)}
    own, other = (over_seeds([getattr(pair, role) for pair in pairs], COMPARED) for role in ("first", "second"))
    for name in ("dice", "auroc", "slide_mean_dice"):
        metric = METRIC[name]
        expected = interval(other[0][metric] - own[0][metric], other[1][metric] - own[1][metric], 6, LINEAR)
        assert found[name].value == pytest.approx(other[0][metric] - own[0][metric])
        assert (found[name].low, found[name].high) == pytest.approx((expected.low, expected.high))
        assert found[name].value > 0


def test_the_sign_follows_the_order():
    pairs = compared(7, 0.3)
    turned = of_seeds(*(records(seed, 7, 0.3 * (1 + seed / 3)) + records(seed, 7) for seed in (1, 2)))
    swapped = [Pair(pair.second, pair.first, both) for pair, both in zip(pairs, turned, strict=True)]
    one, other = ({found.metric: found for found in differences(part)} for part in (pairs, swapped))
    assert one["dice"].value == pytest.approx(-other["dice"].value)
    assert one["dice"].p == other["dice"].p


@pytest.mark.parametrize("shift", [0.02, 0.2])
def test_p_values_of_means_are_those_of_scipy(shift):
    """With a slide for each patient, the exchange of a mean over slides is SciPy's test of paired samples."""
    pairs = compared(9, shift)
    both = [  # NaN on slides without lesion
        np.mean([getattr(pair, role).of_slides["auroc"] for pair in pairs], axis=0) for role in ("first", "second")
    ]
    defined = ~np.isnan(both[0])
    expected = permutation_test(
        [part[defined] for part in both],
        lambda x, y, axis: np.mean(y - x, axis=axis),
        permutation_type="samples",
        n_resamples=10**6,
    )
    assert exchange_test(together(9, shift))[METRIC["slide_mean_auroc"]] == pytest.approx(expected.pvalue)


def test_p_values_of_pooled_metrics_count_all_exchanges_of_patients():
    patients = ["a", "b", "b", "c", "d", "d", "e"]
    found, names = exchange_test(together(7, 0.1, patients)), list(dict.fromkeys(patients))
    for name in ("dice", "auprc", "froc_score", "lesion_recall"):
        values = []
        for exchanged in product([False, True], repeat=len(names)):
            moved = dict(zip(names, exchanged, strict=True))
            sums = []
            for seed in (1, 2):
                own = records(seed, 7, patients=patients)
                other = records(seed, 7, 0.1 * (1 + seed / 3), patients)
                first = [b if moved[a["patient"]] else a for a, b in zip(own, other, strict=True)]
                second = [a if moved[a["patient"]] else b for a, b in zip(own, other, strict=True)]
                sums.append(value(SlideTable.of(second, 0), name) - value(SlideTable.of(first, 0), name))
            values.append(np.mean(sums))
        as_large = np.abs(values) >= abs(values[0]) - 1e-12
        assert found[METRIC[name]] == pytest.approx(as_large.mean()), name


def test_equal_variants_have_p_1():
    assert {p for p in exchange_test(together(6, 0)).values() if p is not None} == {1.0}


def test_many_patients_are_exchanged_at_random_and_reproducibly():
    tables = together(16, 0.01)
    found = exchange_test(tables, seed=5)
    assert found == exchange_test(tables, seed=5)
    p = found[METRIC["slide_mean_dice"]]
    assert 1 / 10_000 <= p <= 1
    assert p * 10_000 == pytest.approx(round(p * 10_000))
    other = exchange_test(tables, seed=6)[METRIC["slide_mean_dice"]]
    assert p == pytest.approx(other, abs=0.02)


def test_variants_may_have_thresholds_of_their_own():
    """Metrics at the threshold are those of each slide's own; the others do not notice."""
    parts = records(1, 4)
    for number, threshold in enumerate((0.2, 0.5, 0.7, 0.5)):
        parts[number] = parts[number] | {"threshold": threshold}
    table, one = SlideTable.of(parts, 0), SlideTable.of(records(1, 4), 0)
    counts = [np.zeros(3), np.zeros(3)]
    for number, threshold in enumerate((0.2, 0.5, 0.7, 0.5)):
        scores, mask = random_slide(100 + number, has_lesion=number % 4 != 3)
        called = (
            scores >= round(1024 * np.log(threshold / (1 - threshold))) // 16 * 16 + 16 * (threshold != 0.5) + 2**15
        )
        known = mask != 255
        counts[0] += [(called & (mask == 1)).sum(), (called & known).sum(), (mask == 1).sum()]
    tp, predicted, lesion_px = counts[0]
    assert value(table, "dice") == pytest.approx(2 * tp / (predicted + lesion_px))
    assert value(table, "auroc") == value(one, "auroc")
    assert value(table, "ece") == value(one, "ece")


def test_holm_by_hand():
    found = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": None})
    assert found == pytest.approx({"a": 0.03, "c": 0.06, "b": 0.06, "d": None})
    assert holm({"a": 0.5, "b": 0.6}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


def test_compared_metrics_are_reported():
    assert set(COMPARED) <= set(REPORTED)
    assert len(COMPARED) == 9
