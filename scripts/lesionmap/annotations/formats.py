"""Read the files that annotation programs export, and class masks, as outlines in level-0 pixels.

Coordinates are continuous: pixel i covers [i, i + 1), so its centre is i + 0.5.
"""

import json
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np
import rasterio.features
import shapely
import tifffile
from affine import Affine
from defusedxml import ElementTree
from numpy.typing import NDArray
from PIL import Image
from shapely.geometry import MultiPolygon, Point, Polygon, shape
from shapely.geometry.base import BaseGeometry

from lesionmap.errors import AnnotationError
from lesionmap.slides.slide import SlideInfo

STAGE = "import_annotation"
LARGEST_MASK_PX = 2**28  # of a larger mask, a coarser pyramid level is read
FEWEST_POINTS = 3
LARGEST_COORDINATE = 1e9  # far more than any slide has; areas of larger outlines overflow
REMEDY = "export it again, and see that it was copied to its end"
MASK_REMEDY = (
    "give an undamaged mask of one channel with class values 0 to 255 that covers the whole slide, or state its µm/px "
    "as mask_mpp in the sheet"
)
MASK_SUFFIXES = (".tif", ".tiff", ".png")
UNTOUCHED_ATTRIBUTE = "Description"  # ImageScope gives every new layer an attribute of this name
OBJECTS_BEFORE_0_4 = {"PathDetectionObject": "detection", "PathCellObject": "cell", "PathTileObject": "tile"}
Ring = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class AnnotatedOutline:
    """One outline as read from its file.

    Parameters
    ----------
    name : str
        Class name in the file; empty if there is none.
    geometry : BaseGeometry
        In level-0 pixels; may cross itself.
    cuts : bool
        Whether it is a hole in the other outlines of its class.
    """

    name: str
    geometry: BaseGeometry
    cuts: bool = False


@dataclass
class AnnotationFile:
    """All outlines of one file, and counts of what was left out or repaired while reading.

    Parameters
    ----------
    format : str
        Name of the file format, such as "ASAP XML".
    ignored : Counter
        Number of objects left out (dots, rulers, detections …), by kind.
    repaired : Counter
        Number of defects repaired, by kind.
    mask_scale : (float, float) or None
        Level-0 pixels per mask pixel along x and y, for masks.
    """

    format: str
    outlines: list[AnnotatedOutline] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    repaired: Counter[str] = field(default_factory=Counter)
    mask_scale: tuple[float, float] | None = None

    def add(self, name: str, ring: Ring, *, cuts: bool = False) -> None:
        """Add the closed outline through the points of `ring`; if there are too few, count it as dropped."""
        if len(set(ring)) < FEWEST_POINTS:
            self.repaired["fewer than 3 points, dropped"] += 1
        else:
            self.outlines.append(AnnotatedOutline(name, Polygon(ring), cuts))


def read_annotation(source: str, info: SlideInfo, mask_mpp: float | None = None) -> AnnotationFile:
    """Read the annotation of one slide in any supported format.

    Parameters
    ----------
    source : str
        ASAP or Aperio ImageScope XML, HALO ``.annotations``, QuPath GeoJSON, or a class mask as TIFF or PNG.
    mask_mpp : float, optional
        µm/px of a mask that does not cover the whole slide.

    Raises
    ------
    AnnotationError
        If the file cannot be read.
    """
    readers: dict[str, Callable[[], AnnotationFile]] = {
        **dict.fromkeys((".xml", ".annotations"), lambda: _read_xml(source)),
        **dict.fromkeys((".geojson", ".json"), lambda: _read_qupath(source, info.bounds_xy_lv0)),
        **dict.fromkeys(MASK_SUFFIXES, lambda: _read_mask(source, info, mask_mpp)),
    }
    suffix = Path(source).suffix.lower()
    if suffix not in readers:
        raise refusal(
            info.slide,
            f"{source} has the ending '{suffix}', which is none of {', '.join(readers)}",
            "export from ASAP or ImageScope as XML, from HALO as .annotations, from QuPath as GeoJSON, or give a class "
            "mask as TIFF or PNG",
        )
    try:
        return readers[suffix]()
    except Exception as error:  # a damaged file can make its parser raise anything
        reason = f"it lacks {error}" if isinstance(error, KeyError) else f"{type(error).__name__}: {error}"
        finding = f"{source} cannot be read as an annotation ({reason[:200]})"
        raise refusal(info.slide, finding, MASK_REMEDY if suffix in MASK_SUFFIXES else REMEDY) from error


def refusal(slide: str, finding: str, remedy: str) -> AnnotationError:
    """Make an error about one slide's annotation."""
    return AnnotationError(slide=slide, stage=STAGE, finding=finding, remedy=remedy)


