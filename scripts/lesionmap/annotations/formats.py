"""Read the files that annotation programs export, and class masks, as outlines in level-0 pixels.

Coordinates are continuous: pixel i covers [i, i + 1), so its centre is i + 0.5.
"""

from collections.abc import Callable
from pathlib import PurePath

from lesionmap.annotations.class_mask import read_mask
from lesionmap.annotations.content import AnnotationFile, ForeignFileError, refusal
from lesionmap.annotations.geojson import read_geojson
from lesionmap.annotations.xml import read_xml
from lesionmap.slides.slide import SlideInfo

REMEDY = "export it again, and see that it was copied to its end"
MASK_REMEDY = (
    "give an undamaged mask of one channel with class values 0 to 255 that covers the whole slide, or state its µm/px "
    "as mask_mpp in the sheet"
)
MASK_SUFFIXES = (".tif", ".tiff", ".png")
AS_GEOJSON = "GeoJSON in level-0 pixels"
UNKNOWN_REMEDY = (
    "export from ASAP or ImageScope as XML, from HALO as .annotations, from QuPath as GeoJSON, or give a class mask as "
    "TIFF or PNG"
)
FROM_QUPATH = "open the slide in QuPath and export its annotations as GeoJSON (File, Export objects as GeoJSON)"
TABLE = "a table", f"write its outlines as {AS_GEOJSON}"
FOREIGN_SUFFIXES = {  # what it is, and the remedy
    ".qpdata": ("QuPath's own data of a slide", FROM_QUPATH),
    ".qpproj": ("a QuPath project", FROM_QUPATH),
    ".ndpa": (
        "Hamamatsu NDP.view annotations, in nanometres from the slide's centre",
        f"convert its outlines to {AS_GEOJSON}, or draw them in a program whose files are read",
    ),
    ".zip": ("an archive", "unpack it, and name the file in it"),
    ".svg": ("a drawing", f"write its outlines as {AS_GEOJSON}"),
    ".db": (
        "a database, such as TIAToolbox's annotation store",
        'write GeoJSON from it: SQLiteStore("slide.db").to_geojson("slide.geojson") in TIAToolbox',
    ),
    ".afi": ("a list of Aperio fluorescence images", UNKNOWN_REMEDY),
    **dict.fromkeys((".csv", ".tsv", ".txt", ".xlsx"), TABLE),
    **dict.fromkeys((".jpg", ".jpeg"), ("a JPEG, which changes class values", "save the mask as PNG or TIFF")),
}


def read_annotation(source: str, info: SlideInfo, mask_mpp: float | None = None) -> AnnotationFile:
    """Read the annotation of one slide in any supported format.

    Parameters
    ----------
    source : str
        ASAP or Aperio ImageScope XML, HALO ``.annotations`` or GeoJSON, each also packed as ``.gz``, or a class mask
        as TIFF or PNG.
    mask_mpp : float, optional
        µm/px of a mask that does not cover the whole slide.

    Raises
    ------
    AnnotationError
        If the file cannot be read.
    """
    readers: dict[str, Callable[[], AnnotationFile]] = {
        **dict.fromkeys((".xml", ".annotations"), lambda: read_xml(source)),
        **dict.fromkeys((".geojson", ".json", ".geojsonl", ".geojsons", ".ndjson"), lambda: read_geojson(source, info)),
        **dict.fromkeys(MASK_SUFFIXES, lambda: read_mask(source, info, mask_mpp)),
    }
    suffix = _suffix(source)
    if suffix not in readers:
        what, remedy = FOREIGN_SUFFIXES.get(suffix, ("", UNKNOWN_REMEDY))
        named = f"is {what}: it " if what else ""
        raise refusal(
            info.slide, f"{source} {named}has the ending '{suffix}', which is none of {', '.join(readers)}", remedy
        )
    try:
        return readers[suffix]()
    except ForeignFileError as error:
        raise refusal(info.slide, f"{source} cannot be read as an annotation ({error})", error.remedy) from error
    except Exception as error:  # a damaged file can make its parser raise anything
        reason = f"it lacks {error}" if isinstance(error, KeyError) else f"{type(error).__name__}: {error}"
        finding = f"{source} cannot be read as an annotation ({reason[:200]})"
        raise refusal(info.slide, finding, MASK_REMEDY if suffix in MASK_SUFFIXES else REMEDY) from error


def _suffix(source: str) -> str:
    """The ending that tells the format: that before ``.gz``, for text."""
    name = PurePath(source.lower())
    inner = name.with_suffix("").suffix
    return inner if name.suffix == ".gz" and inner not in MASK_SUFFIXES else name.suffix
