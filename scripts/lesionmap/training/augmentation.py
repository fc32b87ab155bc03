"""Augmentation of training regions, the same in both resolutions, and the random order of regions."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesionmap.stain.profile import StainProfile
from lesionmap.stain.table import StainMatch, apply_table
from lesionmap.tiles.store import Region
from lesionmap.training.settings import TrainSettings


@dataclass(frozen=True)
class Augmentation:
    """Augmentation of one region: quarter turns, a flip, and the factor of each stain (None: unchanged)."""

    quarters: int = 0
    flip: bool = False
    stain_ratio: tuple[float, float] | None = None


# Random numbers have no state: they depend only on the seed and on (epoch, position), so a run can resume from these.
# NumPy ignores trailing zeros of a seed sequence, hence the position counts from 1.


def epoch_order(settings: TrainSettings, epoch: int, n_regions: int) -> list[int]:
    """Random order of the regions in an epoch, as indices."""
    order: list[int] = np.random.default_rng([settings.seed, epoch]).permutation(n_regions).tolist()
    return order


def random_augmentation(settings: TrainSettings, epoch: int, position: int) -> Augmentation:
    """Random augmentation of the region at `position` in the epoch's order."""
    generator = np.random.default_rng([settings.seed, epoch, position + 1])
    quarters, flip = int(generator.integers(4)), bool(generator.integers(2))
    strengths = np.exp(settings.stain_jitter * generator.uniform(-1, 1, 2))
    return Augmentation(
        quarters=quarters if settings.augment else 0,
        flip=flip and settings.augment,
        stain_ratio=(float(strengths[0]), float(strengths[1])) if settings.stain_jitter else None,
    )


def augmented(region: Region, tiles_per_side: int, stain_reference: dict[str, Any], change: Augmentation) -> Region:
    """Apply an augmentation to a region; `stain_reference` is the stain profile that its pixels were normalised to."""
    if change.stain_ratio:
        profile = StainProfile.of(stain_reference)
        region = restained(region, StainMatch(profile, profile, change.stain_ratio))
    return turned(region, tiles_per_side, change.quarters, change.flip)


def restained(region: Region, match: StainMatch) -> Region:
    """The region with changed stain strengths, in both resolutions."""
    table = match.table()
    low_image, images = apply_table(table, region.low_image), apply_table(table, region.images)
    return replace(region, low_image=low_image, images=images)


def turned(region: Region, tiles_per_side: int, quarters: int, flip: bool) -> Region:
    """The region turned by `quarters` × 90° counterclockwise and then, with `flip`, mirrored left to right.

    Images, masks and tile positions are changed together, in both resolutions.
    """

    def turn(stack: NDArray[Any]) -> NDArray[Any]:  # (N, H, W, …)
        rotated = np.rot90(stack, quarters, axes=(1, 2))
        return np.ascontiguousarray(rotated[:, :, ::-1] if flip else rotated)

    n = tiles_per_side
    old_place = turn(np.arange(n * n).reshape(1, n, n))[0]
    new_place = np.empty(n * n, dtype=np.int64)
    new_place[old_place.ravel()] = np.arange(n * n)
    moved = new_place[region.row_col[:, 0].astype(np.int64) * n + region.row_col[:, 1]]
    return replace(
        region,
        low_image=turn(region.low_image[None])[0],
        low_mask=turn(region.low_mask[None])[0],
        judged_mask=turn(region.judged_mask[None])[0],
        row_col=np.stack([moved // n, moved % n], axis=1).astype(np.uint8),
        images=turn(region.images),
        masks=turn(region.masks),
    )
