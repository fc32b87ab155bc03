"""From a probability map to the lesions of a slide: threshold, postprocessing, outlines, tables, pictures."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lesionmap.maps.on_disk import on_disk, strips


def lesions_from(levels: NDArray[np.uint8], first_positive: int, folder: str | Path) -> NDArray[np.bool_]:
    """Where a map, (H, W), reaches a level; (H, W) bool on the disk of `folder`."""
    lesions = on_disk(levels.shape, np.bool_, folder)
    for part in strips(levels.shape[0]):
        lesions[part] = levels[part] >= first_positive
    return lesions
