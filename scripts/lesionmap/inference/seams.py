"""Measure whether the borders of tiles are visible in a map."""

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from lesionmap.geometry.tiling import FINEST_STRIDE, corners_px
from lesionmap.maps.probability import Scores, as_u8
from lesionmap.tissue.mask import TissueMask

ROUNDING = 1e-9  # of a pixel


def seam_measure(
    scores: Scores,
    tissue: TissueMask,
    scale: float,
    corners: NDArray[np.int64],
    *,
    tile_px: int,
    stride_px: int,
) -> float | None:
    """Mean absolute jump between neighbouring pixels at tile borders, divided by that elsewhere; on tissue.

    Elsewhere means where a pixel of the network's finest feature map begins, as one does at a tile's border. Between
    these places, bilinear upsampling makes jumps of another size.

    Parameters
    ----------
    scores : (H, W) uint16
        The map; jumps are of its probability × 255.
    scale : float
        Level-0 pixels per map pixel.
    corners : (N, 2) int
        Top-left corners (x, y) of the tiles that the map was made from, in map pixels.
    tile_px, stride_px : int
        Side of a tile, and distance between the corners of neighbouring tiles; multiples of `FINEST_STRIDE`.

    Returns
    -------
    float or None
        1 if borders are not visible; None if tissue has no border or no other place, or no jump elsewhere.
    """
    size = (scores.shape[1], scores.shape[0])
    grid = corners_px(size, tile_px, stride_px)
    edges = [np.unique([grid[:, axis], grid[:, axis] + tile_px]) for axis in (0, 1)]
    ends = [dict.fromkeys(grid[:, axis].tolist()) for axis in (0, 1)]
    sums, counts = np.zeros(2), np.zeros(2)
    for corner in corners.tolist():
        # each pixel belongs to the last tile that begins before it
        stop = [
            min(start + stride_px if start + stride_px in known else length, length)
            for start, known, length in zip(corner, ends, size, strict=True)
        ]
        for axis in (0, 1):
            start = [max(0, part - (direction == axis)) for direction, part in enumerate(corner)]
            box = as_u8(scores[start[1] : stop[1], start[0] : stop[0]]).astype(np.int16)
            on = tissue.at((start[0] * scale, start[1] * scale), (box.shape[1], box.shape[0]), scale)
            jumps, valid = np.abs(np.diff(box, axis=1 - axis)), _pairs(on, 1 - axis)
            places = np.arange(start[axis] + 1, stop[axis])
            at_edge = np.isin(places, edges[axis])
            per_place = (jumps * valid).sum(axis=axis), valid.sum(axis=axis)
            for index, chosen in enumerate((at_edge, ~at_edge & (places % FINEST_STRIDE == 0))):
                sums[index] += per_place[0][chosen].sum()
                counts[index] += per_place[1][chosen].sum()
    if not counts.all() or not sums[1]:
        return None
    return float(sums[0] / counts[0] / (sums[1] / counts[1]))


def refined_seam_measure(
    scores: Scores,
    tissue: TissueMask,
    scale: float,
    corners_lv0: Iterable[tuple[float, float]],
    region_lv0: float,
    part_lv0: float,
) -> float | None:
    """As :func:`seam_measure`, for the parts of refined regions, which begin anywhere in a map pixel.

    So jumps are those between the two neighbours of a pixel: of one in which a part begins, and of those that neither
    are nor touch one.

    Parameters
    ----------
    corners_lv0 : iterable of (float, float)
        Top-left corners of the refined regions, level-0 pixels.
    region_lv0, part_lv0 : float
        Side of a region, and of the parts whose borders are measured (its tiles, or itself), level-0 pixels.
    """
    sums, counts = np.zeros(2), np.zeros(2)
    height, width = scores.shape
    for corner in corners_lv0:
        left, top = (max(0, math.floor(part / scale) - 1) for part in corner)
        right, bottom = (math.ceil((part + region_lv0) / scale) for part in corner)
        box = as_u8(scores[top : min(bottom, height), left : min(right, width)]).astype(np.int16)
        on = tissue.at((left * scale, top * scale), (box.shape[1], box.shape[0]), scale)
        borders = np.arange(0, region_lv0 - part_lv0 / 2, part_lv0)
        for axis, first in enumerate((left, top)):
            along = 1 - axis  # of the arrays
            centres = np.arange(1, box.shape[along] - 1)
            begins = np.floor((corner[axis] + borders) / scale + ROUNDING).astype(int) - first
            ahead, behind = (np.take(box, centres + step, axis=along) for step in (1, -1))
            valid = np.logical_and.reduce([np.take(on, centres + step, axis=along) for step in (-1, 0, 1)])
            jumps = np.abs(ahead - behind) * valid
            near = np.isin(centres, np.concatenate([begins - 1, begins, begins + 1]))
            for index, chosen in enumerate((np.isin(centres, begins), ~near)):
                sums[index] += jumps.sum(axis=axis)[chosen].sum()
                counts[index] += valid.sum(axis=axis)[chosen].sum()
    if not counts.all() or not sums[1]:
        return None
    return float(sums[0] / counts[0] / (sums[1] / counts[1]))


def _pairs(on: NDArray[np.bool_], axis: int) -> NDArray[np.bool_]:
    """Where a pixel and the next one along an axis are both set."""
    first, second = np.delete(on, -1, axis=axis), np.delete(on, 0, axis=axis)
    both: NDArray[np.bool_] = first & second
    return both
