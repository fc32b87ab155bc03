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
from lesionmap.jobs.quarantine import as_record
from lesionmap.servers.urls import why_unavailable
from lesionmap.slides.cache import IN_PLACE, CacheSettings, cached_file
from lesionmap.slides.file_checks import cannot_be_read, content_digest, kept_levels, tiff_damage, why_unopened
from lesionmap.slides.illumination import check_illumination
from lesionmap.slides.pyramid import compare_levels, pyramid_flags, pyramid_record
from lesionmap.slides.reader_selection import choose_reader
from lesionmap.slides.sampling import LevelSample, check_readable, sample_level, sum_tones
from lesionmap.slides.sheet import SlideRow
from lesionmap.slides.slide import Handle, Slide, SlideInfo, open_slide, srgb_transform

STAGE = "inspect_slide"
NEEDED_BY = {"train": "tiles", "val": "tiles", "test": "inference", "inference": "inference"}
PLAUSIBLE_MPP = (0.1, 2.0)  # µm/px of level 0: finer than any objective resolves, coarser than any slide scanner
LARGEST_MPP = 20.0  # µm/px: what is coarser is the resolution of a screen or printer (72 dpi are 353 µm/px)
# Ratio of µm/px along x and y: flagged above the first, not used above the second.
LARGEST_ASPECT, LARGEST_USABLE_ASPECT = 1.05, 1.5
LARGEST_SIDE_PX = 2**20  # of a level: twice the side of the largest slides
LARGEST_TILE_PX = 2**28  # OpenSlide decodes whole tiles, here to 1 GiB
LARGEST_DISTORTION = 0.1  # a level's aspect ratio relative to level 0's, beyond rounding
LARGEST_CONTRADICTION = 1.2  # factor by which µm/px and objective power may disagree
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


def inspect_slide(
    row: SlideRow,
    output: str,
    settings: InspectionSettings,
    copies: CacheSettings = IN_PLACE,
    present: bool | str = True,
) -> None:
    """Write the record of one slide: what it is, or why it is in quarantine.

    Parameters
    ----------
    output : str
        Path of a JSON file with ``slide``, ``split``, ``verdict``. If that is ``ok``: also ``flags`` (what is odd about
        the slide), ``resolution``, ``icc_profile``, ``pyramid`` (a
        :class:`lesionmap.slides.pyramid.LevelDifference` of each coarser level), ``reader`` and ``info``. If
        ``quarantined``: also ``stage``, ``finding`` and ``remedy``.
    present : bool or str
        Whether the file existed when the run was planned; for a remote file, its state from
        :func:`lesionmap.servers.remote.states`.
    """
    try:
        _check_present(row, present)
        with cached_file(row.path, copies) as path:
            record = {"verdict": "ok"} | _inspected(replace(row, path=path), settings)
        record["info"]["path"] = row.path
    except SlideError as error:
        record = {"verdict": "quarantined"} | as_record(error)
    write_json(output, {"slide": row.slide, "split": row.split} | record)


def _inspected(row: SlideRow, settings: InspectionSettings) -> dict[str, Any]:
    findings = examine(row, settings)
    info = replace(findings["info"], identity=digest_of(row, content_digest))
    samples = _sampled(info, settings, findings["flags"])
    check_illumination(sum_tones(samples), row.slide, STAGE)
    choice = choose_reader(info, settings.reader, STAGE)
    info = replace(info, reader=choice.reader)
    pyramid = _compared(info, settings, samples, findings["flags"])
    said = {"resolution": vars(findings["resolution"]), "pyramid": pyramid, "reader": vars(choice), "info": vars(info)}
    return findings | said


def _check_present(row: SlideRow, present: bool | str) -> None:
    if isinstance(present, str) and (why := why_unavailable(present)):
        remedy = "correct its path in the slide sheet, or have access granted"
        raise SlideError(slide=row.slide, stage=STAGE, finding=why, remedy=remedy)


