"""Save an unfinished training run and resume it exactly, to the bit."""

import logging
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lesionmap.errors import TrainingError
from lesionmap.files.atomic import written_whole
from lesionmap.files.records import sha256_of
from lesionmap.network.model import LesionFPN
from lesionmap.training.loss import Losses

MOST_KEPT = 3  # unfinished runs; one of a ResNet-50 takes 0.5 GB
MOST_LISTED = 20  # differences to another run
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
    best : dict of dict
        Weights of the best finished epoch of each view.
    """

    tile_batch: int
    epoch: int = 0
    position: int = 0
    low_done: bool = False
    losses: list[Losses] = field(default_factory=list)
    rows: list[HistoryRow] = field(default_factory=list)
    best: dict[str, dict[str, Tensor]] = field(default_factory=dict)


class Checkpoint:
    """The file that holds an unfinished run; its name is a digest of all that determines the weights.

    So a run with other settings or data starts anew; once they are restored, the earlier one is resumed.

    Parameters
    ----------
    folder : Path
        Folder of all unfinished runs; the `MOST_KEPT` that were saved last stay there.
    fingerprint : mapping
        All settings and data that determine the weights; may be nested.
    minutes : float
        Time between two saves.

    Attributes
    ----------
    run : str
        Digest of the fingerprint, 16 hexadecimal digits.
    """

    def __init__(self, folder: Path, fingerprint: Mapping[str, Any], minutes: float) -> None:
        self._fingerprint = dict(_flat(fingerprint))
        self.run = sha256_of(self._fingerprint)[:16]
        self.path = folder / f"{self.run}.pt"
        self._seconds = 60 * minutes
        self._saved_at = time.monotonic()
        self._saved: tuple[int, int, bool] | None = None

    def is_due(self) -> bool:
        """Whether it is time to save again."""
        return time.monotonic() - self._saved_at >= self._seconds

    def save(self, learner: Learner, state: RunState) -> None:
        """Save the run, unless it stands where it was saved; the file is replaced only when it is complete."""
        place = (state.epoch, state.position, state.low_done)
        if place == self._saved:
            return
        content = {"fingerprint": self._fingerprint, "learner": learner.state(), "run": vars(state)}
        with written_whole(self.path) as draft, open(draft, "wb") as stream:
            torch.save(content, stream)
        self._saved_at, self._saved = time.monotonic(), place
        for path in self._others()[MOST_KEPT - 1 :]:
            path.unlink()
            logging.info("%s is deleted: %d unfinished runs are kept", path, MOST_KEPT)

    def restore(self, learner: Learner) -> RunState | None:
        """Restore the learner and return the state of the run; None if there is no unfinished run.

        Only tensors and plain values are loaded: no code in the file is executed.

        Raises
        ------
        TrainingError
            If the file cannot be read.
        """
        if not self.path.exists():
            return None
        try:
            content = torch.load(self.path, map_location="cpu", weights_only=True)
            learner.restore(content["learner"])
            return RunState(**content["run"])
        except Exception as error:
            raise TrainingError(
                stage="train",
                finding=f"the unfinished run {self.path} cannot be read ({type(error).__name__}: "
                f"{str(error).splitlines()[0] if str(error) else 'no reason given'})",
                remedy="delete that file; training then starts again",
            ) from error

    def log_others(self) -> None:
        """Log which unfinished runs of other settings or data are put aside, and in what they differ."""
        for path in self._others():
            logging.info("the unfinished run %s is put aside: %s", path, self._difference(path))

    def discard(self) -> None:
        """Delete the file: the run is finished."""
        self.path.unlink(missing_ok=True)
        with suppress(OSError):  # others are put aside there
            self.path.parent.rmdir()

    def _others(self) -> list[Path]:
        """The other unfinished runs; those saved last come first."""
        others = [path for path in self.path.parent.glob("*.pt") if path != self.path and path.name[0] != "."]
        return sorted(others, key=lambda path: path.stat().st_mtime_ns, reverse=True)

    def _difference(self, path: Path) -> str:
        ours = self._fingerprint
        try:
            other = torch.load(path, map_location="cpu", weights_only=True, mmap=True)["fingerprint"]
        except Exception as error:
            return f"it cannot be read ({type(error).__name__})"
        different = [key for key in sorted({*ours, *other}) if ours.get(key) != other.get(key)]
        lines = [f"\n  - {key}: {other.get(key)} there, {ours.get(key)} here" for key in different[:MOST_LISTED]]
        return "".join(lines) + (f"\n  and {len(different) - MOST_LISTED} more" if different[MOST_LISTED:] else "")


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
