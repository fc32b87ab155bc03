"""Decide how each slide is brought to the reference's stain (METHOD.md §1.2)."""

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesionmap.errors import StainError
from lesionmap.files.records import read_json, write_json
from lesionmap.stain.fit import FEWEST_PIXELS, LEAST_P99, angles, fit, profile_of, read_sample
from lesionmap.stain.profile import STAINS, StainProfile, optical_density
from lesionmap.stain.reference import read_candidate
from lesionmap.stain.separation import concentrations
from lesionmap.stain.table import StainMatch, apply_table


@dataclass(frozen=True)
class MatchSettings:
    """What is done about slides that are hard to normalise.

    Parameters
    ----------
    fallback : str
        Where a fit's verdict is not ``ok``: ``reference`` (its colours are taken apart by the reference's basis),
        ``macenko`` (by a Macenko fit; by the reference's basis if that is no better) or ``fail``.
    ratio_limits : (float, float)
        Range that the ratios of P99 are held in.
    """

    fallback: str
    ratio_limits: tuple[float, float]


def match_slide(
    slide: str,
    fit_path: str,
    sample: str,
    reference_path: str,
    output: str,
    *,
    settings: MatchSettings,
    provenance: dict[str, Any],
) -> None:
    """Decide how one slide is normalised, and write it down.

    Parameters
    ----------
    fit_path, sample : str
        What :func:`lesionmap.stain.fit.fit_slide` wrote of the slide.
    reference_path : str
        The reference's fit, a profile that came with a model, or a model file.
    output : str
        JSON: the match, both profiles, angles, the mean of each stain before and after, flags.

    Raises
    ------
    StainError
        If the slide's stain could not be fitted and `settings.fallback` is ``fail``.
    """
    fitted = StainProfile.of(read_json(fit_path)["profile"])
    reference = read_candidate(reference_path)
    goal = reference.profile
    pixels = read_sample(sample, fitted.n_pixels)
    match, flags = match_stain(slide, pixels, fitted, goal, settings)
    record = match.as_record() | {
        "slide": slide,
        "reference_slide": reference.slide,
        "angle_to_reference": angles(_upright(fitted, goal).basis, goal.basis).tolist(),
        "fitted": {"verdict": fitted.verdict, "basis": fitted.basis, "angle": float(angles(*_rows(fitted))[0])},
        "mean_od": {
            "before": mean_concentrations(pixels, goal),
            "after": mean_concentrations(apply_table(match.table(), pixels), goal),
        },
        "flags": flags,
        "parameters": asdict(settings),
        "provenance": provenance,
    }
    write_json(output, record)


def match_stain(
    slide: str, pixels: NDArray[np.uint8], fitted: StainProfile, reference: StainProfile, settings: MatchSettings
) -> tuple[StainMatch, list[str]]:
    """How a slide with this fit is brought to the reference, and what is odd about it.

    Parameters
    ----------
    slide : str
        Id, for the error.
    pixels : (N, 3) uint8
        Those of the fit.
    fitted, reference : StainProfile
    settings : MatchSettings

    Raises
    ------
    StainError
        If the fit's verdict is not ``ok`` and `settings.fallback` is ``fail``.
    """
    flags = []
    if fitted.verdict != "ok":
        profile = replace(_fallback(slide, pixels, fitted, reference, settings), verdict=fitted.verdict)
        flags.append(f"stain: {fitted.verdict}; {profile.method} used")
    else:
        profile = _upright(fitted, reference)
        if profile != fitted:
            flags.append("stains swapped: so they are nearer to the reference's")
    ratio, clamped = _ratio(profile, reference, settings.ratio_limits)
    return StainMatch(profile, reference, ratio), flags + clamped


def _rows(profile: StainProfile) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    basis = np.array(profile.basis)
    return basis[:1], basis[1:]


def _upright(fitted: StainProfile, reference: StainProfile) -> StainProfile:
    """The fit with its stains in the order in which they are nearer to the reference's."""
    swapped = replace(fitted, basis=fitted.basis[::-1], p99=fitted.p99[::-1])
    nearer = angles(swapped.basis, reference.basis).sum() < angles(fitted.basis, reference.basis).sum()
    return swapped if nearer else fitted


def _fallback(
    slide: str, pixels: NDArray[np.uint8], fitted: StainProfile, reference: StainProfile, settings: MatchSettings
) -> StainProfile:
    if settings.fallback == "fail":
        raise StainError(
            slide=slide,
            stage="match_stain",
            finding=f"its stain could not be fitted: {fitted.verdict} ({fitted.n_pixels} pixels, stains "
            f"{angles(*_rows(fitted))[0]:.1f}° apart, P99 {fitted.p99[0]:.2f} and {fitted.p99[1]:.2f})",
            remedy="check that the slide is well-stained H&E; else remove it, or set stain.fallback: reference",
        )
    if settings.fallback == "macenko":
        other = _upright(fit(pixels, "macenko"), reference)
        if other.verdict == "ok":
            return replace(other, method="Macenko's basis")
    return profile_of(optical_density(pixels), np.array(reference.basis), "the reference's basis")


def _ratio(
    profile: StainProfile, reference: StainProfile, limits: tuple[float, float]
) -> tuple[tuple[float, float], list[str]]:
    """P99(reference) / P99(slide) of each stain, within limits; 1 where the slide has too little to tell."""
    ratio, flags = [], []
    for stain, own, goal in zip(STAINS, profile.p99, reference.p99, strict=True):
        if profile.n_pixels < FEWEST_PIXELS or own < LEAST_P99:
            ratio.append(1.0)
            flags.append(f"{stain}: too little to measure, its strength is left as it is")
            continue
        exact = goal / own
        ratio.append(float(np.clip(exact, *limits)))
        if exact != ratio[-1]:
            flags.append(f"{stain}: ratio to the reference {exact:.2f}, {ratio[-1]:.2f} used")
    return (ratio[0], ratio[1]), flags


def mean_concentrations(pixels: NDArray[np.uint8], reference: StainProfile) -> list[float] | None:
    """Mean of each stain over pixels, measured in the reference's basis (λ = 0); None without pixels."""
    if not len(pixels):
        return None
    means = concentrations(optical_density(pixels), np.array(reference.basis), 0.0).mean(axis=0)
    return [float(mean) for mean in means]
