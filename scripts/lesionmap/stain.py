"""Stain normalisation (METHOD.md §1.2): one basis and one pair of concentrations per slide, one table per pair.

Optical density OD = −ln(I / 255) = H · W, with W the (2, 3) basis of unit rows, haematoxylin first.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from lesionmap.errors import StainError
from lesionmap.files import read_json, write_json
from lesionmap.images import write_png
from lesionmap.slides import Slide, SlideInfo
from lesionmap.tissue import TissueMask

I0 = 255.0
OD_FLOOR = 1e-6
FIT_SPARSITY = 0.1  # λ of the dictionary, as in StainTools
CONCENTRATION_SPARSITY = 0.01  # λ of the concentrations, as in StainTools
FIT_ITERATIONS = 100
FEWEST_PIXELS = 1000
SAMPLED_BOX_PX = 256
MOST_SAMPLED_BOXES = 100
PICTURE_PX = 1024
DARKEST, BRIGHTEST = 15, 240  # outside this mean grey level a pixel is ink, dust or glass
RUIFROK = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11))  # Ruifrok & Johnston 2001, haematoxylin and eosin


@dataclass(frozen=True)
class StainSettings:
    """How a basis is fitted: `method` (vahadane, macenko or none) on `n_pixels` drawn with `seed`."""

    method: str
    n_pixels: int
    seed: int


@dataclass(frozen=True)
class StainProfile:
    """The stain of one slide.

    Parameters
    ----------
    basis : ((float, float, float), (float, float, float))
        W: unit rows of optical density in R, G, B; haematoxylin first.
    p99 : (float, float)
        99th percentile of each stain's concentration over tissue.
    n_pixels : int
        Pixels fitted on.
    reconstruction_error : float
        Root mean square of OD − H·W over those pixels.
    method : str
    """

    basis: tuple[tuple[float, ...], ...]
    p99: tuple[float, ...]
    n_pixels: int
    reconstruction_error: float
    method: str


def load_profile(path: str | Path) -> StainProfile:
    """Read a profile written by :func:`fit_slide`."""
    return profile_from(read_json(path)["profile"])


def profile_from(record: dict[str, Any]) -> StainProfile:
    """Rebuild a profile from its JSON form."""
    return StainProfile(**record | {"basis": tuple(map(tuple, record["basis"])), "p99": tuple(record["p99"])})


def fit_slide(
    info: SlideInfo, tissue_path: str, output: str, picture: str, settings: StainSettings, provenance: dict[str, Any]
) -> None:
    """Fit a slide's stain profile on tissue pixels spread over the whole slide.

    Parameters
    ----------
    info : SlideInfo
    tissue_path : str
        The slide's tissue mask.
    output : str
        JSON: the profile and where it comes from.
    picture : str
        PNG: a piece of tissue beside its own reconstruction from the two stains.
    settings : StainSettings
    provenance : dict

    Raises
    ------
    StainError
        If there is too little tissue or it does not show two stains.
    """
    tissue = TissueMask(tissue_path, info)
    with Slide(info, "fit_stain") as slide:
        pixels = _sample_pixels(slide, tissue, settings)
        profile = fit(pixels, settings.method, info.slide)
        view, _ = slide.read_where_possible(_busiest_corner(tissue), (PICTURE_PX, PICTURE_PX), info.mpp)
    table = transform_table(profile, profile)
    write_png(picture, np.concatenate([view, apply_table(table, view)], axis=1))
    write_json(output, {"slide": info.slide, "profile": asdict(profile), "provenance": provenance})


def fit(pixels: NDArray[np.uint8], method: str, slide: str) -> StainProfile:
    """Fit basis and P99 to tissue pixels.

    Parameters
    ----------
    pixels : (N, 3) uint8
    method : str
        ``vahadane`` (Vahadane et al., IEEE TMI 2016: sparse non-negative dictionary), ``macenko`` (Macenko et al.,
        ISBI 2009) or ``none`` (the published average basis, so that nothing is fitted).
    slide : str
        Id, for error messages.
    """
    if len(pixels) < FEWEST_PIXELS:
        raise StainError(
            slide=slide,
            stage="fit_stain",
            finding=f"{len(pixels)} usable tissue pixels; {FEWEST_PIXELS} are needed",
            remedy="check the tissue mask; remove the slide if it is blank, black or covered in ink",
        )
    od = optical_density(pixels)
    fitters: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]]
    fitters = {"vahadane": _fit_vahadane, "macenko": _fit_macenko, "none": lambda _: np.array(RUIFROK)}
    basis = _ordered(fitters[method](od))
    concentrations = _concentrations(od, basis, CONCENTRATION_SPARSITY)
    p99 = np.percentile(concentrations, 99, axis=0)
    if not np.isfinite(basis).all() or p99.min() < 0.05:
        raise StainError(
            slide=slide,
            stage="fit_stain",
            finding=f"the tissue does not show two stains (P99 {p99[0]:.3f} and {p99[1]:.3f})",
            remedy="check that the slide is H&E; else remove it or set stain.method to none",
        )
    residual = od - np.einsum("nk,kc->nc", concentrations, basis)
    return StainProfile(
        basis=tuple(tuple(float(value) for value in row) for row in basis),
        p99=(float(p99[0]), float(p99[1])),
        n_pixels=len(pixels),
        reconstruction_error=float(np.sqrt(np.mean(residual**2))),
        method=method,
    )


def optical_density(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """−ln(I / 255), at least 1e-6; same shape, float64."""
    return np.maximum(-np.log(np.maximum(pixels, 1) / I0), OD_FLOOR)


def _sample_pixels(slide: Slide, tissue: TissueMask, settings: StainSettings) -> NDArray[np.uint8]:
    """Equally many tissue pixels from each of up to 100 boxes spread over the slide; (N, 3) uint8."""
    generator = np.random.default_rng(settings.seed)
    boxes = _tissue_boxes(tissue)
    chosen = boxes[np.sort(generator.permutation(len(boxes))[:MOST_SAMPLED_BOXES])]
    quota = -(-settings.n_pixels // max(1, len(chosen)))
    drawn = []
    for xy in chosen:
        box, _ = slide.read_where_possible(tuple(xy), (SAMPLED_BOX_PX, SAMPLED_BOX_PX), slide.info.mpp)
        wanted = tissue.at(tuple(xy), (SAMPLED_BOX_PX, SAMPLED_BOX_PX), 1.0) & usable(box)
        pixels = box[wanted]
        drawn.append(pixels[generator.permutation(len(pixels))[:quota]])
    return np.concatenate(drawn) if drawn else np.empty((0, 3), np.uint8)


def usable(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels that can show stain: neither glass, nor black, nor the blue, green or black of a pen; (H, W) bool."""
    grey = image.mean(axis=-1)
    red, green, blue = (image[..., channel].astype(np.int16) for channel in range(3))
    pen = (green > red + 10) | (blue > red + 90)
    stained: NDArray[np.bool_] = (grey > DARKEST) & (grey < BRIGHTEST) & ~pen
    return stained


