"""Points of curves, held against scikit-learn and against the metrics that they are drawn for."""

import numpy as np
import pytest
from evaluated import random_slide
from lesionmap.evaluation.curves import area_differences, froc_points, precision_recall_points, roc_points
from lesionmap.maps.probability import N_BINS, PER_BIN
from lesionmap.metrics.froc import FALSE_PER_SLIDE, froc_curve, froc_metrics
from lesionmap.metrics.pixels import Histograms
from sklearn.metrics import precision_recall_curve, roc_curve

ENDS = (0.125, 8.0)


def pixels_of(seed):
    """Truth and bin of every evaluated pixel of a random slide, and their histograms."""
    scores, mask = random_slide(seed)
    known = mask != 255
    return mask[known] == 1, scores[known] // PER_BIN, Histograms.of(scores, mask).counts


@pytest.mark.parametrize("seed", range(3))
def test_roc_points_are_those_of_scikit_learn(seed):
    truth, levels, counts = pixels_of(seed)
    expected = roc_curve(truth, levels, drop_intermediate=False)[:2]
    np.testing.assert_allclose(roc_points(counts), expected, rtol=0, atol=1e-12)
    assert [part[[0, -1]].tolist() for part in roc_points(counts)] == [[0, 1], [0, 1]]


@pytest.mark.parametrize("seed", range(3))
def test_precision_recall_points_are_those_of_scikit_learn(seed):
    truth, levels, counts = pixels_of(seed)
    precision, recall, _ = precision_recall_curve(truth, levels)
    points = np.stack(precision_recall_points(counts))
    np.testing.assert_allclose(points, [recall[-2::-1], precision[-2::-1]], rtol=0, atol=1e-12)


def test_roc_and_precision_recall_by_hand():
    counts = np.zeros((4, N_BINS), dtype=int)
    counts[1, [3000, 100]] = 3, 1
    counts[0, [150, 0]] = 2, 1
    counts[3, 0] = 1
    false, found = roc_points(counts)
    assert found.tolist() == [0, 0.75, 0.75, 1, 1]  # called from the bins above 3000, 3000, 150, 100, 0 on
    assert false.tolist() == [0, 0, 0.5, 0.5, 1]
    recall, precision = precision_recall_points(counts)
    assert recall.tolist() == [0.75, 0.75, 1, 1]
    assert precision.tolist() == [1, 3 / 5, 4 / 6, 4 / 8]


def test_the_froc_line_goes_through_the_sensitivities_of_the_score():
    rng = np.random.default_rng(0)
    false, hits = rng.integers(0, 3, 256), rng.integers(0, 2, 256)
    curve = froc_curve(false, hits, np.array(60), np.array(hits.sum() + 9))
    froc = dict(zip(("false_per_slide", "sensitivity"), (part.tolist() for part in curve), strict=True))
    rates, sensitivity = froc_points(froc, ENDS)
    metrics = froc_metrics(false[None], hits[None], np.array([60]), np.array([hits.sum() + 9]))
    at = [sensitivity[rates == rate].item() for rate in FALSE_PER_SLIDE]
    assert at == [metrics[f"sensitivity_at_{rate:g}"].item() for rate in FALSE_PER_SLIDE]
    assert rates[[0, -1]] == pytest.approx(ENDS)
    assert (np.diff(rates) > 0).all()
    assert curve[0][-1] < 8
    assert sensitivity[-1] == hits.sum() / (hits.sum() + 9)


def test_a_slide_is_at_its_mean_area_and_difference():
    rows = [{"annotated_mm2": 1.0, "predicted_mm2": 2.0}, {"annotated_mm2": 0.5, "predicted_mm2": 0.0}]
    mean, difference = area_differences(rows)
    assert (mean.tolist(), difference.tolist()) == ([1.5, 0.25], [1.0, -0.5])