def _coordinate(value: str | float) -> float:
    number = float(value)
    if not abs(number) <= LARGEST_COORDINATE:  # also refuses NaN
        raise ValueError(f"the coordinate {number:g} is not a number between ±{LARGEST_COORDINATE:g}")
    return number


def _read_xml(source: str) -> AnnotationFile:
    root: Element = ElementTree.fromstring(Path(source).read_bytes())
    if root.tag == "ASAP_Annotations":
        return _read_asap(root)
    if root.tag == "Annotations":
        return _read_layers(root)
    raise ValueError(f"its root element is <{root.tag}>, not ASAP's <ASAP_Annotations> or ImageScope's <Annotations>")


def _points(elements: Sequence[Element]) -> Ring:
    return [(_coordinate(element.attrib["X"]), _coordinate(element.attrib["Y"])) for element in elements]


def _read_asap(root: Element) -> AnnotationFile:
    """ASAP: the group of an outline is its class. A spline becomes a polygon of its points, as in ASAP's own masks."""
    content = AnnotationFile("ASAP XML")
    for element in root.iter("Annotation"):
        kind = element.attrib["Type"]
        corners = sorted(element.iter("Coordinate"), key=lambda corner: float(corner.attrib["Order"]))
        if kind in ("Polygon", "Spline"):
            content.add(element.attrib["PartOfGroup"], _points(corners))
        elif kind == "Rectangle":
            content.add(element.attrib["PartOfGroup"], _rectangle(_points(corners)))
        elif kind in ("Dot", "PointSet", "Measurement"):
            content.ignored[kind] += 1
        else:
            raise ValueError(f"the annotation type '{kind}' is unknown")
    return content


def _rectangle(corners: Ring) -> Ring:
    """The four corners of a rectangle; the file may give all four or two opposite ones."""
    if len(corners) != 2:
        return corners
    (left, top), (right, bottom) = corners
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def _ellipse(corners: Ring) -> Ring:
    """Points of the ellipse that fills the bounding box of `corners`."""
    left, top, right, bottom = shapely.MultiPoint(corners).bounds
    circle = Point(0, 0).buffer(1, quad_segs=32).exterior.coords[:-1]
    return [(left + (right - left) * (x + 1) / 2, top + (bottom - top) * (y + 1) / 2) for x, y in circle]


def _read_layers(root: Element) -> AnnotationFile:
    """Aperio ImageScope and HALO: layers are classes; regions with NegativeROA are holes in their layer."""
    halo = root.find(".//V") is not None
    content = AnnotationFile("HALO annotations" if halo else "Aperio ImageScope XML")
    for layer in root.iter("Annotation"):
        for region in layer.iter("Region"):
            points = _points([*region.iter("Vertex"), *region.iter("V")])
            kind, cuts = region.get("Type", "0"), region.get("NegativeROA", "0") == "1"
            open_line = region.get("HasEndcaps", "0") == "1"
            if kind in ("0", "1", "Polygon", "Rectangle") and not open_line:
                content.add(_layer_name(layer), _rectangle(points), cuts=cuts)
            elif kind in ("2", "Ellipse"):
                content.add(_layer_name(layer), _ellipse(points) if len(points) <= 4 else points, cuts=cuts)
            else:
                content.ignored["open line" if open_line else f"region of type {kind}"] += 1
    return content


def _layer_name(layer: Element) -> str:
    """Name of a layer; ImageScope users often write it in the layer's first attribute instead."""
    attribute = layer.find("Attributes/Attribute")
    noted = attribute.attrib if attribute is not None else {}
    own = noted.get("Name", "")
    untitled = f"Layer {layer.get('Id', '')}".strip()
    return layer.get("Name") or noted.get("Value") or (own if own != UNTOUCHED_ATTRIBUTE else "") or untitled


def _read_qupath(source: str, bounds_xy_lv0: tuple[int, int]) -> AnnotationFile:
    """QuPath: its origin is the top-left corner of the scanned bounds, because it crops the slide to them."""
    content = AnnotationFile("GeoJSON")
    for feature in _features(json.loads(Path(source).read_text(encoding="utf-8-sig"))):
        properties = feature.get("properties") or {}
        kind = properties.get("objectType") or OBJECTS_BEFORE_0_4.get(feature.get("id", ""), "annotation")
        geometry = feature["geometry"] or {"type": "null"}
        if properties.get("isIgnored"):
            content.ignored["marked as ignored"] += 1
        elif kind != "annotation":
            content.ignored[str(kind)] += 1
        elif geometry["type"] in ("Polygon", "MultiPolygon"):
            polygons = [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]
            mended = _with_closed_rings(content, polygons)
            if mended:
                outline = shapely.transform(mended, lambda xy: xy + bounds_xy_lv0)
                content.outlines.append(AnnotatedOutline(_classification(properties), outline))
        elif geometry["type"] in ("Point", "MultiPoint", "LineString", "MultiLineString"):
            content.ignored[geometry["type"]] += 1
        else:
            raise ValueError(f"the geometry type '{geometry['type']}' is unknown")
    return content


