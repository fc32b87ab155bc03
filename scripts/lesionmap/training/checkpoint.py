"""Save an unfinished training run and resume it exactly, to the bit."""

import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lesionmap.errors import TrainingError
from lesionmap.files.atomic import written_whole
from lesionmap.network.model import LesionFPN
from lesionmap.training.loss import Losses

HistoryRow = dict[str, float | None]


class StopRequestedError(Exception):
    """Raised at a pause point after SIGTERM."""


class StopRequest(AbstractContextManager["StopRequest"]):
    """Remembers SIGTERM until training reaches a pause point; schedulers send SIGTERM before they end a job."""

    asked = False

    def __enter__(self) -> "StopRequest":
        self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._before)

    def _note(self, *_: object) -> None:
        self.asked = True

    def pause_point(self) -> None:
        """Raise :class:`StopRequestedError` if SIGTERM has arrived."""
        if self.asked:
            raise StopRequestedError


@dataclass(frozen=True)
class Learner:
    """A network and its optimiser."""

    model: LesionFPN
    optimiser: torch.optim.Optimizer

    def set_rate(self, rate: float) -> None:
        """Set the learning rate."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate

    def state(self) -> dict[str, Any]:
        """State dicts for :meth:`restore`; they share memory with the learner."""
        return {name: part.state_dict() for name, part in vars(self).items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Load the state dicts of :meth:`state`."""
        for name, part in state.items():
            getattr(self, name).load_state_dict(part)


@dataclass
class RunState:
    """Progress of a run, without its learner; random numbers have no state (:mod:`lesionmap.training.augmentation`).

    Parameters
    ----------
    tile_batch : int
        Tiles in the network at once. A resumed run keeps it, because another number would change the rounding.
    epoch, position : int
        The next region, or the one between its low update and the rest, both counted from 0. `position` equals the
        number of regions when all are done but the epoch is not yet closed.
    low_done : bool
        Whether the low update of that region is done.
    losses : list of dict
        Losses of this epoch's regions so far.
    rows : list of dict
        History: the metrics of the finished epochs.
    best : dict
        Weights of the best finished epoch.
    """

    tile_batch: int
    epoch: int = 0
    position: int = 0
    low_done: bool = False
    losses: list[Losses] = field(default_factory=list)
    rows: list[HistoryRow] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)


class Checkpoint:
    """The file that holds an unfinished run.

    Parameters
    ----------
    fingerprint : mapping
        All settings and data that determine the weights; may be nested.
    minutes : float
        Time between two saves.
    """

    def __init__(self, path: Path, fingerprint: Mapping[str, Any], minutes: float) -> None:
        self.path = path
        self._fingerprint = dict(_flat(fingerprint))
        self._seconds = 60 * minutes
        self._saved_at = time.monotonic()

    def is_due(self) -> bool:
        """Whether it is time to save again."""
        return time.monotonic() - self._saved_at >= self._seconds

    def save(self, learner: Learner, state: RunState) -> None:
        """Save the run; the file is replaced only when it is complete."""
        content = {"fingerprint": self._fingerprint, "learner": learner.state(), "run": vars(state)}
        with written_whole(self.path) as draft, open(draft, "wb") as stream:
            torch.save(content, stream)
        self._saved_at = time.monotonic()

    def restore(self, learner: Learner) -> RunState | None:
        """Restore the learner and return the state of the run; None if there is no unfinished run.

        Only tensors and plain values are loaded: no code in the file is executed.

        Raises
        ------
        TrainingError
            If the file cannot be read, or if its run had other settings or data; the message lists the differences.
        """
        if not self.path.exists():
            return None
        try:
            content = torch.load(self.path, map_location="cpu", weights_only=True)
            self._check(content["fingerprint"])
            learner.restore(content["learner"])
            return RunState(**content["run"])
        except TrainingError:
            raise
        except Exception as error:
            raise TrainingError(
                stage="train",
                finding=f"the unfinished run {self.path} cannot be read ({type(error).__name__}: "
                f"{str(error).splitlines()[0] if str(error) else 'no reason given'})",
                remedy="delete that file; training then starts again",
            ) from error

    def _check(self, other: Mapping[str, Any]) -> None:
        ours = self._fingerprint
        different = [key for key in sorted({*ours, *other}) if ours.get(key) != other.get(key)]
        if different:
            listing = "".join(f"\n  - {key}: {other.get(key)} there, {ours.get(key)} here" for key in different)
            raise TrainingError(
                stage="train",
                finding=f"the unfinished run {self.path} was started with other settings or data:{listing}\n",
                remedy="restore those to resume that run, or delete that file to start again",
            )


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
