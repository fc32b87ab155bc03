"""Numbers as people read them, and as tables have them."""

import math
from collections.abc import Mapping
from typing import Any

MISSING = "—"


def fixed(value: float | None, digits: int) -> str:
    """`value` with so many decimals; a dash where there is none."""
    return MISSING if value is None or math.isnan(value) else f"{value:z.{digits}f}"


def with_interval(entry: Mapping[str, Any], digits: int) -> str:
    """A metric with so many decimals and its confidence interval, if it has one."""
    value = fixed(entry["value"], digits)
    return value if entry["low"] is None else f"{value} ({entry['low']:z.{digits}f} to {entry['high']:z.{digits}f})"


def duration(seconds: float) -> str:
    """Seconds as h:mm:ss, or with one decimal below a minute."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02} h"


def counted(number: int, noun: str) -> str:
    """A number and its noun: 1 slide, 2 slides."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def in_table(value: Any) -> Any:
    """A value as tables of metrics have it: a fraction with six decimals, NA where there is none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "NA"
    return f"{value:.6f}" if isinstance(value, float) else value
