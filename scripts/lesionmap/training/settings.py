"""Settings of training: the config section ``train``, and the inputs, device and outputs of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lesionmap.network.settings import TILES, ModelSettings
from lesionmap.training.best_epoch import VIEWS


@dataclass(frozen=True)
class TrainSettings:
    """Settings that determine the weights; names and defaults as in the config section ``train``.

    Parameters
    ----------
    schedule : str
        ``joint``, ``sequential`` (METHOD.md §4), or a baseline: ``low_only``, ``high_only``.
    learning_rate : float
        α0, Adam's learning rate in the first epoch.
    decay_rate : float
        Learning rate of an epoch, counted from 0: α = α0 / (1 + decay_rate · epoch).
    warmup_updates : int
        Updates over which the learning rate rises linearly to that of its epoch; 0: none.
    focal_gamma, focal_alpha : float
        γ and ξ of the focal loss.
    tile_batch : int or "auto"
        Tiles in the network at once. With frozen or group norm, it changes the gradient by rounding only.
    augment : bool
        Random flips and quarter turns of whole regions.
    stain_jitter : float
        Each stain of a region is multiplied by exp(x), x uniform in ±stain_jitter; 0 for none.
    early_stop : int or None
        Training ends after this many epochs without a better validation loss in any view; None: never.
    processes : int
        Regions per update, each in its own process; the update uses the mean of their gradients.
    leave_out_above : mapping
        Largest shares of blur, pen and fold, 0 to 1, in a training region
        (:class:`lesionmap.tissue.quality.RegionQuality`).
    """

    schedule: str = "joint"
    epochs: int = 50
    learning_rate: float = 0.001
    decay_rate: float = 0.05
    warmup_updates: int = 50
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
        """Adam's learning rate in an epoch; `epoch` counts from 0."""
        return self.learning_rate / (1 + self.decay_rate * epoch)

    def warmth(self, made: int) -> float:
        """Share of the learning rate that an update has, after `made` others in this run."""
        return min(1.0, (made + 1) / self.warmup_updates) if self.warmup_updates else 1.0

    @property
    def views(self) -> tuple[str, ...]:
        """The maps that the schedule trains and validation measures."""
        baselines: dict[str, tuple[str, ...]] = {"low_only": ("low",), "high_only": ("high",)}
        return baselines.get(self.schedule, ("low", "fused"))

    @property
    def losses(self) -> tuple[str, ...]:
        """Names of the losses on which a region is trained, in order."""
        return {"sequential": ("low", "high", "fused")}.get(self.schedule, self.views)

    def images(self, n_tiles: int) -> int:
        """How many images a region with `n_tiles` passes through the network, forward and backward, in training."""
        low = {"low_only": 1, "high_only": 0}.get(self.schedule, 2)
        return low if self.schedule == "low_only" else low + n_tiles

    def validation_images(self, n_tiles: int) -> int:
        """The same in validation, forward only."""
        return 1 if self.schedule == "low_only" else 1 + n_tiles

    @property
    def trains_on_tile_masks(self) -> bool:
        """Whether there is a loss on tiles, against their own masks."""
        return self.schedule in ("sequential", "high_only")


def fusion_of(schedule: str, asked: str) -> str:
    """How maps are fused: as asked, but a network that is trained on tiles alone takes their maps as they are."""
    return TILES if schedule == "high_only" else asked


@dataclass(frozen=True)
class TrainMachine:
    """Device, threads and saving interval of a run; they do not determine the weights.

    Parameters
    ----------
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    checkpoint_minutes : float
        Time between two saves of an unfinished run; 0 saves after every region.
    threads : int
        CPU cores to use; several processes share them.
    """

    device: str
    checkpoint_minutes: float
    threads: int


@dataclass(frozen=True)
class TrainJob:
    """Inputs and settings of one training run.

    Parameters
    ----------
    train_paths, val_paths : sequence of str
        Files of the tile stores; `val_paths` may be empty.
    backbone_weights : str or None
        File with a torchvision state dict, the initial weights of the bottom-up path.
    model, settings
        The config sections ``model`` and ``train``.
    metadata : dict
        What the model file records besides the weights, including ``tiles`` and ``provenance``.
    patients : mapping of str to str
        Patients by slide; the model file holds digests of their ids. No weight depends on them.
    """

    train_paths: Sequence[str]
    val_paths: Sequence[str]
    backbone_weights: str | None
    model: ModelSettings
    settings: TrainSettings
    metadata: dict[str, Any]
    patients: Mapping[str, str] = field(default_factory=dict)

    @property
    def network(self) -> ModelSettings:
        """The settings of the network, with the fusion that its schedule allows."""
        return replace(self.model, fusion=fusion_of(self.settings.schedule, self.model.fusion))


@dataclass(frozen=True)
class TrainFiles:
    """Output paths of a training run.

    Parameters
    ----------
    record : str
        JSON file that is written last, with the digests of the others. In the same folder are the models of the last
        epoch and of the best by each view, safetensors with metadata, and ``history.csv``, one row per epoch.
    folder : str
        Folder for what an unfinished run leaves: ``unfinished/``, ``unfinished_history.csv`` with one row per finished
        epoch, and ``nonfinite_region.npz`` if the loss was not finite.
    tensorboard : str
        Folder for TensorBoard event files.
    log : str
        The job's log; if there are several processes, all write to it.
    """

    record: str
    folder: str
    tensorboard: str
    log: str

    def best(self, view: str) -> Path:
        """The model of the epoch that is best by a view."""
        return Path(self.record).with_name(f"best_{view}.safetensors")

    @property
    def all_best(self) -> list[Path]:
        """Those of all views that are there."""
        return sorted(path for view in VIEWS if (path := self.best(view)).exists())

    @property
    def last(self) -> Path:
        """The model of the last epoch."""
        return Path(self.record).with_name("last.safetensors")

    @property
    def history(self) -> Path:
        """The metrics of all epochs."""
        return Path(self.record).with_name("history.csv")

    @property
    def unfinished(self) -> Path:
        """Folder of the unfinished runs; no output of the rule, because Snakemake would delete it before a restart."""
        return Path(self.folder, "unfinished")

    @property
    def unfinished_history(self) -> Path:
        """The metrics of the epochs so far; deleted when training is finished."""
        return Path(self.folder, "unfinished_history.csv")

    @property
    def machine_costs(self) -> Path:
        """What was measured on this machine; `snakemake doctor` uses it too."""
        return Path(self.folder).with_name("machine_costs.json")

    @property
    def nonfinite_region(self) -> Path:
        """The arrays of a region whose loss is not finite."""
        return Path(self.folder, "nonfinite_region.npz")
