"""How a network is trained: the config section ``train``, and what follows from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lesionmap.network.settings import ModelSettings


@dataclass(frozen=True)
class TrainSettings:
    """What decides the weights; names and defaults as in the config section ``train``.

    Parameters
    ----------
    schedule : str
        ``joint``, ``sequential`` (METHOD.md §4), or a baseline: ``low_only``, ``high_only``.
    epochs : int
    learning_rate : float
        α0 of Adam.
    decay_rate : float
        α = α0 / (1 + decay_rate · epoch).
    focal_gamma, focal_alpha : float
        γ and ξ of the focal loss.
    tile_batch : int or "auto"
        Tiles in the network at once; the gradient does not depend on it with frozen or group norm, but for rounding.
    augment : bool
        Random flips and quarter turns of whole regions.
    stain_jitter : float
        Each stain of a region is strengthened by exp of a number drawn from ±this; 0 for none.
    early_stop : int or None
        Epochs without a better validation loss after which training ends; None: never.
    seed : int
    processes : int
        Regions per update, each in a process of its own; the update follows the mean of their gradients.
    leave_out_above : mapping
        Largest shares of blur, pen and fold (:class:`lesionmap.tissue.quality.RegionQuality`) of a training region.
    """

    schedule: str = "joint"
    epochs: int = 50
    learning_rate: float = 0.001
    decay_rate: float = 0.05
    focal_gamma: float = 2.0
    focal_alpha: float = 0.75
    tile_batch: int | str = 4
    augment: bool = True
    stain_jitter: float = 0.0
    early_stop: int | None = None
    seed: int = 0
    processes: int = 1
    leave_out_above: Mapping[str, float] = field(default_factory=dict)

    def rate(self, epoch: int) -> float:
        """Adam's learning rate in an epoch, counted from 0."""
        return self.learning_rate / (1 + self.decay_rate * epoch)

    @property
    def views(self) -> tuple[str, ...]:
        """Maps of a region that the schedule trains, and validation therefore judges; the first chooses the epoch."""
        baselines: dict[str, tuple[str, ...]] = {"low_only": ("low",), "high_only": ("high",)}
        return baselines.get(self.schedule, ("low", "fused"))

    @property
    def losses(self) -> tuple[str, ...]:
        """Losses that a region is trained by, in their order."""
        return {"sequential": ("low", "high", "fused")}.get(self.schedule, self.views)

    @property
    def trains_on_tile_masks(self) -> bool:
        """Whether tiles have a loss of their own."""
        return self.schedule in ("sequential", "high_only")


@dataclass(frozen=True)
class TrainMachine:
    """Where and how safely training runs; none of it decides the weights.

    Parameters
    ----------
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    checkpoint_minutes : float
        Between two savings of an unfinished run; 0 saves after every region.
    threads : int
        CPU cores to use, in each process.
    """

    device: str
    checkpoint_minutes: float
    threads: int


@dataclass(frozen=True)
class TrainJob:
    """What one training run learns from, and how.

    Parameters
    ----------
    train_paths, val_paths : sequence of str
        Tile stores; `val_paths` may be empty.
    backbone_weights : str or None
        torchvision state dict to start the bottom-up path from.
    model, settings
        The network and its schedule.
    metadata : dict
        What the model file records beside the weights; ``tiles`` and ``provenance`` among it.
    """

    train_paths: Sequence[str]
    val_paths: Sequence[str]
    backbone_weights: str | None
    model: ModelSettings
    settings: TrainSettings
    metadata: dict[str, Any]


@dataclass(frozen=True)
class TrainFiles:
    """Where a training run writes.

    Parameters
    ----------
    model : str
        The published model, safetensors with metadata. Beside it lie ``unfinished.pt`` until training is done, and
        ``nonfinite_region.npz`` if it fails.
    history : str
        CSV, one row per epoch.
    checkpoints : str
        Folder for ``last.safetensors`` and ``best.safetensors``.
    tensorboard : str
        Folder for TensorBoard.
    log : str
        The job's log, to which its processes add if there are several.
    """

    model: str
    history: str
    checkpoints: str
    tensorboard: str
    log: str

    @property
    def unfinished(self) -> Path:
        """An unfinished run; no output of the rule, as Snakemake would remove it before the next start."""
        return Path(self.model).with_name("unfinished.pt")

    @property
    def nonfinite_region(self) -> Path:
        """The arrays of a region whose loss is not finite."""
        return Path(self.model).with_name("nonfinite_region.npz")
