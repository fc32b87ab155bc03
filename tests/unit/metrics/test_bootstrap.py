"""Intervals: how often they cover, whom they draw, and when there is none."""

import numpy as np
import pytest
from lesionmap.metrics.bootstrap import Bootstrap, interval, resampled
from lesionmap.metrics.pixels import ratio
from scipy.stats import bootstrap, norm

COHORTS = 500
SETTINGS = Bootstrap(draws=2000, seed=0)


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
    """Of many cohorts, (draws, cohorts)."""
    tp, fp, fn = (weights @ part.T for part in (found, false, missed))
    return ratio(2 * tp, 2 * tp + fp + fn)


def coverage(n, slides_each, draw_patients=True):
    rng = np.random.default_rng(n)
    truth = dice(np.ones((1, 300_000)), *patients_of(rng, 1, 300_000 // slides_each, slides_each)).item()
    cohorts = patients_of(rng, COHORTS, n, slides_each)
    n_units = n if draw_patients else n * slides_each
    patient = np.repeat(np.arange(n_units), n * slides_each // n_units)
    draws = resampled(lambda weights: {"dice": dice(weights, *cohorts)}, patient, SETTINGS)["dice"]
    with_lesion = (cohorts[2].reshape(COHORTS, n_units, -1) > 0).any(axis=2).sum(axis=1)
    found = [interval(values, int(count)) for values, count in zip(draws.T, with_lesion, strict=True)]
    return np.mean([one.low <= truth <= one.high for one in found])


@pytest.mark.parametrize(("n", "slides_each"), [(15, 1), (30, 1), (60, 1), (20, 3)])
def test_intervals_cover_the_truth_as_often_as_they_say(n, slides_each):
    assert 0.93 <= coverage(n, slides_each) <= 0.97


def test_drawing_slides_instead_of_patients_would_not():
    assert coverage(20, 3, draw_patients=False) < 0.85


def test_slides_of_a_patient_are_drawn_together_and_as_many_patients_as_there_are():
    patient = np.array([0, 1, 0, 2])
    seen = resampled(lambda w: {"each": w, "patients": w[:, [0, 1, 3]].sum(axis=1)}, patient, Bootstrap(1050, 3))
    assert seen["each"].shape == (1050, 4)
    np.testing.assert_array_equal(seen["each"][:, 0], seen["each"][:, 2])
    assert set(seen["patients"]) == {3}
    assert seen["each"].mean(axis=0) == pytest.approx([1, 1, 1, 1], abs=0.1)


def test_equal_seeds_draw_equal_patients():
    draws = [
        resampled(lambda w: {"first": w[:, 0]}, np.arange(9), Bootstrap(1000, seed))["first"] for seed in (1, 1, 2)
    ]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert (draws[0] != draws[2]).any()


def test_of_many_patients_it_is_the_percentile_interval_of_scipy():
    values = np.random.default_rng(0).gamma(2.0, size=400)
    draws = resampled(lambda w: {"mean": w @ values / w.sum(axis=1)}, np.arange(400), Bootstrap(10_000, 0))["mean"]
    ours = interval(draws, 400)
    theirs = bootstrap((values,), np.mean, n_resamples=10_000, method="percentile", rng=1).confidence_interval
    width = theirs.high - theirs.low
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs), abs=0.05 * width)


def test_fewer_patients_give_wider_intervals():
    draws = np.random.default_rng(0).normal(size=5000)
    widths = [(found := interval(draws, n)).high - found.low for n in (5, 10, 100, 10_000)]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] == pytest.approx(np.diff(np.quantile(draws, [0.025, 0.975])).item(), rel=1e-3)


@pytest.mark.parametrize(("n", "t", "tail"), [(5, 2.776, 0.00095), (10, 2.262, 0.00856), (20, 2.093, 0.01588)])
def test_tails_are_those_of_t_widened_for_few_patients(n, t, tail):
    """Of draws spread evenly over 0–1 an interval's ends are its tails; 97.5 % points of t from a printed table."""
    assert norm.cdf(-t * np.sqrt(n / (n - 1))) == pytest.approx(tail, abs=1e-5)
    found = interval(np.linspace(0, 1, 100_001), n)
    assert (found.low, 1 - found.high) == pytest.approx((tail, tail), abs=2e-5)


def test_with_four_patients_there_is_none():
    found = interval(np.linspace(0, 1, 2000), 4)
    assert (found.low, found.high, found.note) == (None, None, "no interval: fewer than 5 patients")


def test_draws_without_what_the_figure_is_about_are_left_out_unless_they_are_many():
    values = np.linspace(0, 1, 2000)
    values[:80] = np.nan
    assert interval(values, 1000).low > values[80]
    values[:140] = np.nan
    assert interval(values, 1000).note == "no interval: undefined in 7% of the draws"


def test_draws_that_are_all_equal_say_nothing_of_chance():
    found = interval(np.ones(2000), 30)
    assert (found.low, found.high, found.note) == (None, None, "no interval: all draws are equal")
