"""Metrics of pixels against scikit-learn and arithmetic by hand."""

import numpy as np
import pytest
from lesionmap.maps.probability import as_u8, first_positive
from lesionmap.metrics.pixels import PIXEL_METRICS, Histograms, best_threshold, binary_metrics, pixel_metrics
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    f1_score,
    jaccard_score,
    precision_score,
    recall_score,
    roc_auc_score,
)


@pytest.fixture
def random_map():
    rng = np.random.default_rng(0)
    mask = rng.choice([0, 1, 2, 3, 255], (60, 70), p=[0.5, 0.2, 0.1, 0.1, 0.1]).astype(np.uint8)
    probability_u8 = np.clip(rng.normal(100, 50, mask.shape) + 60 * (mask == 1), 0, 255).astype(np.uint8)
    return probability_u8, mask


def calibration_error(truth, score):
    """Bin by bin, on the pixels."""
    total = 0.0
    for low in range(0, 256, 16):
        inside = (score >= low) & (score < low + 16)
        if inside.any():
            total += inside.sum() * abs(score[inside].mean() / 255 - truth[inside].mean())
    return total / truth.size


def expected_metrics(probability_u8, mask, threshold):
    """The same metrics by scikit-learn and by definition, from the pixels themselves."""
    known = mask != 255
    truth, score, classes = (mask == 1)[known], probability_u8[known], mask[known]
    positive = score / 255 >= threshold
    return {
        "dice": f1_score(truth, positive),
        "iou": jaccard_score(truth, positive),
        "precision": precision_score(truth, positive),
        "recall": recall_score(truth, positive),
        "specificity": recall_score(~truth, ~positive),
        "auroc": roc_auc_score(truth, score),
        "auprc": average_precision_score(truth, score),
        "brier": brier_score_loss(truth, score / 255),
        "ece": calibration_error(truth, score),
        "false_positive_rate_rest": positive[classes == 0].mean(),
        "false_positive_rate_vessel": positive[classes == 2].mean(),
        "false_positive_rate_fat": positive[classes == 3].mean(),
    }


@pytest.mark.parametrize("threshold", [0.05, 0.5, 0.93])
def test_against_scikit_learn_on_the_pixels(random_map, threshold):
    ours = binary_metrics(Histograms.of(*random_map), threshold)
    assert ours == pytest.approx(expected_metrics(*random_map, threshold), abs=1e-9)


@pytest.mark.parametrize("kind", ["two probability_u8", "perfect", "inverted", "flat", "one lesion pixel"])
def test_against_scikit_learn_on_odd_maps(kind):
    rng = np.random.default_rng(1)
    mask = rng.choice([0, 1, 2, 3, 255], (40, 50)).astype(np.uint8)
    probability_u8 = {
        "two probability_u8": rng.choice([0, 255], mask.shape),
        "perfect": np.where(mask == 1, 255, 0),
        "inverted": np.where(mask == 1, 10, 200),
        "flat": np.full(mask.shape, 200),
        "one lesion pixel": rng.integers(0, 256, mask.shape),
    }[kind].astype(np.uint8)
    if kind == "one lesion pixel":
        mask[mask == 1] = 0
        mask[3, 4], probability_u8[3, 4] = 1, 140
    ours = binary_metrics(Histograms.of(probability_u8, mask), 0.5)
    assert ours == pytest.approx(expected_metrics(probability_u8, mask, 0.5), abs=1e-9)


def test_many_histograms_at_once_are_as_one_by_one(random_map):
    probability_u8, mask = random_map
    parts = [Histograms.of(probability_u8[rows], mask[rows]) for rows in (slice(0, 9), slice(9, 40), slice(40, 60))]
    together = pixel_metrics(np.stack([part.counts for part in parts]), 0.4)
    for index, part in enumerate(parts):
        one = binary_metrics(part, 0.4)
        assert {name: values[index] for name, values in together.items()} == pytest.approx(one, abs=1e-12)


def test_a_weight_of_two_is_the_slide_twice(random_map):
    counts = Histograms.of(*random_map).counts
    other = np.roll(counts, 7, axis=1)
    weighted = pixel_metrics(np.einsum("ds,sck->dck", [[2.0, 1.0]], np.stack([counts, other])), 0.5)
    twice = binary_metrics(Histograms(2 * counts + other), 0.5)
    assert {name: value[0] for name, value in weighted.items()} == pytest.approx(twice)


def test_a_slide_without_lesion_is_judged_by_its_false_alarms_alone():
    ours = binary_metrics(Histograms.of(np.array([[10, 200]], np.uint8), np.array([[0, 0]], np.uint8)), 0.5)
    defined = {name: value for name, value in ours.items() if value is not None}
    errors = [(10 / 255) ** 2, (200 / 255) ** 2]
    assert defined == pytest.approx(
        {"specificity": 0.5, "false_positive_rate_rest": 0.5, "brier": sum(errors) / 2, "ece": 105 / 255}
    )


def test_without_pixels_nothing_is_defined():
    assert set(binary_metrics(Histograms.empty(), 0.5).values()) == {None}


def test_where_nothing_is_called_lesion_precision_alone_is_undefined():
    ours = binary_metrics(Histograms.of(np.array([[10, 20]], np.uint8), np.array([[0, 1]], np.uint8)), 0.5)
    swept = {metric.name: ours[metric.name] for metric in PIXEL_METRICS if metric.swept}
    assert swept == {"dice": 0, "iou": 0, "precision": None, "recall": 0, "specificity": 1}


def test_half_is_lesion_and_just_below_is_not():
    probability_u8 = as_u8(np.array([0.49, 0.4981, 0.5, 1.0]))
    assert (probability_u8 >= first_positive(0.5)).tolist() == [False, False, True, True]


def test_the_best_threshold_is_that_of_the_best_dice(random_map):
    histograms = Histograms.of(*random_map)
    found = best_threshold(histograms)
    dice = [binary_metrics(histograms, value / 255)["dice"] for value in range(1, 256)]
    assert binary_metrics(histograms, found)["dice"] == pytest.approx(max(dice))
    assert best_threshold(Histograms.empty()) is None


@pytest.mark.parametrize(("negative", "positive", "expected"), [(10, 200, 127), (150, 200, 151), (10, 90, 90)])
def test_of_equal_thresholds_that_nearest_to_one_half_is_taken(negative, positive, expected):
    probability_u8, mask = np.array([[negative, positive]], np.uint8), np.array([[0, 1]], np.uint8)
    assert first_positive(best_threshold(Histograms.of(probability_u8, mask))) in (expected, expected + 1)