def _features(content: Any) -> list[dict[str, Any]]:
    if isinstance(content, list):
        return content
    if content["type"] == "FeatureCollection":
        return list(content["features"])
    if content["type"] == "Feature":
        return [content]
    raise ValueError(f"it is a GeoJSON {content['type']}, not a Feature, a FeatureCollection or a list of Features")


def _classification(properties: dict[str, Any]) -> str:
    """QuPath's class as one name, whatever version wrote it; derived classes become "Tumor: invasive"."""
    classification = properties.get("classification") or {}
    names = classification.get("names") or [classification.get("name") or ""]
    name = ": ".join(map(str, names))
    name.encode()  # raises on lone surrogates, which JSON can hold but a text file cannot
    return name


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
        points = [(_coordinate(x), _coordinate(y)) for x, y, *_ in ring]
        if len(set(points)) < FEWEST_POINTS:
            content.repaired["fewer than 3 points, dropped"] += 1
            yield []
            continue
        if points[0] != points[-1]:
            content.repaired["unclosed"] += 1
        yield points


def _read_mask(source: str, info: SlideInfo, mask_mpp: float | None) -> AnnotationFile:
    """Class mask: the outlines follow the edges of its pixels."""
    mask, full_size = _mask_pixels(source)
    if mask.ndim != 2:
        raise ValueError(f"the mask has shape {mask.shape}; it needs one channel of class values")
    scale = mask_scale(full_size, info, mask_mpp)
    reduced = full_size[0] / mask.shape[1], full_size[1] / mask.shape[0]
    transform = Affine.scale(scale[0] * reduced[0], scale[1] * reduced[1])
    content = AnnotationFile("class mask", mask_scale=(transform.a, transform.e))
    for geometry, value in rasterio.features.shapes(mask, mask=mask > 0, transform=transform):
        content.outlines.append(AnnotatedOutline(str(int(value)), shape(geometry)))
    return content


def _mask_pixels(source: str) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """Pixels of the mask (of a coarser level if it is huge), and the full size of the mask (width, height)."""
    if source.lower().endswith(".png"):
        with Image.open(source) as picture:
            if picture.mode not in ("1", "L", "P"):
                raise ValueError(f"the mask is of mode {picture.mode}; it needs one channel of 8 bits")
            return np.asarray(picture).astype(np.uint8), picture.size
    with tifffile.TiffFile(source) as tiff:
        levels = tiff.series[0].levels
        small = next((level for level in levels if math.prod(level.shape) <= LARGEST_MASK_PX), None)
        if small is None:
            raise ValueError(
                f"its smallest level has {math.prod(levels[-1].shape)} pixels, more than {LARGEST_MASK_PX}"
            )
        if small is not levels[0]:
            logging.warning("%s: the level of %d×%d px is used", source, *small.shape[1::-1])
        mask = small.asarray()
    if mask.dtype.kind not in "bui":
        raise ValueError(f"the mask has values of type {mask.dtype}; class values are whole numbers")
    if mask.max(initial=0) > 255 or mask.min(initial=0) < 0:
        raise ValueError(f"the mask has values from {mask.min()} to {mask.max()}; class values are 0 to 255")
    return mask.astype(np.uint8), (levels[0].shape[1], levels[0].shape[0])


def mask_scale(size_px: tuple[int, int], info: SlideInfo, mask_mpp: float | None) -> tuple[float, float]:
    """Level-0 pixels per mask pixel along x and y.

    Follows from `mask_mpp` if given. Otherwise the mask covers the slide: the scale is a whole factor if rounding
    explains the mask's size (1001 px halve to 500 or 501, and the factor is 2, not 2.002), else the ratio of the sizes.

    Raises
    ------
    ValueError
        If the mask's proportions differ from the slide's, or it is larger than the slide at `mask_mpp`.
    """
    ratios = [full / part for full, part in zip(info.size_lv0, size_px, strict=True)]
    if mask_mpp:
        stated = mask_mpp / info.mpp
        if any(part * stated > full + stated for full, part in zip(info.size_lv0, size_px, strict=True)):
            raise ValueError(f"at {mask_mpp:g} µm/px the mask of {size_px[0]}×{size_px[1]} px is larger than the slide")
        return stated, stated
    whole = round(ratios[0])
    fits = (full // whole <= part <= -(-full // whole) for full, part in zip(info.size_lv0, size_px, strict=True))
    if whole >= 1 and all(fits):
        return float(whole), float(whole)
    if abs(ratios[0] - ratios[1]) > max(ratios) / min(size_px):
        raise ValueError(
            f"the mask of {size_px[0]}×{size_px[1]} px has other proportions than the slide of "
            f"{info.size_lv0[0]}×{info.size_lv0[1]} px"
        )
    return ratios[0], ratios[1]
