"""Multi-scale training (METHOD.md §3–4): low step, high pass, fused step; exact in micro-batches of tiles."""

import copy
import csv
import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.ops import sigmoid_focal_loss
from tqdm import tqdm

from lesionmap.dataset import RegionDataset, StoreFacts
from lesionmap.errors import TrainingError
from lesionmap.files import written_whole
from lesionmap.metrics import Histograms, as_levels, binary_metrics
from lesionmap.model import LesionFPN, ModelSettings, load_backbone, mixed_precision, pick_device, save_model
from lesionmap.parallel import map_in_order
from lesionmap.store import Region
from lesionmap.tiling import IGNORE, LESION
from lesionmap.workers import Workers

Places = list[tuple[int, int]]
Row = dict[str, float | None]
CLAMP = 1e-6  # keeps the logit of a fused probability finite


@dataclass(frozen=True)
class TrainSettings:
    """The schedule; names as in the config section ``train``.

    Parameters
    ----------
    epochs : int
    learning_rate : float
        α0 of Adam.
    decay_rate : float
        α = α0 / (1 + decay_rate · epoch).
    focal_gamma, focal_alpha : float
        γ and ξ of the focal loss.
    tile_batch : int
        Tiles in the network at once; the gradient does not depend on it with frozen or group norm.
    augment : bool
        Random flips and quarter turns of whole regions.
    seed : int
    leave_out_above : mapping
        Largest shares of blur, pen and fold (:class:`lesionmap.quality.RegionQuality`) of a training region.
    """

    epochs: int
    learning_rate: float
    decay_rate: float
    focal_gamma: float
    focal_alpha: float
    tile_batch: int
    augment: bool
    seed: int
    leave_out_above: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class RegionTensors:
    """A region on the device: low view (1, 3, s, s) and mask (1, 1, s, s), tiles (n, 3, s, s) and their places."""

    name: str
    tiles_per_side: int
    low: Tensor
    low_mask: Tensor
    tiles: Tensor
    row_col: Places


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
    facts : dict
        What the model file records beside the weights.
    """

    train_paths: Sequence[str]
    val_paths: Sequence[str]
    backbone_weights: str | None
    model: ModelSettings
    settings: TrainSettings
    facts: dict[str, Any]


def train(job: TrainJob, output: str, history: str, checkpoints: str, *, threads: int) -> None:
    """Train on the tile stores; publish the epoch with the lowest validation loss (the last, without validation).

    Parameters
    ----------
    job : TrainJob
    output : str
        The model, safetensors with metadata.
    history : str
        CSV, one row per epoch.
    checkpoints : str
        Folder for ``last.safetensors`` and ``best.safetensors``.
    threads : int
        CPU cores to use; the weights do not depend on it.

    Raises
    ------
    TrainingError
        If no training slide has a lesion, or the loss stops being finite.
    SlideError
        If a slide whose tiles are not stored can no longer be read.
    """
    regions, val_regions = RegionDataset(job.train_paths, job.settings.leave_out_above), RegionDataset(job.val_paths)
    _check_lesions(regions)
    torch.manual_seed(job.settings.seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    model = LesionFPN(job.model)
    if job.backbone_weights:
        load_backbone(model, job.backbone_weights)
    model = model.to(pick_device(), memory_format=torch.channels_last)  # type: ignore[call-overload]  # stub lacks it
    facts = job.facts | {
        "stain_reference": regions.stores[0].stain_reference,
        "training_slides": {store.slide: store.identity for store in regions.stores if len(store.used)},
        "validation_slides": {store.slide: store.identity for store in val_regions.stores},
    }
    rows: list[Row] = []
    with Workers(threads) as workers:
        for row in _epochs(model, regions, val_regions, job.settings, workers):
            rows.append(row)
            _save_epoch(Path(checkpoints), model, job.model, facts | {"epoch": row}, best=_is_best(rows))
    _write_history(history, rows)
    with written_whole(output) as draft:
        shutil.copyfile(Path(checkpoints) / "best.safetensors", draft)


def _is_best(rows: list[Row]) -> bool:
    losses = [loss for row in rows if (loss := row.get("val_low_loss")) is not None]
    return not losses or losses[-1] == min(losses)


def _save_epoch(
    folder: Path, model: LesionFPN, model_settings: ModelSettings, facts: dict[str, Any], *, best: bool
) -> None:
    for name in ["last", *(["best"] if best else [])]:
        save_model(folder / f"{name}.safetensors", model, model_settings, facts)


def _write_history(path: str, rows: list[Row]) -> None:
    with written_whole(path) as draft, open(draft, "w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


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


def _epochs(
    model: LesionFPN,
    regions: RegionDataset,
    val_regions: RegionDataset,
    settings: TrainSettings,
    workers: Workers,
) -> Iterator[Row]:
    """Train epoch after epoch; yield each epoch's figures with the model in evaluation mode."""
    optimiser = torch.optim.Adam(model.parameters(), lr=settings.learning_rate, betas=(0.9, 0.999), eps=1e-8)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda epoch: 1 / (1 + settings.decay_rate * epoch))
    generator = np.random.default_rng(settings.seed)
    with tqdm(total=settings.epochs * len(regions), desc="train", unit="region") as bar:
        for epoch in range(settings.epochs):
            model.train()
            losses = []
            order = generator.permutation(len(regions)).tolist()
            for region in _loaded(regions, order, model.mean.device, generator if settings.augment else None):
                losses.append(joint_step(model, optimiser, region, settings, workers))
                bar.set_postfix(epoch=epoch + 1, loss=f"{losses[-1][1]:.4f}")
                bar.update()
            low_loss, fused_loss = np.mean(losses, axis=0)
            row: Row = {"epoch": epoch + 1, "learning_rate": float(schedule.get_last_lr()[0])}
            row |= {"train_low_loss": float(low_loss), "train_fused_loss": float(fused_loss)}
            schedule.step()
            settle_statistics(model, map(regions.low_image, range(len(regions))))
            row |= validate(model.eval(), val_regions, settings, workers) if len(val_regions) else {}
            logging.info("%s", row)
            bar.write("  ".join(f"{key} {value:.4g}" for key, value in row.items() if value is not None))
            yield row