def _tissue_boxes(tissue: TissueMask) -> NDArray[np.float64]:
    """Top-left corners of the 256-px boxes that are at least half tissue (any tissue, if there are none)."""
    shares = np.array([(x, y, share) for x, y, share in _box_shares(tissue)]).reshape(-1, 3)
    enough = 0.5 if (shares[:, 2] >= 0.5).any() else 1e-9
    return shares[shares[:, 2] >= enough, :2]


def _box_shares(tissue: TissueMask) -> Iterator[tuple[float, float, float]]:
    side = max(1, round(SAMPLED_BOX_PX / tissue.scale[0]))
    height, width = tissue.mask.shape
    for row in range(0, height, side):
        for column in range(0, width, side):
            share = float(tissue.mask[row : row + side, column : column + side].mean())
            yield column * tissue.scale[0], row * tissue.scale[1], share


def _busiest_corner(tissue: TissueMask) -> tuple[float, float]:
    x, y, _ = max(_box_shares(tissue), key=lambda box: box[2])
    return x, y


def _ordered(basis: NDArray[np.float64]) -> NDArray[np.float64]:
    """Unit rows, haematoxylin (the one that absorbs more red) first."""
    rows = basis / np.linalg.norm(basis, axis=1, keepdims=True)
    ordered: NDArray[np.float64] = rows[np.argsort(-rows[:, 0], stable=True)]
    return ordered


def _fit_macenko(od: NDArray[np.float64]) -> NDArray[np.float64]:
    stained = od[(od > 0.15).any(axis=1)]
    stained = stained if len(stained) >= FEWEST_PIXELS else od
    centred = stained - stained.mean(axis=0)
    plane = np.linalg.eigh(np.einsum("ni,nj->ij", centred, centred))[1][:, [2, 1]]
    plane *= np.where(plane.sum(axis=0) < 0, -1, 1)
    projected = np.einsum("ni,ij->nj", stained, plane)
    low, high = np.percentile(np.arctan2(projected[:, 1], projected[:, 0]), [1, 99])
    basis = np.array([plane @ (np.cos(angle), np.sin(angle)) for angle in (low, high)])
    upright: NDArray[np.float64] = np.maximum(basis * np.where(basis.sum(axis=1, keepdims=True) < 0, -1, 1), OD_FLOOR)
    return upright


def _fit_vahadane(od: NDArray[np.float64]) -> NDArray[np.float64]:
    start = np.array(RUIFROK) / np.linalg.norm(RUIFROK, axis=1, keepdims=True)
    basis: NDArray[np.float64] = _dictionary(od, start, FIT_SPARSITY, FIT_ITERATIONS)
    return basis


