"""Lay out regions and tiles. Pure geometry: no pixels are read here.

Coordinates are (x, y) in level-0 pixels of the slide file; arrays are (H, W) or (H, W, C).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesionmap.errors import SettingsError

FINEST_STRIDE = 4  # image pixels per pixel of the finest map that the network predicts


@dataclass(frozen=True)
class TileSpec:
    """How a slide is cut (METHOD.md §1.3): regions of `region_px`, each into tiles of `tile_px`, at `mpp`.

    Parameters
    ----------
    region_px, tile_px : int
        Side of a region and of a tile in pixels at `mpp`; the region is a whole number of tiles.
    mpp : float
        Resolution of regions and tiles, µm/px.
    """

    region_px: int
    tile_px: int
    mpp: float

    def __post_init__(self) -> None:
        if self.region_px % self.tile_px or self.tile_px % 32 or self.tile_px % self.tiles_per_side:
            raise SettingsError(
                stage="config",
                finding=f"tiles.region_px {self.region_px} and tiles.tile_px {self.tile_px} do not fit together",
                remedy="make tile_px a multiple of 32 (the network's stride), region_px a multiple of tile_px, and "
                "tile_px one of region_px / tile_px, so that a tile covers whole pixels of the low-resolution view",
            )

    @property
    def tiles_per_side(self) -> int:
        """Tiles along one side of a region; also the factor of the low-resolution view."""
        return self.region_px // self.tile_px

    @property
    def low_mpp(self) -> float:
        """Resolution of the low-resolution view, µm/px."""
        return self.mpp * self.tiles_per_side

    def region_side_lv0(self, mpp_lv0: float) -> float:
        """Side of a region in level-0 pixels of a slide of `mpp_lv0` µm/px."""
        return self.region_px * self.mpp / mpp_lv0


def grid_xy(size_lv0: tuple[int, int], side_lv0: float) -> NDArray[np.float64]:
    """Top-left corners of the square boxes that cover a slide without overlap, row by row.

    Parameters
    ----------
    size_lv0 : (int, int)
        Width and height of level 0.
    side_lv0 : float
        Side of a box in level-0 pixels; need not be whole.

    Returns
    -------
    (N, 2) float64
        (x, y) in level-0 pixels. Boxes of the last row and column may reach beyond the slide.
    """
    columns, rows = (max(1, int(np.ceil(length / side_lv0 - 1e-9))) for length in size_lv0)
    y, x = np.mgrid[:rows, :columns]
    return np.stack([x.ravel(), y.ravel()], axis=1) * float(side_lv0)


def corners_px(size_px: tuple[int, int], tile_px: int, stride_px: int) -> NDArray[np.int64]:
    """Top-left corners of the square tiles that cover a map in steps of `stride_px`, row by row.

    Returns
    -------
    (N, 2) int64
        (x, y) in pixels of the map. Tiles of the last row and column may reach beyond it.
    """
    columns, rows = (max(0, -(-(length - tile_px) // stride_px)) + 1 for length in size_px)
    y, x = np.mgrid[:rows, :columns]
    return np.stack([x.ravel(), y.ravel()], axis=1) * stride_px


def map_size(size_lv0: tuple[int, int], scale: float) -> tuple[int, int]:
    """Width and height of a map of the whole slide with `scale` level-0 pixels per map pixel."""
    width, height = (max(1, int(np.ceil(length / scale - 1e-9))) for length in size_lv0)
    return width, height


def inside(xy_lv0: tuple[float, float], side_px: int, scale: float, size_lv0: tuple[int, int]) -> tuple[int, int]:
    """Number of columns and rows of a box whose pixel centres lie on the slide.

    Parameters
    ----------
    xy_lv0 : (float, float)
        Top-left corner of the box, on the slide.
    side_px : int
        Side of the box in its own pixels.
    scale : float
        Level-0 pixels per pixel of the box.
    size_lv0 : (int, int)
        Width and height of the slide.
    """
    centres = (np.arange(side_px) + 0.5) * scale
    columns, rows = (int((at + centres < end).sum()) for at, end in zip(xy_lv0, size_lv0, strict=True))
    return columns, rows


def tiles_with(mask: NDArray[Any], n: int) -> NDArray[np.bool_]:
    """Which of the (n, n) tiles of a region contain a non-zero pixel of its mask (S, S)."""
    return np.asarray(cut(mask, len(mask) // n).any(axis=(2, 3)))


def cut(image: NDArray[Any], tile_px: int) -> NDArray[Any]:
    """Cut a (rows·tile_px, columns·tile_px, …) array into (rows, columns, tile_px, tile_px, …) tiles; no copy."""
    rows, columns = (length // tile_px for length in image.shape[:2])
    return image.reshape(rows, tile_px, columns, tile_px, *image.shape[2:]).swapaxes(1, 2)
