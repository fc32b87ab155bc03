"""Outlines of a slide's lesions and other annotated classes, as the viewer shows them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import shapely
from shapely.geometry import mapping, shape
from shapely.geometry.base import BaseGeometry

from lesionmap.annotations.classes import OUTLINED
from lesionmap.files.records import read_json
from lesionmap.jobs.quarantine import quarantined
from lesionmap.metrics.lesions import AnnotatedLesions
from lesionmap.metrics.verdicts import FALSE
from lesionmap.slides.slide import SlideInfo

LESION = "lesion"
MOST_OUTLINES, MOST_POINTS = 5000, 500_000  # per class; with more, the browser is busy for half a second per zoom


@dataclass(frozen=True)
class ViewOutline:
    """A polygon in level-0 pixels.

    Parameters
    ----------
    name : str
        A lesion's name, or the class of an annotation as its file names it.
    facts : dict
        What else the viewer is told: ``verdict`` of a predicted lesion; ``lesion``, the number of an annotated one, and
        whether it is ``found`` (None if it is not judged).
    """

    name: str
    polygon: BaseGeometry
    area: float
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def rings(self) -> list[list[int]]:
        """Edge and holes, each as x, y, x, y, …; the first point is not repeated at the end."""
        rings = mapping(self.polygon)["coordinates"]
        return [np.rint(ring[:-1]).astype(int).ravel().tolist() for ring in rings]

    @property
    def is_error(self) -> bool:
        """Whether it is a false lesion or a missed one."""
        return self.facts.get("verdict") == FALSE or self.facts.get("found") is False


def predicted_outlines(features: Sequence[dict[str, Any]], info: SlideInfo) -> list[ViewOutline]:
    """A map's lesions, largest first, as in the report; the file's coordinates are relative to the bounds' corner."""
    corner = np.array(info.bounds_xy_lv0)
    ordered = sorted(features, key=lambda feature: feature["properties"]["measurements"]["Area mm^2"], reverse=True)
    polygons = [shapely.transform(shape(feature["geometry"]), lambda xy: xy + corner) for feature in ordered]
    return [
        ViewOutline(properties["name"], polygon, polygon.area, _verdict(properties))
        for properties, polygon in zip((feature["properties"] for feature in ordered), polygons, strict=True)
    ]


def _verdict(properties: dict[str, Any]) -> dict[str, Any]:
    return {"verdict": properties["verdict"]} if "verdict" in properties else {}


def annotated_outlines(
    path: str | None, lesions: Sequence[dict[str, Any]], info: SlideInfo
) -> dict[str, list[ViewOutline]]:
    """The annotation's outlines by class, largest first.

    Parameters
    ----------
    path : str, optional
        Canonical annotation; one that is in quarantine has no outlines.
    lesions : sequence of dict
        The annotated lesions of :func:`lesionmap.lesions.judging.judge_lesions`.
    """
    if path is None or quarantined(path):
        return {}
    found: dict[str, list[ViewOutline]] = {name: [] for name in reversed(OUTLINED)}
    for feature in read_json(path)["features"]:
        polygon = shape(feature["geometry"])
        found[feature["properties"]["class"]].append(ViewOutline(feature["properties"]["name"], polygon, polygon.area))
    if lesions:
        found[LESION] = _numbered(found[LESION], {lesion["lesion"]: lesion["found"] for lesion in lesions}, info)
    return {name: sorted(some, key=lambda outline: outline.area, reverse=True) for name, some in found.items() if some}


def _numbered(outlines: list[ViewOutline], found: dict[int, bool | None], info: SlideInfo) -> list[ViewOutline]:
    """Annotated outlines with the number of their lesion and whether it is found."""
    members = AnnotatedLesions.of([outline.polygon for outline in outlines], info.mpp).members.tolist()
    return [
        ViewOutline(outline.name, outline.polygon, outline.area, {"lesion": number, "found": found[number]})
        for outline, number in zip(outlines, members, strict=True)
    ]


def shown(outlines: Sequence[ViewOutline]) -> list[dict[str, Any]]:
    """The first outlines, at least one and not too many, as the viewer shows them."""
    points = np.cumsum([shapely.get_num_coordinates(outline.polygon) for outline in outlines])
    most = min(MOST_OUTLINES, max(1, int(np.searchsorted(points, MOST_POINTS, side="right"))))
    return [{"name": outline.name, "rings": outline.rings, **outline.facts} for outline in outlines[:most]]


def predicted_view(outlines: Sequence[ViewOutline], info: SlideInfo) -> dict[str, Any]:
    """Number, outlines and, where there is an annotation, false lesions: all of them, largest first."""
    verdicts = [outline.facts["verdict"] for outline in outlines if "verdict" in outline.facts]
    return {
        "n": len(outlines),
        "verdicts": {name: verdicts.count(name) for name in sorted(set(verdicts))},
        "false": [_place(outline, info) for outline in outlines if outline.is_error],
        "outlines": shown(outlines),
    }


def _place(outline: ViewOutline, info: SlideInfo) -> dict[str, Any]:
    centroid = outline.polygon.centroid
    area_mm2 = round(outline.area * info.mpp**2 / 1e6, 8)
    return {"name": outline.name, "area_mm2": area_mm2, "centre": [round(centroid.x, 1), round(centroid.y, 1)]}


def class_view(name: str, outlines: Sequence[ViewOutline], info: SlideInfo) -> dict[str, Any]:
    """Names, number, area and outlines of an annotated class."""
    return {
        "class": name,
        "names": sorted({outline.name for outline in outlines}),
        "n": len(outlines),
        "area_mm2": round(shapely.union_all([outline.polygon for outline in outlines]).area * info.mpp**2 / 1e6, 6),
        "outlines": shown(outlines),
    }
