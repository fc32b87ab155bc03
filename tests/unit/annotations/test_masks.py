"""Masks of boxes, drawn from outlines that reach far beyond them."""

import numpy as np
import pytest
import rasterio.features
from lesionmap.annotations.masks import Annotation
from lesionmap.files.records import write_json
from shapely.geometry import Polygon, box, mapping

SIZE = (700, 500)


@pytest.fixture(scope="module")
def outline():
    """A ragged star of 20,000 vertices with a ragged hole, neither symmetric nor on whole pixels."""
    generator = np.random.default_rng(0)
    rings = []
    for n, radius in ((20_000, 230), (5_000, 60)):
        angle = np.linspace(0, 2 * np.pi, n, endpoint=False)
        distance = radius * (1 + 0.15 * np.sin(7 * angle) + 0.02 * generator.random(n))
        rings.append(np.stack([340 + 1.3 * distance * np.cos(angle), 250 + distance * np.sin(angle)], axis=1))
    return Polygon(rings[0], [rings[1]])


@pytest.fixture
def annotation(tmp_path, outline):
    feature = {"type": "Feature", "properties": {"class": "vessel"}, "geometry": mapping(outline)}
    write_json(tmp_path / "a.geojson", {"type": "FeatureCollection", "features": [feature]})
    return Annotation(tmp_path / "a.geojson")


@pytest.mark.parametrize("side", [64, 100, 333])
def test_boxes_put_together_are_the_mask_of_the_whole(annotation, outline, side):
    whole = rasterio.features.rasterize([(outline, 2)], out_shape=SIZE[::-1], dtype="uint8")
    assert 0.2 < (whole == 2).mean() < 0.8
    for y in range(0, SIZE[1], side):
        for x in range(0, SIZE[0], side):
            part = whole[y : y + side, x : x + side]
            np.testing.assert_array_equal(annotation.mask((x, y), part.shape[::-1], 1.0), part)


def test_boxes_beside_an_outline_or_in_its_hole_are_empty(annotation):
    for corner in ((0, 0), (320, 230), (900, 900)):
        assert not annotation.mask(corner, (20, 20), 1.0).any()


@pytest.mark.parametrize("order", [("lesion", "vessel", "fat"), ("fat", "vessel", "lesion")], ids=" ".join)
def test_where_outlines_overlap_the_first_is_seen(tmp_path, order):
    codes = {"lesion": 1, "vessel": 2, "fat": 3}
    features = [
        {
            "type": "Feature",
            "properties": {"class": name},
            "geometry": mapping(box(10 * index, 0, 20 + 10 * index, 10 + index)),
        }
        for index, name in enumerate(order)
    ]
    write_json(tmp_path / "a.geojson", {"type": "FeatureCollection", "features": features})
    mask = Annotation(tmp_path / "a.geojson").mask((0, 0), (50, 12), 1.0)
    first, second, third = (codes[name] for name in order)
    assert mask[5].tolist() == [first] * 20 + [second] * 10 + [third] * 10 + [0] * 10
    assert mask[10].tolist() == [0] * 10 + [second] * 20 + [third] * 10 + [0] * 10
