"""Read outlines from GeoJSON: of QuPath, and as geopandas, TIAToolbox and others write it."""

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

import shapely
from shapely.geometry import MultiPolygon, Polygon

from lesionmap.annotations.content import (
    FEWEST_POINTS,
    AnnotatedOutline,
    AnnotationFile,
    ForeignFileError,
    Ring,
    coordinate,
    file_bytes,
)
from lesionmap.annotations.corrections import class_of, origin_of, siblings_of
from lesionmap.slides.slide import SlideInfo

OBJECTS_BEFORE_0_4 = {"PathDetectionObject": "detection", "PathCellObject": "cell", "PathTileObject": "tile"}
NO_AREAS = ("Point", "MultiPoint", "LineString", "MultiLineString")
GEOMETRIES = (*NO_AREAS, "Polygon", "MultiPolygon", "GeometryCollection")
CLASS_PROPERTIES = ("classification", "class", "label", "type", "name")  # the first that says something counts
RECORD_SEPARATOR = "\x1e"
NO_GEOMETRY = "no geometry"
LONGEST_NAME = 60
CONVERSION = "convert it to GeoJSON in level-0 pixels; config/README.md, Annotations, has a script"
EXPORT = "export the outlines as GeoJSON in level-0 pixels of the slide"
FOREIGN_KEYS = (  # what the outermost object has, what it is then, and the remedy
    ({"images", "annotations", "categories"}, "a COCO file", CONVERSION),
    ({"annotations", "categories"}, "a COCO file", CONVERSION),
    ({"shapes", "imagePath"}, "a labelme file", CONVERSION),
    ({"_via_img_metadata"}, "a project of the VGG Image Annotator", EXPORT),
    ({"annotations", "data"}, "an export of Label Studio", EXPORT),
    ({"completions", "data"}, "an export of Label Studio", EXPORT),
    ({"annotation"}, "an annotation of HistomicsUI", EXPORT),
    ({"elements"}, "an annotation of HistomicsUI", EXPORT),
)


def read_geojson(source: str, info: SlideInfo) -> AnnotationFile:
    """Read GeoJSON, plain or packed by gzip: one text, or one Feature a line (GeoJSONSeq, NDJSON).

    Parameters
    ----------
    info : SlideInfo
        Coordinates start at the top-left corner of its scanned bounds: QuPath crops slides to them. By its identity,
        outlines are recognised that this workflow has predicted.

    Raises
    ------
    ValueError
        If the file is no GeoJSON, or an outline in it is broken; what has no area is counted, not refused.
    """
    content = AnnotationFile("GeoJSON")
    for number, feature in enumerate(_features(_parsed(file_bytes(source).decode("utf-8-sig"))), 1):
        try:
            _add_feature(content, feature, info)
        except Exception as error:  # whatever a broken feature holds
            reason = f"it lacks {error}" if isinstance(error, KeyError) else f"{type(error).__name__}: {error}"
            raise ValueError(f"feature {number}{_described(feature)}: {reason}") from error
    return content


def _parsed(text: str) -> Any:
    """The JSON of a text; a list, if it has several texts, one a line or each after a record separator."""
    if RECORD_SEPARATOR in text:
        return [json.loads(part) for part in text.split(RECORD_SEPARATOR) if part.strip()]
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        if not error.msg.startswith("Extra data"):
            raise
        return [json.loads(line) for line in text.split("\n") if line.strip()]


def _features(content: Any) -> list[Any]:
    if isinstance(content, list):
        _refuse_foreign(content[0] if content else None)
        return [feature for item in content for feature in _features_of(item)]
    if not isinstance(content, dict):
        raise TypeError(f"it holds {json.dumps(content)[:LONGEST_NAME]}, not GeoJSON")
    _refuse_foreign(content)
    return _features_of(content)


def _features_of(item: Any) -> list[Any]:
    """Features of a collection; anything else as it is, to be judged with its number."""
    if isinstance(item, dict) and item.get("type") == "FeatureCollection":
        return list(item["features"])
    return [item]


def _refuse_foreign(content: Any) -> None:
    if not isinstance(content, dict) or content.get("type") in ("FeatureCollection", "Feature", *GEOMETRIES):
        return
    for keys, what, remedy in FOREIGN_KEYS:
        if keys <= content.keys():
            raise ForeignFileError(f"it is {what}, not GeoJSON", remedy)
    values = list(content.values())
    if values and all(isinstance(value, dict) and {"filename", "regions"} <= value.keys() for value in values):
        raise ForeignFileError("it is an export of the VGG Image Annotator, not GeoJSON", EXPORT)


