"""Make the embedded demo cohort: synthetic H&E slides whose outlines are all known.

``python -m lesionmap.demo.cohort FOLDER`` writes slides, annotations and the slide sheet. First, outlines are drawn
as polygons in level-0 pixels. Then two maps of stain concentration are painted inside them. The Beer-Lambert law gives
the colours. The same seeds give the same bytes.
"""

import argparse
import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import shapely
import tifffile
from numpy.typing import NDArray
from shapely import Polygon
from skimage.measure import block_reduce
from tqdm import tqdm

from lesionmap.demo.outlines import MPP
from lesionmap.demo.painting import DemoSlide, paint
from lesionmap.files.atomic import written_whole
from lesionmap.files.records import write_text

COLORS = {"Lesion": (200, 0, 0), "Vessel": (0, 90, 200), "Fat": (230, 190, 0)}


# --- Files ------------------------------------------------------------------------------


def write_pyramid(
    path: str | Path,
    rgb: NDArray[np.uint8],
    mpp: float,
    jpeg_quality: int | None = 90,
    downsamples: Sequence[int] = (1, 4, 16),
) -> None:
    """Write an image (H, W, 3) as a tiled pyramid that OpenSlide opens as generic-tiff.

    Parameters
    ----------
    mpp : float
        µm/px of level 0.
    jpeg_quality : int or None
        None stores the pixels losslessly (deflate).
    downsamples : sequence of int
        Level-0 pixels per pixel of each level, starting with 1.
    """
    lossy = {"compression": "jpeg", "compressionargs": {"level": jpeg_quality}, "subsampling": (2, 1)}
    coding = {"compression": "adobe_deflate"} if jpeg_quality is None else lossy
    with written_whole(path) as draft, tifffile.TiffWriter(draft) as tiff:
        for factor in downsamples:
            tiff.write(
                rgb if factor == 1 else _smaller(rgb, factor),
                photometric="rgb",
                tile=(256, 256),
                subfiletype=int(factor > 1),
                resolution=(1e4 / (mpp * factor), 1e4 / (mpp * factor)),
                resolutionunit="CENTIMETER",
                metadata=None,
                software=False,
                **coding,
            )


def _smaller(rgb: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """Mean of each factor × factor block; blocks on the far edges may be smaller.

    Ties are rounded to even, unlike in :func:`lesionmap.geometry.resampling.block_mean`: the README's metrics of the
    demo rest on these pixels.
    """
    blocks = (factor, factor, 1)
    mean = block_reduce(rgb.astype(np.float64), blocks, np.nanmean, cval=np.nan)  # type: ignore[no-untyped-call]  # no stubs
    return np.asarray(np.rint(mean), dtype=np.uint8)


def write_qupath(path: str | Path, classes: Mapping[str, Sequence[Polygon]]) -> None:
    """Write outlines in level-0 pixels as QuPath exports them: a GeoJSON FeatureCollection."""
    features = [
        {
            "type": "Feature",
            "geometry": shapely.geometry.mapping(shape),
            "properties": {
                "objectType": "annotation",
                "classification": {"name": name, "color": COLORS[name]},
            },
        }
        for name, shapes in classes.items()
        for shape in shapes
    ]
    write_text(path, json.dumps({"type": "FeatureCollection", "features": features}) + "\n")


def write_asap(path: str | Path, classes: Mapping[str, Sequence[Polygon]]) -> None:
    """Write outlines in level-0 pixels as ASAP does; holes become polygons of the group "Exclusion"."""
    root = ET.Element("ASAP_Annotations")
    annotations, groups = ET.SubElement(root, "Annotations"), ET.SubElement(root, "AnnotationGroups")
    for number, (group, ring) in enumerate(rings(classes)):
        tag = {"Name": f"Annotation {number}", "Type": "Polygon", "PartOfGroup": group, "Color": "#F4FA58"}
        coordinates = ET.SubElement(ET.SubElement(annotations, "Annotation", tag), "Coordinates")
        for order, (x, y) in enumerate(ring.coords[:-1]):
            ET.SubElement(coordinates, "Coordinate", {"Order": str(order), "X": str(x), "Y": str(y)})
    for name, color in {**COLORS, "Exclusion": (0, 0, 0)}.items():
        code = "#{:02x}{:02x}{:02x}".format(*color)
        group_tag = ET.SubElement(groups, "Group", {"Name": name, "PartOfGroup": "None", "Color": code})
        ET.SubElement(group_tag, "Attributes")
    ET.indent(root)
    write_text(path, '<?xml version="1.0"?>\n' + ET.tostring(root, encoding="unicode") + "\n")


def rings(classes: Mapping[str, Sequence[Polygon]]) -> Iterator[tuple[str, shapely.LinearRing]]:
    """Yield every ring with its ASAP group."""
    for name, shapes in classes.items():
        for shape in shapes:
            yield name, shape.exterior
            yield from (("Exclusion", hole) for hole in shape.interiors)


def write_slide(folder: Path, jpeg_quality: int | None, slide: DemoSlide) -> str:
    """Write a slide and its annotation; return its row of the slide sheet."""
    rgb, classes = paint(slide)
    path, annotation = f"slides/{slide.name}.tif", ""
    write_pyramid(folder / path, rgb, MPP, jpeg_quality)
    if slide.truncated:
        keep_first_part(folder / path)
    if slide.annotation_format == "qupath":
        annotation = f"annotations/{slide.name}.geojson"
        write_qupath(folder / annotation, classes)
    elif slide.annotation_format == "asap":
        annotation = f"annotations/{slide.name}.xml"
        write_asap(folder / annotation, classes)
    return f"{slide.name}\t{path}\t{slide.split}\t{annotation}\t\n"


def keep_first_part(path: Path) -> None:
    """Truncate a file to its first third, like a broken transfer."""
    content = path.read_bytes()
    with written_whole(path) as draft:
        draft.write_bytes(content[: len(content) // 3])


def write_cohort(folder: str | Path, slides: Sequence[DemoSlide], jpeg_quality: int | None = 90) -> None:
    """Write slides, annotations and `slides.tsv` for a list of slides, two slides at a time."""
    folder = Path(folder)
    with ProcessPoolExecutor(max_workers=2) as pool:
        made = pool.map(partial(write_slide, folder, jpeg_quality), slides)
        rows = list(tqdm(made, total=len(slides), desc="demo slides", unit="slide"))
    write_text(folder / "slides.tsv", "slide\tpath\tsplit\tannotation\tmpp\n" + "".join(rows))


def demo_slides() -> tuple[DemoSlide, ...]:
    """The demo cohort: six annotated slides, one for inference, one that cannot be read."""
    return (
        DemoSlide("train_1", 2700, 2250, 101, "train", "qupath"),
        DemoSlide("train_2", 2310, 2600, 102, "train", "asap"),
        DemoSlide("train_3", 2930, 2050, 103, "train", "qupath"),
        DemoSlide("val_1", 2520, 2330, 104, "val", "asap"),
        DemoSlide("test_1", 2650, 2190, 105, "test", "qupath"),
        DemoSlide("test_2", 2130, 2790, 106, "test", "asap"),
        DemoSlide("new_1", 2440, 2410, 107, "inference"),
        DemoSlide("unreadable", 1500, 1100, 108, "inference", truncated=True),
    )


def main() -> None:
    """Write the demo cohort into the folder named on the command line."""
    parser = argparse.ArgumentParser(description="Write LesionMap's demo cohort: synthetic H&E slides.")
    parser.add_argument("folder", type=Path)
    write_cohort(parser.parse_args().folder, demo_slides())


if __name__ == "__main__":
    main()