@numba.njit(cache=True)
def _dictionary(od, start, sparsity, iterations):  # type: ignore[no-untyped-def]  # numba types it
    """Alternate exact non-negative lasso for H with block coordinate descent for W, ‖row‖ ≤ 1 (Mairal 2010)."""
    basis = start.copy()
    for _ in range(iterations):
        gram = np.zeros((2, 2))
        cross = np.zeros((2, 3))
        for n in range(od.shape[0]):
            h0, h1 = _solve(od[n, 0], od[n, 1], od[n, 2], basis, sparsity)
            gram[0, 0] += h0 * h0
            gram[0, 1] += h0 * h1
            gram[1, 1] += h1 * h1
            for c in range(3):
                cross[0, c] += h0 * od[n, c]
                cross[1, c] += h1 * od[n, c]
        gram[1, 0] = gram[0, 1]
        for _ in range(5):
            for k in range(2):
                if gram[k, k] > 0.0:
                    row = basis[k] + (cross[k] - gram[k, 0] * basis[0] - gram[k, 1] * basis[1]) / gram[k, k]
                    row = np.maximum(row, 0.0)
                    basis[k] = row / max(1.0, np.sqrt((row * row).sum()))
    return basis


@numba.njit(cache=True, inline="always")
def _solve(r, g, b, basis, sparsity):  # type: ignore[no-untyped-def]  # numba types it
    """Exact minimum of ½‖od − h·W‖² + λ(h₀ + h₁) over h ≥ 0."""
    w = basis
    b0 = r * w[0, 0] + g * w[0, 1] + b * w[0, 2] - sparsity
    b1 = r * w[1, 0] + g * w[1, 1] + b * w[1, 2] - sparsity
    g00 = w[0, 0] * w[0, 0] + w[0, 1] * w[0, 1] + w[0, 2] * w[0, 2]
    g11 = w[1, 0] * w[1, 0] + w[1, 1] * w[1, 1] + w[1, 2] * w[1, 2]
    g01 = w[0, 0] * w[1, 0] + w[0, 1] * w[1, 1] + w[0, 2] * w[1, 2]
    determinant = g00 * g11 - g01 * g01
    if determinant > 1e-12:
        h0 = (b0 * g11 - b1 * g01) / determinant
        h1 = (b1 * g00 - b0 * g01) / determinant
        if h0 >= 0.0 and h1 >= 0.0:
            return h0, h1
    only0 = max(b0, 0.0) / max(g00, 1e-12)
    if b1 - g01 * only0 <= 0.0:
        return only0, 0.0
    return 0.0, max(b1, 0.0) / max(g11, 1e-12)


@numba.njit(cache=True)
def _concentrations(od, basis, sparsity):  # type: ignore[no-untyped-def]  # numba types it
    result = np.empty((od.shape[0], 2))
    for n in range(od.shape[0]):
        result[n, 0], result[n, 1] = _solve(od[n, 0], od[n, 1], od[n, 2], basis, sparsity)
    return result


def transform_table(slide: StainProfile, reference: StainProfile) -> NDArray[np.uint8]:
    """Tabulate the normalisation of every colour.

    Parameters
    ----------
    slide, reference : StainProfile

    Returns
    -------
    (2**24, 3) uint8
        Normalised colour at index R·65536 + G·256 + B. White stays white: it has no concentration of either stain.
    """
    ratio = np.array(reference.p99) / np.array(slide.p99)
    target = np.array(reference.basis) * ratio[:, None]
    od = optical_density(np.arange(256, dtype=np.uint8))
    table: NDArray[np.uint8] = _tabulate(od, np.array(slide.basis), target)
    return table


@numba.njit(cache=True)
def _tabulate(od, basis, target):  # type: ignore[no-untyped-def]  # numba types it
    table = np.empty((1 << 24, 3), dtype=np.uint8)
    for r in range(256):
        for g in range(256):
            for b in range(256):
                h0, h1 = _solve(od[r], od[g], od[b], basis, CONCENTRATION_SPARSITY)
                index = (r << 16) | (g << 8) | b
                for c in range(3):
                    density = h0 * target[0, c] + h1 * target[1, c]
                    table[index, c] = np.uint8(np.floor(I0 * np.exp(-density) + 0.5))
    return table


def apply_table(table: NDArray[np.uint8], image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Normalise a (H, W, 3) uint8 image by :func:`transform_table`'s table."""
    result: NDArray[np.uint8] = _gather(table, np.ascontiguousarray(image).reshape(-1, 3)).reshape(image.shape)
    return result


@numba.njit(cache=True)
def _gather(table, pixels):  # type: ignore[no-untyped-def]  # numba types it
    result = np.empty_like(pixels)
    for n in range(pixels.shape[0]):
        index = (np.int64(pixels[n, 0]) << 16) | (np.int64(pixels[n, 1]) << 8) | np.int64(pixels[n, 2])
        result[n, 0] = table[index, 0]
        result[n, 1] = table[index, 1]
        result[n, 2] = table[index, 2]
    return result
