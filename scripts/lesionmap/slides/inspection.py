"""Inspect each slide before all other stages: what it is, and whether it can be used."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import openslide
from PIL import ImageCms

from lesionmap.errors import SlideError
from lesionmap.files.records import write_json
from lesionmap.jobs.quarantine import as_record, write_quarantined
from lesionmap.servers.urls import is_remote, why_unavailable
from lesionmap.slides.cache import IN_PLACE, CacheSettings, cached_file
from lesionmap.slides.dicom_series import series_flags, series_of
from lesionmap.slides.file_checks import cannot_be_read, tiff_damage, why_unopened
from lesionmap.slides.identity import content_digest, sampled_digest, slide_state
from lesionmap.slides.pyramid import (
    check_levels,
    compare_levels,
    level_factors,
    pyramid_flags,
    pyramid_record,
    settle_factors,
)
from lesionmap.slides.reader_selection import choose_reader
from lesionmap.slides.sampling import LevelSample, check_illumination, check_readable, sample_level, sum_tones
from lesionmap.slides.sheet import SlideRow
from lesionmap.slides.slide import Handle, Slide, SlideInfo, open_slide, srgb_transform

STAGE = "inspect_slide"
NEEDED_BY = {"train": "tiles", "val": "tiles", "test": "inference", "inference": "inference"}
PLAUSIBLE_MPP = (0.1, 2.0)  # µm/px of level 0: finer than any objective resolves, coarser than any slide scanner
LARGEST_MPP = 20.0  # µm/px: what is coarser is the resolution of a screen or printer (72 dpi are 353 µm/px)
# Ratio of µm/px along x and y: flagged above the first, not used above the second.
LARGEST_ASPECT, LARGEST_USABLE_ASPECT = 1.05, 1.5
LARGEST_CONTRADICTION = 1.2  # factor by which µm/px and objective power may disagree
NEAR_POWER = 0.03  # by which share the sheet's µm/px may miss a power of two times the file's
SHEET, DICOM = "slide sheet", "dicom"  # a source of µm/px; OpenSlide's name for a vendor
MPP_TIMES_POWER = 10.0  # µm/px · objective power of slide scanners: 0.25 at 40×, 0.5 at 20×


@dataclass(frozen=True)
class InspectionSettings:
    """How slides are checked, and what they must meet.

    Parameters
    ----------
    read_share : float
        Share of each level's area that is read to find damage, 0 to 1; at least 64 boxes of 512 px per level.
    max_unreadable_fraction : float
        Share of a level's boxes that may be unreadable, 0 to 1.
    mpp_tolerance : float
        By how much a slide may be coarser than its split needs; 0.1 is 10 %.
    mpp_from_objective : float or None
        µm/px times objective power (10: 0.25 at 40×), for slides that give only the power; None: they are refused.
    apply_icc : bool
        Whether colours are converted to sRGB with the slide's own profile.
    reader : str
        ``auto`` or ``openslide``; see :func:`lesionmap.slides.reader_selection.choose_reader`.
    needed_mpp : mapping
        ``tiles``, ``low_view``: µm/px of training; ``inference``: the finest µm/px that inference reads;
        ``first_pass``: µm/px of the pass over the whole slide, before regions are refined.
    """

    read_share: float
    max_unreadable_fraction: float
    mpp_tolerance: float
    mpp_from_objective: float | None
    apply_icc: bool
    reader: str
    needed_mpp: Mapping[str, float]


@dataclass(frozen=True)
class Resolution:
    """µm/px of level 0, where it comes from, and the objective power that the file gives (None if it gives none)."""

    mpp: float
    source: str
    objective_power: float | None


@dataclass(frozen=True)
class InspectionFiles:
    """What the inspection of one slide writes, JSON.

    Parameters
    ----------
    record : str
        All that was found: ``slide``, ``split``, ``verdict``. If that is ``ok``: also ``flags`` (what is unusual in the
        slide), ``resolution``, ``icc_profile``, ``pyramid`` (of each coarser level, a
        :class:`lesionmap.slides.pyramid.LevelDifference`), ``reader`` and ``info``. If ``quarantined``: also
        ``stage``, ``finding`` and ``remedy``.
    info : str
        What it takes to read the slide, a :class:`lesionmap.slides.slide.SlideInfo` without its path. The slide's other
        jobs run again if this changes, so it says neither where the slide is nor what it is used for.
    location : str
        ``path``, and ``state`` and ``sample`` of its files, by which another slide in its place is noticed
        (:func:`lesionmap.slides.identity.check_unchanged`). No job runs again because of it.
    """

    record: str
    info: str
    location: str


def inspect_slide(
    row: SlideRow,
    files: InspectionFiles,
    settings: InspectionSettings,
    copies: CacheSettings = IN_PLACE,
    planned: str = "",
) -> None:
    """Write what one slide is, or why it is in quarantine.

    Parameters
    ----------
    planned : str
        For a remote slide, its state from :func:`lesionmap.servers.remote.states`.
    """
    location = {"path": row.path, "state": "", "sample": ""}
    try:
        _check_available(row, planned)
        with cached_file(row.path, copies) as path:
            location["state"] = "" if is_remote(row.path) else slide_state(path)
            record = {"verdict": "ok"} | _inspected(replace(row, path=path), settings)
            location["sample"] = sampled_digest(path)
            _check_at_rest(row, path, location["state"])
        del record["info"]["path"]
        write_json(files.info, record["info"])
    except SlideError as error:
        record = {"verdict": "quarantined"} | as_record(error)
        write_quarantined([files.info], error)
    write_json(files.location, location)
    write_json(files.record, {"slide": row.slide, "split": row.split} | record)


def _check_available(row: SlideRow, planned: str) -> None:
    if is_remote(row.path) and (why := why_unavailable(planned)):
        finding, remedy = why
        raise SlideError(slide=row.slide, stage=STAGE, finding=finding, remedy=remedy)


def _check_at_rest(row: SlideRow, path: str, state: str) -> None:
    if not is_remote(row.path) and slide_state(path) != state:
        finding, remedy = "its files changed while it was inspected", "run again once it is copied"
        raise SlideError(slide=row.slide, stage=STAGE, finding=finding, remedy=remedy)


def _inspected(row: SlideRow, settings: InspectionSettings) -> dict[str, Any]:
    findings = examine(row, settings)
    info = replace(findings["info"], identity=digest_of(row, content_digest))
    factors = findings.pop("factors")
    # The smallest factor of a level lets it show most.
    widest = replace(info, downsamples=tuple(map(min, factors)))
    samples = _sampled(widest, settings, findings["flags"])
    check_illumination(sum_tones(samples), row.slide, STAGE)
    with Slide(widest, STAGE) as slide:
        chosen, doubts = settle_factors(slide, factors, [sample.edges for sample in samples])
    findings["flags"] += doubts
    choice = choose_reader(info, settings.reader, STAGE)
    info = replace(info, downsamples=chosen, reader=choice.reader)
    pyramid = _compared(info, settings, samples, findings["flags"])
    said = {"resolution": vars(findings["resolution"]), "pyramid": pyramid, "reader": vars(choice), "info": vars(info)}
    return findings | said


def digest_of(row: SlideRow, digest: Callable[[str], str]) -> str:
    """A digest of the slide's files, or a SlideError if the operating system does not let us read them."""
    try:
        return digest(row.path)
    except OSError as error:
        finding, remedy = cannot_be_read(row.path, error)
        raise SlideError(slide=row.slide, stage=STAGE, finding=finding, remedy=remedy) from error


