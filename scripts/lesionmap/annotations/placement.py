"""Check where an annotation lies: outlines on bare glass are in another frame than level-0 pixels."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import rasterio.features
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import MergeAlg
from scipy.ndimage import binary_fill_holes
from shapely.geometry import shape

from lesionmap.annotations.classes import CLASS_NAMES
from lesionmap.files.records import read_json, write_json
from lesionmap.slides.slide import SlideInfo
from lesionmap.tissue.mask import FOLD, INK, TissueMask

JUDGED = ("lesion", "vessel")  # fat may be drawn far into what a tissue map calls glass
LEAST_SHARE = 0.5  # of a class's area on tissue
FITTING_SHARE = 0.8  # from which another frame is named as the likely one
USUAL_FACTORS = (2.0, 4.0, 8.0, 16.0, 32.0)  # between level 0 and other levels, of this or another file of the slide
MOST_NAMED = 3
SMALL_PX = 9.0  # of the tissue map: smaller polygons are looked up at one point
REMEDY = "look at it on the slide, and export it again in level-0 pixels of this file"


@dataclass(frozen=True)
class Frame:
    """A frame that coordinates may be in: level-0 pixels are `factor` times them, plus the offset."""

    name: str
    factor: float = 1.0
    offset_xy: tuple[float, float] = (0.0, 0.0)


LEVEL_0 = Frame("level-0 pixels")


@dataclass(frozen=True)
class Ground:
    """Where on a slide there may be lesions: (H, W) bool, and level-0 pixels per pixel along x and y."""

    there: NDArray[np.bool_]
    scale: tuple[float, float]

    @classmethod
    def of(cls, codes: NDArray[np.uint8], scale: tuple[float, float]) -> "Ground":
        """From the codes of a tissue map: tissue and what it encloses, such as lumens of vessels; and ink."""
        return cls(binary_fill_holes(codes >= FOLD) | (codes == INK), scale)

    def share(self, polygons: NDArray[Any], frame: Frame) -> float:
        """Share of the polygons' area that lies on it, 0 to 1, if their coordinates are in `frame`."""
        areas_px = shapely.area(polygons) * frame.factor**2 / np.prod(self.scale)
        small = areas_px < SMALL_PX
        points = shapely.get_coordinates(shapely.point_on_surface(polygons[small])) * frame.factor + frame.offset_xy
        on_ground = float(areas_px[small][self._at(points)].sum())
        if not small.all():
            on_ground += self._area_on_ground(polygons[~small], frame)
        return on_ground / float(areas_px.sum())

    def _at(self, xy_lv0: NDArray[np.float64]) -> NDArray[np.bool_]:
        column, row = np.floor(xy_lv0 / self.scale).astype(int).T
        height, width = self.there.shape
        within = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        found: NDArray[np.bool_] = within & self.there[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)]
        return found

    def _area_on_ground(self, polygons: NDArray[Any], frame: Frame) -> float:
        """Area of the polygons that lies on it, in its pixels; where some overlap, each counts."""
        # Fewer vertices first: rasterising visits every vertex for every row of pixels.
        plain = shapely.simplify(polygons, min(self.scale) / frame.factor / 4, preserve_topology=False)
        to_frame = Affine.scale(1 / frame.factor) @ Affine.translation(-frame.offset_xy[0], -frame.offset_xy[1])
        transform = to_frame @ Affine.scale(*self.scale)
        counts = rasterio.features.rasterize(
            [part for part in plain if not part.is_empty],
            out_shape=self.there.shape,
            transform=transform,
            merge_alg=MergeAlg.add,
            dtype="uint16",
        )
        height, width = self.there.shape
        on_slide = shapely.clip_by_rect(polygons, *(transform @ (0, 0)), *(transform @ (width, height)))
        area_px = float(shapely.area(on_slide).sum()) / abs(transform.determinant)
        return area_px * float(counts[self.there].sum()) / max(1.0, float(counts.sum()))


