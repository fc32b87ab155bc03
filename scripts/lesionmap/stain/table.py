"""Normalise stains with a lookup table that holds the new colour of every colour (METHOD.md §1.2).

Optical density OD = −ln(I / I0) = H · W. I0 is the slide's white point, and 255 in the normalised image. W is the
(2, 3) basis of unit rows, haematoxylin first; H ≥ 0 are the concentrations of a pixel.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from lesionmap.jobs.parallel import map_in_order
from lesionmap.stain.profile import I0, WHITE, Colour, StainProfile, optical_density
from lesionmap.stain.separation import tabulate

CONCENTRATION_SPARSITY = 0.01  # λ of the concentrations, as in StainTools
SMALLEST_PART = 2**18  # pixels; a thread takes longer to start than to do less
GLASS_FROM = 250  # of 255: brighter colours are glass


@dataclass(frozen=True)
class StainMatch:
    """How one slide is normalised to the reference.

    Parameters
    ----------
    profile : StainProfile
        Profile used to separate the slide's stains.
    reference : StainProfile
        Profile that the slide is normalised to.
    ratio : (float, float)
        Factor for each stain's concentrations: P99(reference) / P99(slide), clipped to the configured limits.
    """

    profile: StainProfile
    reference: StainProfile
    ratio: tuple[float, float]

    @classmethod
    def of(cls, record: dict[str, Any]) -> "StainMatch":
        """Build a match from the JSON that :func:`lesionmap.stain.match.match_slide` writes."""
        profile, reference = (StainProfile.of(record[key]) for key in ("profile", "reference"))
        return cls(profile, reference, tuple(record["ratio"]))

    def as_record(self) -> dict[str, Any]:
        """Its JSON form."""
        return asdict(self)

    def table(self, threads: int = 1) -> NDArray[np.uint8]:
        """The :func:`stain_table` of this slide."""
        target = np.array(self.reference.basis) * np.array(self.ratio)[:, None]
        return stain_table(self.profile.basis, target, white_point=self.profile.white_point, threads=threads)


def stain_table(
    basis: Sequence[Sequence[float]] | NDArray[np.float64],
    target: Sequence[Sequence[float]] | NDArray[np.float64],
    sparsity: float = CONCENTRATION_SPARSITY,
    *,
    white_point: Colour = WHITE,
    threads: int = 1,
) -> NDArray[np.uint8]:
    """Tabulate the normalisation of all 2²⁴ colours.

    The concentrations of a colour are the exact minimum of ½‖OD − h·W‖² + λ(h₀ + h₁) over h ≥ 0; with λ = 0 this is
    non-negative least squares. They are linear in OD as long as the same stains are present. The new colour is
    therefore a product of three factors, one per channel, and the loop needs no logarithm or exponential.

    Parameters
    ----------
    basis : (2, 3) float
        W of the slide, unit rows.
    target : (2, 3) float
        W of the reference, its rows multiplied by the ratios of P99.
    sparsity : float
        λ ≥ 0.
    white_point : (float, float, float)
        Colour of the slide's glass.
    threads : int
        One thread needs a tenth of a second.

    Returns
    -------
    (2**24, 3) uint8
        Normalised colour at index R·65536 + G·256 + B: 255 · exp(−h · target), rounded. Glass becomes white: colours
        whose channels all reach 250/255 of the white point end at 250 or above (this matters only for ratios above
        1.25).

    Raises
    ------
    ValueError
        If the two stains of `basis` are too alike to compute concentrations.
    """
    source, goal = np.asarray(basis, dtype=np.float64), np.asarray(target, dtype=np.float64)
    od = optical_density(np.arange(256, dtype=np.uint8)[:, None], white_point).T  # (3 channels, 256)
    gram = source @ source.T
    with np.errstate(all="ignore"):
        solvers = np.stack(
            [np.linalg.inv(gram) if np.linalg.det(gram) > 1e-9 else np.full((2, 2), np.nan)]
            + [np.diag(np.arange(2) == only) / gram[only, only] for only in range(2)]
        )  # both stains, the first alone, the second alone: concentrations = solver · (W · OD − λ)
        slopes = np.einsum("rkj,jc,kt->rtc", solvers, source, goal)  # (3 cases, 3 new channels, 3 channels)
        factors = np.exp(-slopes[..., None] * od)  # (3, 3, 3, 256)
        factors[:, :, 0] *= I0 * np.exp(sparsity * np.einsum("rkj,kt->rt", solvers, goal))[..., None]
    if not np.isfinite(factors).all():
        raise ValueError(f"the stains {source.tolist()} are too alike to be separated")
    table = np.empty((1 << 24, 3), dtype=np.uint8)
    absorbed = source[:, :, None] * od  # (2, 3, 256)
    reds = np.array_split(np.arange(256), threads)
    for _ in map_in_order(lambda part: tabulate(table, part, factors, absorbed, gram, sparsity), reds, threads):
        pass
    darkest = [math.ceil(part * GLASS_FROM / I0) for part in white_point]
    glass = table.reshape(256, 256, 256, 3)[darkest[0] :, darkest[1] :, darkest[2] :]
    np.maximum(glass, GLASS_FROM, out=glass)
    return table


def apply_table(
    table: NDArray[np.uint8], image: NDArray[np.uint8], out: NDArray[np.uint8] | None = None, threads: int = 1
) -> NDArray[np.uint8]:
    """Normalise an image with a stain table; other Python threads can run meanwhile.

    Parameters
    ----------
    table : (2**24, 3) uint8
        From :func:`stain_table`.
    image : (..., 3) uint8
        Any shape and any strides.
    out : (..., 3) uint8, optional
        Array for the result, of the same shape; may be `image` itself.
    threads : int
        Largest number of threads; small images use fewer.

    Returns
    -------
    (..., 3) uint8
        `out` if it was given.

    Raises
    ------
    ValueError
        If an array has a wrong type or shape.
    """
    if table.dtype != np.uint8 or table.shape != (1 << 24, 3):
        raise ValueError(f"table must be uint8 of shape (2**24, 3), found {table.dtype} {table.shape}")
    out = np.empty(image.shape, np.uint8) if out is None else out
    for name, array in (("image", image), ("out", out)):
        if array.dtype != np.uint8 or array.shape[-1:] != (3,) or array.shape != image.shape:
            raise ValueError(f"{name} must be uint8 of shape (..., 3), found {array.dtype} {array.shape}")
    pixels = np.ascontiguousarray(image).reshape(-1, 3)
    result = out.reshape(-1, 3) if out.flags.c_contiguous else np.empty_like(pixels)
    n_parts = max(1, min(threads, len(pixels) // SMALLEST_PART))
    if n_parts == 1:
        _gather(table, pixels, result)
    else:
        parts = zip(np.array_split(pixels, n_parts), np.array_split(result, n_parts), strict=True)
        for _ in map_in_order(lambda part: _gather(table, *part), parts, n_parts):
            pass
    if not out.flags.c_contiguous:
        out[...] = result.reshape(out.shape)
    return out


@numba.njit(cache=True, nogil=True)
def _gather(table, pixels, result):  # type: ignore[no-untyped-def]  # numba types it
    for n in range(pixels.shape[0]):
        index = (np.int64(pixels[n, 0]) << 16) | (np.int64(pixels[n, 1]) << 8) | np.int64(pixels[n, 2])
        result[n, 0] = table[index, 0]
        result[n, 1] = table[index, 1]
        result[n, 2] = table[index, 2]
