"""Regions of tile stores, by number, for training."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from lesionmap.annotations.classes import LESION
from lesionmap.jobs.parallel import map_in_order
from lesionmap.network.forward import as_images
from lesionmap.network.region_pass import RegionTensors
from lesionmap.tiles.store import Region, TileStore
from lesionmap.training.augmentation import Augmentation, augmented

MOST_OPEN = 16  # stores in each process: systems allow 1024 open files, and a store may hold its slide open too


@dataclass(frozen=True)
class StoreMetadata:
    """What training needs to know of a store beside its pixels; `lesion_px` at full resolution, of what is used.

    `content` tells stores apart that were made of one slide, by other outlines or settings.
    """

    path: str
    slide: str
    identity: str
    content: str
    stain_reference: dict[str, Any]
    tiles_per_side: int
    tile_px: int
    used: NDArray[np.int64]
    lesion_px: int


class RegionDataset(Dataset[Region]):
    """All regions of some tile stores, in their order.

    Threads, forked and spawned processes (``DataLoader(dataset, batch_size=None, num_workers=2)``) may share it: each
    process opens its own files, a few at a time.

    Parameters
    ----------
    paths : sequence of str
        Tile stores.
    leave_out_above : mapping
        Largest share of ``blur``, ``pen`` and ``fold`` that a region may have
        (:class:`lesionmap.tissue.quality.RegionQuality`); what is not named may be anything.
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

    def metadata(self, number: int) -> StoreMetadata:
        """What is known of the store that a region lies in."""
        return self._places[number][0]


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
            lesion_px=int(store.class_pixels()[good, LESION].sum()),
        )


def _opened(path: str) -> TileStore:
    # By process, as HDF5 files do not survive a fork; by time, as the store may have been written anew.
    return _opened_by(path, os.getpid(), Path(path).stat().st_mtime_ns)


@lru_cache(maxsize=MOST_OPEN)
def _opened_by(path: str, process: int, written_ns: int) -> TileStore:
    return TileStore(path)  # closed with its last user: a thread may be reading when it leaves the cache


@dataclass(frozen=True)
class RegionLoader:
    """Gives the regions of a dataset to a device.

    Parameters
    ----------
    regions : RegionDataset
    device : torch.device
    with_tile_masks : bool
        Whether tiles have a loss of their own.
    """

    regions: RegionDataset
    device: torch.device
    with_tile_masks: bool

    def tensors(self, tasks: Iterable[tuple[int, Augmentation]]) -> Iterator[RegionTensors]:
        """Regions by number, each changed in its own way."""

        def read(task: tuple[int, Augmentation]) -> tuple[StoreMetadata, Region]:
            number, draw = task
            metadata = self.regions.metadata(number)
            return metadata, augmented(self.regions[number], metadata.tiles_per_side, metadata.stain_reference, draw)

        for metadata, region in map_in_order(read, tasks, 1):
            yield self._on_device(metadata, region)

    def _on_device(self, metadata: StoreMetadata, region: Region) -> RegionTensors:
        masks = region.masks if self.with_tile_masks else region.masks[:0]
        return RegionTensors(
            name=f"{metadata.slide} at x={region.xy_lv0[0]:.0f} y={region.xy_lv0[1]:.0f}",
            tiles_per_side=metadata.tiles_per_side,
            low=as_images(region.low_image[None]).to(self.device),
            low_mask=torch.from_numpy(region.low_mask)[None, None].to(self.device),
            tiles=as_images(region.images).to(self.device),
            row_col=[(int(row), int(column)) for row, column in region.row_col],
            tile_masks=torch.from_numpy(masks)[:, None].to(self.device),
        )
