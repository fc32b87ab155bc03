"""Choose the epoch whose model is used: the best by the map that inference makes."""

import math
from collections.abc import Collection, Mapping, Sequence

History = Sequence[Mapping[str, float | None]]
VIEWS = ("low", "fused", "high")


def validation_losses(rows: History, view: str) -> dict[int, float]:
    """The validation losses of a view, by index of the epoch.

    Parameters
    ----------
    rows : sequence of mapping
        A run's history, one row per epoch; a missing loss is absent, None or NaN.
    """
    found = {index: row.get(f"val_{view}_loss") for index, row in enumerate(rows)}
    return {index: loss for index, loss in found.items() if loss is not None and not math.isnan(loss)}


def best_epochs(rows: History) -> dict[str, int]:
    """Index of the epoch with the lowest validation loss of each view that has one; the last epoch in a tie."""
    of_views = {view: losses for view in VIEWS if (losses := validation_losses(rows, view))}
    return {
        view: max(index for index, loss in losses.items() if loss == min(losses.values()))
        for view, losses in of_views.items()
    }


def is_stale(rows: History, patience: int) -> bool:
    """Whether in no view any of the last `patience` epochs was better than the best one before."""
    of_views = [losses for view in VIEWS if (losses := list(validation_losses(rows, view).values()))]
    return bool(of_views) and all(
        len(losses) > patience and min(losses[-patience:]) >= min(losses[:-patience]) for losses in of_views
    )


def judging_view(asked: str, measured: Collection[str]) -> str | None:
    """The view by which a model is chosen: that of the maps to come, else the first that was measured; None if none."""
    return asked if asked in measured else next((view for view in VIEWS if view in measured), None)
