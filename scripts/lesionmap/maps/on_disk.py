"""Arrays too large for memory: kept on disk and used a few rows at a time."""

import math
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from lesionmap.files.disk_errors import naming_disk_errors
from lesionmap.geometry.resampling import BlockReduction

STRIP_ROWS = 512  # two rows of tiles of a map's file


class Rows(Protocol):
    """An array, (H, W), that is read some rows at a time: in memory, on disk, or an open map."""

    @property
    def shape(self) -> Any:
        """Height and width."""

    @property
    def dtype(self) -> Any:
        """Type of its values."""

    def __getitem__(self, part: slice, /) -> Any:
        """Some rows, (rows, W)."""


def strips(height: int, rows: int = STRIP_ROWS) -> Iterator[slice]:
    """Slices of `rows` rows that cover an array from its top; the last may be shorter."""
    return (slice(top, min(top + rows, height)) for top in range(0, height, rows))


def on_disk(shape: tuple[int, ...], dtype: DTypeLike, folder: str | Path) -> NDArray[Any]:
    """An array of zeros in an unnamed file in `folder`; the file disappears with the array, or with the process.

    Raises
    ------
    StorageError
        If the disk has no room for the whole array. Otherwise, the process would be killed when the disk is full.
    """
    with naming_disk_errors(folder), tempfile.TemporaryFile(dir=folder) as file:
        os.posix_fallocate(file.fileno(), 0, max(1, math.prod(shape) * np.dtype(dtype).itemsize))
        return np.memmap(file, dtype, "w+", shape=shape)


def shrunk(image: Rows, factor: int, reduction: BlockReduction, folder: str | Path) -> NDArray[Any]:
    """Shrink both sides of an array by `factor`, with a function such as ``block_mean`` of ``geometry.resampling``.

    Parameters
    ----------
    folder : str or Path
        The result lies on the disk of this folder.

    Returns
    -------
    (ceil(H / factor), ceil(W / factor)) array
    """
    height, width = (-(-length // factor) for length in image.shape)
    result = on_disk((height, width), image.dtype, folder)
    rows = max(1, STRIP_ROWS // factor)
    for part in strips(height, rows):
        result[part] = reduction(image[part.start * factor : part.stop * factor], factor)
    return result
