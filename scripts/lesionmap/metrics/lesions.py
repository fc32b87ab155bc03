"""Annotated lesions and detections, by the rules of CAMELYON16."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from lesionmap.annotations.masks import Outlines
from lesionmap.maps.components import Linker
from lesionmap.maps.probability import Scores

MARGIN_UM = 37.5  # half of 75 µm (five tumour cells): CAMELYON16 merges outlines that are closer than that


@dataclass(frozen=True)
class AnnotatedLesions:
    """The lesions of a slide's annotation, numbered from 1.

    Outlines less than 75 µm apart are one lesion. A detection within 37.5 µm of a lesion, or in a hole of it, counts as
    in the lesion (Ehteshami Bejnordi et al., JAMA 2017, and the evaluation code of CAMELYON16).

    Parameters
    ----------
    area_mm2 : (N,) float64
        Area of its outlines, without the margin.
    extent_um : (N,) float64
        Diameter of the smallest circle around its outlines.
    centroid_xy_lv0 : (N, 2) float64
        Centroid of its outlines, level-0 pixels.
    reaches : Outlines
        The lesions with their margin and without holes; their values are the lesions' numbers.
    members : (M,) int64
        For each of the outlines, the number of its lesion.
    """

    area_mm2: NDArray[np.float64]
    extent_um: NDArray[np.float64]
    centroid_xy_lv0: NDArray[np.float64]
    reaches: Outlines
    members: NDArray[np.int64]

    @classmethod
    def of(cls, outlines: Sequence[BaseGeometry], mpp: float) -> "AnnotatedLesions":
        """From the outlines of the class lesion, in level-0 pixels of `mpp` µm."""
        grown = shapely.buffer(np.array(outlines, dtype=object), MARGIN_UM / mpp)
        parts = shapely.get_parts(shapely.disjoint_subset_union_all(grown))
        filled = shapely.polygons(shapely.get_exterior_ring(parts))
        # A lesion in a hole of another is part of it.
        reaches = shapely.get_parts(shapely.disjoint_subset_union_all(filled))
        reach, inside = shapely.STRtree(outlines).query(reaches, predicate="intersects")  # sorted by reach
        lesions = np.array(_joined(outlines, reach, inside, len(reaches)), dtype=object)
        members = np.zeros(len(outlines), dtype=np.int64)
        members[inside] = reach + 1
        return cls(
            area_mm2=shapely.area(lesions) * mpp**2 / 1e6,
            extent_um=2 * shapely.minimum_bounding_radius(lesions) * mpp,
            centroid_xy_lv0=shapely.get_coordinates(shapely.centroid(lesions)),
            reaches=Outlines(list(reaches), list(range(1, len(reaches) + 1))),
            members=members,
        )


def _joined(
    outlines: Sequence[BaseGeometry], reach: NDArray[np.int64], inside: NDArray[np.int64], n: int
) -> list[BaseGeometry]:
    """For each of `n` reaches, the outlines within it as one geometry."""
    members = np.split(inside, np.searchsorted(reach, np.arange(1, n)))[:n]
    return [shapely.disjoint_subset_union_all([outlines[index] for index in indices]) for indices in members]


@dataclass(frozen=True)
class Detections:
    """The lesions of a map as CAMELYON16 counts them: each has a point and a confidence.

    Those that are neither true nor false are not among them.

    Parameters
    ----------
    score : (N,) int64
        Confidence: the highest score (:mod:`lesionmap.maps.probability`) in the lesion.
    lesion : (N,) int64
        Number of the annotated lesion in which the point lies; 0 if in none.
    """

    score: NDArray[np.int64]
    lesion: NDArray[np.int64]

    @property
    def false_positive_scores(self) -> NDArray[np.int64]:
        """Scores of the detections outside annotated lesions, ascending."""
        return np.sort(self.score[self.lesion == 0])

    def best_scores(self, n_lesions: int) -> NDArray[np.int64]:
        """Highest confidence of the detections in each annotated lesion, (n_lesions,); −1 where there is none.

        Further detections in the same lesion count neither for nor against the map.
        """
        best = np.full(n_lesions + 1, -1)
        np.maximum.at(best, self.lesion, self.score)
        return best[1:]


class DetectionFinder:
    """Finds the detections of a map, strip by strip from its top; the size of the strips does not change the result.

    A detection's point is where its score is highest. If several pixels share that score, the point lies where most of
    these pixels lie: outside, or in one of the annotated lesions. In a tie, outside comes first, then the lesion with
    the lowest number. Annotated pixels are not preferred, so a map that is lesion everywhere finds at most one lesion.

    Pixels that the annotation says to ignore connect the others, but have no say in score and point. A detection that
    is in no lesion, and more than half of whose pixels are to be ignored, is neither true nor false. (COCO does so with
    detections in crowds: Lin et al., ECCV 2014, and its evaluation code.)
    """

    def __init__(self) -> None:
        self._linker = Linker()
        self._n = 0
        self._surplus = [np.empty(0, dtype=np.int64)]  # of each component: pixels to ignore − other pixels
        self._votes = [np.empty((4, 0), dtype=np.int64)]  # component, its score, annotated lesion, pixels

    def add(
        self,
        predicted: NDArray[np.bool_],
        scores: Scores,
        numbers: NDArray[np.int32],
        ignored: NDArray[np.bool_],
    ) -> None:
        """Add the next strip, each (rows, W).

        Parameters
        ----------
        predicted, scores : (rows, W)
            Predicted lesion, and scores.
        numbers : (rows, W) int32
            Numbers of annotated lesions, 0 outside.
        ignored : (rows, W) bool
            True where the annotation says to ignore.
        """
        labels = self._linker.labelled(predicted)
        places = np.flatnonzero((labels > 0) & ~ignored)
        component = labels.ravel()[places].astype(np.int64) - 1
        score, number = (array.ravel()[places].astype(np.int64) for array in (scores, numbers))
        votes = _votes(component, score, number, np.ones_like(places))
        votes[0] += self._n
        self._votes.append(votes)
        n = int(labels.max(initial=0))
        pixels, unjudged = (np.bincount(part, minlength=n + 1)[1:] for part in (labels.ravel(), labels[ignored]))
        self._surplus.append(2 * unjudged - pixels)
        self._n += n

    def found(self) -> Detections:
        """The detections of the whole map."""
        component, *rest = np.concatenate(self._votes, axis=1)
        groups = self._linker.groups()
        group, score, number, pixels = _votes(groups[component], *rest)
        order = np.lexsort((number, -pixels, group))  # by group, then most votes, then lowest number
        owners, first = np.unique(group[order], return_index=True)
        score, number = score[order][first], number[order][first]
        surplus = np.zeros(int(groups.max(initial=-1)) + 1, dtype=np.int64)
        np.add.at(surplus, groups, np.concatenate(self._surplus))
        judged = (number > 0) | (surplus[owners] <= 0)
        return Detections(score[judged], number[judged])


def _votes(
    owner: NDArray[np.int64], score: NDArray[np.int64], number: NDArray[np.int64], pixels: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Sum the pixels at each owner's highest score by lesion number: from (N,) each to (4, M)."""
    peak = np.zeros(int(owner.max(initial=-1)) + 1, dtype=np.int64)
    np.maximum.at(peak, owner, score)
    highest = score == peak[owner]
    span = int(number.max(initial=0)) + 1
    keys, place = np.unique(owner[highest] * span + number[highest], return_inverse=True)
    votes = np.bincount(place, weights=pixels[highest], minlength=len(keys)).astype(np.int64)
    owners, numbers = np.divmod(keys, span)
    return np.stack([owners, peak[owners], numbers, votes])
