"""The stain profile of a slide, and the optical density in which it is measured (METHOD.md §1.2)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

I0 = 255.0
OD_FLOOR = 1e-6
Colour = tuple[float, float, float]
WHITE: Colour = (I0, I0, I0)
Basis = tuple[tuple[float, float, float], tuple[float, float, float]]
STAINS = ("haematoxylin", "eosin")
PALETTE_PX = 512
LENGTH_TOLERANCE = 0.001  # of the rows of a basis; profiles that people write down have four digits


@dataclass(frozen=True)
class StainProfile:
    """The stain profile of one slide.

    Parameters
    ----------
    basis : ((float, float, float), (float, float, float))
        Stain basis W: unit rows of optical density in R, G, B; haematoxylin first.
    p99 : (float, float)
        99th percentile of each stain's concentration over tissue.
    n_pixels : int
        Number of pixels used for the fit.
    reconstruction_error : float
        Root mean square of OD − H·W over those pixels, with H their concentrations.
    method : str
        How the basis was found.
    verdict : str
        ``ok``, or why the pixels do not show two stains; see :func:`lesionmap.stain.fit.verdict`.
    white_point : (float, float, float)
        Colour of bare glass, which has no optical density; see :mod:`lesionmap.stain.white_point`.
    """

    basis: Basis
    p99: tuple[float, float]
    n_pixels: int
    reconstruction_error: float
    method: str
    verdict: str
    white_point: Colour = WHITE

    @classmethod
    def of(cls, record: dict[str, Any]) -> "StainProfile":
        """Build a profile from its JSON form; profiles of earlier versions have no white point, it was 255.

        Raises
        ------
        KeyError, TypeError, ValueError
            If `record` is no profile: a field is missing or too many, not of its shape, or impossible.
        """
        tuples = {key: tuple(record[key]) for key in ("p99", "white_point") if key in record}
        profile = cls(**record | tuples | {"basis": tuple(map(tuple, record["basis"]))})
        profile.check()
        return profile

    def check(self) -> None:
        """Raise a ValueError if a number is not finite, not of its shape, or impossible."""
        basis, p99, white = (np.asarray(part, np.float64) for part in (self.basis, self.p99, self.white_point))
        if (basis.shape, p99.shape, white.shape) != ((2, 3), (2,), (3,)):
            raise ValueError(f"basis, p99 and white_point are of the shapes {basis.shape}, {p99.shape}, {white.shape}")
        if not np.allclose(np.linalg.norm(basis, axis=1), 1, atol=LENGTH_TOLERANCE):  # nor if one is NaN
            raise ValueError(f"the rows of the basis {basis.tolist()} are not of length 1")
        if not (np.isfinite(p99).all() and (p99 >= 0).all()):
            raise ValueError(f"the percentiles {p99.tolist()} are not all 0 or more")
        if not ((white > 0).all() and (white <= I0).all()):
            raise ValueError(f"the white point {white.tolist()} is not above 0 and up to {I0:.0f}")


def optical_density(pixels: NDArray[np.uint8], white_point: Colour = WHITE) -> NDArray[np.float64]:
    """−ln(I / white point) of pixels (..., 3), at least 1e-6; same shape, float64."""
    density: NDArray[np.float64] = np.maximum(-np.log(np.maximum(pixels, 1) / np.array(white_point)), OD_FLOOR)
    return density


def palette(profile: StainProfile) -> NDArray[np.uint8]:
    """Picture of both stains, each from 0 to P99: haematoxylin downwards, eosin to the right; (512, 512, 3) uint8."""
    steps = np.linspace(0, 1, PALETTE_PX)
    strengths = np.stack(np.meshgrid(steps, steps, indexing="ij"), axis=-1) * profile.p99  # (512, 512, 2)
    colours: NDArray[np.uint8] = np.rint(I0 * np.exp(-np.einsum("hwk,kc->hwc", strengths, profile.basis))).astype(
        np.uint8
    )
    return colours
