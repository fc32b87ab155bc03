"""Ids of lesions: the same outline on the same slide has the same id, whoever computes it."""

import uuid

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

NAMESPACE = uuid.UUID("5b1f8c52-7c5e-5d0e-9c7d-0b9d7f6f1d3a")
DECIMALS = 1  # of a level-0 pixel, in written outlines; 32-bit floats, as in QuPath, give them back unchanged


def lesion_id(slide_identity: str, outline: BaseGeometry) -> str:
    """UUID (version 5, RFC 9562) of an outline from its content.

    It depends neither on where a ring begins nor on its direction, nor on more decimals than `DECIMALS`.

    Parameters
    ----------
    slide_identity : str
        SHA-256 of the slide's files.
    outline : Polygon or MultiPolygon
        In the file's coordinates: level-0 pixels from the corner of the slide's bounds.
    """
    tenths = shapely.transform(outline, lambda xy: np.rint(xy * 10**DECIMALS) + 0.0)
    points = shapely.get_coordinates(shapely.normalize(tenths)).astype(int).tolist()
    return str(uuid.uuid5(NAMESPACE, f"{slide_identity} {points}"))
