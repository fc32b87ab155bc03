"""Plots of an experiment: learning curves of all variants side by side, and the variants' metrics with intervals."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lesionmap.files.atomic import written_whole
from lesionmap.files.records import read_json
from lesionmap.plotting import BLUE, save_svg
from lesionmap.training.learning_curves import PANELS, VIEWS

SHOWN = {"slide_mean_dice": "mean Dice of slides", "dice": "Dice of all pixels", "auroc": "AUROC of all pixels"}


def plot_learning_curves_of_variants(histories: Sequence[str], output: str) -> None:
    """Draw a column for each variant: its metrics on validation slides by epoch, a line for each fold and seed.

    Parameters
    ----------
    histories : sequence of str
        CSV files of published models: …/<variant>/<seed>/fold_<number>/history.csv.
    output : str
        SVG; equal histories give identical files.
    """
    of_variant: dict[str, list[pd.DataFrame]] = {}
    for path in histories:
        of_variant.setdefault(Path(path).parts[-4], []).append(pd.read_csv(path))
    figure = Figure(figsize=(1 + 4.5 * max(2, len(of_variant)), 8), layout="constrained")
    grid = figure.subplots(len(PANELS), len(of_variant), squeeze=False, sharey="row")
    for column, (variant, tables) in zip(grid.T, of_variant.items(), strict=True):
        for axes, (metric, title) in zip(column, PANELS.items(), strict=True):
            _draw_runs(axes, tables, metric)
            axes.set(title=f"{variant}\n{title}", xlabel="epoch", ylim=(0, None if metric == "loss" else 1.02))
            axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
    with written_whole(output) as draft:
        save_svg(figure, draft)


def _draw_runs(axes: Axes, tables: Sequence[pd.DataFrame], metric: str) -> None:
    """Each run as a thin line, with a dot at the epoch in use; their mean as a thick one."""
    for view, (colour, marker) in VIEWS.items():
        name = f"val_{view}_{metric}"
        measured = [table.set_index("epoch") for table in tables if name in table and table[name].notna().any()]
        for table in measured:
            axes.plot(table.index, table[name], color=colour, linewidth=0.7, alpha=0.5)
            axes.plot(table.loc[table["used"] == 1, name], color=colour, marker=marker, markersize=3, linestyle="")
        if measured:
            mean = pd.concat([table[name] for table in measured], axis=1).mean(axis=1)
            axes.plot(mean, color=colour, linewidth=2, label=f"{view} view, mean of {len(measured)}")
    if axes.lines:
        axes.legend(frameon=False, fontsize="small")
    else:
        axes.text(0.5, 0.5, "not measured", ha="center", transform=axes.transAxes)


def plot_variants(summary: str, output: str) -> None:
    """Draw the out-of-fold metrics of all variants with their intervals.

    Parameters
    ----------
    summary : str
        JSON of :func:`lesionmap.experiments.table.compare_variants`.
    output : str
        SVG.
    """
    rows = read_json(summary)["held_out"]
    variants = list(dict.fromkeys(row["variant"] for row in rows))
    figure = Figure(figsize=(10, 1.2 + 0.35 * max(1, len(variants))), layout="constrained")
    for axes, (metric, title) in zip(figure.subplots(1, len(SHOWN), sharey=True), SHOWN.items(), strict=True):
        _draw_metric(axes, {row["variant"]: row for row in rows if row["metric"] == metric})
        axes.set(title=title, xlim=(0, 1), ylim=(-0.6, len(variants) - 0.4), yticks=range(len(variants)))
        axes.set_yticklabels(reversed(variants))
        axes.grid(axis="x", linewidth=0.5, alpha=0.5)
    with written_whole(output) as draft:
        save_svg(figure, draft)


def _draw_metric(axes: Axes, rows: Mapping[str, Mapping[str, Any]]) -> None:
    """A dot for each variant, from the top; its interval as a line, if it has one."""
    for place, row in enumerate(reversed([*rows.values()])):
        if row["value"] is None:
            axes.text(0.02, place, "undefined", va="center", fontsize="small")
            continue
        axes.plot(row["value"], place, marker="o", color=BLUE)
        if row["low"] is not None:
            axes.plot(np.array([row["low"], row["high"]]), [place, place], color=BLUE)
