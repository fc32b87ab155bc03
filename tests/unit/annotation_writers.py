"""Known outlines, written as every program writes them: class name → polygons with holes, in level-0 pixels."""

import gzip
import json
import math
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import shapely
import tifffile
from lesionmap.annotations.canonical import AnnotationSettings
from lesionmap.demo.cohort import write_asap, write_qupath
from lesionmap.slides.slide import SlideInfo
from PIL import Image
from shapely import LinearRing, Polygon

Outlines = Mapping[str, Sequence[Polygon]]
Writer = Callable[[Path, Outlines], None]

SIZE = (120, 90)
VALUES = {"Lesion": 1, "Vessel": 2, "Fat": 3}  # in masks, highest priority first


def info_at(mpp: float = 10.0, bounds_xy_lv0: tuple[int, int] = (0, 0), size: tuple[int, int] = SIZE) -> SlideInfo:
    """A slide that only its annotation is known of; at 10 µm/px a pixel is 0.0001 mm²."""
    return SlideInfo("s1", "s1.tif", "", "generic", size, mpp, (1.0,), (size,), bounds_xy_lv0)


def settings(classes: Mapping[str, str] | None = None, invalid: str = "repair") -> AnnotationSettings:
    named = {
        "Lesion": "lesion",
        "Accepted": "lesion",
        "Vessel": "vessel",
        "Fat": "fat",
        "Exclusion": "hole",
        "Ink": "ignore",
    }
    return AnnotationSettings(classes or named, {"1": "lesion", "2": "vessel", "3": "fat"}, invalid)


def write_imagescope(path: Path, outlines: Outlines) -> None:
    """Aperio ImageScope: a layer per class, holes as regions with NegativeROA."""
    root = ET.Element("Annotations", MicronsPerPixel="0.25")
    for number, (name, polygons) in enumerate(outlines.items(), 1):
        layer = ET.SubElement(root, "Annotation", Id=str(number), Name=name, Type="4")
        regions = ET.SubElement(layer, "Regions")
        for cuts, ring in _rings(polygons):
            region = ET.SubElement(regions, "Region", Type="0", NegativeROA=str(int(cuts)))
            vertices = ET.SubElement(region, "Vertices")
            for x, y in ring.coords[:-1]:
                ET.SubElement(vertices, "Vertex", X=str(x), Y=str(y), Z="0")
    path.write_bytes(ET.tostring(root))


def write_halo(path: Path, outlines: Outlines) -> None:
    """HALO: as ImageScope, but vertices are <V>, types are words, and rings are closed."""
    root = ET.Element("Annotations")
    for name, polygons in outlines.items():
        regions = ET.SubElement(ET.SubElement(root, "Annotation", Name=name, Visible="True"), "Regions")
        for cuts, ring in _rings(polygons):
            region = ET.SubElement(regions, "Region", Type="Polygon", HasEndcaps="0", NegativeROA=str(int(cuts)))
            vertices = ET.SubElement(region, "Vertices")
            for x, y in ring.coords:
                ET.SubElement(vertices, "V", X=str(x), Y=str(y))
    path.write_bytes(ET.tostring(root))


def _rings(polygons: Sequence[Polygon]) -> list[tuple[bool, LinearRing]]:
    """Every ring, and whether it is a hole."""
    outer = [(False, polygon.exterior) for polygon in polygons]
    return outer + [(True, hole) for polygon in polygons for hole in polygon.interiors]


def write_qupath_list(path: Path, outlines: Outlines) -> None:
    """QuPath before 0.3: a bare list of Features."""
    write_qupath(path, outlines)
    path.write_text(json.dumps(json.loads(path.read_text())["features"]))


def write_geopandas(path: Path, outlines: Outlines) -> None:
    """QuPath's GeoJSON after geopandas: classes are JSON as text, and every feature has every property."""
    write_qupath(path, outlines)
    content = json.loads(path.read_text())
    for feature in content["features"]:
        properties = feature["properties"]
        feature["properties"] = {"name": None, "classification": json.dumps(properties["classification"])}
    content["features"].append({"type": "Feature", "properties": {"name": None}, "geometry": None})
    path.write_text(json.dumps(content))


def write_packed_lines(path: Path, outlines: Outlines) -> None:
    """One Feature a line, its class a plain text, packed by gzip."""
    write_qupath(path, outlines)
    lines = []
    for feature in json.loads(path.read_text())["features"]:
        lines.append(json.dumps(feature | {"properties": {"type": feature["properties"]["classification"]["name"]}}))
    path.write_bytes(gzip.compress("\n".join(lines).encode()))


def write_qupath_feature(path: Path, outlines: Outlines) -> None:
    """QuPath, one object: a bare Feature, so of one class; its polygons as one MultiPolygon."""
    ((name, polygons),) = outlines.items()
    geometry = shapely.geometry.mapping(shapely.MultiPolygon(polygons))
    properties = {"objectType": "annotation", "classification": {"name": name}}
    path.write_text(json.dumps({"type": "Feature", "geometry": geometry, "properties": properties}))


def write_mask(path: Path, mask: np.ndarray) -> None:
    """A class mask, as TIFF or PNG by its ending."""
    if path.suffix == ".png":
        Image.fromarray(mask).save(path)
    else:
        tifffile.imwrite(path, mask, tile=(16, 16), compression="zlib")


def write_mask_of(path: Path, outlines: Outlines) -> None:
    """The outlines as a mask of half the slide's resolution."""
    write_mask(path, drawn(outlines, mask_size(2), 2))


VECTOR_WRITERS: dict[str, Writer] = {
    "asap.xml": write_asap,
    "imagescope.xml": write_imagescope,
    "halo.annotations": write_halo,
    "collection.geojson": write_qupath,
    "list.geojson": write_qupath_list,
    "geopandas.geojson": write_geopandas,
    "lines.geojson.gz": write_packed_lines,
}
WRITERS: dict[str, Writer] = {**VECTOR_WRITERS, "mask.tif": write_mask_of, "mask.png": write_mask_of}


def mask_size(scale: float, size: tuple[int, int] = SIZE) -> tuple[int, int]:
    return math.ceil(size[0] / scale), math.ceil(size[1] / scale)


def drawn(outlines: Outlines, size_px: tuple[int, int] = SIZE, scale: float = 1.0) -> np.ndarray:
    """The mask by its definition: each pixel has the first class that its centre lies in."""
    centres = np.meshgrid(*((np.arange(length) + 0.5) * scale for length in size_px))
    mask = np.zeros(size_px[::-1], dtype=np.uint8)
    for name, value in reversed(VALUES.items()):
        for polygon in outlines.get(name, ()):
            mask[shapely.contains_xy(polygon, *centres)] = value
    return mask
