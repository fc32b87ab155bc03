"""Format numbers for people and for tables, and read them from tables."""

import math
from collections.abc import Mapping
from typing import Any

MISSING = "—"


def fixed(value: float | None, digits: int) -> str:
    """`value` with `digits` decimals, or a dash if it is missing."""
    return MISSING if value is None or math.isnan(value) else f"{value:z.{digits}f}"


def with_interval(entry: Mapping[str, Any], digits: int) -> str:
    """A metric with `digits` decimals and its confidence interval, if it has one."""
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
    """A value as tables of metrics show it: floats with six decimals, NA if it is missing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "NA"
    return f"{value:.6f}" if isinstance(value, float) else value


def as_number(text: str) -> float | None:
    """A number that Snakemake has measured; None for a job too short for it to look (``NA``, ``-``)."""
    return float(text) if text.replace(".", "", 1).isdigit() else None
