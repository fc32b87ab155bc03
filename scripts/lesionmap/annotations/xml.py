"""Read outlines from XML: ASAP, Aperio ImageScope and HALO."""

import re
from collections.abc import Sequence
from xml.etree.ElementTree import Element

import shapely
from defusedxml import ElementTree
from shapely.geometry import Point

from lesionmap.annotations.content import AnnotationFile, ForeignFileError, Ring, coordinate, file_bytes

UNTOUCHED_ATTRIBUTE = "Description"  # ImageScope gives every new layer an attribute of this name
DECIMAL_COMMA = re.compile(r"-?\d+,\d+")
THOUSANDS = re.compile(r"-?\d{1,3}(,\d{3})+")
FOREIGN_ROOTS = {
    "annotation": "a Pascal VOC file",
    "annotations": "a file of NDP.view or CVAT",
    "OME": "OME-XML",
    "svg": "an SVG drawing",
}


def read_xml(source: str) -> AnnotationFile:
    """Read ASAP or ImageScope XML, or HALO annotations.

    Raises
    ------
    ValueError
        If the file is none of these, or lacks something.
    """
    root: Element = ElementTree.fromstring(file_bytes(source))
    n_commas = _with_decimal_points(root)
    if root.tag == "ASAP_Annotations":
        content = _read_asap(root)
    elif root.tag == "Annotations":
        content = _read_layers(root)
    else:
        name = root.tag.rpartition("}")[2]
        known = f"it is {FOREIGN_ROOTS[name]}; " if name in FOREIGN_ROOTS else ""
        raise ForeignFileError(
            f"{known}its root element is <{name}>, not ASAP's <ASAP_Annotations> or ImageScope's <Annotations>",
            "export the outlines from ASAP, ImageScope, HALO or QuPath, or convert them to GeoJSON in level-0 pixels",
        )
    content.repaired.update({"decimal comma": n_commas} if n_commas else {})
    return content


def _with_decimal_points(root: Element) -> int:
    """Make decimal commas of coordinates points; return the number of those coordinates.

    Raises
    ------
    ValueError
        If the commas may be marks of thousands, or some coordinates have a point.
    """
    places = [(item, axis) for item in root.iter() for axis in ("X", "Y") if axis in item.attrib]
    commas = [(item, axis) for item, axis in places if "," in item.attrib[axis]]
    texts = [item.attrib[axis].strip() for item, axis in commas]
    clear = all(map(DECIMAL_COMMA.fullmatch, texts)) and not all(map(THOUSANDS.fullmatch, texts))
    if texts and (not clear or any("." in item.attrib[axis] for item, axis in places)):
        raise ForeignFileError(
            f"its coordinate {texts[0]!r} has a comma that may be a decimal comma or a mark of thousands",
            "export it with decimal points: set the program's or the computer's language to English",
        )
    for (item, axis), text in zip(commas, texts, strict=True):
        item.attrib[axis] = text.replace(",", ".")
    return len(texts)


def _points(elements: Sequence[Element]) -> Ring:
    return [(coordinate(element.attrib["X"]), coordinate(element.attrib["Y"])) for element in elements]


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
