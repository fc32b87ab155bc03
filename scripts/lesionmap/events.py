"""Figures of a training run for TensorBoard."""

from collections.abc import Mapping
from contextlib import AbstractContextManager

from tensorboardX.writer import SummaryWriter


class Events(AbstractContextManager["Events"]):
    """Writes event files; a context manager.

    Parameters
    ----------
    folder : str
    first_step : int
        Where the run goes on: TensorBoard drops what an earlier process wrote of this step and later ones.
    written : bool
        False: nothing is written, as another process does.
    """

    def __init__(self, folder: str, first_step: int, *, written: bool = True) -> None:
        self._writer = SummaryWriter(folder, purge_step=first_step, write_to_disk=written)

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def add(self, figures: Mapping[str, float | None], step: int) -> None:
        """Figures by name, after `step` regions; None is left out."""
        for name, figure in figures.items():
            if figure is not None:
                self._writer.add_scalar(name, figure, step)
