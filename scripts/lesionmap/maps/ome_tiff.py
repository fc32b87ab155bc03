"""Write maps of a whole slide as pyramidal OME-TIFF, tile by tile."""

import json
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from lesionmap.files.atomic import written_whole
from lesionmap.geometry.resampling import BlockReduction
from lesionmap.maps.on_disk import shrunk
from lesionmap.version import VERSION

LESION_COLOUR = (200, 0, 0)  # in viewers
TIFF_TILE_PX = 256
OME = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
MOST_CLASSIC_BYTES = 2**31  # of level 0; smaller levels and incompressible noise then stay below a classic TIFF's 4 GiB


@dataclass(frozen=True)
class MapNotes:
    """What a map's file says about the map.

    Parameters
    ----------
    channel : str
        What the pixel values are.
    mpp : float
        µm/px of level 0.
    metadata : mapping of str to JSON-able
        Coordinate frame, provenance and the like.
    """

    slide: str
    channel: str
    mpp: float
    metadata: Mapping[str, Any]


def write_map(path: str | Path, image: NDArray[Any], notes: MapNotes, reduction: BlockReduction | None = None) -> None:
    """Write a tiled, lossless pyramid as OME-TIFF that OpenSlide opens with all its levels.

    The smaller levels are SubIFDs of the first, as in OME-TIFF pyramids (2016-06). They also follow it in the chain of
    directories, where OpenSlide's generic driver looks for them.

    Parameters
    ----------
    image : (H, W) uint8, uint16 or bool
        May lie on disk; only a few rows are in memory at once. Bool is written as 0 and 255.
    reduction : callable, optional
        Makes each level, half as large, from the one before: ``block_mean`` or ``block_max`` of
        :mod:`lesionmap.geometry.resampling`. Without it there is one level.
    """
    with written_whole(path) as draft:
        with tifffile.TiffWriter(draft, bigtiff=image.nbytes > MOST_CLASSIC_BYTES) as tiff:
            smaller = _n_halvings(image.shape) if reduction else 0
            dtype = np.dtype(np.uint8 if image.dtype == bool else image.dtype)
            description = _ome_xml(image.shape, dtype.name, notes)
            for level in range(smaller + 1):
                resolution = 1e4 / (notes.mpp * 2**level)
                tiff.write(
                    _tiles(image),
                    shape=image.shape,
                    dtype=dtype,
                    tile=(TIFF_TILE_PX, TIFF_TILE_PX),
                    photometric="minisblack",
                    compression="zlib",
                    predictor=dtype.itemsize > 1,
                    subfiletype=int(level > 0),
                    subifds=smaller if level == 0 else None,
                    resolution=(resolution, resolution),
                    resolutionunit="CENTIMETER",
                    description=description if level == 0 else None,
                    metadata=None,
                    software="LesionMap",
                    maxworkers=1,
                )
                if reduction and level < smaller:
                    image = shrunk(image, 2, reduction, draft.parent)
        if smaller:
            _chain_levels(draft)


def _n_halvings(shape: tuple[int, ...]) -> int:
    """How often a map is halved until it is no larger than a tile."""
    return max(0, (max(shape) - 1) // TIFF_TILE_PX).bit_length()


def _tiles(image: NDArray[Any]) -> Iterator[NDArray[Any]]:
    for y in range(0, image.shape[0], TIFF_TILE_PX):
        for x in range(0, image.shape[1], TIFF_TILE_PX):
            tile = np.asarray(image[y : y + TIFF_TILE_PX, x : x + TIFF_TILE_PX])
            yield tile.astype(np.uint8) * 255 if tile.dtype == bool else tile


def _chain_levels(path: Path) -> None:
    """Make the first SubIFD the next directory, too; tifffile has chained the others."""
    with tifffile.TiffFile(path) as tiff:
        place = max(tag.offset for tag in tiff.pages.first.tags) + tiff.tiff.tagsize
        (link, *_) = tiff.pages.first.tags["SubIFDs"].value
        size = tiff.tiff.offsetsize
    with open(path, "r+b") as stream:
        stream.seek(place)
        stream.write(int(link).to_bytes(size, sys.byteorder))


def _ome_xml(shape: tuple[int, ...], dtype: str, notes: MapNotes) -> str:
    """OME-XML in ASCII: the image of level 0, and the metadata as a MapAnnotation with JSON values."""
    root = ET.Element("OME", {"xmlns": OME, "Creator": f"LesionMap {VERSION}"})
    image = ET.SubElement(root, "Image", {"ID": "Image:0", "Name": f"{notes.slide}: {notes.channel}"})
    size = {"SizeX": str(shape[1]), "SizeY": str(shape[0]), "SizeZ": "1", "SizeC": "1", "SizeT": "1"}
    physical = {"PhysicalSizeX": repr(notes.mpp), "PhysicalSizeY": repr(notes.mpp)}  # in µm, OME's default
    kind = {"ID": "Pixels:0", "DimensionOrder": "XYCZT", "Type": dtype}
    pixels = ET.SubElement(image, "Pixels", kind | size | physical)
    ET.SubElement(pixels, "Channel", {"ID": "Channel:0:0", "Name": notes.channel, "SamplesPerPixel": "1"})
    ET.SubElement(pixels, "TiffData", {"IFD": "0", "PlaneCount": "1"})
    ET.SubElement(image, "AnnotationRef", {"ID": "Annotation:0"})
    annotations = ET.SubElement(root, "StructuredAnnotations")
    annotation = ET.SubElement(annotations, "MapAnnotation", {"ID": "Annotation:0", "Namespace": "lesionmap"})
    value = ET.SubElement(annotation, "Value")
    for key, part in notes.metadata.items():
        ET.SubElement(value, "M", {"K": key}).text = json.dumps(part)
    text: bytes = ET.tostring(root, encoding="us-ascii", xml_declaration=True)
    return text.decode()


def map_frame(mpp: float, mpp_lv0: float) -> dict[str, Any]:
    """Coordinate frame of a map of `mpp` µm/px on its slide."""
    return {"unit": "level-0 pixels", "origin_xy_lv0": [0, 0], "per_map_pixel": mpp / mpp_lv0, "mpp": mpp_lv0}
