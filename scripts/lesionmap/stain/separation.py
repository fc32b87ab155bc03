"""Find a stain basis from tissue pixels, and the stain concentrations for a basis. Pure arithmetic."""

from collections.abc import Callable

import numba
import numpy as np
from numpy.typing import NDArray

from lesionmap.errors import SettingsError
from lesionmap.stain.profile import OD_FLOOR

FIT_SPARSITY = 0.1  # λ of the dictionary, as in StainTools
FIT_ITERATIONS = 100
MACENKO_LEAST_OD = 0.15  # β of the paper, for all channels; fainter pixels have no reliable direction
MACENKO_PERCENTILE = 1  # α of the paper
SINGULAR = 1e-12  # below this, the determinant of W·Wᵀ is too small to divide by
RUIFROK = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11))  # Ruifrok & Johnston 2001, haematoxylin and eosin


def find_basis(pixels: NDArray[np.uint8], od: NDArray[np.float64], method: str) -> NDArray[np.float64]:
    """Find the stain basis of tissue pixels.

    Parameters
    ----------
    pixels : (N, 3) uint8
        White-balanced tissue pixels; only ``staintools`` reads them.
    od : (N, 3) float64
        Their optical density.
    method : str
        ``vahadane`` (Vahadane et al., IEEE TMI 2016: sparse non-negative dictionary), ``macenko`` (Macenko et al.,
        ISBI 2009), ``none`` (no fit, the published average basis) or ``staintools`` (the unchanged Vahadane
        extractor of the StainTools package; it needs SPAMS, and its result varies from run to run).

    Returns
    -------
    (2, 3) float64
        Unit rows, haematoxylin first: the stain with the higher ratio of red to green absorption. (StainTools
        compares red alone. On most slides the order is the same, but stains that absorb equally much red get swapped.)

    Raises
    ------
    SettingsError
        If the method's package is not installed.
    """
    finders: dict[str, Callable[[], NDArray[np.float64]]] = {
        "vahadane": lambda: _dictionary(od, _unit(np.array(RUIFROK)), FIT_SPARSITY, FIT_ITERATIONS),
        "macenko": lambda: _macenko(od),
        "none": lambda: np.array(RUIFROK),
        "staintools": lambda: _staintools(pixels),
    }
    rows = _unit(finders[method]())
    ordered: NDArray[np.float64] = rows[np.argsort(-rows[:, 0] / np.maximum(rows[:, 1], OD_FLOOR), stable=True)]
    return ordered


def _unit(basis: NDArray[np.float64]) -> NDArray[np.float64]:
    rows: NDArray[np.float64] = basis / np.maximum(np.linalg.norm(basis, axis=1, keepdims=True), OD_FLOOR)
    return rows


def _macenko(od: NDArray[np.float64]) -> NDArray[np.float64]:
    stained = od[(od > MACENKO_LEAST_OD).all(axis=1)]
    stained = stained if len(stained) > len(od) // 100 else od
    centred = stained - stained.mean(axis=0)
    plane = np.linalg.eigh(np.einsum("ni,nj->ij", centred, centred))[1][:, [2, 1]]
    plane *= np.where(plane.sum(axis=0) < 0, -1, 1)
    projected = np.einsum("ni,ij->nj", stained, plane)
    angles = np.arctan2(projected[:, 1], projected[:, 0])
    extremes = np.percentile(angles, [MACENKO_PERCENTILE, 100 - MACENKO_PERCENTILE])
    basis = np.array([plane @ (np.cos(angle), np.sin(angle)) for angle in extremes])
    upright: NDArray[np.float64] = np.maximum(basis * np.where(basis.sum(axis=1, keepdims=True) < 0, -1, 1), OD_FLOOR)
    return upright


