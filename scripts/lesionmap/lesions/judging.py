"""Compare a slide's predicted lesions with its annotated ones: a verdict on each."""

from typing import Any

import numpy as np

from lesionmap.annotations.classes import IGNORE, LESION
from lesionmap.annotations.masks import Annotation
from lesionmap.maps.map_file import MapFile
from lesionmap.maps.on_disk import strips
from lesionmap.metrics.lesions import AnnotatedLesions
from lesionmap.metrics.verdicts import LesionMatcher, Verdicts
from lesionmap.slides.slide import SlideInfo

ROWS_AT_ONCE = 256


def judge_lesions(lesions_map: str, annotation: str, info: SlideInfo) -> tuple[Verdicts, list[dict[str, Any]]]:
    """Match the lesions of a map with those of an annotation.

    Parameters
    ----------
    lesions_map : str
        Map of predicted lesions.
    annotation : str
        Canonical annotation.

    Returns
    -------
    verdicts : Verdicts
    annotated : list of dict
        The annotated lesions in the order of their numbers: ``lesion`` (from 1), ``found`` (None if no pixel of it is
        judged), ``outlines`` (their number), ``area_mm2`` and ``centroid_xy_lv0`` (level-0 pixels of the file).
    """
    truth = Annotation(annotation)
    lesions = AnnotatedLesions.of(truth.lesions, info.mpp)
    matcher = LesionMatcher(len(lesions.area_mm2))
    with MapFile(lesions_map) as mapped:
        (height, width), scale = mapped.shape, mapped.mpp / info.mpp
        for part in strips(height, ROWS_AT_ONCE):
            place = (0, part.start * scale), (width, part.stop - part.start), scale
            classes, readable = truth.mask(*place), ~mapped.unreadable(part, info.mpp)
            numbers = np.where((classes == LESION) & readable, lesions.reaches.rasterised(*place, "int32"), 0)
            matcher.add(mapped[part] > 0, numbers, (classes == IGNORE) & readable)
    verdicts = matcher.verdicts()
    return verdicts, [_annotated(lesions, verdicts, index) for index in range(len(lesions.area_mm2))]


def _annotated(lesions: AnnotatedLesions, verdicts: Verdicts, index: int) -> dict[str, Any]:
    return {
        "lesion": index + 1,
        "found": bool(verdicts.found[index]) if verdicts.judged[index] else None,
        "outlines": int((lesions.members == index + 1).sum()),
        "area_mm2": round(float(lesions.area_mm2[index]), 8),
        "centroid_xy_lv0": lesions.centroid_xy_lv0[index].round(2).tolist(),
    }
