"""The training dataset: regions of tile stores, by index."""

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from lesionmap.annotations.classes import LESION
from lesionmap.jobs.parallel import in_order, no_pause
from lesionmap.network.forward import as_images
from lesionmap.network.region_pass import RegionTensors
from lesionmap.tiles.store import Region, TileStore
from lesionmap.training.augmentation import Augmentation, augmented, epoch_order
from lesionmap.training.settings import TrainJob, TrainSettings

ENOUGH_TILES = 512  # for running statistics: with all of the demo's, an epoch takes a fifth longer
FORWARD_SHARE = 1 / 3  # of an image's time in training: its backward pass takes about twice its forward pass
READERS_FOR_GPU = 4  # regions that are read at once: a GPU is faster than one thread reads
MOST_OPEN = 16  # stores per process: systems allow 1024 open files, and a store may keep its slide open too


@dataclass(frozen=True)
class StoreMetadata:
    """What training needs to know about a tile store, besides its pixels.

    Parameters
    ----------
    content : str
        Digest that differs between stores of one slide with other outlines or settings.
    used : array of int64
        Indices of the regions that are not left out.
    n_tiles : array of int64
        Number of tiles of each of these regions.
    lesion_px : int
        Lesion pixels in the tiles of the used regions, in the high view.
    """

    path: str
    slide: str
    identity: str
    content: str
    stain_reference: dict[str, Any]
    tiles_per_side: int
    tile_px: int
    used: NDArray[np.int64]
    n_tiles: NDArray[np.int64]
    lesion_px: int


class RegionDataset(Dataset[Region]):
    """The regions of several tile stores, in the order of the stores.

    Threads and processes, forked or spawned, may share it (``DataLoader(dataset, batch_size=None, num_workers=2)``):
    each process opens its own files, a few at a time.

    Parameters
    ----------
    paths : sequence of str
        Files of the tile stores.
    leave_out_above : mapping
        Largest share of ``blur``, ``pen`` and ``fold`` that a region may have, 0 to 1
        (:class:`lesionmap.tissue.quality.RegionQuality`); a share that is not named has no limit.
    """

    def __init__(self, paths: Sequence[str], leave_out_above: Mapping[str, float] | None = None) -> None:
        self.stores = [_metadata(path, leave_out_above or {}) for path in paths]
        self._places = [(metadata, int(index)) for metadata in self.stores for index in metadata.used]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, number: int) -> Region:
        """Read a region with all its tiles."""
        metadata, index = self._places[number]
        return _opened(metadata.path).region(index)

    def low_image(self, number: int) -> NDArray[np.uint8]:
        """Read only the low-resolution image of a region; (s, s, 3) uint8."""
        metadata, index = self._places[number]
        return _opened(metadata.path).low_image(index)

    def n_tiles(self) -> list[int]:
        """Number of tiles of each region."""
        return [int(count) for store in self.stores for count in store.n_tiles]

    def metadata(self, number: int) -> StoreMetadata:
        """Metadata of the store that contains a region."""
        return self._places[number][0]


@dataclass(frozen=True)
class EpochImages:
    """The images that an epoch passes through the network, for progress; a pass without gradient counts a third.

    Parameters
    ----------
    regions : sequence of int
        Images of each training region.
    closing : float
        Images after the last region: for the running statistics, and of validation.
    """

    settings: TrainSettings
    regions: Sequence[int]
    closing: float

    @classmethod
    def of(cls, job: TrainJob, regions: RegionDataset, val_regions: RegionDataset) -> "EpochImages":
        """Count them."""
        trained = [job.settings.images(n_tiles) for n_tiles in regions.n_tiles()]
        alone = sum(job.settings.validation_images(n_tiles) for n_tiles in val_regions.n_tiles())
        if job.network.norm == "batch":
            n_tiles = regions.n_tiles()
            alone += len(regions) + sum(n_tiles[number] for number in settling_regions(job.settings, n_tiles))
        return cls(job.settings, trained, FORWARD_SHARE * alone)

    def before(self, epoch: int, position: int = 0) -> float:
        """Images before the region at `position` of an epoch; both are counted from 0."""
        order = epoch_order(self.settings, epoch, len(self.regions))
        done = sum(self.regions[number] for number in order[:position])
        return epoch * (sum(self.regions) + self.closing) + done


