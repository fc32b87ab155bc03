"""The training loop (METHOD.md §3–4): epochs over all regions, validation, saving and resuming."""

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tensorboardX.writer import SummaryWriter
from tqdm import tqdm

from lesionmap.errors import InterruptedTrainingError, TrainingError
from lesionmap.files.records import sha256, write_table
from lesionmap.jobs.log import progress
from lesionmap.jobs.parallel import no_pause
from lesionmap.network.backbone import load_backbone
from lesionmap.network.batch_size import fitting_tile_batch
from lesionmap.network.forward import pick_device
from lesionmap.network.model import LesionFPN
from lesionmap.network.region_pass import RegionTensors, TilePasses
from lesionmap.network.thread_pool import ThreadPool
from lesionmap.training.augmentation import epoch_order, random_augmentation
from lesionmap.training.best_epoch import best_epochs, is_stale
from lesionmap.training.checkpoint import Checkpoint, HistoryRow, Learner, RunState, StopRequest, StopRequestedError
from lesionmap.training.dataset import FORWARD_SHARE, EpochImages, RegionDataset, RegionLoader, settling_regions
from lesionmap.training.loss import JUDGED_TOGETHER, Losses, NonFiniteLossError, check_not_exploded, nonfinite_error
from lesionmap.training.process_group import ALONE, ProcessGroup
from lesionmap.training.publication import is_saved, save_run, write_record
from lesionmap.training.settings import TrainFiles, TrainJob, TrainMachine, TrainSettings
from lesionmap.training.updates import RegionSteps, settle_norms
from lesionmap.training.validation import validate


class TensorBoard(AbstractContextManager["TensorBoard"]):
    """Writes TensorBoard event files; a context manager.

    Parameters
    ----------
    first_step : int
        Step at which the run starts or resumes; TensorBoard drops earlier records of this and later steps.
    written : bool
        False if another process writes the files.
    """

    def __init__(self, folder: str, first_step: int, *, written: bool = True) -> None:
        self._writer = SummaryWriter(folder, purge_step=first_step, write_to_disk=written)

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def add(self, metrics: Mapping[str, float | None], step: int) -> None:
        """Write metrics by name, after `step` regions; None values are left out."""
        for name, value in metrics.items():
            if value is not None:
                self._writer.add_scalar(name, value, step)


def train(job: TrainJob, files: TrainFiles, machine: TrainMachine, group: ProcessGroup = ALONE) -> None:
    """Train on the tile stores and save the last epoch and, of each view, the one with the lowest validation loss.

    An unfinished run of the same job is resumed; on a CPU the result is the same as without the interruption. If the
    files are already the result of the same settings and data, they stay as they are.

    Parameters
    ----------
    group : ProcessGroup
        The processes that train together; each of them must call this function.

    Raises
    ------
    TrainingError
        If there is nothing to learn from (every slide in quarantine, every region left out, or no lesion), if early
        stopping has no validation slide, if the loss is no longer finite, if the GPU's memory is too small, or if the
        unfinished run cannot be read.
    InterruptedTrainingError
        If the process gets SIGTERM.
    SlideError
        If the tiles' images are read from the slide, and it can no longer be read.
    """
    regions, val_regions = RegionDataset(job.train_paths, job.settings.leave_out_above), RegionDataset(job.val_paths)
    _check_lesions(regions)
    _check_early_stop(job.settings, val_regions)
    checkpoint = Checkpoint(files.unfinished, _fingerprint(job, regions, val_regions), machine.checkpoint_minutes)
    if is_saved(files, checkpoint.run):
        logging.info("%s is already the result of these settings and data: nothing to train", files.last)
    else:
        with StopRequest() as stop:
            # Only the main process stops. No other can finish an update without it, so it saves the state of all.
            pause_point = stop.pause_point if group.is_main else no_pause
            data = {"regions": regions, "val_regions": val_regions}
            model, state = _trained(job, files, machine, group, pause_point, checkpoint=checkpoint, **data)
            if group.is_main:
                save_run(job, files, model, state, run=checkpoint.run, **data)
    if group.is_main:
        write_record(files, checkpoint.run)
        files.unfinished_history.unlink(missing_ok=True)
        checkpoint.discard()


