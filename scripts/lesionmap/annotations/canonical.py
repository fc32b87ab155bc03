"""Convert pathologists' outlines from any supported format to one canonical GeoJSON.

Coordinates are continuous level-0 pixels: pixel i covers [i, i + 1), so its centre is i + 0.5.
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import Polygon, box, mapping
from shapely.geometry.base import BaseGeometry

from lesionmap.annotations.classes import OUTLINED
from lesionmap.annotations.content import AnnotatedOutline, AnnotationFile, refusal
from lesionmap.annotations.corrections import REJECTED, correction_counts, why_unreviewed
from lesionmap.annotations.formats import read_annotation
from lesionmap.annotations.overlaps import PolygonSet, overlapping, union_area, without
from lesionmap.errors import AnnotationError
from lesionmap.files.records import write_json
from lesionmap.slides.slide import SlideInfo

HOLE = "hole"
IDLE_HOLE = "hole that cuts nothing"
PRIORITY = tuple(OUTLINED)  # where outlines overlap, the first wins
FRAME = "level-0 pixels of the slide file, x to the right and y down from its top-left corner"


@dataclass(frozen=True)
class AnnotationSettings:
    """How outlines are mapped to classes, and what to do with invalid ones.

    Parameters
    ----------
    classes : mapping
        Class name in the file, or a pattern with ``*``, ``?``, ``[…]`` → ``lesion``, ``vessel``, ``fat``, ``hole`` (cut
        out of all others), ``ignore`` (neither trained on nor judged) or ``background`` (as if not outlined).
    mask_values : mapping
        Pixel value of a mask, as text → the same classes.
    invalid : str
        ``repair`` or ``refuse`` outlines that are unclosed, cross themselves or have too few points.
    rejected : sequence of str
        Class names of outlines that a person has rejected: background, whatever `classes` says.
    """

    classes: Mapping[str, str]
    mask_values: Mapping[str, str]
    invalid: str
    rejected: Sequence[str] = ("Rejected",)


@dataclass(frozen=True)
class Part:
    """A polygon of one class in level-0 pixels; `name` is the class name in the annotation file."""

    label: str
    name: str
    polygon: Polygon


def import_annotation(
    source: str, info: SlideInfo, output: str, settings: AnnotationSettings, *, mask_mpp: float | None = None
) -> dict[str, int] | None:
    """Write the canonical GeoJSON of one slide's annotation; return the counts of its review.

    Parameters
    ----------
    source : str
        A file that :func:`lesionmap.annotations.formats.read_annotation` reads.
    output : str
        GeoJSON as returned by :func:`canonical`.
    mask_mpp : float, optional
        µm/px of a mask that does not cover the whole slide.

    Raises
    ------
    AnnotationError
        If the file cannot be read, or for the reasons of :func:`canonical`.
    """
    content = canonical(read_annotation(source, info, mask_mpp), info, settings)
    logged = ("classes", "repaired", "ignored", "outside", "review")
    logging.info("%s: %s", info.slide, {key: content[key] for key in logged})
    write_json(output, content)
    review: dict[str, int] | None = content["review"]
    return review


def import_second_annotation(
    source: str, info: SlideInfo, output: str, settings: AnnotationSettings, *, mask_mpp: float | None = None
) -> None:
    """Write the canonical GeoJSON of a second reader's annotation, as :func:`import_annotation`; errors say so."""
    write_json(output, second_content(source, info, settings, mask_mpp))


def second_content(
    source: str, info: SlideInfo, settings: AnnotationSettings, mask_mpp: float | None = None
) -> dict[str, Any]:
    """The canonical form of a second reader's annotation, the sheet's column ``annotation_2``.

    Raises
    ------
    AnnotationError
        If it does not exist, or as for :func:`import_annotation`.
    """
    if not Path(source).is_file():
        raise refusal(info.slide, f"annotation_2: {source} does not exist", "correct the path in the slide sheet")
    try:
        return canonical(read_annotation(source, info, mask_mpp), info, settings)
    except AnnotationError as error:
        raise refusal(info.slide, f"annotation_2: {error.finding}", error.remedy) from error


