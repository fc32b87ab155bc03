import numpy as np
import pytest
from lesionmap.geometry.identity import lesion_id
from shapely.geometry import MultiPolygon, Polygon

EDGE = [(120000.3, 7.7), (120010.4, 7.7), (120010.4, 20.1), (120000.3, 31.0)]
HOLE = [(120002, 9), (120004, 9), (120004.5, 12)]
OUTLINE = Polygon(EDGE, [HOLE])


def as_float32(outline: Polygon) -> Polygon:
    rings = [np.float32(ring.coords).tolist() for ring in (outline.exterior, *outline.interiors)]
    return Polygon(rings[0], rings[1:])


@pytest.mark.parametrize(
    "same",
    [
        Polygon([*EDGE[2:], *EDGE[:2]], [HOLE]),
        Polygon(EDGE[::-1], [HOLE[::-1]]),
        MultiPolygon([OUTLINE]),
        as_float32(OUTLINE),
        Polygon([(x + 0.004, y - 0.004) for x, y in EDGE], [HOLE]),
    ],
    ids=["other start", "other direction", "multipolygon", "float32", "rounded to hundredths"],
)
def test_an_outline_has_its_id_however_it_is_written(same):
    assert lesion_id("f00", same) == lesion_id("f00", OUTLINE) == "8f4fbfb7-3ab6-59b5-abbc-ba4cb5ea2a93"


@pytest.mark.parametrize(
    ("slide", "other"),
    [
        ("f01", OUTLINE),
        ("f00", Polygon(EDGE)),
        ("f00", Polygon([*EDGE[:3], (120000.3, 31.1)], [HOLE])),
        ("f00", Polygon([(x + 1, y) for x, y in EDGE], [[(x + 1, y) for x, y in HOLE]])),
    ],
)
def test_another_slide_or_outline_has_another_id(slide, other):
    assert lesion_id(slide, other) != lesion_id("f00", OUTLINE)
