"""Logistic recalibration and net benefit against scikit-learn, analytic cases and arithmetic by hand."""

import numpy as np
import pytest
from evaluated import scores_of
from lesionmap.maps.probability import N_BINS, PER_BIN, as_scores
from lesionmap.metrics.calibration import (
    BIN_LOGITS,
    calibration_in_the_large,
    logistic_recalibration,
    net_benefit,
    net_benefit_of_everything,
)
from lesionmap.metrics.pixels import Histograms
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression


def counted(scores):
    return np.bincount(np.ravel(scores) // PER_BIN, minlength=N_BINS)


def drawn_as(intercept, slope, *, centre=-2.0):
    """Exactly as many lesion pixels in each bin as expit(intercept + slope · logit) of all."""
    everything = 1e6 * np.exp(-((BIN_LOGITS - centre) ** 2) / 8)
    share = expit(intercept + slope * BIN_LOGITS)
    return everything * share, everything * (1 - share)


@pytest.mark.parametrize(
    ("seed", "shift", "sureness", "n"), [(0, 2.5, 1.0, 700), (1, 0.4, 3.0, 250), (2, 6.0, 2.0, 900), (3, -1.0, 0.2, 90)]
)
def test_intercept_and_slope_are_those_of_scikit_learn_on_the_pixels(seed, shift, sureness, n):
    rng = np.random.default_rng(seed)
    truth = rng.random(n) < 0.2
    scores = as_scores(sureness * (rng.normal(-2, 2, n) + shift * truth))
    logits = BIN_LOGITS[scores // PER_BIN]
    theirs = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(logits[:, None], truth)
    ours = logistic_recalibration(counted(scores[truth]), counted(scores[~truth]))
    assert ours == pytest.approx((theirs.intercept_.item(), theirs.coef_.item()), abs=1e-5)


@pytest.mark.parametrize(("intercept", "slope"), [(0, 1), (-1.5, 0.3), (0.7, 2.5), (3, 12), (0.4, -0.8), (-6, 0)])
def test_what_lesion_was_drawn_with_is_found(intercept, slope):
    found = logistic_recalibration(*drawn_as(intercept, slope))
    assert found == pytest.approx((intercept, slope), abs=1e-6)


def test_the_intercept_in_the_large_makes_the_mean_probability_the_share_of_lesion():
    assert calibration_in_the_large(*drawn_as(0.8, 1)) == pytest.approx(0.8, abs=1e-8)
    positive, negative = drawn_as(-1, 0.4)
    found = calibration_in_the_large(positive, negative)
    expected = ((positive + negative) * expit(found + BIN_LOGITS)).sum()
    assert expected == pytest.approx(positive.sum(), rel=1e-9)


def test_a_map_that_is_sure_and_wrong_still_has_both():
    """Nearly all lesion, at logits around −25 and 25."""
    everything = sum(1e9 * np.exp(-((BIN_LOGITS - centre) ** 2) / 2) for centre in (-25, 25))
    share = expit(10 + 0.02 * BIN_LOGITS)
    positive, negative = everything * share, everything * (1 - share)
    assert logistic_recalibration(positive, negative) == pytest.approx((10, 0.02), abs=1e-4)
    found = calibration_in_the_large(positive, negative)
    assert (everything * expit(found + BIN_LOGITS)).sum() == pytest.approx(positive.sum(), rel=1e-9)


def test_of_two_values_the_line_goes_through_both_shares_of_lesion():
    """A quarter of the pixels at one logit are lesion, two thirds of those at another."""
    low, high = 1500, 2700
    positive, negative = np.zeros((2, N_BINS))
    positive[[low, high]], negative[[low, high]] = (5, 8), (15, 4)
    slope = (logit(2 / 3) - logit(1 / 4)) / (BIN_LOGITS[high] - BIN_LOGITS[low])
    intercept, found = logistic_recalibration(positive, negative)
    assert found == pytest.approx(slope)
    assert intercept == pytest.approx(logit(1 / 4) - slope * BIN_LOGITS[low])


def test_pixels_without_score_are_left_out():
    positive, negative = drawn_as(0.5, 1.5)
    expected = logistic_recalibration(positive, negative), calibration_in_the_large(positive, negative)
    positive[0], negative[0] = 7e5, 3e6
    assert (logistic_recalibration(positive, negative), calibration_in_the_large(positive, negative)) == expected


def at(*bins):
    return np.bincount(bins, minlength=N_BINS)


@pytest.mark.parametrize(
    ("positive", "negative", "in_the_large"),
    [
        (at(2100, 2300), at(1000, 2050), True),  # a threshold parts them
        (at(1000, 2050), at(2100, 2300), True),  # the wrong way round
        (at(2050, 2300), at(1000, 2050), True),  # all but the pixels of one value
        (at(2050), at(2050, 2050), True),  # one value alone
        (at(), at(1000, 2050), False),
        (at(1000, 2050), at(), False),
        (at(), at(), False),
        (at(0), at(1000, 2050), False),  # lesion was not mapped
    ],
)
def test_undefined_where_a_class_is_missing_and_the_slope_where_a_logit_parts_them(positive, negative, in_the_large):
    assert np.isnan(logistic_recalibration(positive, negative)).all()
    assert np.isnan(calibration_in_the_large(positive, negative)) == (not in_the_large)


def test_many_at_once_are_as_one_by_one_also_beside_undefined_ones():
    pairs = [drawn_as(0.2, 1.1), (at(3000), at(1000)), drawn_as(-2, 0.5, centre=3), drawn_as(5, 9, centre=0)]
    positive, negative = (np.stack(part).reshape(2, 2, N_BINS) for part in zip(*pairs, strict=True))
    together = np.stack([*logistic_recalibration(positive, negative), calibration_in_the_large(positive, negative)])
    for number, pair in enumerate(pairs):
        alone = [*logistic_recalibration(*pair), calibration_in_the_large(*pair)]
        assert together.reshape(3, 4)[:, number] == pytest.approx(np.array(alone), abs=1e-7, nan_ok=True)


def test_almost_parted_classes_have_a_steep_slope():
    """One pixel of each class lies on the wrong side of a bin's edge; 2 · 10⁶ on the right side."""
    positive, negative = np.zeros((2, N_BINS))
    positive[[2047, 2048]], negative[[2047, 2048]] = (1, 1e6), (1e6, 1)
    intercept, slope = logistic_recalibration(positive, negative)
    assert slope == pytest.approx(64 * 2 * np.log(1e6))
    assert intercept == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize(
    ("bins", "lesion", "others"),
    [
        ((1122, 1142, 2623, 3154), (86182693, 0, 0, 903), (0, 600033, 125005547, 138)),
        ((21, 196, 1915, 2461, 3021), (5511, 11, 0, 0, 1), (59, 1250321, 7, 14601, 8)),
    ],
)
def test_where_whole_newton_steps_lead_astray_the_fit_is_still_that_of_the_score_equations(bins, lesion, others):
    """Few pixels far from most, on the wrong side; found by trying random histograms."""
    positive, negative = np.zeros((2, N_BINS))
    positive[list(bins)], negative[list(bins)] = lesion, others
    intercept, slope = logistic_recalibration(positive, negative)
    residual = positive - (positive + negative) * expit(intercept + slope * BIN_LOGITS)
    n = positive.sum() + negative.sum()
    assert (residual.sum() / n, residual @ BIN_LOGITS / n) == pytest.approx((0, 0), abs=1e-9)


def test_net_benefit_by_hand():
    """Ten pixels: lesion at 0.9, 0.6, 0.2; vessel at 0.7; rest at 0.3 and five at 0.05."""
    probability = [0.9, 0.6, 0.2, 0.7, 0.3, *[0.05] * 5]
    mask = np.array([1, 1, 1, 2, 0, *[0] * 5], np.uint8)
    counts = Histograms.of(scores_of(probability), mask).counts
    assert net_benefit(counts, 0.5) == pytest.approx((2 - 1) / 10)
    assert net_benefit(counts, 0.25) == pytest.approx((2 - 2 / 3) / 10)
    assert net_benefit(counts, 0.8) == pytest.approx(1 / 10)
    assert net_benefit(counts, 0.65) == pytest.approx((1 - 0.65 / 0.35) / 10)
    assert net_benefit_of_everything(counts, 0.25) == pytest.approx(0.3 - 0.7 / 3)
    assert net_benefit_of_everything(counts, 0.8) == pytest.approx(0.3 - 0.7 * 4)
    assert np.isnan(net_benefit(Histograms.empty().counts, 0.5))
