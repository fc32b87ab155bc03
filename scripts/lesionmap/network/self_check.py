"""A picture on which engines are compared with the network itself, before they map a slide. Needs no torch."""

import numpy as np
from numpy.typing import NDArray

HEIGHT, WIDTH = 96, 160
LOGITS, TILE_LOGITS = "logits", "tile_logits"  # outputs as ONNX; without the second, tiles have the first
EVERY = 4  # pixels; logits are interpolated between them


def check_image() -> NDArray[np.uint8]:
    """An RGB image of stripes of all widths and directions, (96, 160, 3) uint8; it has no symmetry."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    stripes = (3 * y * y + 5 * x * x + 7 * x * y) >> 5
    return np.stack([(stripes + 97 * channel) & 255 for channel in range(3)], axis=-1).astype(np.uint8)


def at_checked_pixels(logits: NDArray[np.floating]) -> NDArray[np.floating]:
    """Of the logits of :func:`check_image`, (96, 160), those that are compared."""
    return logits[::EVERY, ::EVERY]
