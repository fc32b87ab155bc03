"""Read maps of a whole slide, a few rows at a time."""

import json
import warnings
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import defusedxml.ElementTree
import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window

from lesionmap.maps.ome_tiff import OME


class MapFile(AbstractContextManager["MapFile"]):
    """An open map, as a context manager; indexing reads rows of level 0.

    Parameters
    ----------
    path : str or Path
        File written by :func:`lesionmap.maps.ome_tiff.write_map`.

    Attributes
    ----------
    shape : (int, int)
        Height and width of level 0.
    dtype : numpy.dtype
        Type of its values.
    mpp : float
        µm/px of level 0.
    metadata : dict
        As in its :class:`lesionmap.maps.ome_tiff.MapNotes`.
    band : rasterio.Band
        Level 0 for GDAL's algorithms.
    """

    def __init__(self, path: str | Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # a slide has no geographic coordinates
            self._dataset = rasterio.open(path)
        self.shape: tuple[int, int] = self._dataset.shape
        self.dtype = np.dtype(self._dataset.dtypes[0])
        self.band = rasterio.band(self._dataset, 1)
        root = defusedxml.ElementTree.fromstring(self._dataset.tags()["TIFFTAG_IMAGEDESCRIPTION"])
        (pixels,) = root.iter(f"{{{OME}}}Pixels")
        self.mpp = float(pixels.attrib["PhysicalSizeX"])
        self.metadata: dict[str, Any] = {m.attrib["K"]: json.loads(m.text or "") for m in root.iter(f"{{{OME}}}M")}

    def __exit__(self, *_: object) -> None:
        self._dataset.close()

    def __getitem__(self, part: slice) -> NDArray[Any]:
        """Some rows of level 0, (rows, W)."""
        window = Window(0, part.start, self.shape[1], part.stop - part.start)
        rows: NDArray[Any] = self._dataset.read(1, window=window)
        return rows

    def unreadable(self, part: slice, mpp: float) -> NDArray[np.bool_]:
        """What of some rows lies in the metadata's boxes of unreadable tiles, (rows, W); `mpp` is the slide's."""
        found, scale = np.zeros((part.stop - part.start, self.shape[1]), dtype=np.bool_), self.mpp / mpp
        for box in self.metadata["unreadable"]:
            left, top, across, down = (round(length / scale) for length in box)
            rows = slice(max(0, top - part.start), max(0, top + down - part.start))
            found[rows, left : left + across] = True
        return found
