"""Outlines as QuPath writes them after it has read and exported them."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

VERSIONS = ("0.4", "0.5", "0.6")
Feature = dict[str, Any]


def exported(features: Sequence[Feature], version: str = "0.5") -> str:
    """The text of a GeoJSON file; 0.4 exports a list, unless told otherwise, and later versions a collection.

    Vertices were 32-bit floats and have two decimals; a ring begins elsewhere and may run the other way round. 0.4
    lists measurements and knows no metadata.
    """
    written = [_as_written(feature, version) for feature in features]
    if version == "0.4":
        return json.dumps(written)
    return json.dumps({"type": "FeatureCollection", "features": written}, indent=2 if version == "0.6" else None)


def _as_written(feature: Feature, version: str) -> Feature:
    properties = dict(feature["properties"])
    properties.pop("verdict", None)  # what QuPath does not know, it drops
    properties["classification"] = _as_class(properties["classification"])
    measurements = properties.get("measurements", {})
    if version == "0.4":
        properties.pop("metadata", None)
        properties["measurements"] = [{"name": name, "value": value} for name, value in measurements.items()]
    geometry = feature["geometry"]
    moved = _moved(geometry["coordinates"], geometry["type"] == "MultiPolygon")
    return {
        "type": "Feature",
        **({"id": feature["id"]} if "id" in feature else {}),
        "geometry": {"type": geometry["type"], "coordinates": moved},
        "properties": properties,
    }


def _as_class(classification: Feature) -> Feature:
    """A derived class has names instead of a name."""
    parts = classification["name"].split(": ")
    named = {"name": parts[0]} if len(parts) == 1 else {"names": parts}
    return named | {"color": classification.get("color", [200, 0, 0])}


def _moved(coordinates: Any, several: bool) -> Any:
    if several:
        return [_moved(polygon, False) for polygon in coordinates]
    return [_other_start(ring) for ring in coordinates]


def _other_start(ring: Sequence[Sequence[float]]) -> list[list[float]]:
    points = [[round(float(np.float32(value)), 2) for value in point] for point in ring[:-1]][::-1]
    points = points[2:] + points[:2]
    return [*points, points[0]]


def with_class(feature: Feature, name: str) -> Feature:
    """The same, after a person has given it another class."""
    return feature | {"properties": feature["properties"] | {"classification": {"name": name}}}


def with_geometry(feature: Feature, change: Callable[[Any], Any]) -> Feature:
    """The same, after a person has moved vertices."""
    geometry = feature["geometry"]
    return feature | {"geometry": geometry | {"coordinates": change(geometry["coordinates"])}}


def vertex_moved(feature: Feature) -> Feature:
    """The same, after a person has moved its second vertex by 3 px to the right."""

    def change(rings: Any) -> Any:
        first, (x, y), *others = rings[0]
        return [[first, [x + 3, y], *others], *rings[1:]]

    return with_geometry(feature, change)


def drawn(name: str, ring: Sequence[Sequence[float]]) -> Feature:
    """What a person has drawn: QuPath gives it an id at random."""
    geometry = {"type": "Polygon", "coordinates": [[*map(list, ring), list(ring[0])]]}
    properties = {"objectType": "annotation", "classification": {"name": name}}
    return {"type": "Feature", "id": "0c8e4c8a-6a3d-4f0e-9d58-3f4f3a1b2c3d", "geometry": geometry} | {
        "properties": properties
    }