def _described(feature: Any) -> str:
    """Id or name of a feature, for messages."""
    if not isinstance(feature, dict):
        return ""
    properties = feature.get("properties")
    name = feature.get("id") or (properties.get("name") if isinstance(properties, dict) else None)
    return f" ({str(name)[:LONGEST_NAME]!a})" if name else ""


def _add_feature(content: AnnotationFile, feature: Any, info: SlideInfo) -> None:
    if not isinstance(feature, dict):
        raise TypeError(f"{json.dumps(feature)[:LONGEST_NAME]} is no Feature")
    if "geometry" not in feature and feature.get("type") != "Feature":
        if feature["type"] not in GEOMETRIES:
            raise ValueError(f"the type '{feature['type']}' is neither Feature nor a geometry")
        feature = {"geometry": feature}
    properties = feature.get("properties") or {}
    old_kind = OBJECTS_BEFORE_0_4.get(str(feature.get("id", "")), "annotation")
    kind = properties.get("objectType") or old_kind
    if properties.get("isIgnored"):
        content.ignored["marked as ignored"] += 1
    elif kind != "annotation":
        content.ignored[str(kind)] += 1
    else:
        for polygons in _areas(content, feature.get("geometry")):
            mended = _with_closed_rings(content, polygons)
            if mended:
                origin = origin_of(feature, mended, info.identity)
                outline = shapely.transform(mended, lambda xy: xy + info.bounds_xy_lv0)
                name = class_of(_class_name(properties), origin)
                content.outlines.append(AnnotatedOutline(name, outline, origin=origin, siblings=siblings_of(feature)))


def _areas(content: AnnotationFile, geometry: dict[str, Any] | None) -> Iterator[Sequence[Any]]:
    """Polygons (each a list of rings) of a geometry; what is no area is counted."""
    if geometry is None:
        content.ignored[NO_GEOMETRY] += 1
    elif geometry["type"] == "GeometryCollection":
        for member in geometry["geometries"]:
            yield from _areas(content, member)
    elif geometry["type"] in ("Polygon", "MultiPolygon"):
        yield [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]
    elif geometry["type"] in NO_AREAS:
        content.ignored[geometry["type"]] += 1
    else:
        raise ValueError(f"the geometry type '{geometry['type']}' is unknown")


def _class_name(properties: dict[str, Any]) -> str:
    """Class of a feature: that of the first property that says one; derived classes become "Tumor: invasive"."""
    name = next((name for name in (_named(properties.get(key)) for key in CLASS_PROPERTIES) if name), "")
    name.encode()  # raises on lone surrogates, which JSON can hold but a text file cannot
    return name


def _named(value: Any) -> str:
    """Class name in a property: a text, a number, QuPath's object (of any version), or its JSON as a text."""
    if isinstance(value, str):
        decoded = _decoded(value)
        return value.strip() if decoded is None else _named(decoded)
    if isinstance(value, dict):
        return _named(value.get("names")) or _named(value.get("name"))
    if isinstance(value, list):
        return ": ".join(map(str, value))
    if value is None or isinstance(value, bool) or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _decoded(text: str) -> Any:
    """The object or list that a text is the JSON of, else None."""
    try:
        return json.loads(text) if text.lstrip().startswith(("{", "[")) else None
    except json.JSONDecodeError:
        return None


def _with_closed_rings(
    content: AnnotationFile, polygons: Sequence[Sequence[Sequence[Sequence[float]]]]
) -> MultiPolygon | None:
    """Check the polygons' rings and drop those with too few points; None if no polygon is left."""
    kept = []
    for rings in polygons:
        closed = list(_closed(content, rings or [[]]))
        if closed[0]:
            kept.append(Polygon(closed[0], [ring for ring in closed[1:] if ring]))
    return MultiPolygon(kept) if kept else None


def _closed(content: AnnotationFile, rings: Sequence[Sequence[Sequence[float]]]) -> Iterator[Ring]:
    for ring in rings:
        points = [(coordinate(x), coordinate(y)) for x, y, *_ in ring]
        if len(set(points)) < FEWEST_POINTS:
            content.repaired["fewer than 3 points, dropped"] += 1
            yield []
            continue
        if points[0] != points[-1]:
            content.repaired["unclosed"] += 1
        yield points