def settling_regions(settings: TrainSettings, n_tiles: Sequence[int]) -> range:
    """The regions whose tiles give batch norm its statistics of tiles: evenly spread; none if no tile is trained on.

    Parameters
    ----------
    n_tiles : sequence of int
        Number of tiles of each training region.
    """
    step = math.ceil(sum(n_tiles) / ENOUGH_TILES)
    return range(0, len(n_tiles), step) if step and settings.schedule != "low_only" else range(0)


def _metadata(path: str, leave_out_above: Mapping[str, float]) -> StoreMetadata:
    with TileStore(path) as store:
        good = np.ones(len(store), dtype=bool)
        for name, most in leave_out_above.items():
            good &= store.quality(name) <= most
        return StoreMetadata(
            path=path,
            slide=store.slide,
            identity=store.identity,
            content=store.digest(),
            stain_reference=store.stain_reference,
            tiles_per_side=store.spec.tiles_per_side,
            tile_px=store.spec.tile_px,
            used=np.flatnonzero(good),
            n_tiles=store.tiles_of_regions()[good],
            lesion_px=int(store.class_pixels()[good, LESION].sum()),
        )


def _opened(path: str) -> TileStore:
    # One handle per process, because HDF5 files do not survive a fork; a new one if the store was written again.
    return _opened_by(path, os.getpid(), Path(path).stat().st_mtime_ns)


@lru_cache(maxsize=MOST_OPEN)
def _opened_by(path: str, process: int, written_ns: int) -> TileStore:
    return TileStore(path)  # not closed on leaving the cache: a thread may still read; garbage collection closes it


@dataclass(frozen=True)
class RegionLoader:
    """Reads the regions of a dataset, augments them and moves them to a device.

    Parameters
    ----------
    with_tile_masks : bool
        Whether the tiles' masks are needed, for a loss on tiles.
    """

    regions: RegionDataset
    device: torch.device
    with_tile_masks: bool

    def tensors(
        self, tasks: Iterable[tuple[int, Augmentation]], pause_point: Callable[[], None] = no_pause
    ) -> Iterator[RegionTensors]:
        """Regions for (index, augmentation) pairs, in their order; the next one is read while one is in use.

        For a GPU it is the next few. `pause_point` is that of :func:`lesionmap.jobs.parallel.in_order`.
        """

        def read(task: tuple[int, Augmentation]) -> RegionTensors:
            number, draw = task
            metadata = self.regions.metadata(number)
            region = augmented(self.regions[number], metadata.tiles_per_side, metadata.stain_reference, draw)
            tensors = self._in_memory(metadata, region)
            return _changed(tensors, Tensor.pin_memory) if on_gpu else tensors  # a copy from there blocks nothing

        on_gpu = self.device.type == "cuda"
        readers = READERS_FOR_GPU if on_gpu else 1
        pool = ThreadPoolExecutor(readers)
        try:
            for region in in_order(pool, read, tasks, readers + 1, pause_point):
                yield _changed(region, lambda tensor: tensor.to(self.device, non_blocking=True))
        finally:
            pool.shutdown(wait=False)  # reading may take long, and nothing of it is needed any more

    def _in_memory(self, metadata: StoreMetadata, region: Region) -> RegionTensors:
        masks = region.masks if self.with_tile_masks else region.masks[:0]
        return RegionTensors(
            name=f"{metadata.slide} at x={region.xy_lv0[0]:.0f} y={region.xy_lv0[1]:.0f}",
            tiles_per_side=metadata.tiles_per_side,
            low=as_images(region.low_image[None]),
            low_mask=torch.from_numpy(region.low_mask)[None, None],
            judged_mask=torch.from_numpy(region.judged_mask)[None, None],
            tiles=as_images(region.images),
            row_col=[(int(row), int(column)) for row, column in region.row_col],
            tile_masks=torch.from_numpy(masks)[:, None],
        )


def _changed(region: RegionTensors, change: Callable[[Tensor], Tensor]) -> RegionTensors:
    """The region with all its tensors changed."""
    changed: dict[str, Any] = {name: change(part) for name, part in vars(region).items() if isinstance(part, Tensor)}
    return replace(region, **changed)
