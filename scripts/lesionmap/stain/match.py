"""Decide how each slide is normalised to the stain of the reference (METHOD.md §1.2)."""

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesionmap.errors import StainError
from lesionmap.files.records import read_json, write_json
from lesionmap.stain.fit import FEWEST_PIXELS, LEAST_P99, angles, fit, profile_of, read_sample
from lesionmap.stain.profile import STAINS, WHITE, Colour, StainProfile, optical_density
from lesionmap.stain.reference import read_candidate
from lesionmap.stain.separation import concentrations
from lesionmap.stain.table import StainMatch, apply_table
from lesionmap.stain.white_point import WhitePoint


@dataclass(frozen=True)
class MatchSettings:
    """What to do with slides that are hard to normalise.

    Parameters
    ----------
    fallback : str
        What to do if a fit's verdict is not ``ok``: ``reference`` (separate the slide's stains with the basis of the
        reference), ``macenko`` (with a Macenko fit; if its verdict is not ``ok`` either, as ``reference``) or
        ``fail``.
    ratio_limits : (float, float)
        Range to which the ratios of P99 are clipped.
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
    """Decide how one slide is normalised, and write the match.

    Parameters
    ----------
    fit_path, sample : str
        Files that :func:`lesionmap.stain.fit.fit_slide` wrote for the slide.
    reference_path : str
        The reference's fit, a profile shipped with a model, or a model file.
    output : str
        JSON: the match, both profiles, angles, the mean of each stain before and after, flags.

    Raises
    ------
    StainError
        If the slide's stain could not be fitted and `settings.fallback` is ``fail``.
    """
    fit_record = read_json(fit_path)
    fitted = StainProfile.of(fit_record["profile"])
    reference = read_candidate(reference_path)
    goal, white = reference.profile, WhitePoint(**fit_record["white_point"])
    pixels = read_sample(sample, fitted.n_pixels)
    match, flags = match_stain(slide, pixels, fitted, goal, settings)
    record = match.as_record() | {
        "slide": slide,
        "reference_slide": reference.slide,
        "angle_to_reference": angles(_in_reference_order(fitted, goal).basis, goal.basis).tolist(),
        "fitted": {"verdict": fitted.verdict, "basis": fitted.basis, "angle": float(angles(*_rows(fitted))[0])},
        "mean_od": {
            "before": mean_concentrations(pixels, goal, fitted.white_point),
            "after": mean_concentrations(apply_table(match.table(), pixels), goal),
        },
        "white_point": asdict(white),
        "flags": white.flags + flags,
        "parameters": asdict(settings),
        "provenance": provenance,
    }
    write_json(output, record)


def match_stain(
    slide: str, pixels: NDArray[np.uint8], fitted: StainProfile, reference: StainProfile, settings: MatchSettings
) -> tuple[StainMatch, list[str]]:
    """Decide how a slide is normalised; also return flags that describe anything unusual.

    Parameters
    ----------
    slide : str
        Slide id, for the error message.
    pixels : (N, 3) uint8
        The pixels used for the fit.
    fitted, reference : StainProfile
        The slide's own profile and the profile to normalise to.

    Raises
    ------
    StainError
        If the fit's verdict is not ``ok`` and `settings.fallback` is ``fail``.
    """
    flags = []
    if fitted.verdict != "ok":
        profile = replace(_fallback(slide, pixels, fitted, reference, settings), verdict=fitted.verdict)
        flags.append(f"stain: {fitted.verdict}, {profile.method} used")
    else:
        profile = _in_reference_order(fitted, reference)
        if profile != fitted:
            flags.append("stains swapped, as that brings them nearer to the reference's")
    ratio, clamped = _ratio(profile, reference, settings.ratio_limits)
    return StainMatch(profile, reference, ratio), flags + clamped


def _rows(profile: StainProfile) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    basis = np.array(profile.basis)
    return basis[:1], basis[1:]


def _in_reference_order(fitted: StainProfile, reference: StainProfile) -> StainProfile:
    """The fit, with its two stains swapped if that brings them nearer to the reference's."""
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
        other = _in_reference_order(fit(pixels, "macenko", fitted.white_point), reference)
        if other.verdict == "ok":
            return replace(other, method="Macenko's basis")
    od = optical_density(pixels, fitted.white_point)
    return profile_of(od, np.array(reference.basis), "the reference's basis", fitted.white_point)


def _ratio(
    profile: StainProfile, reference: StainProfile, limits: tuple[float, float]
) -> tuple[tuple[float, float], list[str]]:
    """P99(reference) / P99(slide) of each stain, clipped to `limits`, and flags; 1 for a stain too weak to measure."""
    ratio, flags = [], []
    for stain, own, goal in zip(STAINS, profile.p99, reference.p99, strict=True):
        if profile.n_pixels < FEWEST_PIXELS or own < LEAST_P99:
            ratio.append(1.0)
            flags.append(f"{stain}: too little to measure, its strength is not changed")
            continue
        exact = goal / own
        ratio.append(float(np.clip(exact, *limits)))
        if exact != ratio[-1]:
            flags.append(f"{stain}: ratio to the reference {exact:.2f}, {ratio[-1]:.2f} used")
    return (ratio[0], ratio[1]), flags


def mean_concentrations(
    pixels: NDArray[np.uint8], reference: StainProfile, white_point: Colour = WHITE
) -> list[float] | None:
    """Mean of each stain over pixels, measured in the reference's basis (λ = 0); None without pixels."""
    if not len(pixels):
        return None
    means = concentrations(optical_density(pixels, white_point), np.array(reference.basis), 0.0).mean(axis=0)
    return [float(mean) for mean in means]
