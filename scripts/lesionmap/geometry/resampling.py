"""Area-weighted resampling at sub-pixel offsets. Pure arithmetic on arrays."""

from collections.abc import Callable, Sequence
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

BlockReduction = Callable[[NDArray[Any], int], NDArray[Any]]


def area_weights(start: float, step: float, n_out: int, n_in: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Share of each input pixel in each output pixel along one axis.

    Output pixel i covers the interval [start + i·step, start + (i+1)·step) of the input axis, on which input pixel
    j covers [j, j+1).

    Returns
    -------
    first : (n_out,) int64
        The first input pixel that may have a share.
    shares : (n_out, k) float32
        Shares of that pixel and the k − 1 after it: overlap / `step`, 0 beyond the input. A row sums to less than one
        where the output reaches beyond the input.
    """
    edges = start + step * np.arange(n_out + 1)
    reach = int(np.ceil(step)) + 1
    column = np.floor(edges[:-1]).astype(np.int64)[:, None] + np.arange(reach)
    overlap = np.minimum(edges[1:, None], column + 1) - np.maximum(edges[:-1, None], column)
    keep = (overlap > 1e-9) & (column >= 0) & (column < n_in)
    return column[:, 0], np.where(keep, overlap / step, 0).astype(np.float32)


def area_matrix(start: float, step: float, n_out: int, n_in: int) -> NDArray[np.float32]:
    """The shares of :func:`area_weights` as a matrix, (n_out, n_in)."""
    first, shares = area_weights(start, step, n_out, n_in)
    matrix = np.zeros((n_out, n_in), dtype=np.float32)
    columns = first[:, None] + np.arange(shares.shape[1])
    rows, places = np.nonzero(shares)
    matrix[rows, columns[rows, places]] = shares[rows, places]
    return matrix


def area_resample(
    image: NDArray[np.uint8],
    start: tuple[float, float],
    step: float,
    size_px: tuple[int, int],
    fill: int = 255,
) -> NDArray[np.uint8]:
    """Resample an image: each output pixel is the mean colour of the input area that it covers.

    Parameters
    ----------
    image : (H, W, 3) uint8
        The input.
    start : (float, float)
        (x, y) of the output's top-left corner in input pixels; may be negative or fractional.
    step : float
        Input pixels per output pixel on both axes.
    size_px : (int, int)
        Width and height of the output.
    fill : int
        Value of everything beyond the input; output pixels on the edge contain their exact share of it.

    Returns
    -------
    (height, width, 3) uint8

    Raises
    ------
    ValueError
        If the image does not have three channels.
    """
    if image.shape[2:] != (3,):
        raise ValueError(f"an image of three channels is needed, not one of shape {image.shape}")
    down = area_weights(start[1], step, size_px[1], image.shape[0])
    across = area_weights(start[0], step, size_px[0], image.shape[1])
    result: NDArray[np.uint8] = _area_resample(np.ascontiguousarray(image), *down, *across, np.float32(fill))
    return result


@numba.njit(cache=True, nogil=True)
def _area_resample(image, first_rows, down, first_columns, across, fill):  # type: ignore[no-untyped-def]  # numba types it
    height, width, _ = image.shape
    result = np.empty((down.shape[0], across.shape[0], 3), dtype=np.uint8)
    rows = image.reshape(height, width * 3)
    mean_row = np.empty(width * 3, dtype=np.float32)  # minus `fill`
    darkest, brightest = np.float32(0), np.float32(255)
    for y in range(result.shape[0]):
        mean_row[:] = 0
        for k in range(down.shape[1]):
            share = down[y, k]
            if share:
                row = rows[first_rows[y] + k]
                for i in range(row.size):
                    mean_row[i] += share * (np.float32(row[i]) - fill)
        for x in range(result.shape[1]):
            red = green = blue = darkest
            for k in range(across.shape[1]):
                share = across[x, k]
                if share:
                    at = (first_columns[x] + k) * 3
                    red += share * mean_row[at]
                    green += share * mean_row[at + 1]
                    blue += share * mean_row[at + 2]
            for channel, mean in enumerate((red, green, blue)):
                result[y, x, channel] = np.uint8(min(max(np.rint(mean + fill), darkest), brightest))
    return result


def block_mean(image: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """Mean of each factor × factor block of (H, W[, C]), rounded half up; blocks on the far edges may be smaller."""
    mean: NDArray[np.uint8] = _block_mean(np.ascontiguousarray(image).reshape(*image.shape[:2], -1), factor)
    return mean.reshape(*mean.shape[:2], *image.shape[2:])


@numba.njit(cache=True, nogil=True)
def _block_mean(image, factor):  # type: ignore[no-untyped-def]  # numba types it
    height, width, channels = image.shape
    mean = np.empty((-(-height // factor), -(-width // factor), channels), dtype=np.uint8)
    columns = np.empty(width * channels, dtype=np.uint32)
    rows = image.reshape(height, width * channels)
    for y in range(mean.shape[0]):
        columns[:] = 0
        bottom = min(height, (y + 1) * factor)
        for row in range(y * factor, bottom):
            for i in range(columns.size):
                columns[i] += rows[row, i]
        for x in range(mean.shape[1]):
            right = min(width, (x + 1) * factor)
            area = (bottom - y * factor) * (right - x * factor)
            for channel in range(channels):
                total = area // 2
                for column in range(x * factor, right):
                    total += columns[column * channels + channel]
                mean[y, x, channel] = total // area
    return mean


def block_max(image: NDArray[Any], factor: int) -> NDArray[Any]:
    """Maximum of each factor × factor block of (H, W); blocks on the far edges may be smaller."""
    for axis in (0, 1):  # slices of every factor-th line are ten times faster than `np.maximum.reduceat`
        lines = np.moveaxis(image, axis, 0)
        highest = lines[::factor].copy()
        for offset in range(1, factor):
            part = lines[offset::factor]
            np.maximum(highest[: len(part)], part, out=highest[: len(part)])
        image = np.moveaxis(highest, 0, axis)
    return image


def area_majority(mask: NDArray[np.uint8], factor: int, order: Sequence[int]) -> NDArray[np.uint8]:
    """Downsample (H, W): the value with the largest area in each block wins; in a tie, the first in `order` wins."""
    if (mask == mask[0, 0]).all():
        return np.full([length // factor for length in mask.shape], mask[0, 0], dtype=np.uint8)
    ranked = np.array(order, dtype=np.uint8)
    majority: NDArray[np.uint8] = _area_majority(np.ascontiguousarray(mask), factor, ranked)
    return majority


@numba.njit(cache=True, nogil=True)
def _area_majority(mask, factor, order):  # type: ignore[no-untyped-def]  # numba types it
    majority = np.empty((mask.shape[0] // factor, mask.shape[1] // factor), dtype=np.uint8)
    rank = np.zeros(256, dtype=np.int64)
    for place in range(order.size):
        rank[order[place]] = place
    areas = np.empty(order.size, dtype=np.int64)
    for y in range(majority.shape[0]):
        for x in range(majority.shape[1]):
            areas[:] = 0
            for row in range(y * factor, (y + 1) * factor):
                for column in range(x * factor, (x + 1) * factor):
                    areas[rank[mask[row, column]]] += 1
            majority[y, x] = order[areas.argmax()]
    return majority
