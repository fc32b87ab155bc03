"""Which epoch is the best, by which view, and when training has stopped getting better."""

import math

import pytest
from lesionmap.training.best_epoch import best_epochs, is_stale, judging_view


def history(**losses):
    columns = {f"val_{view}_loss": values for view, values in losses.items()}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def test_each_view_has_its_best_epoch_the_last_in_a_tie():
    rows = history(low=[3.0, 1.0, 1.0, 2.0], fused=[None, 5.0, math.nan, 4.0])
    assert best_epochs(rows) == {"low": 2, "fused": 3}


def test_what_was_never_measured_chooses_nothing():
    assert best_epochs(history(low=[None, math.nan])) == best_epochs([{"epoch": 1.0}]) == best_epochs([]) == {}


@pytest.mark.parametrize(
    ("low", "fused", "stale"),
    [
        ([1, 2, 2], [1, 2, 2], True),
        ([1, 2, 2], [3, 2, 1], False),
        ([3, 2, 1], [1, 2, 2], False),
        ([1, 1, 1], [None, 1, 1], False),  # two values of the fused view cannot show it yet
        ([1, 2, 2], [None, None, None], True),
    ],
)
def test_training_is_stale_when_no_view_gets_better(low, fused, stale):
    assert is_stale(history(low=low, fused=fused), 2) == stale


def test_the_view_that_judges_is_that_of_the_maps_if_it_was_measured():
    assert judging_view("fused", ["low", "fused"]) == "fused"
    assert judging_view("fused", ["low"]) == judging_view("high", ["fused", "low"]) == "low"
    assert judging_view("low", ["high"]) == "high"
    assert judging_view("low", []) is None
