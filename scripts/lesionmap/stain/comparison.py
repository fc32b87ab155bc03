"""Compare the stains of all slides: their spread before and after normalisation, and the outliers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from lesionmap.files.records import read_json, write_json, write_table
from lesionmap.jobs.quarantine import usable
from lesionmap.stain.profile import STAINS

OUTLIER_COLUMNS = {  # columns checked for outliers, and the smallest difference that matters in each
    "angle": 5.0,
    "angle_to_reference_haematoxylin": 5.0,
    "angle_to_reference_eosin": 5.0,
    "ratio_haematoxylin": 0.25,
    "ratio_eosin": 0.25,
}
COLUMNS = [
    "slide",
    "verdict",
    "method",
    "n_pixels",
    "reconstruction_error",
    *("white_point", "white_point_source"),
    *("angle", "angle_to_reference_haematoxylin", "angle_to_reference_eosin"),
    *("p99_haematoxylin", "p99_eosin", "ratio_haematoxylin", "ratio_eosin"),
    *("mean_od_before_haematoxylin", "mean_od_before_eosin", "mean_od_after_haematoxylin", "mean_od_after_eosin"),
    *("outlier", "flags"),
]
FEWEST_TO_COMPARE = 5


def compare_stains(matches: Sequence[str], table: str, spread: str) -> None:
    """Write the table of all slides' stains, and their spread.

    Parameters
    ----------
    matches : sequence of str
        Files of :func:`lesionmap.stain.match.match_stain`.
    table : str
        TSV, one row per slide. `white_point` is R, G, B of its glass. `angle` is between the slide's two fitted stains
        (degrees). `outlier` lists the columns in which the slide is an outlier.
    spread : str
        JSON: for each stain, the standard deviation over slides of its mean OD (its mean concentration in the
        reference's basis), before and after normalisation, and the fraction by which it falls. `slides` is the
        number of slides used: those with the verdict ``ok``.
    """
    rows = [_row(read_json(path)) for path in usable(matches)]
    frame = pd.DataFrame(rows, columns=[name for name in COLUMNS if name != "outlier"])
    frame["outlier"] = outliers(frame)
    write_table(table, frame.to_dict("records"), COLUMNS)  # type: ignore[arg-type]  # its keys are the columns' names
    fitted = frame[frame["verdict"] == "ok"]
    write_json(spread, {stain: _spread(fitted, stain) for stain in STAINS} | {"slides": len(fitted)})


def _row(match: dict[str, Any]) -> dict[str, Any]:
    profile = match["profile"]
    fitted = {key: profile[key] for key in ("verdict", "method", "n_pixels", "reconstruction_error")}
    pairs = {
        "p99": profile["p99"],
        "ratio": match["ratio"],
        "angle_to_reference": match["angle_to_reference"],
        **{f"mean_od_{when}": means or (np.nan, np.nan) for when, means in match["mean_od"].items()},
    }
    by_stain = {
        f"{name}_{stain}": value for name, values in pairs.items() for stain, value in zip(STAINS, values, strict=True)
    }
    white = match["white_point"]
    others = {
        "white_point": ", ".join(f"{part:g}" for part in white["colour"]),
        "white_point_source": white["source"],
        "angle": match["fitted"]["angle"],
        "flags": "; ".join(match["flags"]),
    }
    return {"slide": match["slide"]} | fitted | others | by_stain


def outliers(frame: pd.DataFrame) -> list[str]:
    """For each slide, the columns whose value lies beyond Tukey's fences (quartiles ± 1.5 interquartile ranges).

    The quartiles are taken over slides with the verdict ``ok``. A small angle to the reference is never an outlier.
    """
    fitted = frame[frame["verdict"] == "ok"]
    if len(fitted) < FEWEST_TO_COMPARE:
        return [""] * len(frame)
    beyond = pd.DataFrame(index=frame.index)
    for column, least in OUTLIER_COLUMNS.items():
        low, high = fitted[column].quantile([0.25, 0.75])
        reach = max(1.5 * (high - low), least)
        beyond[column] = frame[column] > high + reach
        if not column.startswith("angle_to_reference"):
            beyond[column] |= frame[column] < low - reach
    return [", ".join(beyond.columns[list(row)]) for row in beyond.itertuples(index=False)]


def _spread(frame: pd.DataFrame, stain: str) -> dict[str, float | None]:
    before, after = (float(frame[f"mean_od_{when}_{stain}"].std(ddof=0)) for when in ("before", "after"))
    if not before > 0:  # no slide or only one
        return {"before": None, "after": None, "fall": None}
    return {"before": before, "after": after, "fall": 1 - after / before}