def check_annotation(annotation: str, info: SlideInfo, tissue: str, output: str) -> None:
    """Write how much of each class lies on tissue, and what is flagged about that.

    Parameters
    ----------
    annotation, tissue : str
        Files of :func:`lesionmap.annotations.canonical.import_annotation` and
        :func:`lesionmap.tissue.detection.find_tissue`.
    output : str
        JSON with ``slide``, ``format`` of the annotation file, counts of its ``review``, ``tissue_share`` of each class
        that is annotated, and ``flags``.
    """
    mask = TissueMask(tissue, info)
    content = read_json(annotation)
    found = placement(content, info, Ground.of(mask.codes, mask.scale))
    about = {"slide": info.slide, "format": content["source"]["format"], "review": content["review"]}
    write_json(output, about | found)


def placement(content: Mapping[str, Any], info: SlideInfo, ground: Ground) -> dict[str, Any]:
    """Share of each class's area on tissue, and flags for what cannot be, with the likely cause.

    Parameters
    ----------
    content : mapping
        As returned by :func:`lesionmap.annotations.canonical.canonical`.

    Returns
    -------
    dict
        ``tissue_share`` (class → 0 to 1; classes without outlines are left out) and ``flags``.
    """
    polygons = {label: _polygons(content["features"], label) for label in CLASS_NAMES}
    shares = {label: ground.share(some, LEVEL_0) for label, some in polygons.items() if len(some)}
    misplaced = [label for label in JUDGED if shares.get(label, 1.0) < LEAST_SHARE]
    flags = [_flag(label, shares[label], polygons[label], info, ground) for label in misplaced]
    return {"tissue_share": {label: round(share, 4) for label, share in shares.items()}, "flags": flags}


def _polygons(features: Sequence[Mapping[str, Any]], label: str) -> NDArray[Any]:
    found = [shape(feature["geometry"]) for feature in features if feature["properties"]["class"] == label]
    return np.array(found, dtype=object)


def _flag(label: str, share: float, polygons: NDArray[Any], info: SlideInfo, ground: Ground) -> str:
    found = f"only {share:.0%} of the area annotated as {label} lies on tissue"
    fits = [(ground.share(polygons, frame), frame.name) for frame in _frames(info)]
    likely = sorted((fit for fit in fits if fit[0] >= FITTING_SHARE), reverse=True)[:MOST_NAMED]
    if not likely:
        return (
            f"{found}: it may belong to another slide, or be shifted (neither µm nor the pixels of another level fit, "
            "nor the offset of the scanned bounds)"
        )
    named = ", or ".join(f"{name} ({fit:.0%} would lie on tissue)" for fit, name in likely)
    return f"{found}: its coordinates seem to be {named}"


def _frames(info: SlideInfo) -> Iterator[Frame]:
    """Frames that annotation programs use by mistake; those that are the same on this slide share a name."""
    named: dict[float, list[str]] = {1 / info.mpp: ["µm"]}
    for factor in sorted({round(factor, 6) for factor in info.downsamples if factor > 1} | set(USUAL_FACTORS)):
        same = next((known for known in named if abs(known / factor - 1) < 0.01), factor)
        named.setdefault(same, []).append(f"pixels of a level {factor:.4g} times coarser")
    named.setdefault(1.0, []).append("level-0 pixels")
    offset_xy = (float(info.bounds_xy_lv0[0]), float(info.bounds_xy_lv0[1]))
    for factor, names in named.items():
        name = " or ".join(names)
        if factor != 1:
            yield Frame(name, factor)
        if any(offset_xy):
            yield Frame(f"{name} from the corner of the scanned bounds", factor, offset_xy)
    if any(offset_xy):
        x, y = offset_xy
        yield Frame("level-0 pixels to which the corner of the scanned bounds was added twice", 1.0, (-x, -y))
