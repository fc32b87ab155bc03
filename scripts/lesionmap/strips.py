"""Arrays that are too large for memory, a few rows at a time."""

import math
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from lesionmap.storage import storage_told

STRIP_ROWS = 512  # two rows of tiles of a map's file

BlockReduction = Callable[[NDArray[Any], int], NDArray[Any]]


def strips(height: int, rows: int = STRIP_ROWS) -> Iterator[slice]:
    """Slices of `rows` rows that cover an array from its top; the last may be shorter."""
    return (slice(top, min(top + rows, height)) for top in range(0, height, rows))


def on_disk(shape: tuple[int, ...], dtype: DTypeLike, folder: str | Path) -> NDArray[Any]:
    """Zeros in an unnamed file in `folder`, which goes away with the array, or with the process if that is killed.

    Raises
    ------
    StorageError
        If the disk has no room for all of it; without asking, the process would be killed once it is full.
    """
    with storage_told(folder), tempfile.TemporaryFile(dir=folder) as file:
        os.posix_fallocate(file.fileno(), 0, max(1, math.prod(shape) * np.dtype(dtype).itemsize))
        return np.memmap(file, dtype, "w+", shape=shape)


def block_mean(image: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """Mean of each factor × factor block of (H, W), rounded half up; blocks on the far edges may be smaller."""
    total = _reduced(np.add, image, factor, np.uint32)
    height, width = (np.diff([*range(0, length, factor), length]) for length in image.shape)
    area = height[:, None] * width
    mean: NDArray[np.uint8] = ((total + area // 2) // area).astype(np.uint8)
    return mean


def block_max(image: NDArray[Any], factor: int) -> NDArray[Any]:
    """Maximum of each factor × factor block of (H, W); blocks on the far edges may be smaller."""
    return _reduced(np.maximum, image, factor, image.dtype)


def _reduced(ufunc: np.ufunc, image: NDArray[Any], factor: int, dtype: DTypeLike) -> NDArray[Any]:
    """Rows, then columns; every factor-th at a time is ten times faster than `ufunc.reduceat`."""
    for axis in (0, 1):
        lines = np.moveaxis(image, axis, 0)
        reduced = lines[::factor].astype(dtype)
        for offset in range(1, factor):
            part = lines[offset::factor]
            ufunc(reduced[: len(part)], part, out=reduced[: len(part)])
        image = np.moveaxis(reduced, 0, axis)
    return image


def shrunk(image: NDArray[Any], factor: int, reduction: BlockReduction, folder: str | Path) -> NDArray[Any]:
    """An array that is a `factor`-th as wide and high, made by :func:`block_mean` or :func:`block_max`.

    Parameters
    ----------
    image : (H, W) array
    factor : int
    reduction : callable
    folder : str or Path
        On whose disk the result lies.

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
