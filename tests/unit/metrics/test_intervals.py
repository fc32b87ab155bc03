"""Intervals: by hand, how often they cover, whom they leave out, and when there is none."""

import numpy as np
import pytest
from lesionmap.metrics.intervals import LINEAR, LOG, LOGIT, interval, without_each
from lesionmap.metrics.pixels import ratio
from scipy.special import expit
from scipy.stats import t

COHORTS = 500


def means_without(values):
    values = np.asarray(values, dtype=float)
    return without_each(lambda w: {"mean": w @ values / w.sum(axis=1)}, np.arange(len(values)))["mean"]


def of_mean(values, scale=LINEAR, **options):
    """The interval of a mean of one value a patient."""
    found = interval(float(np.mean(values)), means_without(values), len(values), scale, **options)
    return found.low, found.high


def test_without_skew_it_is_students_interval_of_a_mean():
    """3 ± 2.776 √(2.5 / 5); 97.5 % points of t from a printed table."""
    assert of_mean([1, 2, 3, 4, 5]) == pytest.approx((3 - 1.963, 3 + 1.963), abs=1e-3)


@pytest.mark.parametrize(("sign", "low", "high"), [(1, 2 - 5.552, 2 + 10.859), (-1, -2 - 10.859, -2 + 5.552)])
def test_the_side_of_the_skew_is_longer(sign, low, high):
    """Standard error 2, t 2.776, skewness 96 / 16^1.5 = 1.5: exp(1.5 / √5) = 1.956 times as long."""
    assert of_mean(sign * np.array([0, 0, 0, 0, 10])) == pytest.approx((low, high), abs=2e-3)


def test_influence_of_few_leaves_few_degrees_of_freedom():
    """Of 0 and 1 with 1 in a share p, kurtosis is 1 / (p − p²) − 3: for one in twenty 18.05. 40 / 17.05 are left."""
    shorter = t.ppf(0.975, 40 / 17.05) * np.sqrt(0.0475 / 19)
    assert of_mean([0] * 19 + [1])[0] == pytest.approx(0.05 - shorter, abs=1e-3)


def test_rates_stay_above_zero_and_shares_between_zero_and_one():
    """By the delta method: standard error 2 of 2 is 1 on the logarithm; 0.2236 of a half is 0.8944 on the logit."""
    assert of_mean([0, 0, 0, 0, 10], LOG) == pytest.approx((2 * np.exp(-2.776), 2 * np.exp(5.430)), rel=2e-3)
    assert of_mean([0, 0, 0, 1, 1, 1], LOGIT) == pytest.approx(
        (expit(-2.5706 * 0.8944), expit(2.5706 * 0.8944)), abs=1e-4
    )


def test_slides_of_a_patient_are_left_out_together_and_each_patient_once():
    patient = np.array([0, 1, 0, 2])
    seen = without_each(lambda w: {"each": w}, patient)["each"]
    np.testing.assert_array_equal(seen, [[0, 1, 0, 1], [1, 0, 1, 1], [1, 1, 1, 0]])


def test_of_many_patients_each_is_left_out_in_its_place():
    values = np.random.default_rng(0).gamma(2.0, size=257)
    expected = (values.sum() - values) / 256
    np.testing.assert_allclose(means_without(values), expected)


def patients_of(rng, cohorts, n, slides_each):
    """Pixels found, called falsely and missed on the slides of many cohorts, (cohorts, n · slides_each) each.

    Lesions differ tenfold in size and a third of the patients have none; slides of a patient resemble each other.
    """
    has_lesion = rng.random((cohorts, n, 1)) < 0.67
    size = np.where(has_lesion, rng.lognormal(6, 0.5, (cohorts, n, 1)), 0) * rng.lognormal(
        0, 0.2, (cohorts, n, slides_each)
    )
    found = size * rng.beta(8, 2, (cohorts, n, 1))
    false = rng.lognormal(4, 1, (cohorts, n, slides_each))
    return tuple(part.reshape(cohorts, -1) for part in (found, false, size - found))


