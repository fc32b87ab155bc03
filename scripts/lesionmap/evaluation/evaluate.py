"""Compare one slide's lesion map with its annotation (docs/metrics.md)."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesionmap.annotations.classes import IGNORE, LESION, judged
from lesionmap.annotations.masks import Annotation
from lesionmap.files.records import write_json
from lesionmap.maps.map_file import MapFile
from lesionmap.maps.on_disk import strips
from lesionmap.maps.probability import Scores
from lesionmap.metrics.lesions import AnnotatedLesions, DetectionFinder
from lesionmap.metrics.pixels import PIXEL_METRICS, Histograms, binary_metrics
from lesionmap.slides.slide import SlideInfo
from lesionmap.tissue.mask import TissueMask

ROWS_AT_ONCE = 256


@dataclass(frozen=True)
class EvaluatedFiles:
    """Paths of what is compared: scores and lesions on one grid, the tissue mask, and the canonical annotation."""

    scores: str
    lesions: str
    tissue: str
    annotation: str


@dataclass(frozen=True)
class Role:
    """Split and patient of a slide; a slide without patient counts as a patient of its own."""

    split: str
    patient: str | None


@dataclass(frozen=True)
class MapStrip:
    """Some rows of a slide.

    Parameters
    ----------
    scores, predicted : (rows, W)
        Scores (:mod:`lesionmap.maps.probability`), and predicted lesion.
    mask : (rows, W) uint8
        Classes; 255 where not evaluated.
    numbers : (rows, W) int32
        Numbers of annotated lesions, 0 outside.
    ignored : (rows, W) bool
        Where nothing is evaluated because the annotation says so.
    """

    scores: Scores
    predicted: NDArray[np.bool_]
    mask: NDArray[np.uint8]
    numbers: NDArray[np.int32]
    ignored: NDArray[np.bool_]


class SlideTally:
    """Counts of a slide, added up strip by strip from its top.

    Parameters
    ----------
    n_lesions : int
        Number of annotated lesions.
    """

    def __init__(self, n_lesions: int) -> None:
        self.histograms, self.finder = Histograms.empty(), DetectionFinder()
        self.predicted_pixels, self.ignored_pixels, self.highest, self._n = 0, 0, 0, n_lesions
        self.pixels, self.predicted, self.peak = np.zeros((3, n_lesions), dtype=np.int64)

    def add(self, strip: MapStrip) -> None:
        """Count the next strip; pixels that are 255 in its mask are left out."""
        predicted, annotated = strip.predicted & (strip.mask != IGNORE), strip.mask == LESION
        self.histograms += Histograms.of(strip.scores, strip.mask)
        self.highest = max(self.highest, int(strip.scores[strip.mask != IGNORE].max(initial=0)))
        self.finder.add(predicted | (strip.predicted & strip.ignored), strip.scores, strip.numbers, strip.ignored)
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
            "false_positive_scores": found.false_positive_scores.tolist(),
            "ignored_detections": found.n_unjudged,
            "highest_score": self.highest,
            "histograms": self.histograms.record(),
        }


def evaluate_slide(
    info: SlideInfo,
    files: EvaluatedFiles,
    output: str,
    *,
    role: Role,
    provenance: dict[str, Any],
) -> None:
    """Compare one slide's maps with its annotation, inside tissue, at the maps' resolution, strip by strip.

    The threshold is the one that the lesion map was made with.
    Annotated pixels count even where tissue detection missed them. Unreadable pixels, and those of the class ignore, do
    not count.

    Parameters
    ----------
    output : str
        JSON: pixel metrics, why some are undefined, areas, lesions, and the counts that they come from.
    """
    annotation = Annotation(files.annotation)
    lesions = AnnotatedLesions.of(annotation.lesions, info.mpp)
    tally = SlideTally(len(lesions.area_mm2))
    with MapFile(files.scores) as scores, MapFile(files.lesions) as predicted:
        pixel_mm2, threshold = scores.mpp**2 / 1e6, float(predicted.metadata["threshold"])
        rasters = _rasterised(info, scores, TissueMask(files.tissue, info), annotation, lesions)
        for part, mask, numbers, ignored in rasters:
            tally.add(MapStrip(scores[part], predicted[part] > 0, mask, numbers, ignored))
    metrics, counts = binary_metrics(tally.histograms, threshold), tally.histograms.counts
    content = {
        "slide": info.slide,
        **asdict(role),
        "threshold": threshold,
        "metrics": metrics,
        "undefined": {m.name: m.why_undefined(counts) for m in PIXEL_METRICS if metrics[m.name] is None},
        **tally.record(lesions, pixel_mm2),
        "provenance": provenance,
    }
    write_json(output, content)


def _rasterised(
    info: SlideInfo, grid: MapFile, tissue: TissueMask, annotation: Annotation, lesions: AnnotatedLesions
) -> Iterator[tuple[slice, NDArray[np.uint8], NDArray[np.int32], NDArray[np.bool_]]]:
    """Rows of a map, and `mask`, `numbers` and `ignored` of :class:`MapStrip`."""
    scale, (height, width) = grid.mpp / info.mpp, grid.shape
    for part in strips(height, ROWS_AT_ONCE):
        place = (0, part.start * scale), (width, part.stop - part.start), scale
        mask = annotation.mask(*place)
        ignored = mask == IGNORE
        mask = judged(mask, tissue.at(*place))
        for box in grid.metadata["unreadable"]:
            left, top, across, down = (round(length / scale) for length in box)
            rows = slice(max(0, top - part.start), max(0, top + down - part.start))
            mask[rows, left : left + across] = IGNORE
            ignored[rows, left : left + across] = False
        yield part, mask, lesions.reaches.rasterised(*place, "int32"), ignored
