"""An unfinished training run on disk, so that it can go on where it stands, to the bit."""

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
    """Notes SIGTERM, by which schedulers announce the end of a job, until work reaches a pause point."""

    asked = False

    def __enter__(self) -> "StopRequest":
        self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._before)

    def _note(self, *_: object) -> None:
        self.asked = True

    def pause_point(self) -> None:
        """Raise :class:`StopRequestedError` if the job was told to stop."""
        if self.asked:
            raise StopRequestedError


@dataclass(frozen=True)
class Learner:
    """A network and what changes it."""

    model: LesionFPN
    optimiser: torch.optim.Optimizer

    def set_rate(self, rate: float) -> None:
        """Learn at this rate from now on."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate

    def state(self) -> dict[str, Any]:
        """What :meth:`restore` needs; it shares memory with the learner."""
        return {name: part.state_dict() for name, part in vars(self).items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to a state."""
        for name, part in state.items():
            getattr(self, name).load_state_dict(part)


@dataclass
class RunState:
    """Where a run stands, beside its learner; chance has no state (:mod:`lesionmap.training.augmentation`).

    Parameters
    ----------
    tile_batch : int
        Tiles in the network at once: another number would round otherwise.
    epoch, position : int
        The region that is next, or has its low update behind it; the number of regions before the epoch is closed.
    low_done : bool
        Whether that region's low update is done.
    losses : list of dict
        Of the regions of this epoch, as far as they are done.
    rows : list of dict
        History: the figures of the epochs that are closed.
    best : dict
        Weights of the best of them.
    """

    tile_batch: int
    epoch: int = 0
    position: int = 0
    low_done: bool = False
    losses: list[Losses] = field(default_factory=list)
    rows: list[HistoryRow] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)


class Checkpoint:
    """The file of an unfinished run.

    Parameters
    ----------
    path : Path
    fingerprint : mapping
        All that decides the weights; names → settings, nested.
    minutes : float
        Time between two savings.
    """

    def __init__(self, path: Path, fingerprint: Mapping[str, Any], minutes: float) -> None:
        self.path = path
        self._fingerprint = dict(_flat(fingerprint))
        self._seconds = 60 * minutes
        self._saved_at = time.monotonic()

    def is_due(self) -> bool:
        """Whether the time between two savings has passed."""
        return time.monotonic() - self._saved_at >= self._seconds

    def save(self, learner: Learner, state: RunState) -> None:
        """Write where the run stands, whole or not at all."""
        content = {"fingerprint": self._fingerprint, "learner": learner.state(), "run": vars(state)}
        with written_whole(self.path) as draft, open(draft, "wb") as stream:
            torch.save(content, stream)
        self._saved_at = time.monotonic()

    def restore(self, learner: Learner) -> RunState | None:
        """Put the learner and the run back to where they were; None if there is no unfinished run.

        Only tensors and plain values are loaded: nothing in the file is executed.

        Raises
        ------
        TrainingError
            If the file cannot be read, or is of a run with other settings; the message names those.
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
                remedy="delete that file; training then starts anew",
            ) from error

    def _check(self, other: Mapping[str, Any]) -> None:
        ours = self._fingerprint
        different = [key for key in sorted({*ours, *other}) if ours.get(key) != other.get(key)]
        if different:
            listing = "".join(f"\n  - {key}: {other.get(key)} there, {ours.get(key)} here" for key in different)
            raise TrainingError(
                stage="train",
                finding=f"the unfinished run {self.path} is of other settings or data:{listing}\n",
                remedy="restore those to go on with that run, or delete that file to train anew",
            )


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