def _loaded(
    regions: RegionDataset, order: Iterable[int], device: torch.device, generator: np.random.Generator | None = None
) -> Iterator[RegionTensors]:
    """Regions on the device; the next is read while one is worked on. With a generator they are turned at random."""

    def drawn() -> Iterator[tuple[int, int, bool]]:  # by this thread alone, so that a seed means one order
        for number in order:
            yield number, int(generator.integers(4)) if generator else 0, bool(generator and generator.integers(2))

    def read(task: tuple[int, int, bool]) -> tuple[StoreFacts, Region]:
        number, quarters, flip = task
        facts = regions.facts(number)
        return facts, turned(regions[number], facts.tiles_per_side, quarters, flip)

    for facts, region in map_in_order(read, drawn(), 1):
        yield RegionTensors(
            name=f"{facts.slide} at x={region.xy_lv0[0]:.0f} y={region.xy_lv0[1]:.0f}",
            tiles_per_side=facts.tiles_per_side,
            low=_images(region.low_image[None]).to(device),
            low_mask=torch.from_numpy(region.low_mask)[None, None].to(device),
            tiles=_images(region.images).to(device),
            row_col=[(int(row), int(column)) for row, column in region.row_col],
        )


def _images(stack: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(stack).permute(0, 3, 1, 2)  # (N, H, W, 3) → (N, 3, H, W)


def turned(region: Region, tiles_per_side: int, quarters: int, flip: bool) -> Region:
    """The region turned by `quarters` × 90° and then mirrored left to right, in both resolutions alike."""

    def turn(stack: NDArray[Any]) -> NDArray[Any]:  # (N, H, W, …)
        rotated = np.rot90(stack, quarters, axes=(1, 2))
        return np.ascontiguousarray(rotated[:, :, ::-1] if flip else rotated)

    n = tiles_per_side
    old_place = turn(np.arange(n * n).reshape(1, n, n))[0]
    new_place = np.empty(n * n, dtype=np.int64)
    new_place[old_place.ravel()] = np.arange(n * n)
    moved = new_place[region.row_col[:, 0].astype(np.int64) * n + region.row_col[:, 1]]
    return replace(
        region,
        low_image=turn(region.low_image[None])[0],
        low_mask=turn(region.low_mask[None])[0],
        row_col=np.stack([moved // n, moved % n], axis=1).astype(np.uint8),
        images=turn(region.images),
        masks=turn(region.masks),
    )


def joint_step(
    model: LesionFPN,
    optimiser: torch.optim.Optimizer,
    region: RegionTensors,
    settings: TrainSettings,
    workers: Workers,
) -> tuple[float, float]:
    """Both updates that one region makes (METHOD.md §4): low step, then high pass and fused step.

    Returns
    -------
    (float, float)
        Focal loss of the low step and of the fused step.
    """
    optimiser.zero_grad()
    low_logits = _logits(model, region.low)
    low_loss = focal_sum(low_logits, region.low_mask, settings) / _counted(region.low_mask)
    low_loss.backward()  # type: ignore[no-untyped-call]  # torch does not type it
    optimiser.step()
    optimiser.zero_grad()
    fused_loss = fused_backward(model, region, settings, workers)
    if not np.isfinite(low_loss.item() + fused_loss):
        raise TrainingError(
            stage="train",
            finding=f"the loss is no longer finite at region {region.name}",
            remedy="lower train.learning_rate, or look at that region",
        )
    optimiser.step()
    return low_loss.item(), fused_loss


def fused_backward(model: LesionFPN, region: RegionTensors, settings: TrainSettings, workers: Workers) -> float:
    """Add the gradient of the fused loss to the weights, `tile_batch` tiles at a time; return the loss.

    Downsampling and fusion are local, so the loss is a sum over tile blocks. T2 is computed once and cut from its
    graph; each micro-batch gives its part of the weights' and of T2's gradient, which then flows back once through
    the low pass.
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    t2 = torch.sigmoid(_logits(model, region.low))  # (1, 1, s, s)
    leaf = t2.detach().requires_grad_()
    counted = _counted(region.low_mask)

    def part(batch: tuple[Places, Tensor | None]) -> tuple[float, tuple[Tensor | None, ...]]:
        places, tiles = batch
        fused = blocks(leaf, places, region.tiles_per_side)  # (k, 1, s/n, s/n)
        if tiles is not None:
            fused = (downsampled_probability(model, tiles, region.tiles_per_side) + fused) / 2
        mask = blocks(region.low_mask, places, region.tiles_per_side)
        loss = focal_sum(torch.logit(fused, eps=CLAMP), mask, settings) / counted
        return loss.item(), torch.autograd.grad(loss, [leaf, *weights], allow_unused=True)

    total, leaf.grad = 0.0, torch.zeros_like(leaf)
    with own_statistics(model):
        for loss, gradients in workers.map(part, _micro_batches(region, settings.tile_batch)):
            total += loss
            for tensor, gradient in zip([leaf, *weights], gradients, strict=True):
                if gradient is not None:
                    tensor.grad = gradient if tensor.grad is None else tensor.grad.add_(gradient)
    t2.backward(leaf.grad)  # type: ignore[no-untyped-call]  # torch does not type it
    return total


@torch.no_grad()
def settle_statistics(model: LesionFPN, low_images: Iterable[NDArray[np.uint8]]) -> None:
    """Set trainable batch norm's running statistics to their mean over the low views of all regions.

    Running averages at batch 1 follow the last few regions and lag behind the weights (PreciseBN: Wu & Johnson,
    arXiv:2105.07576, §3). Frozen and group norm have none.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean of all batches
    model.train()
    for low_image in low_images if norms else ():
        _logits(model, _images(low_image[None]).to(model.mean.device))


@contextmanager
def own_statistics(model: LesionFPN) -> Iterator[None]:
    """Let trainable batch norm normalise tiles by their own statistics, and keep its running ones as they are.

    Statistics of mixed scales fit neither (METHOD.md §4): the running ones are those of the low view, which the pass
    over whole slides reads. Frozen and group norm have none, and are not touched.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    before = [(norm.momentum, norm.training, copy.deepcopy(norm.num_batches_tracked)) for norm in norms]
    for norm in norms:
        norm.momentum, norm.training = 0.0, True
    yield
    for norm, (momentum, training, count) in zip(norms, before, strict=True):
        norm.momentum, norm.training, norm.num_batches_tracked = momentum, training, count


def _micro_batches(region: RegionTensors, tile_batch: int) -> list[tuple[Places, Tensor | None]]:
    """Tiles and their places, `tile_batch` at a time; last, the places without a tile."""
    starts = range(0, len(region.tiles), tile_batch)
    batches: list[tuple[Places, Tensor | None]] = [
        (region.row_col[first : first + tile_batch], region.tiles[first : first + tile_batch]) for first in starts
    ]
    n = region.tiles_per_side
    alone = [(row, column) for row in range(n) for column in range(n) if (row, column) not in region.row_col]
    return [*batches, (alone, None)] if alone else batches


def downsampled_probability(model: LesionFPN, tiles: Tensor, factor: int) -> Tensor:
    """T1 of some tiles: (k, 3, s, s) uint8 → (k, 1, s/factor, s/factor), the area mean of probabilities."""
    return nn.functional.avg_pool2d(torch.sigmoid(_logits(model, tiles)), factor)


def blocks(image: Tensor, places: Places, n: int) -> Tensor:
    """The blocks of a (1, C, s, s) map that tiles at (row, column) of an n×n region cover; (k, C, s/n, s/n)."""
    side = image.shape[-1] // n
    return torch.cat([image[..., r * side : (r + 1) * side, c * side : (c + 1) * side] for r, c in places])


@torch.no_grad()
def fuse(model: LesionFPN, region: RegionTensors, t2: Tensor, tile_batch: int, workers: Workers) -> Tensor:
    """The fused map of a region: mean of T1 and T2 where a tile exists, T2 elsewhere; (1, 1, s, s)."""
    n = region.tiles_per_side
    fused, side = t2.clone(), t2.shape[-1] // n

    def pass_tiles(batch: tuple[Places, Tensor | None]) -> Tensor | None:
        with torch.no_grad():  # each thread has its own switch
            return None if batch[1] is None else downsampled_probability(model, batch[1], n)

    batches = _micro_batches(region, tile_batch)
    with own_statistics(model):
        t1s = list(workers.map(pass_tiles, batches))
    for (places, _), t1 in zip(batches, t1s, strict=True):
        for block, (row, column) in zip([] if t1 is None else t1, places, strict=t1 is not None):
            view = fused[0, :, row * side : (row + 1) * side, column * side : (column + 1) * side]
            view.copy_((block + view) / 2)
    return fused


def focal_sum(logits: Tensor, mask: Tensor, settings: TrainSettings) -> Tensor:
    """Focal loss (claim 5) against the lesion class, summed over the pixels that are not 255."""
    target = (mask == LESION).to(logits.dtype)
    loss = sigmoid_focal_loss(logits, target, alpha=settings.focal_alpha, gamma=settings.focal_gamma)
    total: Tensor = (loss * (mask != IGNORE)).sum()
    return total


def _counted(mask: Tensor) -> int:
    return max(1, int((mask != IGNORE).sum()))


def _logits(model: LesionFPN, images: Tensor) -> Tensor:
    with mixed_precision(images.device):
        logits: Tensor = model(images)
    return logits if logits.dtype == torch.float64 else logits.float()


@torch.no_grad()
def validate(model: LesionFPN, regions: RegionDataset, settings: TrainSettings, workers: Workers) -> Row:
    """Loss, Dice and AUROC of the low view and of the fused map on the validation slides."""
    seen: dict[str, Histograms] = {"low": Histograms.empty(), "fused": Histograms.empty()}
    loss, counted = 0.0, 0
    for region in _loaded(regions, range(len(regions)), model.mean.device):
        low_logits = _logits(model, region.low)
        loss += focal_sum(low_logits, region.low_mask, settings).item()
        counted += _counted(region.low_mask)
        t2 = torch.sigmoid(low_logits)
        for view, probability in (("low", t2), ("fused", fuse(model, region, t2, settings.tile_batch, workers))):
            levels = as_levels(probability[0, 0].cpu().numpy())
            seen[view] += Histograms.of(levels, region.low_mask[0, 0].cpu().numpy())
    row: Row = {"val_low_loss": loss / max(1, counted)}
    for view, histograms in seen.items():
        figures = binary_metrics(histograms, threshold=0.5)
        row |= {f"val_{view}_dice": figures["dice"], f"val_{view}_auroc": figures["auroc"]}
    return row
