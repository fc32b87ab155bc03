"""Which epoch's model is published."""

import math
from collections.abc import Mapping, Sequence

CHOOSING = ("val_low_loss", "val_high_loss")


def choosing_losses(rows: Sequence[Mapping[str, float | None]]) -> dict[int, float]:
    """The validation losses that choose the epoch, by index: the low view's, else the high view's, else none.

    Parameters
    ----------
    rows : sequence of mapping
        A run's history; what was not measured is absent, None or NaN.
    """
    for name in CHOOSING:
        found = {index: loss for index, row in enumerate(rows) if (loss := row.get(name)) is not None}
        losses = {index: loss for index, loss in found.items() if not math.isnan(loss)}
        if losses:
            return losses
    return {}


def published(rows: Sequence[Mapping[str, float | None]]) -> int:
    """Index of the epoch with the lowest validation loss, of equal ones the last; without validation, the last."""
    losses = choosing_losses(rows)
    return max((index for index, loss in losses.items() if loss == min(losses.values())), default=len(rows) - 1)
