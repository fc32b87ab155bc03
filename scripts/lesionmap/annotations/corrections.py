"""Tell what comes back from a review: which predicted lesions were accepted, edited or rejected, and what is new.

QuPath keeps the ids of outlines. That of an outline which nobody has edited is still :func:`lesion_id` of it.
"""

import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from shapely.geometry.base import BaseGeometry

from lesionmap.annotations.classes import CORRECTIONS
from lesionmap.annotations.content import AnnotatedOutline
from lesionmap.formatting import counted
from lesionmap.geometry.identity import lesion_id

PREDICTED, ANNOTATED, EDITED = "predicted", "annotated", "edited"  # origins; the first two: and not edited
REJECTED = "rejected"  # what the class of an outline means that a person has rejected; elsewhere it is background
SOFTWARE = "LesionMap"  # begins the source in the metadata of a predicted outline
SIBLINGS = "predicted outlines"  # key in the metadata of a predicted outline: how many a review has sent out
# Classes of what a review shows: predicted lesions, those beside an annotation, and (before its class) the annotation.
LESION_CLASS, BESIDE_CLASS, ANNOTATED_CLASS = "Lesion", "Predicted", "Annotated"
REMEDY = (
    "review them in QuPath (docs/review.md); if all are right, say so: select them, give them the class Accepted, and "
    "export them again"
)


def annotated_id(slide_identity: str, outline: BaseGeometry) -> str:
    """Id of an outline of the annotation that a review shows, as :func:`lesionmap.geometry.identity.lesion_id`."""
    return lesion_id(f"{ANNOTATED} {slide_identity}", outline)


def origin_of(feature: Mapping[str, Any], outline: BaseGeometry, slide_identity: str) -> str:
    """``predicted``, ``annotated`` or ``edited``, if this workflow has written the feature; else empty.

    Parameters
    ----------
    feature : mapping
        GeoJSON as QuPath or another program has exported it.
    outline : Polygon or MultiPolygon
        Its geometry, in the coordinates of the file.
    """
    own = str(feature.get("id", ""))
    if _version(own) == 5:
        ids = {lesion_id(slide_identity, outline): PREDICTED, annotated_id(slide_identity, outline): ANNOTATED}
        return ids.get(own, EDITED)
    return EDITED if str(_metadata(feature).get("source")).startswith(SOFTWARE) else ""


def siblings_of(feature: Mapping[str, Any]) -> int:
    """How many predicted outlines a review has sent out with a feature, and it among them; 0 if it does not say."""
    told = str(_metadata(feature).get(SIBLINGS, ""))
    return int(told) if told.isdecimal() else 0


def _metadata(feature: Mapping[str, Any]) -> Mapping[str, Any]:
    """What QuPath keeps of an outline besides name, class and measurements."""
    metadata = (feature.get("properties") or {}).get("metadata")
    return metadata if isinstance(metadata, dict) else {}


def _version(text: str) -> int | None:
    """Version of a UUID; None for any other text."""
    try:
        return uuid.UUID(text).version
    except ValueError:
        return None


def class_of(name: str, origin: str) -> str:
    """Class name of an outline: a lesion shown beside an annotation is a lesion once a person has edited it."""
    return LESION_CLASS if (name, origin) == (BESIDE_CLASS, EDITED) else name


def correction_counts(outlines: Sequence[AnnotatedOutline], labels: Mapping[str, str]) -> dict[str, int] | None:
    """How many outlines a person has accepted, edited, rejected, deleted, and drawn anew.

    None if nothing comes from a review. Deleted are predicted outlines that have not come back with the others.

    Parameters
    ----------
    labels : mapping of str to str
        What each class name means; ``rejected`` for those of ``annotations.rejected``.
    """
    if not any(outline.origin for outline in outlines):
        return None
    kinds = [_kind(outline, labels[outline.name]) for outline in outlines]
    returned = Counter(outline.siblings for outline in outlines if outline.siblings)
    deleted = sum(max(0, sent - n) for sent, n in returned.items())
    return {kind: kinds.count(kind) for kind in CORRECTIONS} | {"deleted": deleted}


def _kind(outline: AnnotatedOutline, label: str) -> str:
    """The kind of correction; empty for what was shown and left as it is, and for what means nothing."""
    left = {PREDICTED: BESIDE_CLASS, ANNOTATED: ANNOTATED_CLASS}.get(outline.origin)
    if label == REJECTED or (label == "background" and outline.origin and outline.name != left):
        return "rejected"
    if label == "background" or (left == ANNOTATED_CLASS and outline.name.startswith(left)):
        return ""
    if outline.origin == PREDICTED and label == "lesion":
        return "accepted"
    return "edited" if outline.origin else "new"


def why_unreviewed(
    outlines: Sequence[AnnotatedOutline], labels: Mapping[str, str], review: Mapping[str, int] | None
) -> tuple[str, str] | None:
    """Finding and remedy, if the lesions are those that this workflow has predicted, and no person has touched any."""
    names = {(outline.origin, outline.name) for outline in outlines if labels[outline.name] == "lesion"}
    if not review or names != {(PREDICTED, LESION_CLASS)} or review["accepted"] != sum(review.values()):
        return None
    finding = (
        f"{counted(review['accepted'], 'outline')} of lesion, and each is as {SOFTWARE} predicted it: nothing was "
        "edited, rejected, deleted, added or accepted, so this is no truth to train on or to judge by"
    )
    return finding, REMEDY
