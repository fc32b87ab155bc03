"""What a review shows of a slide: its predicted lesions and its annotation, as outlines that QuPath imports."""

from collections.abc import Iterator, Mapping
from typing import Any

import shapely
from shapely.geometry import mapping, shape
from shapely.geometry.base import BaseGeometry

from lesionmap.annotations.corrections import ANNOTATED_CLASS, BESIDE_CLASS, SIBLINGS, annotated_id
from lesionmap.geometry.identity import DECIMALS
from lesionmap.maps.ome_tiff import LESION_COLOUR
from lesionmap.slides.slide import SlideInfo

ANNOTATED_COLOUR = (0, 114, 178)
Feature = dict[str, Any]


def review_outlines(
    lesions: Mapping[str, Any], annotation: Mapping[str, Any] | None, info: SlideInfo
) -> tuple[list[Feature], list[Feature]]:
    """Features of the predicted lesions, and of the annotation.

    Exported as they are, they mean what they meant: the annotation, or, on a slide without, all predicted lesions. So
    no lesion counts twice.

    Parameters
    ----------
    lesions : mapping
        GeoJSON of :func:`lesionmap.lesions.find_lesions.find_lesions`.
    annotation : mapping or None
        GeoJSON of :func:`lesionmap.annotations.canonical.import_annotation`; None without a usable annotation.
    """
    predicted = [_counted(feature, len(lesions["features"])) for feature in lesions["features"]]
    if annotation is None:
        return predicted, []
    return [_beside(feature) for feature in predicted], list(_annotated(annotation, info))


def _counted(feature: Feature, n: int) -> Feature:
    """A predicted lesion that says how many there are, so that a deleted one is missed."""
    metadata = feature["properties"]["metadata"] | {SIBLINGS: str(n)}
    return feature | {"properties": feature["properties"] | {"metadata": metadata}}


def _beside(feature: Feature) -> Feature:
    """A predicted lesion as shown beside an annotation, named with its verdict."""
    properties = feature["properties"]
    shown = {
        "name": f"{properties['name']}, {properties['verdict']}",
        "classification": {"name": BESIDE_CLASS, "color": LESION_COLOUR},
    }
    return feature | {"properties": properties | shown}


def _annotated(annotation: Mapping[str, Any], info: SlideInfo) -> Iterator[Feature]:
    """The annotation's outlines, locked, with their meaning as class."""
    for feature in annotation["features"]:
        outline = _placed(shape(feature["geometry"]), info)
        if not outline.is_empty:
            name = f"{ANNOTATED_CLASS}: {feature['properties']['class']}"
            properties = {
                "objectType": "annotation",
                "classification": {"name": name, "color": ANNOTATED_COLOUR},
                "isLocked": True,
                "metadata": {"source": "annotation", "class in its file": feature["properties"]["name"]},
            }
            own = annotated_id(info.identity, outline)
            yield {"type": "Feature", "id": own, "geometry": mapping(outline), "properties": properties}


def _placed(outline: BaseGeometry, info: SlideInfo) -> BaseGeometry:
    """An outline from the corner of the slide's bounds, on a grid on which QuPath leaves it."""
    moved = shapely.transform(outline, lambda xy: xy - info.bounds_xy_lv0)
    on_grid = shapely.set_precision(moved, 10**-DECIMALS)
    return shapely.transform(on_grid, lambda xy: xy.round(DECIMALS))
