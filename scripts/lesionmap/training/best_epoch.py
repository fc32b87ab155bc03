"""Choose the epoch whose model is published."""

import math
from collections.abc import Mapping, Sequence

SELECTION_LOSSES = ("val_low_loss", "val_high_loss")


def choosing_losses(rows: Sequence[Mapping[str, float | None]]) -> dict[int, float]:
    """The validation losses that decide, by index of the epoch: of the low view, else of the high view, else none.

    Parameters
    ----------
    rows : sequence of mapping
        A run's history, one row per epoch; a missing loss is absent, None or NaN.
    """
    for name in SELECTION_LOSSES:
        found = {index: loss for index, row in enumerate(rows) if (loss := row.get(name)) is not None}
        losses = {index: loss for index, loss in found.items() if not math.isnan(loss)}
        if losses:
            return losses
    return {}


def published(rows: Sequence[Mapping[str, float | None]]) -> int:
    """Index of the epoch with the lowest validation loss, the last one in a tie; without validation, the last epoch."""
    losses = choosing_losses(rows)
    return max((index for index, loss in losses.items() if loss == min(losses.values())), default=len(rows) - 1)