def _staintools(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    try:
        from staintools.miscellaneous.exceptions import TissueMaskException
        from staintools.stain_extraction.vahadane_stain_extractor import VahadaneStainExtractor
    except ImportError as error:
        raise SettingsError(
            stage="fit_stain",
            finding=f"stain.method: staintools needs StainTools and SPAMS, which are not installed ({error})",
            remedy="install staintools and spams-bin where the jobs run, or take stain.method: vahadane",
        ) from error
    try:
        with np.errstate(invalid="ignore"):  # it computes 0 / 0 for a stain that no pixel needs
            found = VahadaneStainExtractor.get_stain_matrix(pixels[None].copy())  # a copy: it changes its input
    except TissueMaskException:
        return np.zeros((2, 3))
    basis: NDArray[np.float64] = np.nan_to_num(found)
    return basis


def concentrations(od: NDArray[np.float64], basis: NDArray[np.float64], sparsity: float) -> NDArray[np.float64]:
    """Exact minimum of ½‖od − h·W‖² + λ(h₀ + h₁) over h ≥ 0, for each pixel.

    Parameters
    ----------
    od : (N, 3) float64
        Optical density of the pixels.
    basis : (2, 3) float64
        Stain basis W.
    sparsity : float
        λ ≥ 0.

    Returns
    -------
    (N, 2) float64
    """
    result: NDArray[np.float64] = _concentrations(od, basis, sparsity)
    return result


@numba.njit(cache=True, nogil=True)
def _concentrations(od, basis, sparsity):  # type: ignore[no-untyped-def]  # numba types it
    result, gram = np.empty((od.shape[0], 2)), _gram(basis)
    for n in range(od.shape[0]):
        result[n, 0], result[n, 1] = _solve(od[n, 0], od[n, 1], od[n, 2], basis, gram, sparsity)
    return result


@numba.njit(cache=True, nogil=True)
def _dictionary(od, start, sparsity, iterations):  # type: ignore[no-untyped-def]  # numba types it
    """Alternate exact non-negative lasso for H with block coordinate descent for W, ‖row‖ ≤ 1 (Mairal 2010)."""
    basis = start.copy()
    for _ in range(iterations):
        products = np.zeros((2, 2))  # HᵀH
        cross = np.zeros((2, 3))  # HᵀOD
        gram = _gram(basis)
        for n in range(od.shape[0]):
            h0, h1 = _solve(od[n, 0], od[n, 1], od[n, 2], basis, gram, sparsity)
            products[0, 0] += h0 * h0
            products[0, 1] += h0 * h1
            products[1, 1] += h1 * h1
            for c in range(3):
                cross[0, c] += h0 * od[n, c]
                cross[1, c] += h1 * od[n, c]
        products[1, 0] = products[0, 1]
        for _ in range(5):
            for k in range(2):
                if products[k, k] > 0.0:
                    rest = cross[k] - products[k, 0] * basis[0] - products[k, 1] * basis[1]
                    row = np.maximum(basis[k] + rest / products[k, k], 0.0)
                    basis[k] = row / max(1.0, np.sqrt((row * row).sum()))
    return basis


@numba.njit(cache=True, nogil=True)
def _gram(basis):  # type: ignore[no-untyped-def]  # numba types it
    """W·Wᵀ, (2, 2)."""
    gram = np.empty((2, 2))
    for i in range(2):
        for j in range(2):
            gram[i, j] = basis[i, 0] * basis[j, 0] + basis[i, 1] * basis[j, 1] + basis[i, 2] * basis[j, 2]
    return gram


@numba.njit(cache=True, nogil=True, inline="always")
def _stains_present(along0, along1, gram):  # type: ignore[no-untyped-def]  # numba types it
    """Which stains a pixel has, given W · OD − λ and W·Wᵀ: 0 both, 1 the first, 2 the second, −1 none."""
    if along0 * gram[1, 1] >= along1 * gram[0, 1] and along1 * gram[0, 0] >= along0 * gram[0, 1]:
        return 0
    if along0 > 0.0 and along1 * gram[0, 0] <= along0 * gram[0, 1]:
        return 1
    return 2 if along1 > 0.0 else -1


@numba.njit(cache=True, nogil=True, inline="always")
def _solve(r, g, b, basis, gram, sparsity):  # type: ignore[no-untyped-def]  # numba types it
    along0 = r * basis[0, 0] + g * basis[0, 1] + b * basis[0, 2] - sparsity
    along1 = r * basis[1, 0] + g * basis[1, 1] + b * basis[1, 2] - sparsity
    case = _stains_present(along0, along1, gram)
    determinant = gram[0, 0] * gram[1, 1] - gram[0, 1] * gram[0, 1]
    if case == 0 and determinant > SINGULAR:
        h0 = (along0 * gram[1, 1] - along1 * gram[0, 1]) / determinant
        return h0, (along1 * gram[0, 0] - along0 * gram[0, 1]) / determinant
    if case <= 1:  # case 0 comes here if the two stains are the same
        return max(along0, 0.0) / max(gram[0, 0], SINGULAR), 0.0
    return 0.0, along1 / max(gram[1, 1], SINGULAR)


@numba.njit(cache=True, nogil=True)
def tabulate(table, reds, factors, absorbed, gram, sparsity):  # type: ignore[no-untyped-def]  # numba types it
    """Fill the table of :func:`lesionmap.stain.table.stain_table` for some values of red.

    It is in the same file as the code it shares with the solver, because numba's cache of a function only notices
    changes in its own file. `absorbed`, (2, 3, 256), is what each value of a channel adds to W · OD.
    """
    part = np.empty((3, 3))
    for r in reds:
        for g in range(256):
            first = absorbed[0, 0, r] + absorbed[0, 1, g] - sparsity
            second = absorbed[1, 0, r] + absorbed[1, 1, g] - sparsity
            for case in range(3):
                for c in range(3):
                    part[case, c] = factors[case, c, 0, r] * factors[case, c, 1, g]
            for b in range(256):
                along0, along1 = first + absorbed[0, 2, b], second + absorbed[1, 2, b]
                index = (r << 16) | (g << 8) | b
                case = _stains_present(along0, along1, gram)
                for c in range(3):
                    value = 255.0 if case < 0 else part[case, c] * factors[case, c, 2, b]
                    table[index, c] = np.uint8(value + 0.5)
