"""Metrics of pixels against scikit-learn and arithmetic by hand."""

import json

import numpy as np
import pytest
from evaluated import scores_of
from lesionmap.maps.probability import BIN_PROBABILITIES, N_BINS, PER_BIN, as_scores, first_positive
from lesionmap.metrics.pixels import PIXEL_METRICS, Histograms, best_threshold, binary_metrics, pixel_metrics
from scipy.special import expit
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
    return as_scores(rng.normal(-1, 2, mask.shape) + 2.5 * (mask == 1)), mask


def calibration_error(truth, probability):
    """Bin by bin, on the pixels."""
    total = 0.0
    for low in np.arange(16) / 16:
        inside = (probability >= low) & (probability < low + 1 / 16)
        if inside.any():
            total += inside.sum() * abs(probability[inside].mean() - truth[inside].mean())
    return total / truth.size


def expected_metrics(probability, mask, threshold):
    """The same metrics by scikit-learn and by definition, from the pixels themselves."""
    known = mask != 255
    truth, score, classes = (mask == 1)[known], probability[known], mask[known]
    positive = score >= threshold
    return {
        "dice": f1_score(truth, positive),
        "iou": jaccard_score(truth, positive),
        "precision": precision_score(truth, positive),
        "recall": recall_score(truth, positive),
        "specificity": recall_score(~truth, ~positive),
        "auroc": roc_auc_score(truth, score),
        "auprc": average_precision_score(truth, score),
        "brier": brier_score_loss(truth, score),
        "ece": calibration_error(truth, score),
        "false_positive_rate_rest": positive[classes == 0].mean(),
        "false_positive_rate_vessel": positive[classes == 2].mean(),
        "false_positive_rate_fat": positive[classes == 3].mean(),
    }


def of_bins(scores):
    """Probability of each pixel's bin."""
    return BIN_PROBABILITIES[scores // PER_BIN]


@pytest.mark.parametrize("threshold", [0.05, 0.5, 0.93, 0.992])
def test_against_scikit_learn_on_the_pixels(random_map, threshold):
    scores, mask = random_map
    ours = binary_metrics(Histograms.of(scores, mask), threshold)
    assert ours == pytest.approx(expected_metrics(of_bins(scores), mask, threshold), abs=1e-9)


@pytest.mark.parametrize("kind", ["two values", "perfect", "inverted", "flat", "one lesion pixel"])
def test_against_scikit_learn_on_odd_maps(kind):
    rng = np.random.default_rng(1)
    mask = rng.choice([0, 1, 2, 3, 255], (40, 50)).astype(np.uint8)
    probability = {
        "two values": rng.choice([0.0, 1.0], mask.shape),
        "perfect": np.where(mask == 1, 1.0, 0.0),
        "inverted": np.where(mask == 1, 0.04, 0.8),
        "flat": np.full(mask.shape, 0.8),
        "one lesion pixel": rng.random(mask.shape),
    }[kind]
    if kind == "one lesion pixel":
        mask[mask == 1] = 0
        mask[3, 4], probability[3, 4] = 1, 0.55
    scores = scores_of(probability)
    ours = binary_metrics(Histograms.of(scores, mask), 0.5)
    assert ours == pytest.approx(expected_metrics(of_bins(scores), mask, 0.5), abs=1e-9)


@pytest.mark.parametrize("sureness", [2, 4, 8])
def test_of_a_saturated_map_all_metrics_are_those_of_its_float_map(sureness):
    """In steps of 1/255 its AUROC and average precision fall."""
    rng = np.random.default_rng(3)
    mask = rng.choice([0, 1, 2, 3], (300, 400), p=[0.7, 0.1, 0.1, 0.1]).astype(np.uint8)
    logits = sureness * (rng.normal(0.3, 1, mask.shape) + 1.8 * (mask == 1))
    ours = binary_metrics(Histograms.of(as_scores(logits), mask), 0.3)
    assert ours == pytest.approx(expected_metrics(expit(logits), mask, 0.3), abs=1e-3)
    if sureness == 8:
        in_255 = expected_metrics(np.rint(255 * expit(logits)) / 255, mask, 0.3)
        assert in_255["auroc"] < ours["auroc"] - 0.03
        assert in_255["auprc"] < ours["auprc"] - 0.05


def test_histograms_come_back_from_their_record(random_map):
    histograms = Histograms.of(*random_map)
    record = json.loads(json.dumps(histograms.record()))
    assert 0 < len(record["counts"][0]) < N_BINS / 2
    np.testing.assert_array_equal(Histograms.of_record(record).counts, histograms.counts)
    nothing = json.loads(json.dumps(Histograms.empty().record()))
    assert not Histograms.of_record(nothing).counts.any()


def test_many_histograms_at_once_are_as_one_by_one(random_map):
    scores, mask = random_map
    parts = [Histograms.of(scores[rows], mask[rows]) for rows in (slice(0, 9), slice(9, 40), slice(40, 60))]
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
    ours = binary_metrics(Histograms.of(scores_of([[0.04, 0.8]]), np.array([[0, 0]], np.uint8)), 0.5)
    defined = {name: value for name, value in ours.items() if value is not None}
    expected = {"specificity": 0.5, "false_positive_rate_rest": 0.5, "brier": (0.04**2 + 0.8**2) / 2, "ece": 0.42}
    assert defined == pytest.approx(expected, abs=2e-3)  # a bin is so wide


def test_without_pixels_nothing_is_defined():
    assert set(binary_metrics(Histograms.empty(), 0.5).values()) == {None}


def test_where_nothing_is_called_lesion_precision_alone_is_undefined():
    ours = binary_metrics(Histograms.of(scores_of([[0.04, 0.08]]), np.array([[0, 1]], np.uint8)), 0.5)
    swept = {metric.name: ours[metric.name] for metric in PIXEL_METRICS if metric.swept}
    assert swept == {"dice": 0, "iou": 0, "precision": None, "recall": 0, "specificity": 1}


def test_the_best_threshold_is_that_of_the_best_dice(random_map):
    histograms = Histograms.of(*random_map)
    found = best_threshold(histograms)
    dice = [binary_metrics(histograms, float(expit(value / 64)))["dice"] for value in range(-700, 700)]
    assert binary_metrics(histograms, found)["dice"] == pytest.approx(max(dice))
    assert best_threshold(Histograms.empty()) is None


def test_the_best_threshold_of_a_saturated_map_parts_what_is_one_in_steps_of_255():
    """Lesion has logits of about 12, the rest of about 8: all 255 of 255."""
    rng = np.random.default_rng(2)
    mask = rng.choice([0, 1], (50, 60)).astype(np.uint8)
    scores = as_scores(rng.normal(8, 0.5, mask.shape) + 4 * mask)
    found = best_threshold(Histograms.of(scores, mask))
    assert 0.9999 < found < 1
    assert ((scores >= first_positive(found)) == mask).mean() > 0.999


@pytest.mark.parametrize(("negative", "positive", "expected"), [(-3, 2, 0), (1, 2, 1), (-4, -1, -1)])
def test_of_equal_thresholds_that_nearest_to_one_half_is_taken(negative, positive, expected):
    scores, mask = as_scores(np.array([[negative, positive]], dtype=float)), np.array([[0, 1]], np.uint8)
    assert best_threshold(Histograms.of(scores, mask)) == pytest.approx(float(expit(expected)), abs=1 / 256)
