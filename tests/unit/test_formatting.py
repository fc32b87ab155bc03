"""Numbers as people read them."""

from lesionmap.formatting import counted, duration, fixed, with_interval


def test_intervals_are_in_brackets():
    assert with_interval({"value": 0.8, "low": 0.7123, "high": 0.9}, 3) == "0.800 (0.712 to 0.900)"
    assert with_interval({"value": -0.0001, "low": -0.1, "high": 0.1}, 2) == "0.00 (-0.10 to 0.10)"
    assert with_interval({"value": 0.8, "low": None, "high": None}, 2) == "0.80"
    assert with_interval({"value": None, "low": None, "high": None}, 2) == "—"


def test_decimals_and_durations():
    assert fixed(0.12345, 3) == "0.123"
    assert fixed(None, 3) == fixed(float("nan"), 3) == "—"
    assert duration(59.94) == "59.9 s"
    assert duration(3661.4) == "1:01:01 h"


def test_nouns_follow_their_number():
    assert [counted(number, "slide") for number in (0, 1, 2000)] == ["0 slides", "1 slide", "2,000 slides"]
