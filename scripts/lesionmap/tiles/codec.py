"""Compress and decompress the pixels of a tile store."""

from dataclasses import dataclass
from typing import Any

import hdf5plugin
import imagecodecs
import numpy as np
from numpy.typing import NDArray

LOSSLESS, JPEG, JPEG_XL = "lossless", "jpeg", "jpegxl"
JPEG_XL_EFFORT = 3  # for lossy images; lossless ones use effort 1, which is a separate encoder
FILTER = hdf5plugin.Blosc(cname="lz4", clevel=1, shuffle=hdf5plugin.Blosc.BITSHUFFLE)  # reads the result of `pack`


@dataclass(frozen=True)
class TileCodec:
    """Compression of images; masks are always packed without loss.

    Parameters
    ----------
    name : str
        ``lossless``: chunks of a registered HDF5 filter, which h5py reads with hdf5plugin. ``jpeg``, ``jpegxl``: one
        image file per tile.
    quality : int
        For ``jpeg`` and ``jpegxl``, 1–100; ``jpegxl`` with 100 is lossless.
    """

    name: str = LOSSLESS
    quality: int = 90

    def encode(self, image: NDArray[np.uint8]) -> bytes:
        """Compress an (H, W, 3) image on one thread; other Python threads can run meanwhile."""
        if self.name == JPEG:
            return bytes(imagecodecs.jpeg8_encode(image, level=self.quality, subsampling="444"))
        if self.name == JPEG_XL:
            lossless = self.quality == 100
            options: dict[str, Any] = {"effort": 1} if lossless else {"effort": JPEG_XL_EFFORT, "level": self.quality}
            return bytes(imagecodecs.jpegxl_encode(image, lossless=lossless, numthreads=1, **options))
        return pack(image)

    def decode(self, data: Any, out: NDArray[np.uint8]) -> None:
        """Decompress into `out`, contiguous (H, W, 3)."""
        if self.name == JPEG:
            imagecodecs.jpeg8_decode(data, out=out)
        elif self.name == JPEG_XL:
            imagecodecs.jpegxl_decode(data, numthreads=1, out=out)
        else:
            unpack(data, out)


def pack(array: NDArray[np.uint8]) -> bytes:
    """Compress an array as the HDF5 filter `FILTER` does, but outside HDF5, which runs one thread at a time."""
    data: Any = np.ascontiguousarray(array)  # imagecodecs takes arrays, but its type hints do not say so
    return bytes(
        imagecodecs.blosc_encode(
            data,
            level=1,
            compressor="lz4",
            shuffle="bitshuffle",
            typesize=array.shape[2] if array.ndim > 2 else 1,  # puts the bits of one channel side by side
            numthreads=1,
        )
    )


def unpack(data: Any, out: Any) -> None:
    """Decompress the result of :func:`pack` into a contiguous uint8 array."""
    imagecodecs.blosc_decode(data, numthreads=1, out=out.reshape(-1))
