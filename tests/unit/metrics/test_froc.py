"""The FROC curve against a worked example and the challenge's procedure, step by step."""

import numpy as np
import pytest
from lesionmap.metrics.froc import FALSE_PER_SLIDE, froc_curve, froc_metrics


def at(*probability_u8):
    return np.bincount(probability_u8, minlength=256)


def test_a_worked_example():
    """Four slides, five lesions of which four are found; six false detections, two of them on a slide without lesion.

    confidence   250  240  230  220  210  200  190  180  170  160
    found          x         x              x         x
    false               x         x    x         x         x    x

    false per slide 0    1/4  1/4  2/4  3/4  3/4  4/4  4/4  5/4  6/4
    sensitivity    1/5   1/5  2/5  2/5  2/5  3/5  3/5  4/5  4/5  4/5
    """
    false, found = at(240, 220, 210, 190, 170, 160), at(250, 230, 200, 180)
    metrics = froc_metrics(false[None], found[None], np.array([4]), np.array([5]))
    assert metrics["sensitivity_at_0.25"] == pytest.approx([0.4])
    assert metrics["sensitivity_at_0.5"] == pytest.approx([0.4])
    assert metrics["sensitivity_at_1"] == pytest.approx([0.8])
    for rate in ("2", "4", "8"):  # it has no more than 1.5 false ones per slide
        assert metrics[f"sensitivity_at_{rate}"] == pytest.approx([0.8])
    assert metrics["froc_score"] == pytest.approx([(0.4 + 0.4 + 0.8 * 4) / 6])
    assert metrics["false_lesions_per_slide"] == pytest.approx([1.5])


def test_detections_of_every_confidence_count_even_those_of_none():
    metrics = froc_metrics(at(200, 0, 0)[None], at(250, 0)[None], np.array([1]), np.array([2]))
    assert metrics["false_lesions_per_slide"] == [3]
    assert metrics["sensitivity_at_1"] == [0.5]
    assert metrics["sensitivity_at_4"] == [1.0]


def test_between_two_points_it_is_interpolated():
    metrics = froc_metrics(at(200, 200, 200, 200)[None], at(250, 150)[None], np.array([1]), np.array([2]))
    assert metrics["sensitivity_at_2"] == pytest.approx([0.5])
    metrics = froc_metrics(at(200, 200, 200, 200)[None], at(250, 200)[None], np.array([1]), np.array([2]))
    assert metrics["sensitivity_at_2"] == pytest.approx([0.75])
    assert metrics["sensitivity_at_4"] == pytest.approx([1.0])


def challenge(false, found, n_slides, n_lesions):
    """Threshold by threshold over lists of confidences, as the challenge counts."""
    points = [(0.0, 0.0)]
    for threshold in sorted({*false, *found}, reverse=True):
        points.append((sum(f >= threshold for f in false) / n_slides, sum(f >= threshold for f in found) / n_lesions))
    return [np.interp(rate, *zip(*points, strict=True)) for rate in FALSE_PER_SLIDE]


def test_against_the_procedure_on_random_detections():
    rng = np.random.default_rng(0)
    cases = [(rng.integers(1, 256, rng.integers(0, 60)), rng.integers(1, 256, rng.integers(1, 30))) for _ in range(50)]
    n_slides, n_lesions = rng.integers(1, 12, 50), rng.integers(30, 40, 50)
    false, found = (np.stack([at(*case[side]) for case in cases]) for side in (0, 1))
    metrics = froc_metrics(false, found, n_slides, n_lesions)
    ours = np.stack([metrics[f"sensitivity_at_{rate:g}"] for rate in FALSE_PER_SLIDE], axis=1)
    expected = [challenge(*case, *n) for case, *n in zip(cases, n_slides, n_lesions, strict=True)]
    np.testing.assert_allclose(ours, expected, atol=1e-9)


def test_without_lesions_there_is_no_sensitivity_but_false_detections():
    metrics = froc_metrics(at(200)[None], at()[None], np.array([2]), np.array([0]))
    assert np.isnan(metrics["froc_score"]).all()
    assert metrics["false_lesions_per_slide"] == pytest.approx([0.5])


def test_without_any_detection_nothing_is_found():
    false, sensitivity = froc_curve(at(), at(), np.array(3), np.array(2))
    assert not false.any()
    assert not sensitivity.any()
    assert froc_metrics(at()[None], at()[None], np.array([3]), np.array([2]))["froc_score"] == 0
