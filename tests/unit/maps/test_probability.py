"""Scores: what parts the probabilities of a sure network, and what a threshold means to them."""

import math

import numpy as np
import pytest
from lesionmap.errors import ModelError
from lesionmap.maps.probability import (
    BIN_PROBABILITIES,
    EVEN,
    N_BINS,
    N_SCORES,
    PER_BIN,
    as_logits,
    as_probability,
    as_scores,
    as_u8,
    chosen_threshold,
    first_bin,
    first_positive,
    score_of,
    threshold_of,
)

EVERY = np.arange(N_SCORES)


def naive_probability(score):
    """By the definition, in Python's numbers; 0 without a score."""
    return 1 / (1 + math.exp((32768 - score) / 1024)) if score else 0.0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("logit", "score"),
    [
        (0, 32768),
        (1, 33792),
        (-1, 31744),
        (0.4 / 1024, 32768),
        (-0.6 / 1024, 32767),
        (31.998, 65534),
        (31.999, 65535),
        (32, 65535),
        (1e9, 65535),
        (-31.998, 2),
        (-31.999, 1),
        (-32, 1),  # 0 is for what was not mapped
        (-1e9, 1),
    ],
)
def test_a_score_is_the_nearest_step_of_the_logit(logit, score, dtype):
    found = as_scores(np.array([logit], dtype=dtype))
    assert (found.dtype, found.tolist()) == (np.uint16, [score])


def test_scores_come_back_from_their_logits():
    np.testing.assert_array_equal(as_scores(as_logits(EVERY[1:])), EVERY[1:])
    logits = np.random.default_rng(0).uniform(-31.9, 31.9, 1000)
    assert np.abs(as_logits(as_scores(logits)) - logits).max() <= 0.5 / 1024


def test_a_higher_score_is_a_higher_probability_and_0_is_none():
    probabilities = as_probability(EVERY)
    assert probabilities.tolist() == pytest.approx([naive_probability(score) for score in EVERY.tolist()], rel=1e-12)
    assert probabilities[0] == 0
    assert (np.diff(probabilities) >= 0).all()
    assert (np.diff(probabilities[: EVEN + 20 * 1024]) > 0).all()
    assert np.float32(probabilities[EVEN + 18 * 1024]) == 1  # which a map of float32 could not part from 1


def test_a_published_pixel_is_the_nearest_255th_of_the_probability():
    published = as_u8(EVERY.astype(np.uint16))
    assert published.dtype == np.uint8
    assert published.tolist() == [round(255 * naive_probability(score)) for score in EVERY.tolist()]
    assert as_u8(np.array([[0, 1], [32768, 65535]])).tolist() == [[0, 0], [128, 255]]


@pytest.mark.parametrize(
    ("probability", "score"),
    [(0, 0), (1e-30, 1), (0.1, 30518), (0.5, 32768), (0.9, 35018), (0.99995, 42909), (1, 65535)],
)
def test_a_probability_of_the_config_has_a_score(probability, score):
    assert score_of(probability) == score


def test_bins_and_their_thresholds_agree():
    """Beyond 20 logits, a probability has too few digits left for that."""
    for first in range(N_BINS // 2 - 20 * 64, N_BINS // 2 + 20 * 64 + 1):
        threshold = threshold_of(first)
        assert (first_bin(threshold), first_positive(threshold)) == (first, first * PER_BIN)
        assert as_logits(np.array(first * PER_BIN)) == (first - 2048) / 64
        edges = [naive_probability(edge * PER_BIN) for edge in (first - 1, first)]
        assert edges[0] < threshold <= edges[1]
    assert [threshold_of(first) for first in (2047, 2048, 2100, 3000)] == [0.496, 0.5, 0.69, 0.99999965]


@pytest.mark.parametrize("threshold", [1e-6, 0.001, 0.1, 0.3, 0.4999, 0.7, 0.9, 0.99995, 1 - 1e-9])
def test_lesion_begins_less_than_a_bin_above_the_threshold(threshold):
    first, logit = first_positive(threshold), math.log(threshold) - math.log1p(-threshold)
    assert first % PER_BIN == 0
    assert first == first_bin(threshold) * PER_BIN
    assert 0 <= as_logits(np.array(first)) - logit < 1 / 64


def test_one_half_is_lesion_and_what_was_not_mapped_never_is():
    assert first_positive(0.5) == 32768
    assert first_positive(0.5 + 1e-9) == 32768  # a bin's start may be that far off
    assert first_positive(0.501) == 32768 + 16
    assert first_positive(1e-300) == first_positive(0) == 1
    assert first_positive(1 - 1e-16) == first_positive(1) == 65520


def test_the_probability_of_a_bin_is_that_of_its_middle():
    assert BIN_PROBABILITIES.shape == (N_BINS,)
    assert BIN_PROBABILITIES[0] == 0
    for first in (1, 1000, 2047, 2048, 3001):
        assert BIN_PROBABILITIES[first] == pytest.approx(naive_probability(first * 16 + 8), rel=1e-12)
    assert np.diff(BIN_PROBABILITIES).max() < 1 / 255


def test_the_threshold_is_the_configs_or_the_models():
    assert chosen_threshold(0.25, 0.7, "find_lesions") == 0.25
    assert chosen_threshold(0.25, None, "find_lesions") == 0.25
    assert chosen_threshold("validation", 0.7, "find_lesions") == 0.7
    with pytest.raises(
        ModelError, match=r"^find_lesions: inference\.threshold is validation, but the model file has no"
    ):
        chosen_threshold("validation", None, "find_lesions")
