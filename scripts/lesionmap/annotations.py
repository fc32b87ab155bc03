"""Pathologists' outlines: from the file of any program to one canonical GeoJSON, and from that to masks.

Coordinates are continuous level-0 pixels: pixel i covers [i, i + 1), so its centre is i + 0.5.
"""

import json
import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

import numpy as np
import rasterio.features
import shapely
import tifffile
from affine import Affine
from defusedxml import DefusedXmlException, ElementTree
from numpy.typing import NDArray
from shapely.geometry import Polygon, mapping, shape
from shapely.geometry.base import BaseGeometry

from lesionmap.errors import AnnotationError
from lesionmap.files import read_json, write_json
from lesionmap.slides import SlideInfo
from lesionmap.tiling import CLASS_NAMES

STAGE = "import_annotation"
HOLE, LEFT_OUT = "hole", "ignore"
DRAWN_LAST_WINS = ("fat", "vessel", "lesion")


@dataclass(frozen=True)
class Outline:
    """One outline as its file has it: the name its class has there, and its geometry."""

    name: str
    geometry: BaseGeometry


def import_annotation(
    source: str,
    info: SlideInfo,
    output: str,
    *,
    classes: dict[str, str],
    mask_values: dict[str, str],
) -> None:
    """Write the canonical GeoJSON of one slide's annotation.

    Parameters
    ----------
    source : str
        ASAP XML, QuPath GeoJSON, or a class mask as TIFF.
    info : SlideInfo
    output : str
        FeatureCollection in level-0 pixels; each feature's ``properties.class`` is lesion, vessel or fat.
    classes : dict
        Class name in the file → ``lesion``, ``vessel``, ``fat``, ``hole`` (cut out of all others) or ``ignore``.
    mask_values : dict
        Pixel value of a mask, as text → the same.

    Raises
    ------
    AnnotationError
        If the file cannot be understood, has a class that `classes` does not map, or lies beside the slide.
    """
    outlines = _read_outlines(source, info)
    names = mask_values if Path(source).suffix.lower() in (".tif", ".tiff") else classes
    by_class = _map_classes(outlines, names, info.slide)
    polygons = _cut_holes(by_class)
    _check_place(polygons, info)
    features = [
        {"type": "Feature", "properties": {"class": name}, "geometry": mapping(polygon)} for name, polygon in polygons
    ]
    logging.info("%s: %s", info.slide, dict(Counter(name for name, _ in polygons)) or "no outlines")
    write_json(output, {"type": "FeatureCollection", "slide": info.slide, "features": features})


