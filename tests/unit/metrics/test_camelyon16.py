"""Lesions and detections against the rules of CAMELYON16's evaluation, written anew, at their edges.

The challenge works on a mask: what is nearer than 37.5 µm to an annotated pixel's centre is lesion, holes are filled,
what touches (also at corners) is one. A lesion is isolated tumour cells if the ellipse with the second moments of that
area is shorter than 275 µm, 200 and twice the margin. A detection is in the lesion of its pixel, or false.

Two differences remain (docs/metrics.md): at exactly 37.5 µm, and at 200 µm for what is no circle.
"""

import numpy as np
import pytest
from evaluated import lesion, random_slide, record_of
from lesionmap.annotations.masks import Outlines
from lesionmap.metrics.cohort import metrics_of
from lesionmap.metrics.froc import FALSE_PER_SLIDE
from lesionmap.metrics.lesions import AnnotatedLesions, Detections
from lesionmap.metrics.slide_table import SlideTable
from scipy.ndimage import binary_fill_holes, distance_transform_edt
from shapely.affinity import scale, translate
from shapely.geometry import Point, Polygon, box
from skimage.measure import label, regionprops

LEVEL_5_UM = 0.243 * 2**5  # of a pixel of the challenge's mask
FINE_UM = 0.1


def their_lesions(mask, um):
    """Numbers of lesions, (H, W), and the length of each one's ellipse, µm; lesions below 275 µm do not count."""
    numbers = label(binary_fill_holes(distance_transform_edt(~mask) * um < 37.5), connectivity=2)
    return numbers, np.array([part.axis_major_length * um for part in regionprops(numbers)])


def our_lesions(outlines, um, shape):
    """The same of ours: numbers of lesions, and their extents, µm; lesions below 200 µm do not count."""
    found = AnnotatedLesions.of(outlines, um)
    return found.reaches.rasterised((0, 0), shape[::-1], 1.0, "int32"), found.extent_um


def blocks(shape, *corners):
    """A mask with rectangles of pixels, and outlines that run through the centres of their outermost pixels.

    So the distance from a pixel to the mask is that to the outline.
    """
    mask, outlines = np.zeros(shape, bool), []
    for top, left, bottom, right in corners:
        mask[top : bottom + 1, left : right + 1] = True
        outlines.append(box(left + 0.5, top + 0.5, right + 0.5, bottom + 0.5))
    return mask, outlines


def around(numbers, px):
    """Whether a lesion reaches so many pixels to the left, right, top and bottom of the block below."""
    places = ((410, 400 - px), (410, 430 + px), (400 - px, 410), (420 + px, 410))
    return [bool(numbers[place]) for place in places]


@pytest.mark.parametrize(("um", "inside", "outside"), [(FINE_UM, 374, 376), (2.5, 14, 16), (LEVEL_5_UM, 4, 5)])
def test_a_detection_just_inside_or_outside_37_5_um_is_judged_as_in_camelyon16(um, inside, outside):
    mask, outlines = blocks((830, 840), (400, 400, 420, 430))
    for numbers, _ in (their_lesions(mask, um), our_lesions(outlines, um, mask.shape)):
        assert around(numbers, inside) == [True] * 4
        assert around(numbers, outside) == [False] * 4


@pytest.mark.parametrize(("um", "px"), [(FINE_UM, 375), (2.5, 15)])
def test_a_detection_at_exactly_37_5_um_is_outside_in_camelyon16_and_here_on_one_side(um, px):
    mask, outlines = blocks((830, 840), (400, 400, 420, 430))
    assert around(their_lesions(mask, um)[0], px) == [False] * 4
    assert around(our_lesions(outlines, um, mask.shape)[0], px) == [False, True, True, False]  # right and top


def test_around_corners_the_margin_is_a_fifth_of_a_um_shorter_at_most():
    um, corner = 0.05, 1000
    numbers, _ = our_lesions([box(900, 900, corner, corner)], um, (1800, 1800))
    beyond = np.argwhere(numbers[corner:, corner:] == 0) + 0.5
    assert 37.3 < np.hypot(*beyond.T).min() * um < 37.5


@pytest.mark.parametrize(("gap", "theirs", "ours"), [(749, 1, 1), (750, 2, 1), (751, 2, 2)])
def test_outlines_are_joined_as_in_camelyon16_but_for_exactly_75_um(gap, theirs, ours):
    """Tenths of a µm; of odd gaps, the middle is between two pixels. Facing sides touch in a line at 75 µm."""
    mask, outlines = blocks((800, 1630), (390, 400, 410, 430), (380, 430 + gap, 410, 450 + gap))
    assert their_lesions(mask, FINE_UM)[0].max() == theirs
    assert len(our_lesions(outlines, FINE_UM, mask.shape)[1]) == ours


@pytest.mark.parametrize("gap", [9, 10])
def test_outlines_are_joined_as_in_camelyon16_on_its_own_mask(gap):
    """At level 5, nine pixels are 70 µm and ten 78; a corner of one meets an edge of the other."""
    mask, outlines = blocks((60, 60), (20, 20, 25, 25), (26, 25 + gap, 30, 35 + gap))
    expected = their_lesions(mask, LEVEL_5_UM)[0].max()
    assert len(our_lesions(outlines, LEVEL_5_UM, mask.shape)[1]) == expected == (1 if gap == 9 else 2)


def circle(extent):
    return Point(0, 0).buffer(extent / 2, quad_segs=64)


def ellipse(extent, ratio):
    return scale(circle(extent), 1, 1 / ratio)