def dice(weights, found, false, missed):
    """Of many cohorts, (D, cohorts)."""
    tp, fp, fn = (weights @ part.T for part in (found, false, missed))
    return ratio(2 * tp, 2 * tp + fp + fn)


def shares(truth, values, without, n, scale):
    """Shares of intervals above and below the truth."""
    found = [interval(float(value), part, n, scale) for value, part in zip(values, without.T, strict=True)]
    return np.mean([one.low > truth for one in found]), np.mean([one.high < truth for one in found])


def misses_of_dice(n, slides_each, of_patients=True):
    rng = np.random.default_rng(n)
    truth = dice(np.ones((1, 300_000)), *patients_of(rng, 1, 300_000 // slides_each, slides_each)).item()
    cohorts = patients_of(rng, COHORTS, n, slides_each)
    n_units = n if of_patients else n * slides_each
    patient = np.repeat(np.arange(n_units), n * slides_each // n_units)
    values = dice(np.ones((1, n * slides_each)), *cohorts)[0]
    without = without_each(lambda weights: {"dice": dice(weights, *cohorts)}, patient)["dice"]
    return shares(truth, values, without, n, LOGIT)


@pytest.mark.parametrize(("n", "slides_each"), [(8, 1), (15, 1), (30, 1), (60, 1), (20, 3)])
def test_intervals_of_dice_cover_the_truth_as_often_as_they_say(n, slides_each):
    assert 0.93 <= 1 - sum(misses_of_dice(n, slides_each)) <= 0.98


def test_leaving_out_slides_instead_of_patients_would_not():
    assert 1 - sum(misses_of_dice(20, 3, of_patients=False)) < 0.88


@pytest.mark.parametrize("n", [12, 20, 40])
def test_intervals_of_few_false_lesions_cover_the_truth_as_often_as_they_say(n):
    """Negative binomial, half of them 0. Percentiles of a bootstrap miss 6 to 14 % below, and cover 85 to 92 %."""
    rng = np.random.default_rng(n)
    false = rng.negative_binomial(0.4, 0.4 / (0.4 + 2), (COHORTS, n))
    assert (false == 0).mean() > 0.45
    without = (false.sum(axis=1) - false.T) / (n - 1)
    above, below = shares(2.0, false.mean(axis=1), without, n, LOG)
    assert above + below < 0.075
    assert below < 0.06


def test_fewer_patients_than_needed_have_none():
    found = interval(0.5, np.linspace(0.4, 0.6, 8), 4)
    assert (found.low, found.high, found.note) == (None, None, "no interval: fewer than 5 patients")
    assert interval(0.5, np.linspace(0.4, 0.6, 8), 8, least_patients=9).note == "no interval: fewer than 9 patients"
    assert interval(0.5, np.linspace(0.4, 0.6, 8), 8, least_patients=8).note == ""


def test_a_metric_that_needs_one_patient_has_none():
    without = np.array([0.4, 0.5, np.nan, 0.5, 0.6, 0.5])
    assert interval(0.5, without, 6, LOGIT).note == "no interval: undefined without one of the patients"


@pytest.mark.parametrize(("value", "scale"), [(0.0, LOG), (1.0, LOGIT), (0.0, LOGIT), (0.3, LINEAR)])
def test_patients_who_agree_say_nothing_of_chance_but_for_the_rule_of_three(value, scale):
    """If none of 30 differs, up to 1 − 0.05^(1 / 30) = 9.5 % of others may: about 3 / 30."""
    found = interval(value, np.full(30, value) * (1 + 1e-13), 30, scale)
    assert (found.low, found.high) == (None, None)
    assert found.note == "no interval: all 30 patients agree, and up to 10% of others may not"


def test_the_end_of_a_range_has_none_even_if_a_patient_changes_it():
    """A sensitivity at 1 false lesion per slide may fall when a patient without false lesions is left out."""
    without = np.array([1, 1, 1, 1, 1, 0.9])
    assert interval(1.0, without, 6, LOGIT).note == "no interval: the value is the end of its range"
