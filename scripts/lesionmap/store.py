"""The tile store: one HDF5 file per slide, readable with h5py and hdf5plugin alone (config/README.md)."""

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import NDArray

from lesionmap.files import written_whole
from lesionmap.tiling import TileSpec

FORMAT_VERSION = 2


@dataclass(frozen=True)
class Region:
    """One region in both resolutions; s is the tile's side, n the number of stored tiles.

    Parameters
    ----------
    xy_lv0 : (float, float)
        Top-left corner in level-0 pixels.
    low_image : (s, s, 3) uint8
    low_mask : (s, s) uint8
    row_col : (n, 2) uint8
        Row and column of each tile in the region.
    images : (n, s, s, 3) uint8
    masks : (n, s, s) uint8
    """

    xy_lv0: tuple[float, float]
    low_image: NDArray[np.uint8]
    low_mask: NDArray[np.uint8]
    row_col: NDArray[np.uint8]
    images: NDArray[np.uint8]
    masks: NDArray[np.uint8]


class TileStoreWriter:
    """Appends regions to an open store; made by :func:`new_store`."""

    def __init__(self, file: h5py.File, spec: TileSpec) -> None:
        side = spec.tile_px
        self._file = file
        self._regions = 0
        self._add("regions/xy", (2,), "f8")
        self._add("regions/unreadable", (4,), "f8")
        self._add("low/image", (side, side, 3), "u1")
        self._add("low/mask", (side, side), "u1")
        self._add("tiles/region", (), "u4")
        self._add("tiles/row_col", (2,), "u1")
        self._add("high/image", (side, side, 3), "u1")
        self._add("high/mask", (side, side), "u1")

    def _add(self, name: str, shape: tuple[int, ...], dtype: str) -> None:
        pixels = len(shape) > 1
        options: dict[str, Any] = dict(hdf5plugin.Zstd(clevel=3)) if pixels else {}
        rows = 1 if pixels else 4096
        self._file.create_dataset(
            name, shape=(0, *shape), maxshape=(None, *shape), chunks=(rows, *shape), dtype=dtype, **options
        )

    def append(self, region: Region) -> None:
        """Write one region and its tiles behind those already there."""
        self._extend("regions/xy", np.array([region.xy_lv0]))
        self._extend("low/image", region.low_image[None])
        self._extend("low/mask", region.low_mask[None])
        self._extend("tiles/region", np.full(len(region.images), self._regions, dtype=np.uint32))
        self._extend("tiles/row_col", region.row_col)
        self._extend("high/image", region.images)
        self._extend("high/mask", region.masks)
        self._regions += 1

    def skip(self, box_lv0: tuple[float, float, float, float]) -> None:
        """Note a region that cannot be read: x, y, width, height in level-0 pixels."""
        self._extend("regions/unreadable", np.array([box_lv0]))

    def _extend(self, name: str, rows: NDArray[Any]) -> None:
        dataset = self._file[name]
        before = len(dataset)
        dataset.resize(before + len(rows), axis=0)
        if len(rows):
            dataset[before:] = rows


@contextmanager
def new_store(path: str | Path, spec: TileSpec, attributes: dict[str, Any]) -> Iterator[TileStoreWriter]:
    """Open a store for writing; it takes its name only when it is complete.

    Parameters
    ----------
    path : str or Path
    spec : TileSpec
    attributes : dict
        JSON-able facts written as attributes: µm/px, stain profiles, provenance.
    """
    with written_whole(path) as draft, h5py.File(draft, "w", libver="v110") as file:
        file.attrs["format_version"] = FORMAT_VERSION
        for key, value in {**asdict(spec), **attributes}.items():
            file.attrs[key] = json.dumps(value) if isinstance(value, dict) else value
        yield TileStoreWriter(file, spec)


class TileStore(AbstractContextManager["TileStore"]):
    """A slide's tiles, open for reading; a context manager.

    Parameters
    ----------
    path : str or Path
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self._file = h5py.File(path, "r")
        owners = self._file["tiles/region"][:]
        self._first = np.searchsorted(owners, np.arange(len(self) + 1))

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._file["regions/xy"])

    @property
    def spec(self) -> TileSpec:
        """How the slide was cut."""
        attrs = self._file.attrs
        return TileSpec(int(attrs["region_px"]), int(attrs["tile_px"]), float(attrs["mpp"]))

    @property
    def slide(self) -> str:
        """Id of the slide."""
        return str(self._file.attrs["slide"])

    @property
    def identity(self) -> str:
        """SHA-256 of the slide's bytes."""
        return str(self._file.attrs["identity"])

    @property
    def stain_reference(self) -> dict[str, Any]:
        """Profile of the stain that the pixels were brought to, in its JSON form."""
        reference: dict[str, Any] = json.loads(self._file.attrs["stain"])["reference"]
        return reference

    @property
    def unreadable(self) -> list[list[float]]:
        """Regions that could not be read: x, y, width, height in level-0 pixels."""
        boxes: list[list[float]] = self._file["regions/unreadable"][:].tolist()
        return boxes

    def region(self, index: int) -> Region:
        """Read region `index` with all its tiles."""
        tiles = slice(int(self._first[index]), int(self._first[index + 1]))
        x, y = self._file["regions/xy"][index]
        return Region(
            xy_lv0=(float(x), float(y)),
            low_image=self._file["low/image"][index],
            low_mask=self._file["low/mask"][index],
            row_col=self._file["tiles/row_col"][tiles],
            images=self._file["high/image"][tiles],
            masks=self._file["high/mask"][tiles],
        )

    def low_image(self, index: int) -> NDArray[np.uint8]:
        """Read only the low-resolution image of region `index`; (s, s, 3) uint8."""
        image: NDArray[np.uint8] = self._file["low/image"][index]
        return image

    def lesion_pixels(self) -> int:
        """Lesion pixels in all low-resolution masks."""
        return sum(int((self._file["low/mask"][index] == 1).sum()) for index in range(len(self)))