def canonical(content: AnnotationFile, info: SlideInfo, settings: AnnotationSettings) -> dict[str, Any]:
    """Convert the outlines of one file to the canonical GeoJSON.

    Returns
    -------
    dict
        A FeatureCollection in level-0 pixels. Each feature's ``properties`` have ``class`` (ignore, lesion, vessel or
        fat), ``name`` (the class name in the file) and ``area_mm2``. No two classes overlap. Besides the features:
        ``frame``, ``source``, ``classes`` (polygons and mm² of each), ``repaired`` and ``ignored`` (counts by kind; the
        latter of dots, rulers and the like, not of outlines of the class ignore), ``outside`` (polygons that reached
        beyond the slide, and the mm² that were cut off), and ``review`` (counts of
        :func:`lesionmap.annotations.corrections.correction_counts`).

    Raises
    ------
    AnnotationError
        If a class is not mapped, all outlines lie outside the slide, outlines are invalid and `settings.invalid` is
        ``refuse``, or the lesions are this workflow's own, which nobody has reviewed.
    """
    mm2 = (info.mpp / 1000) ** 2
    outlines, repaired = _valid(content, info.slide, settings.invalid)
    labels = _labels(outlines, settings, info.slide, is_mask=content.mask_scale is not None)
    review = correction_counts(outlines, labels)
    if why := why_unreviewed(outlines, labels, review):
        raise refusal(info.slide, *why)
    ignored = content.ignored.copy()
    parts, outside = _within_slide(_cut_holes(outlines, labels, ignored), info)
    parts = _by_priority(parts)
    return {
        "type": "FeatureCollection",
        "slide": info.slide,
        "frame": FRAME,
        "source": {"format": content.format, "level_0_px_per_mask_px": content.mask_scale},
        "classes": {label: _summary([part for part in parts if part.label == label], mm2) for label in PRIORITY},
        "repaired": dict(sorted(repaired.items())),
        "ignored": dict(sorted((+ignored).items())),
        "outside": {"polygons": len(outside), "area_mm2": round(sum(outside) * mm2, 6)},
        "review": review,
        "features": [_feature(part, mm2) for part in parts],
    }


def _summary(parts: Sequence[Part], mm2: float) -> dict[str, Any]:
    area_px = union_area([part.polygon for part in parts])
    return {"polygons": len(parts), "area_mm2": round(area_px * mm2, 6)}


def _feature(part: Part, mm2: float) -> dict[str, Any]:
    properties = {"class": part.label, "name": part.name, "area_mm2": round(part.polygon.area * mm2, 6)}
    return {"type": "Feature", "properties": properties, "geometry": mapping(part.polygon)}


def _valid(content: AnnotationFile, slide: str, policy: str) -> tuple[list[AnnotatedOutline], Counter[str]]:
    """Make all outlines valid and count the repairs; if `policy` is ``refuse``, any repair is an error."""
    repaired = content.repaired.copy()
    outlines = []
    for outline in content.outlines:
        geometry = outline.geometry
        if not geometry.is_valid:
            geometry = shapely.make_valid(geometry, method="structure", keep_collapsed=False)
            repaired["self-crossing" if geometry.area else "without area, dropped"] += 1
        outlines.append(replace(outline, geometry=geometry))
    if repaired and policy == "refuse":
        listed = ", ".join(f"{count} {kind}" for kind, count in sorted(repaired.items()))
        remedy = "correct the outlines in the program that made them, or set annotations.invalid to repair"
        raise refusal(slide, f"invalid outlines: {listed}", remedy)
    return outlines, repaired


def _labels(
    outlines: Sequence[AnnotatedOutline], settings: AnnotationSettings, slide: str, *, is_mask: bool
) -> dict[str, str]:
    """Map each class name in the file to its class, or to ``rejected``."""
    counts = Counter(outline.name for outline in outlines)
    first, names = ({}, settings.mask_values) if is_mask else (settings.rejected, settings.classes)
    labels = {name: meaning(name, dict.fromkeys(first, REJECTED)) or meaning(name, names) for name in counts}
    unknown = sorted(name for name, label in labels.items() if label is None)
    if unknown:
        found = ", ".join(f"'{name}' ({count})" for name, count in sorted(counts.items()))
        raise refusal(
            slide,
            f"classes that the config does not map: {', '.join(map(repr, unknown))}; the file has {found}",
            "map each under annotations.classes (annotations.mask_values for a mask) to lesion, vessel, fat, hole, "
            "ignore (not to be judged) or background (of no meaning here)",
        )
    return {name: label for name, label in labels.items() if label}


def meaning(name: str, names: Mapping[str, str]) -> str | None:
    """Class that a name is mapped to: by its own entry, else by the first pattern that fits, else by its parent class.

    QuPath writes derived classes as ``Tumor: invasive``; here ``Tumor`` is the parent. None if nothing fits.
    """
    if name in names:
        return names[name]
    for pattern, label in names.items():
        if fnmatchcase(name, pattern):
            return label
    base, colon, _ = name.rpartition(": ")
    return meaning(base, names) if colon else None


