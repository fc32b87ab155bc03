"""The stain table on whatever device the network computes on."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lesionmap.stain import apply_table


class TableOnDevice:
    """A slide's :func:`lesionmap.stain.stain_table` where the network is, so that raw pixels travel to a GPU once.

    Parameters
    ----------
    table : (2**24, 3) uint8
    device : torch.device
    """

    def __init__(self, table: NDArray[np.uint8], device: torch.device) -> None:
        self._table = torch.from_numpy(table).to(device)

    def normalised(self, images: NDArray[np.uint8]) -> Tensor:
        """Images (..., 3) uint8 as a normalised uint8 tensor on the device."""
        if self._table.device.type == "cpu":
            return torch.from_numpy(apply_table(self._table.numpy(), images))  # three times faster than torch's gather
        return gather(self._table, torch.from_numpy(images).to(self._table.device))


def gather(table: Tensor, images: Tensor) -> Tensor:
    """Look every pixel of `images` (..., 3) uint8 up in `table` (2**24, 3) uint8 on their common device."""
    red, green, blue = images.to(torch.int32).unbind(-1)  # (...)
    index = (red << 16) | (green << 8) | blue
    return table.index_select(0, index.flatten()).reshape(images.shape)