def _read_outlines(source: str, info: SlideInfo) -> list[Outline]:
    readers = {".xml": _read_asap, ".geojson": _read_qupath, ".json": _read_qupath}
    readers |= {".tif": _read_mask, ".tiff": _read_mask}
    suffix = Path(source).suffix.lower()
    if suffix not in readers:
        raise _refusal(
            info.slide,
            f"{source} has the ending '{suffix}', which is none of {', '.join(readers)}",
            "export from ASAP as XML, from QuPath as GeoJSON, or give a class mask as TIFF",
        )
    try:
        return readers[suffix](source, info)
    except (ParseError, DefusedXmlException, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise _refusal(info.slide, f"{source} is not well-formed ({error})", "export it again") from error
    except (KeyError, TypeError, ValueError, AttributeError, shapely.GEOSException) as error:
        finding = f"{source} has an outline that is not understood ({type(error).__name__}: {error})"
        raise _refusal(info.slide, finding, "export it again, or open an issue with the file") from error


def _refusal(slide: str, finding: str, remedy: str) -> AnnotationError:
    return AnnotationError(slide=slide, stage=STAGE, finding=finding, remedy=remedy)


def _read_asap(source: str, info: SlideInfo) -> list[Outline]:
    root: Element = ElementTree.fromstring(Path(source).read_bytes())
    if root.tag != "ASAP_Annotations":
        raise ValueError(f"its root element is <{root.tag}>, not <ASAP_Annotations>")
    outlines = []
    for element in root.iter("Annotation"):
        corners = sorted(element.iter("Coordinate"), key=lambda corner: float(corner.attrib["Order"]))
        ring = [(float(corner.attrib["X"]), float(corner.attrib["Y"])) for corner in corners]
        if len(ring) < 3:
            logging.warning("%s: an ASAP %s with fewer than 3 points is left out", info.slide, element.get("Type"))
            continue
        outlines.append(Outline(element.attrib["PartOfGroup"], _repaired(Polygon(ring), info.slide)))
    return outlines


def _read_qupath(source: str, info: SlideInfo) -> list[Outline]:
    content = json.loads(Path(source).read_text(encoding="utf-8"))
    features = content if isinstance(content, list) else content.get("features", [content])
    outlines = []
    for feature in features:
        classification = feature["properties"].get("classification", {}).get("name", "")
        # QuPath crops to the scanned bounds, so its origin is their corner
        geometry = shapely.transform(shape(feature["geometry"]), lambda xy: xy + info.bounds_xy_lv0)
        outlines.append(Outline(classification, _repaired(geometry, info.slide)))
    return outlines


def _read_mask(source: str, info: SlideInfo) -> list[Outline]:
    try:
        mask = tifffile.imread(source, series=0, level=0)
    except tifffile.TiffFileError as error:
        raise ValueError(str(error)) from error
    if mask.ndim != 2:
        raise ValueError(f"the mask has shape {mask.shape}; it needs one channel of class values")
    scale = info.size_lv0[0] / mask.shape[1]
    if abs(mask.shape[0] * scale - info.size_lv0[1]) > scale:
        raise ValueError(
            f"the mask of {mask.shape[1]}×{mask.shape[0]} px has other proportions than the slide of "
            f"{info.size_lv0[0]}×{info.size_lv0[1]} px"
        )
    mask = mask.astype(np.uint8)
    shapes = rasterio.features.shapes(mask, mask=mask > 0, transform=Affine.scale(scale))
    return [Outline(str(int(value)), shape(geometry)) for geometry, value in shapes]


def _repaired(geometry: BaseGeometry, slide: str) -> BaseGeometry:
    if geometry.is_valid:
        return geometry
    logging.warning("%s: an outline that crosses itself was repaired", slide)
    return shapely.make_valid(geometry)


def _map_classes(outlines: list[Outline], names: dict[str, str], slide: str) -> dict[str, list[BaseGeometry]]:
    unknown = sorted({outline.name for outline in outlines} - names.keys())
    if unknown:
        raise _refusal(
            slide,
            f"classes that the config does not map: {', '.join(map(repr, unknown))}",
            "map each under annotations.classes (or annotations.mask_values for a mask) to lesion, vessel, fat, "
            "hole or ignore",
        )
    by_class: dict[str, list[BaseGeometry]] = {}
    for outline in outlines:
        by_class.setdefault(names[outline.name], []).append(outline.geometry)
    by_class.pop(LEFT_OUT, None)
    return by_class


def _cut_holes(by_class: dict[str, list[BaseGeometry]]) -> list[tuple[str, Polygon]]:
    holes = by_class.get(HOLE, [])
    tree = shapely.STRtree(holes)
    polygons = []
    for name in CLASS_NAMES:
        for geometry in by_class.get(name, []):
            over = [holes[index] for index in tree.query(geometry)]
            rest = geometry.difference(shapely.union_all(over)) if over else geometry
            polygons += [(name, part) for part in shapely.get_parts(rest) if part.area > 0]
    return [(name, part) for name, part in polygons if isinstance(part, Polygon)]


def _check_place(polygons: list[tuple[str, Polygon]], info: SlideInfo) -> None:
    if not polygons:
        return
    width, height = info.size_lv0
    left, top, right, bottom = shapely.total_bounds([polygon for _, polygon in polygons])
    if right <= 0 or bottom <= 0 or left >= width or top >= height:
        raise _refusal(
            info.slide,
            f"all outlines (x {left:.0f}–{right:.0f}, y {top:.0f}–{bottom:.0f}) lie beside the slide "
            f"of {width}×{height} px",
            "check that the annotation belongs to this slide and is in level-0 pixels",
        )
    if left < 0 or top < 0 or right > width or bottom > height:
        logging.warning("%s: outlines reach beyond the slide; that part is ignored", info.slide)


class Annotation:
    """A slide's canonical annotation, ready to be drawn into masks.

    Parameters
    ----------
    path : str or Path or None
        The GeoJSON that :func:`import_annotation` wrote; None is a slide without annotation.
    """

    def __init__(self, path: str | Path | None) -> None:
        features: list[dict[str, Any]] = read_json(path)["features"] if path else []
        self._classes = [feature["properties"]["class"] for feature in features]
        self._polygons = [shape(feature["geometry"]) for feature in features]
        self._tree = shapely.STRtree(self._polygons)

    def mask(self, xy_lv0: tuple[float, float], size_px: tuple[int, int], scale: float) -> NDArray[np.uint8]:
        """Draw the classes of one box; a pixel belongs to the outline that its centre lies in.

        Parameters
        ----------
        xy_lv0 : (float, float)
            Top-left corner of the box in level-0 pixels.
        size_px : (int, int)
            Width and height of the mask.
        scale : float
            Level-0 pixels per mask pixel.

        Returns
        -------
        (height, width) uint8
            0 background, 1 lesion, 2 vessel, 3 fat; where they overlap lesion wins over vessel over fat.
        """
        box = shapely.box(*xy_lv0, xy_lv0[0] + size_px[0] * scale, xy_lv0[1] + size_px[1] * scale)
        hits = sorted(self._tree.query(box, predicate="intersects"), key=self._priority)
        if not hits:
            return np.zeros((size_px[1], size_px[0]), dtype=np.uint8)
        mask: NDArray[np.uint8] = rasterio.features.rasterize(
            ((self._polygons[hit], CLASS_NAMES[self._classes[hit]]) for hit in hits),
            out_shape=(size_px[1], size_px[0]),
            transform=Affine.translation(*xy_lv0) @ Affine.scale(scale),
            dtype="uint8",
        )
        return mask

    def _priority(self, index: int) -> tuple[int, int]:
        return DRAWN_LAST_WINS.index(self._classes[index]), index
