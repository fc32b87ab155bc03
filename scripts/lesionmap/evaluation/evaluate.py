"""Compare one slide's lesion map with its annotation (docs/metrics.md)."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesionmap.annotations.classes import IGNORE, LESION, judged
from lesionmap.annotations.masks import Annotation, Outlines
from lesionmap.evaluation.second_reader import Mask, ReaderTally
from lesionmap.files.records import write_json
from lesionmap.maps.map_file import MapFile
from lesionmap.maps.on_disk import strips
from lesionmap.maps.probability import Scores
from lesionmap.metrics.boundaries import BOUNDARY_METRICS, BoundaryTracer, boundary_metrics
from lesionmap.metrics.lesions import AnnotatedLesions, DetectionFinder
from lesionmap.metrics.pixels import PIXEL_METRICS, Histograms, binary_metrics
from lesionmap.metrics.verdicts import LesionMatcher
from lesionmap.slides.slide import SlideInfo
from lesionmap.tissue.mask import TissueMask

ROWS_AT_ONCE = 256


@dataclass(frozen=True)
class EvaluatedFiles:
    """Paths of what is compared: scores and lesions on one grid, the tissue mask, and the canonical annotations.

    Parameters
    ----------
    second : str or None
        The annotation of a second reader, if there is one.
    """

    scores: str
    lesions: str
    tissue: str
    annotation: str
    second: str | None = None


@dataclass(frozen=True)
class Role:
    """Split and patient of a slide; a slide without patient counts as a patient of its own."""

    split: str
    patient: str | None


@dataclass(frozen=True)
class MapStrip:
    """Some rows of a slide; (rows, W) each.

    Parameters
    ----------
    scores : uint16
        Of :mod:`lesionmap.maps.probability`.
    predicted, tissue, unreadable : bool
        Predicted lesion, tissue, and what of the slide cannot be read.
    classes : sequence of uint8
        Classes of the annotation, and of that of a second reader if there is one.
    numbers : int32
        Numbers of annotated lesions, 0 outside.
    """

    scores: Scores
    predicted: Mask
    tissue: Mask
    unreadable: Mask
    classes: Sequence[NDArray[np.uint8]]
    numbers: NDArray[np.int32]

    @cached_property
    def mask(self) -> NDArray[np.uint8]:
        """Classes of the annotation; 255 where not evaluated."""
        return np.where(self.unreadable, np.uint8(IGNORE), judged(self.classes[0], self.tissue))

    @cached_property
    def ignored(self) -> Mask:
        """Where nothing is evaluated because the annotation says so."""
        return np.asarray((self.classes[0] == IGNORE) & ~self.unreadable)


class SlideTally:
    """Counts of a slide, added up strip by strip from its top.

    Parameters
    ----------
    n_lesions : int
        Number of annotated lesions.
    width : int
        Of the map, in pixels.
    """

    def __init__(self, n_lesions: int, width: int) -> None:
        self.histograms, self.finder, self.matcher = Histograms.empty(), DetectionFinder(), LesionMatcher(n_lesions)
        self.boundaries = BoundaryTracer(width), BoundaryTracer(width)  # of predicted and of annotated lesion
        self.predicted_pixels, self.ignored_pixels, self.highest, self._n = 0, 0, 0, n_lesions
        self.pixels, self.predicted, self.peak = np.zeros((3, n_lesions), dtype=np.int64)

    def add(self, strip: MapStrip) -> None:
        """Count the next strip; pixels that are 255 in its mask are left out."""
        predicted, annotated = strip.predicted & (strip.mask != IGNORE), strip.mask == LESION
        self.histograms += Histograms.of(strip.scores, strip.mask)
        self.highest = max(self.highest, int(strip.scores[strip.mask != IGNORE].max(initial=0)))
        self.finder.add(predicted | (strip.predicted & strip.ignored), strip.scores, strip.numbers, strip.ignored)
        self.matcher.add(strip.predicted, np.where(annotated, strip.numbers, 0), strip.ignored)
        for tracer, lesion in zip(self.boundaries, (predicted, annotated), strict=True):
            tracer.add(lesion, strip.ignored | strip.unreadable)
        self.predicted_pixels += int(np.count_nonzero(predicted))
        self.ignored_pixels += int(np.count_nonzero(strip.ignored))
        number = strip.numbers[annotated] - 1
        self.pixels += np.bincount(number, minlength=self._n)
        self.predicted += np.bincount(number[predicted[annotated]], minlength=self._n)
        np.maximum.at(self.peak, number, strip.scores[annotated])

    def record(self, lesions: AnnotatedLesions, pixel_mm2: float) -> dict[str, Any]:
        """Areas, lesions and detections: what cohort metrics need from the slide."""
        found = self.finder.found()
        best: list[int | None] = [score if score >= 0 else None for score in found.best_scores(self._n).tolist()]
        columns = {
            "area_mm2": lesions.area_mm2.round(8).tolist(),
            "extent_um": lesions.extent_um.round(3).tolist(),
            "pixels": self.pixels.tolist(),
            "predicted_pixels": self.predicted.tolist(),
            "peak_score": self.peak.tolist(),
            "detection_score": best,
        }
        return {
            "annotated_mm2": round(int(self.histograms.counts[LESION].sum()) * pixel_mm2, 9),
            "predicted_mm2": round(self.predicted_pixels * pixel_mm2, 9),
            "ignored_mm2": round(self.ignored_pixels * pixel_mm2, 9),
            "lesions": [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)],
            "verdicts": self.matcher.verdicts().counts(),
            "false_positive_scores": found.false_positive_scores.tolist(),
            "highest_score": self.highest,
            "histograms": self.histograms.record(),
        }


def evaluate_slide(
    info: SlideInfo,
    files: EvaluatedFiles,
    output: str,
    *,
    role: Role,
    tolerance_um: float,
    provenance: dict[str, Any],
) -> None:
    """Compare one slide's maps with its annotation, inside tissue, at the maps' resolution, strip by strip.

    The threshold is the one that the lesion map was made with.
    Annotated pixels count even where tissue detection missed them. Unreadable pixels, and those of the class ignore, do
    not count.

    Parameters
    ----------
    output : str
        JSON: metrics of pixels and boundaries, why some are undefined, areas, lesions, the counts that they come from,
        and the agreement with a second reader, or None.
    tolerance_um : float
        Boundaries that are no farther apart agree, µm.
    """
    readers = [Annotation(path) for path in (files.annotation, files.second) if path]
    lesions = AnnotatedLesions.of(readers[0].lesions, info.mpp)
    with MapFile(files.scores) as scores, MapFile(files.lesions) as predicted:
        mpp, width, threshold = scores.mpp, scores.shape[1], float(predicted.metadata["threshold"])
        tally, of_readers = SlideTally(len(lesions.area_mm2), width), ReaderTally(width)
        for strip in _strips(info, (scores, predicted), TissueMask(files.tissue, info), readers, lesions.reaches):
            tally.add(strip)
            if files.second:
                of_readers.add(strip.predicted, strip.classes, strip.tissue, strip.unreadable)
    metrics, counts = binary_metrics(tally.histograms, threshold), tally.histograms.counts
    boundaries = boundary_metrics([tracer.found() for tracer in tally.boundaries], mpp, tolerance_um)
    undefined = {metric.name: metric.why_undefined(counts) for metric in PIXEL_METRICS if metrics[metric.name] is None}
    content = {
        "slide": info.slide,
        **asdict(role),
        "threshold": threshold,
        "metrics": metrics,
        "undefined": undefined | boundaries["undefined"],
        "boundary": {"tolerance_um": tolerance_um} | {name: boundaries[name] for name in BOUNDARY_METRICS},
        **tally.record(lesions, mpp**2 / 1e6),
        "readers": of_readers.record(mpp, tolerance_um) if files.second else None,
        "provenance": provenance,
    }
    write_json(output, content)


def _strips(
    info: SlideInfo, maps: tuple[MapFile, MapFile], tissue: TissueMask, readers: Sequence[Annotation], reaches: Outlines
) -> Iterator[MapStrip]:
    """Rows of the maps of scores and of lesions, with what they are compared with."""
    scores, lesions = maps
    scale, (height, width) = scores.mpp / info.mpp, scores.shape
    for part in strips(height, ROWS_AT_ONCE):
        place = (0, part.start * scale), (width, part.stop - part.start), scale
        unreadable = scores.unreadable(part, info.mpp)
        classes = [reader.mask(*place) for reader in readers]
        numbers = reaches.rasterised(*place, "int32")
        yield MapStrip(scores[part], lesions[part] > 0, tissue.at(*place), unreadable, classes, numbers)
