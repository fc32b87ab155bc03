"""Learning curves: plots of loss, Dice and AUROC by epoch."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lesionmap.files.atomic import written_whole
from lesionmap.plotting import BLUE, GREEN, VERMILION, save_svg

VIEWS = {"low": (BLUE, "o"), "fused": (VERMILION, "s"), "high": (GREEN, "^")}
LINE_STYLES = {"train": "-", "val": "--"}
PANELS = {"loss": "Focal loss", "dice": "Dice, validation slides", "auroc": "AUROC, validation slides"}


def plot_learning_curves(history: str, output: str) -> None:
    """Draw one panel each for loss, Dice and AUROC, if measured, and mark the published epoch.

    Parameters
    ----------
    history : str
        CSV from :func:`lesionmap.run.published_model.publish_model`; its columns depend on the schedule and on
        validation slides.
    output : str
        SVG file; equal histories give identical files.
    """
    table = read_history(history)
    panels = {metric: pairs for metric in PANELS if (pairs := _measured(table, metric))}
    figure = Figure(figsize=(4.5 * len(panels), 3.2), layout="constrained")
    for axes, (metric, pairs) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for split, view in pairs:
            colour, marker = VIEWS[view]
            style = {"color": colour, "marker": marker, "linestyle": LINE_STYLES[split], "markersize": 3}
            axes.plot(table["epoch"], table[f"{split}_{view}_{metric}"], label=f"{split}, {view}", **style)
        _frame(axes, PANELS[metric], published_epoch(table))
        axes.set(xlim=(0.5, table["epoch"].max() + 0.5), ylim=(0, None if metric == "loss" else 1.02))
    with written_whole(output) as draft:
        save_svg(figure, draft)


def read_history(path: str) -> pd.DataFrame:
    """Read the history of a training run, one row per epoch; `used` is 1 in that of the published one."""
    return pd.read_csv(path)


def _measured(table: pd.DataFrame, metric: str) -> list[tuple[str, str]]:
    """The pairs of split and view for which a metric was measured."""
    pairs = [(split, view) for split in LINE_STYLES for view in VIEWS]
    return [(split, view) for split, view in pairs if _has(table, f"{split}_{view}_{metric}")]


def _has(table: pd.DataFrame, column: str) -> bool:
    return column in table and bool(table[column].notna().any())


def _frame(axes: Axes, title: str, epoch: int) -> None:
    axes.axvline(epoch, color="0.6", linewidth=0.8, zorder=0, label=f"used: epoch {epoch}")
    axes.set(title=title, xlabel="epoch")
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
    axes.legend(frameon=False, fontsize="small")


def published_epoch(table: pd.DataFrame) -> int:
    """Number of the epoch whose model is published, counted from 1."""
    return int(table.loc[table["used"] == 1, "epoch"].item())