def _cut_holes(outlines: Sequence[AnnotatedOutline], labels: Mapping[str, str], ignored: Counter[str]) -> list[Part]:
    """Polygons of the classes in `PRIORITY` with the holes cut out; holes that cut nothing are counted in `ignored`.

    Outlines with `cuts` are cut out of the outlines of their own name, those mapped to ``hole`` out of all.
    """
    areas: dict[str, list[Polygon]] = {name: [] for name in labels}
    cuts: dict[str, list[Polygon]] = {name: [] for name in labels}
    for outline in outlines:
        (cuts if outline.cuts else areas)[outline.name] += _polygons(outline.geometry)
    of_holes = [name for name, label in labels.items() if label == HOLE]
    own_cuts = [cut for name in of_holes for cut in cuts[name]]
    everywhere, unused = _without_holes([hole for name in of_holes for hole in areas[name]], own_cuts)
    ignored[IDLE_HOLE] += int(unused.sum())
    shown = [name for name, label in labels.items() if label in PRIORITY]
    nested = _lie_in_any(everywhere, [area for name in shown for area in areas[name]])
    idle = np.ones(len(everywhere), dtype=bool)
    parts = []
    for name in shown:
        own = len(cuts[name])
        with_islands = np.concatenate([np.ones(own, dtype=bool), nested])
        rest, unused = _without_holes(areas[name], [*cuts[name], *everywhere], with_islands)
        parts += [Part(labels[name], name, polygon) for polygon in rest]
        ignored[IDLE_HOLE] += int(unused[:own].sum())
        idle &= unused[own:]
    ignored[IDLE_HOLE] += int(idle.sum())
    return parts


def _lie_in_any(holes: Sequence[Polygon], areas: Sequence[Polygon]) -> NDArray[np.bool_]:
    """Which holes lie wholly in an area; others are drawn across or around areas."""
    nested = np.zeros(len(holes), dtype=bool)
    nested[shapely.STRtree(holes).query(PolygonSet(areas).polygons, predicate="covers")[1]] = True
    return nested


def _without_holes(
    areas: Sequence[Polygon], holes: Sequence[Polygon], with_islands: NDArray[np.bool_] | bool = True
) -> tuple[list[Polygon], NDArray[np.bool_]]:
    """Areas minus holes, and which holes cut nothing.

    An area that lies wholly in a hole is an island and stays, if the hole may have islands. So areas and holes that lie
    in each other alternate, to any depth and whatever their order in the file.
    """
    first, second = PolygonSet(areas), PolygonSet(holes)
    i, j = overlapping(first, second)
    island = shapely.covers(second.polygons[j], first.polygons[i]) & (second.area[j] > first.area[i])
    cut = ~(island & np.broadcast_to(with_islands, len(holes))[j])
    rest = without(first, second, (i[cut], j[cut]))
    return [part for area in rest for part in _polygons(area)], ~np.isin(np.arange(len(holes)), j[cut])


def _polygons(geometry: BaseGeometry) -> list[Polygon]:
    return [part for part in shapely.get_parts(geometry) if isinstance(part, Polygon) and part.area > 0]


def _within_slide(parts: list[Part], info: SlideInfo) -> tuple[list[Part], list[float]]:
    """Clip parts to the slide; also return the areas cut off (level-0 pixels), one per part that reached beyond it.

    Raises
    ------
    AnnotationError
        If nothing is left: the file belongs to another slide or uses other coordinates.
    """
    slide = box(0, 0, *info.size_lv0)
    clipped, outside = [], []
    for part in parts:
        if slide.covers(part.polygon):
            clipped.append(part)
            continue
        inside = part.polygon.intersection(slide)
        outside.append(part.polygon.area - inside.area)
        clipped += [Part(part.label, part.name, polygon) for polygon in _polygons(inside)]
    if parts and not clipped:
        left, top, right, bottom = shapely.total_bounds([part.polygon for part in parts])
        raise refusal(
            info.slide,
            f"all outlines (x {left:.0f} to {right:.0f}, y {top:.0f} to {bottom:.0f}) lie outside the slide of "
            f"{info.size_lv0[0]}×{info.size_lv0[1]} px",
            "check that the annotation belongs to this slide and is in level-0 pixels",
        )
    if outside:
        logging.warning("%s: %d outlines reach beyond the slide; those parts are cut off", info.slide, len(outside))
    return clipped, outside


def _by_priority(parts: Sequence[Part]) -> list[Part]:
    """Cut from each part what a class of higher priority covers; highest priority first."""
    resolved: list[Part] = []
    higher: list[Polygon] = []
    for label in PRIORITY:
        members = [part for part in parts if part.label == label]
        first, second = PolygonSet([part.polygon for part in members]), PolygonSet(higher)
        rest = without(first, second, overlapping(first, second))
        resolved += [
            Part(label, part.name, polygon)
            for part, geometry in zip(members, rest, strict=True)
            for polygon in _polygons(geometry)
        ]
        higher += [part.polygon for part in members]
    return resolved