def examine(row: SlideRow, settings: InspectionSettings) -> dict[str, Any]:
    """All checks that read no pixels: the file's metadata, compared with what the slide's split needs.

    Returns
    -------
    dict
        ``flags``, ``resolution`` (a :class:`Resolution`), ``icc_profile``, ``factors`` (the candidates of each level)
        and ``info`` (a :class:`lesionmap.slides.slide.SlideInfo` without identity, with the first of the candidates).

    Raises
    ------
    SlideError
        If the slide cannot be used.
    """
    with _opened(row) as handle:
        if damage := tiff_damage(row.path):
            raise SlideError(slide=row.slide, stage=STAGE, finding=damage[0], remedy=damage[1])
        check_annotation(row)
        factors = level_factors(row.path, handle)
        flags = check_levels(row.path, handle, factors, row.slide, STAGE)
        properties = handle.properties
        resolution = find_resolution(row, properties, settings.mpp_from_objective)
        flags += [*resolution_flags(resolution, properties), *_check_role(row, resolution, settings)]
        info = _described(row, handle, resolution.mpp, factors, apply_icc=settings.apply_icc)
        flags += series_flags(series_of(Path(row.path)), info.level_sizes, info.downsamples)
        profile = _colour_profile(row, handle, flags, apply_icc=settings.apply_icc)
    return {"flags": flags, "resolution": resolution, "icc_profile": profile, "factors": factors, "info": info}


def _opened(row: SlideRow) -> Handle:
    try:
        return open_slide(row.path, row.slide, STAGE)
    except SlideError as error:
        finding, remedy = why_unopened(row.path) or (error.finding, error.remedy)
        raise SlideError(slide=row.slide, stage=STAGE, finding=finding, remedy=remedy) from error