def _trained(
    job: TrainJob,
    files: TrainFiles,
    machine: TrainMachine,
    group: ProcessGroup,
    pause_point: Callable[[], None],
    *,
    checkpoint: Checkpoint,
    regions: RegionDataset,
    val_regions: RegionDataset,
) -> tuple[LesionFPN, RunState]:
    """The network after the last epoch, and the state of the run, which holds the weights of the best."""
    torch.manual_seed(job.settings.seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    device = pick_device(machine.device)
    learner = _learner(job, device)
    state = _restored(checkpoint, learner, group) or RunState(
        _tile_batch(job, learner.model, regions, machine.threads, group, files.machine_costs)
    )
    logging.info("%d tiles in the network at once on each thread of %s", state.tile_batch, device)
    first_step, images = state.epoch * len(regions) + state.position, EpochImages.of(job, regions, val_regions)
    done = images.before(state.epoch, state.position), images.before(job.settings.epochs)
    with (
        ThreadPool(machine.threads, device) as pool,
        TensorBoard(files.tensorboard, first_step, written=group.is_main) as tensorboard,
        progress(done[1], "train", "image", done[0], shown=group.is_main) as bar,
    ):
        passes = TilePasses(learner.model, state.tile_batch, pool, pause_point, bar.update)
        loader = RegionLoader(regions, device, job.settings.trains_on_tile_masks)
        val_loader = RegionLoader(val_regions, device, with_tile_masks=False)
        _Run(
            job.settings, files, learner, state, checkpoint, passes, loader, val_loader, tensorboard, bar, images, group
        ).finish()
    return learner.model, state


def _restored(checkpoint: Checkpoint, learner: Learner, group: ProcessGroup) -> RunState | None:
    """Restore the unfinished run, if there is one, in all processes; say so in the log."""
    state = checkpoint.restore(learner)
    group.gathered([0.0])  # none goes on, and deletes the file at its end, before all have read it
    if state:
        logging.info("goes on with %s: epoch %d, after %d regions", checkpoint.path, state.epoch + 1, state.position)
    else:
        logging.info("training starts anew, as run %s", checkpoint.run)
    if group.is_main:
        checkpoint.log_others()
    return state


def _learner(job: TrainJob, device: torch.device) -> Learner:
    model = LesionFPN(job.network)
    if job.backbone_weights:
        load_backbone(model, job.backbone_weights)
    model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # stub lacks it
    options: dict[str, Any] = {"lr": job.settings.learning_rate, "betas": (0.9, 0.999), "eps": 1e-8}
    return Learner(model, torch.optim.Adam(model.parameters(), fused=True, **options))


def _fingerprint(job: TrainJob, regions: RegionDataset, val_regions: RegionDataset) -> dict[str, Any]:
    """All settings and data that determine the weights."""
    slides = {"training_slides": regions, "validation_slides": val_regions}
    return {
        "code": job.metadata["provenance"]["code"],
        "model": asdict(job.network),
        "train": asdict(job.settings),
        "tiles": job.metadata["tiles"],
        "backbone_weights": job.backbone_weights and sha256(job.backbone_weights),
        **{
            name: {store.slide: f"{store.identity}, tiles {store.content}" for store in part.stores}
            for name, part in slides.items()
        },
    }


def _tile_batch(
    job: TrainJob,
    model: LesionFPN,
    regions: RegionDataset,
    threads: int,
    group: ProcessGroup,
    machine_costs: Path,
) -> int:
    asked, tile_px = job.settings.tile_batch, regions.stores[0].tile_px
    if isinstance(asked, int):
        return asked
    # Processes on one CPU share its memory.
    fitting = fitting_tile_batch(model, job.model, tile_px, threads * group.count, machine_costs)
    return int(min(group.gathered([fitting]))[0])


@dataclass
class _Run:
    """A run, from its current state to its end."""

    settings: TrainSettings
    files: TrainFiles
    learner: Learner
    state: RunState
    checkpoint: Checkpoint
    passes: TilePasses
    loader: RegionLoader
    val_loader: RegionLoader
    tensorboard: TensorBoard
    bar: "tqdm[Any]"
    images: EpochImages
    group: ProcessGroup

    def finish(self) -> None:
        """Train until the last epoch, or until the validation loss stops falling."""
        self._write_history()
        try:
            while self.state.epoch < self.settings.epochs and not self._is_stale():
                self._train_epoch()
                self._close_epoch()
        except StopRequestedError:
            self.checkpoint.save(self.learner, self.state)
            raise InterruptedTrainingError(
                stage="train",
                finding=f"told to stop (SIGTERM) in epoch {self.state.epoch + 1} after {self.state.position} of "
                f"{len(self.loader.regions)} regions; that is saved in {self.checkpoint.path}",
                remedy="run again: training goes on from there",
            ) from None
        except NonFiniteLossError as error:
            raise nonfinite_error(error.region, self.files.nonfinite_region) from None
        except torch.OutOfMemoryError as error:
            raise TrainingError(
                stage="train",
                finding=f"the GPU's memory is too small ({str(error).splitlines()[0]})",
                remedy="lower train.tile_batch, or set it to auto",
            ) from error

    def _train_epoch(self) -> None:
        self.learner.model.train()
        steps = RegionSteps(self.passes, self.learner.optimiser, self.settings, self.group)
        epoch, first = self.state.epoch, self.state.position
        self.learner.set_rate(self.settings.rate(epoch))
        order = epoch_order(self.settings, epoch, len(self.loader.regions))
        mine = range(first + self.group.rank, len(order), self.group.count)
        regions = self.loader.tensors(
            ((order[position], random_augmentation(self.settings, epoch, position)) for position in mine),
            self.passes.pause_point,
        )
        for position in range(first, len(order), self.group.count):
            region = next(regions, None)
            self.passes.pause_point()
            self._learn(steps, region, min(self.group.count, len(order) - position))
            self._save_if_due()

    def _learn(self, steps: RegionSteps, region: RegionTensors | None, n_regions: int) -> None:
        """Update on `n_regions` at once, one per process; `region` is this process's, or None."""
        state = self.state
        if not state.low_done:
            state.losses += self._of_all(steps.low(region))[:n_regions]
            state.low_done = True
        self.passes.pause_point()
        for losses, others in zip(state.losses[-n_regions:], self._of_all(steps.rest(region)), strict=False):
            losses |= others
        state.low_done = False
        for losses in state.losses[-n_regions:]:
            state.position += 1
            self._show(losses)
            if state.position % JUDGED_TOGETHER == 0 or state.position == len(self.loader.regions):
                self._check_losses()

    def _of_all(self, losses: Losses) -> list[Losses]:
        """The losses of all processes' regions, by rank."""
        names = self.settings.losses
        rows = self.group.gathered([losses.get(name, math.nan) for name in names])
        return [{name: loss for name, loss in zip(names, row, strict=True) if not math.isnan(loss)} for row in rows]

    def _check_losses(self) -> None:
        """Once enough regions have been learned from; the first losses say little."""
        if self._step() >= JUDGED_TOGETHER:
            check_not_exploded(self.state.losses[: self.state.position], self.settings)

    def _show(self, losses: Losses) -> None:
        self.tensorboard.add({f"region/{name}_loss": loss for name, loss in losses.items()}, self._step())
        shown = {name: f"{loss:.4f}" for name, loss in losses.items()}
        self.bar.set_postfix({"epoch": f"{self.state.epoch + 1}", **shown}, refresh=False)
        self._count()

    def _count(self) -> None:
        """Show how far the run is, with what the passes have not counted: low views, and regions of other processes."""
        self.bar.update(self.images.before(self.state.epoch, self.state.position) - self.bar.n)

    def _step(self) -> int:
        return self.state.epoch * len(self.loader.regions) + self.state.position

    def _close_epoch(self) -> None:
        model, state = self.learner.model, self.state
        settle_norms(model, self._low_views(), self._tiles())
        model.eval()
        row: HistoryRow = {"epoch": state.epoch + 1, "learning_rate": self.settings.rate(state.epoch)}
        row |= _mean_losses(state.losses, self.settings)
        if len(self.val_loader.regions):
            passes = replace(self.passes, count=lambda n_images: self.bar.update(FORWARD_SHARE * n_images))
            row |= validate(self.val_loader, passes, self.settings, self.group)
        self._report(row)
        state.rows.append(row)
        if improved := [view for view, index in best_epochs(state.rows).items() if index == len(state.rows) - 1]:
            weights = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
            state.best |= dict.fromkeys(improved, weights)
        state.epoch, state.position, state.losses = state.epoch + 1, 0, []
        self._count()
        self._write_history()
        self._save_if_due()

    def _is_stale(self) -> bool:
        patience = self.settings.early_stop
        return patience is not None and is_stale(self.state.rows, patience)

    def _write_history(self) -> None:
        """Write the epochs of the run so far; of one that goes on, those that it does not train again."""
        path, rows = self.files.unfinished_history, self.state.rows
        if self.group.is_main and rows:
            write_table(path, rows, list(rows[0]))
        elif self.group.is_main:
            path.unlink(missing_ok=True)

    def _report(self, row: HistoryRow) -> None:
        logging.info("%s", row)
        if self.group.is_main:
            self.bar.write("  ".join(f"{key} {value:.4g}" for key, value in row.items() if value is not None))
        self.tensorboard.add({f"epoch/{name}": value for name, value in row.items() if name != "epoch"}, self._step())

    def _low_views(self) -> Iterator[NDArray[np.uint8]]:
        """All low views, one at a time as in training."""
        for number in range(len(self.loader.regions)):
            self.passes.pause_point()
            self.bar.update(FORWARD_SHARE)
            yield self.loader.regions.low_image(number)[None]

    def _tiles(self) -> Iterator[NDArray[np.uint8]]:
        """Tiles of as many regions as running statistics need, in micro-batches as in training."""
        regions, size = self.loader.regions, self.passes.tile_batch
        for number in settling_regions(self.settings, regions.n_tiles()):
            tiles = regions[number].images
            for first in range(0, len(tiles), size):
                self.passes.pause_point()
                batch = tiles[first : first + size]
                self.bar.update(FORWARD_SHARE * len(batch))
                yield batch

    def _save_if_due(self) -> None:
        if self.group.is_main and self.checkpoint.is_due():
            self.checkpoint.save(self.learner, self.state)


def _mean_losses(losses: Sequence[Mapping[str, float]], settings: TrainSettings) -> HistoryRow:
    """Mean of each loss over the regions that have it; None if no region has it."""
    row: HistoryRow = {}
    for name in settings.losses:
        found = [part[name] for part in losses if name in part]
        row[f"train_{name}_loss"] = float(np.mean(found)) if found else None
    return row


def _check_lesions(regions: RegionDataset) -> None:
    if not regions.stores:
        raise TrainingError(
            stage="train",
            finding="every training slide is in quarantine",
            remedy="see results/quarantine.tsv for the reasons",
        )
    if not len(regions):
        raise TrainingError(
            stage="train",
            finding=f"all regions of the {len(regions.stores)} training slides are left out for blur, pen or folds",
            remedy="raise train.leave_out_above; the shares are in results/tiles/summary.tsv",
        )
    lesion_pixels = {store.slide: store.lesion_px for store in regions.stores}
    for slide in (slide for slide, pixels in lesion_pixels.items() if not pixels):
        logging.warning("training slide %s has no lesion", slide)
    if not any(lesion_pixels.values()):
        raise TrainingError(
            stage="train",
            finding=f"none of the {len(lesion_pixels)} training slides has a lesion",
            remedy="check the class mapping under annotations.classes, and that annotations belong to their slides",
        )


def _check_early_stop(settings: TrainSettings, val_regions: RegionDataset) -> None:
    if settings.early_stop is not None and not len(val_regions):
        raise TrainingError(
            stage="train",
            finding=f"train.early_stop is {settings.early_stop}, but there is no validation slide to judge epochs by",
            remedy="give some slides the split val, or set train.early_stop: null",
        )
