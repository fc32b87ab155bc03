"""Texts of annotation files, written part by part."""

import json

TRIANGLE = [(10, 20), (30, 20), (30, 50)]
RECTANGLE = [(10, 20), (40, 20), (40, 30), (10, 30)]
SQUARE = [[10, 20], [14, 20], [14, 24], [10, 24], [10, 20]]
HOLE = [[11, 21], [13, 21], [13, 22], [11, 22], [11, 21]]
FAR = [[50, 60], [57, 60], [57, 63], [50, 63], [50, 60]]


def asap(*annotations):
    """ASAP XML of (type, group, points) in the order of the points."""
    elements = ""
    for kind, group, points in annotations:
        corners = "".join(f'<Coordinate Order="{i}" X="{x}" Y="{y}" />' for i, (x, y) in enumerate(points))
        elements += f'<Annotation Name="a" Type="{kind}" PartOfGroup="{group}" Color="#F4FA58"><Coordinates>{corners}'
        elements += "</Coordinates></Annotation>"
    groups = '<Group Name="Tumor" PartOfGroup="None" Color="#00ff00"><Attributes /></Group>'
    return (
        f'<?xml version="1.0"?><ASAP_Annotations><Annotations>{elements}</Annotations>'
        f"<AnnotationGroups>{groups}</AnnotationGroups></ASAP_Annotations>"
    )


def layers(*content):
    return f'<Annotations MicronsPerPixel="0.252">{"".join(content)}</Annotations>'


def layer(attributes, *regions, header=""):
    return (
        f"<Annotation {attributes}>{header}<Regions><RegionAttributeHeaders />{''.join(regions)}</Regions></Annotation>"
    )


def region(points, attributes='Type="0"', tag="Vertex"):
    vertices = "".join(f'<{tag} X="{x}" Y="{y}" />' for x, y in points)
    return f"<Region {attributes}><Vertices>{vertices}</Vertices></Region>"


def qupath(*features):
    return json.dumps({"type": "FeatureCollection", "features": list(features)})


def feature(coordinates, kind="Polygon", **properties):
    return {"type": "Feature", "geometry": {"type": kind, "coordinates": coordinates}, "properties": properties}