def _colour_profile(row: SlideRow, handle: Handle, flags: list[str], *, apply_icc: bool) -> str | None:
    """Name of the slide's colour profile; a broken one is flagged, or refused if it is to be applied."""
    try:
        profile = handle.color_profile
        if apply_icc:
            srgb_transform(handle)
        return ImageCms.getProfileDescription(profile).strip() if profile else None
    except (OSError, ImageCms.PyCMSError) as error:
        if not apply_icc:
            flags.append(f"its colour profile cannot be read ({error})")
            return None
        raise SlideError(
            slide=row.slide,
            stage=STAGE,
            finding=f"its colour profile cannot be applied ({error})",
            remedy="set slides.apply_icc to false, for all slides, or export the slide with a valid RGB profile",
        ) from error


def _described(
    row: SlideRow, handle: Handle, mpp: float, factors: Sequence[tuple[float, ...]], *, apply_icc: bool
) -> SlideInfo:
    """The metadata needed to read the slide, with the first factor of each level; `identity` stays empty."""
    properties = handle.properties
    return SlideInfo(
        slide=row.slide,
        path=row.path,
        identity="",
        vendor=properties.get(openslide.PROPERTY_NAME_VENDOR, "unknown"),
        size_lv0=handle.dimensions,
        mpp=mpp,
        downsamples=tuple(candidates[0] for candidates in factors),  # check_levels refuses a level without any
        level_sizes=tuple(handle.level_dimensions),
        bounds_xy_lv0=(
            int(properties.get(openslide.PROPERTY_NAME_BOUNDS_X, 0)),
            int(properties.get(openslide.PROPERTY_NAME_BOUNDS_Y, 0)),
        ),
        apply_icc=apply_icc,
    )


def find_resolution(row: SlideRow, properties: Mapping[str, str], mpp_from_objective: float | None) -> Resolution:
    """µm/px from the sheet, else from the file, else (if allowed) from the objective power.

    Raises
    ------
    SlideError
        If none of them gives it.
    """
    power = _positive(properties, openslide.PROPERTY_NAME_OBJECTIVE_POWER)
    mpp_xy = _file_mpp(properties)
    of_screen = mpp_xy is not None and max(mpp_xy) > LARGEST_MPP
    if row.mpp:
        return Resolution(row.mpp, SHEET, power)
    if mpp_xy and not of_screen and max(mpp_xy) / min(mpp_xy) <= LARGEST_USABLE_ASPECT:
        return Resolution(sum(mpp_xy) / 2, "file", power)
    if power and mpp_from_objective:
        return Resolution(mpp_from_objective / power, f"objective power {power:g}, assumed", power)
    hint = f"; it names a {power:g}× objective, see slides.mpp_from_objective" if power else ""
    raise SlideError(
        slide=row.slide,
        stage=STAGE,
        finding=_why_no_resolution(mpp_xy, of_screen=of_screen),
        remedy=f"write the scanner's µm/px of level 0 into the column mpp of the slide sheet{hint}",
    )


def _why_no_resolution(mpp_xy: tuple[float, float] | None, *, of_screen: bool) -> str:
    if mpp_xy is None:
        return "the file does not say its resolution (no µm/px)"
    if of_screen:
        dpi = 25_400 / max(mpp_xy)
        said = f"{max(mpp_xy):.4g} µm/px, {dpi:.4g} dpi, is that of a screen or an overview"
        return f"the file does not say its resolution ({said})"
    return f"the file says {mpp_xy[0]:.4g} µm/px along x and {mpp_xy[1]:.4g} along y, which contradict each other"


def _file_mpp(properties: Mapping[str, str]) -> tuple[float, float] | None:
    along_x = _positive(properties, openslide.PROPERTY_NAME_MPP_X)
    along_y = _positive(properties, openslide.PROPERTY_NAME_MPP_Y)
    return (along_x, along_y) if along_x and along_y else None


def _positive(properties: Mapping[str, str], key: str) -> float | None:
    try:
        value = float(properties[key])
    except (KeyError, ValueError):
        return None
    return value if math.isfinite(value) and value > 0 else None