def rectangle(extent, ratio):
    width = extent / np.hypot(ratio, 1)
    return box(0, 0, ratio * width, width)


def triangle(extent):
    return Polygon([(extent / 2 * np.cos(angle), extent / 2 * np.sin(angle)) for angle in np.radians([90, 210, 330])])


def as_lesions(outline, um):
    """A lesion by their rules and by ours, in its own mask."""
    left, top, right, bottom = outline.bounds
    outline = translate(outline, 120 - left + 0.3, 100 - top + 0.2)
    shape = (round(bottom - top) + 200, round(right - left) + 240)
    mask = Outlines([outline], [1]).rasterised((0, 0), shape[::-1], 1.0) > 0
    (axis,), (extent,) = their_lesions(mask, um)[1], our_lesions([outline], um, shape)[1]
    return axis >= 275, extent >= 200


@pytest.mark.parametrize(
    ("outline", "theirs_from_um"),
    [
        (circle, 200),
        (lambda extent: ellipse(extent, 2), 198),
        (lambda extent: ellipse(extent, 4), 193),
        (lambda extent: ellipse(extent, 10), 186),
        (lambda extent: rectangle(extent, 10), 176),
        (lambda extent: rectangle(extent, 1), 238),
        (triangle, 263),
    ],
    ids=["circle", "ellipse 2:1", "ellipse 4:1", "ellipse 10:1", "bar", "square", "triangle"],
)
def test_lesions_count_from_200_um_as_in_camelyon16_but_for_what_is_no_circle(outline, theirs_from_um):
    """Both count a circle from 200 µm; the challenge counts slender lesions earlier, those with corners later."""
    um = 0.5
    for extent in (theirs_from_um - 2, theirs_from_um + 2, 199.5, 200.5):
        theirs, ours = as_lesions(outline(extent / um), um)
        assert ours == (extent >= 200)
        if abs(extent - theirs_from_um) > 1:
            assert theirs == (extent >= theirs_from_um)


def test_exactly_200_um_count_in_both():
    """A circle of 200 µm in a mask as fine as that has an ellipse of 275 µm, but for rounding."""
    assert AnnotatedLesions.of([circle(400)], 0.5).extent_um[0] == pytest.approx(200)
    mask = Outlines([translate(circle(400), 350, 350)], [1]).rasterised((0, 0), (700, 700), 1.0) > 0
    assert their_lesions(mask, 0.5)[1] == pytest.approx([275], abs=0.5)


def challenge(numbers, axes, points, scores):
    """Scores of false detections, best score of each counting lesion (0: missed), as the challenge lists them."""
    counting = [number for number, axis in enumerate(axes, start=1) if axis >= 275]
    at = [numbers[point] for point in points]
    false = sorted(score for number, score in zip(at, scores, strict=True) if number == 0)
    best = [max([0, *(s for n, s in zip(at, scores, strict=True) if n == number)]) for number in counting]
    return false, sorted(best)


def ours(numbers, extents, points, scores):
    """The same from ours, and the record of the slide."""
    found = Detections(np.array(scores), np.array([numbers[point] for point in points]))
    best = found.best_scores(len(extents)).tolist()
    false = sorted(found.score[found.lesion == 0].tolist())
    lesions = [lesion(e) | {"detection_score": b if b > 0 else None} for e, b in zip(extents, best, strict=True)]
    record = record_of("s", *random_slide(0), lesions=lesions, false_positive_scores=sorted(false))
    return false, sorted(max(b, 0) for b, e in zip(best, extents, strict=True) if e >= 200), record


@pytest.mark.parametrize("seed", range(4))
def test_froc_is_that_of_camelyon16_away_from_the_edges(seed):
    """Circles of 60 to 160 and 250 to 450 µm; detections at least 5 µm from the rims of the lesions' reaches."""
    rng, um, side = np.random.default_rng(seed), 2.5, 1000
    extents = np.concatenate([rng.uniform(60, 160, 4), rng.uniform(250, 450, 6)]) / um
    grid = [(150 + 230 * (n % 4), 150 + 300 * (n // 4)) for n in range(10)]  # px: none is near another
    outlines = [translate(circle(extent), *place) for extent, place in zip(extents, grid, strict=True)]
    mask = Outlines(outlines, [1] * len(outlines)).rasterised((0, 0), (side, side), 1.0) > 0
    their_numbers, axes = their_lesions(mask, um)
    our_numbers, our_extents = our_lesions(outlines, um, mask.shape)
    rim = np.abs(distance_transform_edt(~mask) * um - 37.5) < 5
    inside, outside = (np.argwhere(part & ~rim) for part in (their_numbers > 0, their_numbers == 0))
    chosen = np.concatenate([rng.choice(inside, 14), rng.choice(outside, 5)])
    points, scores = [tuple(point) for point in chosen], rng.integers(1, 250, len(chosen)).tolist()
    *counts, record = ours(our_numbers, our_extents, points, scores)
    false, best = challenge(their_numbers, axes, points, scores)
    assert counts == [false, best]
    assert len(best) == 6
    values = metrics_of(SlideTable.of([record], 200), np.ones((1, 1)))
    metrics = {metric.name: value.item() for metric, value in values.items()}
    thresholds = sorted({*false, *best} - {0}, reverse=True)
    curve = [(0.0, 0.0), *((sum(f >= at for f in false), sum(b >= at for b in best) / len(best)) for at in thresholds)]
    for rate in FALSE_PER_SLIDE:
        assert metrics[f"sensitivity_at_{rate:g}"] == pytest.approx(np.interp(rate, *zip(*curve, strict=True)))