def digest_of(row: SlideRow, digest: Callable[[str], str]) -> str:
    """A digest of the slide's files.

    Raises
    ------
    SlideError
        If the operating system does not let us read them.
    """
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
        ``flags``, ``resolution`` (a :class:`Resolution`), ``icc_profile``, ``info`` (a
        :class:`lesionmap.slides.slide.SlideInfo` without identity).

    Raises
    ------
    SlideError
        If the slide cannot be used.
    """
    with _opened(row) as handle:
        _check_whole(row)
        check_annotation(row)
        flags = _check_levels(row, handle)
        properties = handle.properties
        resolution = find_resolution(row, properties, settings.mpp_from_objective)
        flags += [*resolution_flags(resolution, properties), *_check_role(row, resolution, settings)]
        info = describe(row, handle, resolution.mpp, apply_icc=settings.apply_icc)
        profile = _colour_profile(row, handle, flags, apply_icc=settings.apply_icc)
    return {"flags": flags, "resolution": resolution, "icc_profile": profile, "info": info}


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


def describe(row: SlideRow, handle: Handle, mpp: float, *, apply_icc: bool = False) -> SlideInfo:
    """The metadata needed to read the slide; `identity` stays empty, as it takes reading the whole file."""
    properties, size = handle.properties, handle.dimensions
    levels = zip(handle.level_dimensions, handle.level_downsamples, strict=True)
    return SlideInfo(
        slide=row.slide,
        path=row.path,
        identity="",
        vendor=properties.get(openslide.PROPERTY_NAME_VENDOR, "unknown"),
        size_lv0=size,
        mpp=mpp,
        downsamples=tuple(_true_downsample(size, level, factor) for level, factor in levels),
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
        return Resolution(row.mpp, "slide sheet", power)
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
        return f"the file does not say its resolution ({max(mpp_xy):.4g} µm/px, {dpi:.3g} dpi, is that of a screen)"
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
    flags = []
    if not PLAUSIBLE_MPP[0] <= mpp <= PLAUSIBLE_MPP[1]:
        flags.append(f"{mpp:.4g} µm/px ({resolution.source}) is implausible for level 0 of a slide")
    if along and max(along) / min(along) > LARGEST_ASPECT and resolution.source == "file":
        flags.append(f"µm/px differs between x ({along[0]:.4g}) and y ({along[1]:.4g}); their mean is used")
    if power and not 1 / LARGEST_CONTRADICTION <= mpp * power / MPP_TIMES_POWER <= LARGEST_CONTRADICTION:
        usual = MPP_TIMES_POWER / power
        flags.append(f"{mpp:.4g} µm/px ({resolution.source}) contradicts its {power:g}× objective (about {usual:.3g})")
    return flags


def _true_downsample(size_lv0: tuple[int, int], size: tuple[int, int], reported: float) -> float:
    # Sizes of levels are rounded to whole pixels, and OpenSlide's factor contains that rounding error. The pyramid was
    # made with a whole factor, so take that one if it explains the sizes.
    whole = round(reported)
    ratios = [(full / whole, part) for full, part in zip(size_lv0, size, strict=True)]
    rounded = all(math.floor(exact) <= part <= math.ceil(exact) for exact, part in ratios)
    return float(whole) if rounded else float(reported)


def _check_whole(row: SlideRow) -> None:
    if damage := tiff_damage(row.path):
        finding, remedy = damage
        raise SlideError(slide=row.slide, stage=STAGE, finding=finding, remedy=remedy)


def _check_levels(row: SlideRow, handle: Handle) -> list[str]:
    """Refuse sizes that only a damaged file has; reading it could use up the memory, or misplace results."""
    flags = []
    for level, size in enumerate(handle.level_dimensions):
        said = f"level {level} of {size[0]}×{size[1]} px"
        if max(size) > LARGEST_SIDE_PX:
            raise _damaged(row, f"{said} is larger than any slide")
        if _tile_px(handle, level) > LARGEST_TILE_PX:
            raise _damaged(row, f"{said} has tiles of {_tile_px(handle, level):.3g} px")
        distortion = _distortion(handle.dimensions, size)
        if distortion > LARGEST_DISTORTION:
            misfit = "has other proportions than level 0 of {}×{} px".format(*handle.dimensions)
            raise _damaged(row, f"{said} {misfit}, or is a label that is marked as a level", kept_levels(row.path))
        if distortion > 0:
            flags.append(f"{said} is not in proportion to level 0: {distortion:.1%} off")
    return flags


def _damaged(row: SlideRow, finding: str, other_remedy: str = "") -> SlideError:
    remedy = "copy it again from the scanner or archive, or, if the original is the same, export it anew" + other_remedy
    return SlideError(slide=row.slide, stage=STAGE, finding=f"{row.path} is damaged: {finding}", remedy=remedy)


def _distortion(size_lv0: tuple[int, int], size: tuple[int, int]) -> float:
    """By how much the downsample factors along x and y differ, beyond the rounding of sizes to whole pixels."""
    along_x, along_y = (full / part for full, part in zip(size_lv0, size, strict=True))
    return max(0.0, max(along_x, along_y) / min(along_x, along_y) - 1 - 2 / min(size))


def _tile_px(handle: Handle, level: int) -> int:
    width, height = (
        int(handle.properties.get(f"openslide.level[{level}].tile-{side}", 0)) for side in ("width", "height")
    )
    return width * height


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