def resolution_flags(resolution: Resolution, properties: Mapping[str, str]) -> list[str]:
    """What is implausible or contradictory about a slide's resolution, in words."""
    mpp, power, along = resolution.mpp, resolution.objective_power, _file_mpp(properties)
    flags = [flag] if (flag := _sheet_flag(resolution, properties)) else []
    if not PLAUSIBLE_MPP[0] <= mpp <= PLAUSIBLE_MPP[1]:
        flags.append(f"{mpp:.4g} µm/px ({resolution.source}) is implausible for level 0 of a slide")
    if along and max(along) / min(along) > LARGEST_ASPECT and resolution.source == "file":
        flags.append(f"µm/px differs between x ({along[0]:.4g}) and y ({along[1]:.4g}); their mean is used")
    if power and not 1 / LARGEST_CONTRADICTION <= mpp * power / MPP_TIMES_POWER <= LARGEST_CONTRADICTION:
        usual = MPP_TIMES_POWER / power
        flags.append(f"{mpp:.4g} µm/px ({resolution.source}) contradicts its {power:g}× objective (about {usual:.3g})")
    return flags


def _sheet_flag(resolution: Resolution, properties: Mapping[str, str]) -> str | None:
    """How the sheet's µm/px contradicts the file's own; those of other formats than DICOM may be a printer's."""
    along = _file_mpp(properties)
    if resolution.source != SHEET or not along or max(along) / min(along) > LARGEST_USABLE_ASPECT:
        return None
    own = sum(along) / 2
    times = max(own / resolution.mpp, resolution.mpp / own)
    believable = properties.get(openslide.PROPERTY_NAME_VENDOR) == DICOM or PLAUSIBLE_MPP[0] <= own <= PLAUSIBLE_MPP[1]
    if times <= LARGEST_CONTRADICTION or not believable:
        return None
    power = 2 ** round(math.log2(times))
    hint = f", {power}-fold: it may be that of another level" if abs(times / power - 1) <= NEAR_POWER else ""
    return f"{resolution.mpp:.4g} µm/px (slide sheet) contradicts the file's own {own:.4g}{hint}"


def _check_role(row: SlideRow, resolution: Resolution, settings: InspectionSettings) -> list[str]:
    """Refuse a slide that is too coarse for its split; only flag it if its row allows upsampling."""
    mpp, needed = resolution.mpp, settings.needed_mpp[NEEDED_BY[row.split]]
    if mpp <= needed * (1 + settings.mpp_tolerance):
        return []
    if row.upsample:
        return [f"upsampled {mpp / needed:.3g}-fold, from {mpp:.4g} to {needed:g} µm/px, as its row allows"]
    options = [f"use a scan of {needed:g} µm/px or finer"]
    if mpp <= settings.needed_mpp["inference"] * (1 + settings.mpp_tolerance):
        options.append("give it the split 'inference' or 'test', for which it is fine enough")
    if needed < settings.needed_mpp["first_pass"] and NEEDED_BY[row.split] == "inference":
        options.append("set inference.refine to none, for all slides")
    if not PLAUSIBLE_MPP[0] <= mpp <= PLAUSIBLE_MPP[1]:
        options.append("correct its implausible µm/px in the column mpp of the slide sheet")
    options.append("write upsample: true into its row")
    raise SlideError(
        slide=row.slide,
        stage=STAGE,
        finding=f"{mpp:.4g} µm/px ({resolution.source}) is coarser than the {needed:g} µm/px that the split "
        f"'{row.split}' needs",
        remedy=", or ".join(options),
    )


def check_annotation(row: SlideRow) -> None:
    """Check that the row's annotation file exists.

    Raises
    ------
    SlideError
        If it does not.
    """
    if row.annotation and not Path(row.annotation).is_file():
        raise SlideError(
            slide=row.slide,
            stage=STAGE,
            finding=f"its annotation {row.annotation} does not exist",
            remedy="correct the path in the slide sheet",
        )


def _sampled(info: SlideInfo, settings: InspectionSettings, flags: list[str]) -> list[LevelSample]:
    """Read sample boxes of every level; flag damage, and refuse the slide if a level has too much of it."""
    samples = []
    with Slide(info, STAGE) as slide:
        for level in range(len(info.level_sizes)):
            samples.append(sample_level(slide, level, settings.read_share))
            flags += check_readable(info, level, samples[-1], settings.max_unreadable_fraction, STAGE)
    return samples


def _compared(
    info: SlideInfo, settings: InspectionSettings, samples: Sequence[LevelSample], flags: list[str]
) -> list[dict[str, Any]]:
    """How each level differs from the mean of level 0; flag those that the network reads and that are no average."""
    with Slide(info, STAGE) as slide:
        found = compare_levels(slide, {level: sample.places for level, sample in enumerate(samples) if level})
    flags += pyramid_flags(found, {info.level_for(mpp) for mpp in settings.needed_mpp.values()})
    return pyramid_record(found)
