"""Regions on the device, the next one read while one is worked on."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch

from lesionmap.augmentation import Draw, augmented
from lesionmap.dataset import RegionDataset, StoreFacts
from lesionmap.parallel import map_in_order
from lesionmap.region_steps import RegionTensors, as_images
from lesionmap.store import Region


@dataclass(frozen=True)
class RegionFeed:
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

    def tensors(self, tasks: Iterable[tuple[int, Draw]]) -> Iterator[RegionTensors]:
        """Regions by number, each changed as drawn for it."""

        def read(task: tuple[int, Draw]) -> tuple[StoreFacts, Region]:
            number, draw = task
            facts = self.regions.facts(number)
            return facts, augmented(self.regions[number], facts.tiles_per_side, facts.stain_reference, draw)

        for facts, region in map_in_order(read, tasks, 1):
            yield self._on_device(facts, region)

    def _on_device(self, facts: StoreFacts, region: Region) -> RegionTensors:
        masks = region.masks if self.with_tile_masks else region.masks[:0]
        return RegionTensors(
            name=f"{facts.slide} at x={region.xy_lv0[0]:.0f} y={region.xy_lv0[1]:.0f}",
            tiles_per_side=facts.tiles_per_side,
            low=as_images(region.low_image[None]).to(self.device),
            low_mask=torch.from_numpy(region.low_mask)[None, None].to(self.device),
            tiles=as_images(region.images).to(self.device),
            row_col=[(int(row), int(column)) for row, column in region.row_col],
            tile_masks=torch.from_numpy(masks)[:, None].to(self.device),
        )
