"""The embedded demo cohort: synthetic H&E slides whose every outline is known.

``python -m lesionmap.demo FOLDER`` writes slides, annotations and the slide sheet. Outlines are drawn first, as
polygons in level-0 pixels; two maps of stain concentration are then painted inside them, and the colours follow from
Beer and Lambert's law. The same seeds give the same bytes.
"""

import argparse
import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import rasterio.features
import shapely
import tifffile
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from scipy.spatial import KDTree
from shapely import Polygon
from shapely.geometry.base import BaseGeometry
from tqdm import tqdm

from lesionmap.files import write_text, written_whole

Rng = np.random.Generator
Floats = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]
Scalar = TypeVar("Scalar", bound=np.generic)

MPP = 0.25  # µm per level-0 pixel
STEP_PX = 2  # level-0 pixels per texel: textures are painted on a grid this much coarser
TEXEL_UM = MPP * STEP_PX
STROMA, PARENCHYMA, LYMPHOID, FAT, VESSEL, LESION = range(1, 7)
COLORS = {"Lesion": (200, 0, 0), "Vessel": (0, 90, 200), "Fat": (230, 190, 0)}


@dataclass(frozen=True)
class DemoSlide:
    """One slide to make: its size in level-0 pixels, its seed, its role in the sheet and its annotation's format."""

    name: str
    width_px: int
    height_px: int
    seed: int
    split: Literal["train", "val", "test", "inference"]
    annotation_format: Literal["qupath", "asap"] | None = None
    truncated: bool = False


@dataclass(frozen=True)
class Anatomy:
    """Where things are on a slide: disjoint polygons in level-0 pixels."""

    tissue: tuple[Polygon, ...]
    lesion: tuple[Polygon, ...]
    fat: tuple[Polygon, ...]
    vessel: tuple[Polygon, ...]
    lymphoid: tuple[Polygon, ...]


@dataclass(frozen=True)
class NucleusKind:
    """Look of a kind of nucleus: axes in µm, their spread, stain concentration and the weight of its details."""

    length_um: float
    width_um: float
    haematoxylin: float
    spread: float = 0.08
    clumps: float = 0.12
    rim: float = 0.15
    wobble: float = 0.03
    nucleolus: float = 0.0


class Nucleus(NamedTuple):
    """A nucleus at (x, y) in level-0 pixels, its long axis at `angle` radians to the x axis."""

    x_px: float
    y_px: float
    angle: float
    kind: NucleusKind


@dataclass
class Canvas:
    """Stain concentrations and compartment of each texel, each (H, W), and the nuclei still to be stamped."""

    haematoxylin: Floats
    eosin: Floats
    label: NDArray[np.uint8]
    nuclei: list[Nucleus]

    def blend(self, inside: Mask, haematoxylin: Floats | float, eosin: Floats | float) -> None:
        """Replace both concentrations inside a mask, with an edge half a micrometre soft."""
        weight = ndimage.gaussian_filter(inside.astype(np.float32), 1.0)
        self.haematoxylin += weight * (haematoxylin - self.haematoxylin)
        self.eosin += weight * (eosin - self.eosin)

    def at(self, field: NDArray[Scalar], xy_px: Floats) -> NDArray[Scalar]:
        """Values of a texel field at level-0 points (N, 2)."""
        column, row = (xy_px // STEP_PX).astype(int).T
        values: NDArray[Scalar] = field[row, column]
        return values

    def scatter(self, rng: Rng, spacing_um: float) -> Floats:
        """Points (N, 2) in level-0 pixels on a jittered hexagonal grid over the whole slide."""
        spacing, (rows, columns) = spacing_um / MPP, self.label.shape
        y, x = np.mgrid[0 : rows * STEP_PX : spacing * 0.87, 0 : columns * STEP_PX : spacing]
        x[1::2] += spacing / 2
        xy = np.stack([x.ravel(), y.ravel()], axis=1) + rng.uniform(-0.32, 0.32, (x.size, 2)) * spacing
        inside = (xy >= 0).all(axis=1) & (xy < (columns * STEP_PX, rows * STEP_PX)).all(axis=1)
        return xy[inside].astype(np.float32)

    def add_nuclei(self, xy_px: Floats, angle: Floats, kind: NucleusKind) -> None:
        """Queue nuclei of one kind at level-0 points."""
        self.nuclei += [
            Nucleus(float(x), float(y), float(a), kind) for (x, y), a in zip(xy_px, angle, strict=True)
        ]


# --- Outlines -----------------------------------------------------------------------------------------------------


def outline(
    rng: Rng,
    centre: tuple[float, float],
    radii_px: tuple[float, float],
    roughness: float,
    squareness: float = 2.0,
) -> Polygon:
    """Closed smooth curve around `centre`: a superellipse whose radius is modulated by random harmonics."""
    count = int(np.clip(2 * np.pi * max(radii_px) / 7, 48, 1500))
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    order = np.arange(2, count // 12)
    phase = rng.uniform(0, 2 * np.pi, order.size)
    height = roughness * rng.normal(1, 0.3, order.size) / order**1.3
    radius = 1 + (height * np.sin(angle[:, None] * order + phase)).sum(axis=1)
    cosine, sine = np.cos(angle), np.sin(angle)
    radius /= (np.abs(cosine) ** squareness + np.abs(sine) ** squareness) ** (1 / squareness)
    x, y = centre[0] + radii_px[0] * radius * cosine, centre[1] + radii_px[1] * radius * sine
    return largest(shapely.make_valid(Polygon(np.stack([x, y], axis=1))))


def largest(shape: BaseGeometry) -> Polygon:
    """Largest polygon of a shape; an empty one if it has none."""
    parts = [part for part in shapely.get_parts(shape) if isinstance(part, Polygon)]
    return max(parts, key=lambda part: part.area, default=Polygon())


def place(rng: Rng, room: BaseGeometry, radius_px: float, roughness: float) -> Polygon:
    """Random outline within `room`: of 60 tries the one of which most lies inside, cut to what does."""
    west, south, east, north = room.bounds
    best, best_share = Polygon(), 0.0
    for _ in range(60):
        stretch = rng.uniform(0.8, 1.25)
        centre = (rng.uniform(west, east), rng.uniform(south, north))
        candidate = outline(rng, centre, (radius_px * stretch, radius_px / stretch), roughness)
        inside = largest(candidate.intersection(room))
        if inside.area / candidate.area > best_share:
            best, best_share = inside, inside.area / candidate.area
        if best_share > 0.97:
            break
    return best


def place_all(
    rng: Rng, room: BaseGeometry, radii_px: NDArray[np.float64], roughness: float, gap_px: float
) -> tuple[list[Polygon], BaseGeometry]:
    """Place one outline per radius, `gap_px` apart; also give the room that is left."""
    placed = []
    for radius_px in radii_px:
        if room.is_empty:
            break
        shape = place(rng, room, radius_px, roughness)
        if shape.area > 0.5 * np.pi * radius_px**2:
            placed.append(shape)
            room = room.difference(shape.buffer(gap_px))
    return placed, room


def lay_out(rng: Rng, width_px: int, height_px: int) -> Anatomy:
    """Draw all outlines of a slide; small slides get fewer and smaller things, and always one lesion.

    Coordinates are multiples of a quarter of a pixel, so that they survive any text format.
    """
    scale = min(1.0, float(np.sqrt(width_px * height_px / 9e6))) / MPP
    tissue = tissue_outline(rng, width_px, height_px, scale)
    lesions, room = place_all(
        rng, tissue.buffer(-20 * scale), lesion_radii(rng, tissue.area, scale), 0.3, 30 * scale
    )
    lesions[0] = with_hole(rng, lesions[0])
    fat, room = place_all(rng, room, rng.uniform(95, 135, 2) * scale, 0.2, 15 * scale)
    vessel, room = place_all(rng, room, rng.uniform(28, 75, rng.integers(4, 7)) * scale, 0.06, 15 * scale)
    lymphoid, _ = place_all(rng, room, rng.uniform(40, 70, rng.integers(3, 6)) * scale, 0.15, 15 * scale)
    groups = (list(shapely.get_parts(tissue)), lesions, fat, vessel, lymphoid)
    return Anatomy(
        *(tuple(largest(shapely.set_precision(shape, 0.25)) for shape in group) for group in groups)
    )


def tissue_outline(rng: Rng, width_px: int, height_px: int, scale: float) -> BaseGeometry:
    """One large piece, torn in two on every other slide, and a few fragments."""
    slide = shapely.box(8, 8, width_px - 8, height_px - 8)
    radii = (width_px * rng.uniform(0.42, 0.455), height_px * rng.uniform(0.42, 0.455))
    tissue = outline(rng, (width_px / 2, height_px / 2), radii, 0.09, squareness=3.2).intersection(slide)
    if rng.random() < 0.5:
        at = np.linspace(-0.1, 1.1, 40)
        bend = rng.uniform(0.3, 0.7) + 0.05 * np.sin(rng.uniform(0, 6) + 7 * at) + 0.012 * rng.normal(size=40)
        tear = shapely.LineString(np.stack([bend * width_px, at * height_px], axis=1))
        tissue = tissue.difference(tear.buffer(18 * scale))
    fragments, _ = place_all(
        rng, slide.difference(tissue.buffer(10 * scale)), rng.uniform(18, 40, 4) * scale, 0.4, 9
    )
    return shapely.union_all([tissue, *fragments])


def lesion_radii(rng: Rng, tissue_area_px: float, scale: float) -> NDArray[np.float64]:
    """Radii in pixels, largest first, of lesions that together take a fifth to a quarter of the tissue."""
    count = int(rng.integers(2, 6)) if scale * MPP > 0.6 else 1
    share = rng.dirichlet(np.full(count, 5.0)) * rng.uniform(0.2, 0.27)
    return np.sort(np.sqrt(share * tissue_area_px / np.pi))[::-1]


def with_hole(rng: Rng, lesion: Polygon) -> Polygon:
    """The lesion with an island of spared tissue in it, a tenth of its area."""
    radius = float(np.sqrt(lesion.area / np.pi))
    centre = lesion.representative_point()
    hole = outline(rng, (centre.x, centre.y), (0.33 * radius, 0.33 * radius), 0.2)
    return largest(lesion.difference(largest(hole.intersection(lesion.buffer(-0.15 * radius)))))


# --- Textures -----------------------------------------------------------------------------------------------------


def smooth_noise(rng: Rng, shape: tuple[int, int], scale_um: float) -> Floats:
    """Smooth noise (H, W) of about unit variance whose bumps are `scale_um` wide."""
    small = [int(np.ceil(n * TEXEL_UM / scale_um)) + 3 for n in shape]
    grid = rng.standard_normal(small, dtype=np.float32) * 1.3
    spacing = scale_um / TEXEL_UM
    box = (1.0, 1.0, 1.0 + shape[1] / spacing, 1.0 + shape[0] / spacing)
    return np.asarray(Image.fromarray(grid).resize((shape[1], shape[0]), Image.Resampling.BICUBIC, box=box))


def grid_um(shape: tuple[int, int]) -> tuple[Floats, Floats]:
    """Coordinates (x, y) in µm of the texels, each (H, W)."""
    y, x = np.indices(shape, dtype=np.float32) * np.float32(TEXEL_UM)
    return x, y


def streaks(rng: Rng, along_um: Floats, across_um: Floats, length_um: float, width_um: float) -> Floats:
    """Noise (H, W) drawn out along one of two given coordinate fields: fibres, wherever these bend."""
    sheet = ndimage.gaussian_filter(rng.standard_normal((512, 512), dtype=np.float32), 1.0, mode="wrap")
    at = np.stack([across_um * (2 / width_um), along_um * (2 / length_um)])
    streak: Floats = ndimage.map_coordinates(sheet / sheet.std(), at, order=1, mode="grid-wrap")
    return streak


class Cells(NamedTuple):
    """Voronoi cells of seeds (N, 2) in µm: index of the nearest seed, and distances to the three nearest; (H, W)."""

    seeds_um: Floats
    nearest: NDArray[np.int32]
    d1_um: Floats
    d2_um: Floats
    d3_um: Floats


def grow_cells(inside: Mask, seeds_um: Floats, warp_um: tuple[Floats, Floats] | None = None) -> Cells:
    """Voronoi cells inside a mask, their borders bent by a displacement in µm."""
    row, column = np.nonzero(inside)
    at = np.stack([column, row], axis=1).astype(np.float32) * np.float32(TEXEL_UM)
    if warp_um is not None:
        at += np.stack([warp_um[0][inside], warp_um[1][inside]], axis=1)
    distance, index = (np.asarray(part) for part in KDTree(seeds_um).query(at, k=3))
    nearest = np.zeros(inside.shape, np.int32)
    nearest[inside] = index[:, 0]
    fields = np.zeros((3, *inside.shape), np.float32)
    fields[:, inside] = distance.T
    return Cells(seeds_um, nearest, *fields)


def ramp(value: Floats, start: float, end: float) -> Floats:
    """Zero below `start`, one above `end`, linear between."""
    share: Floats = np.clip((value - start) / (end - start), 0, 1)
    return share


# --- Compartments -------------------------------------------------------------------------------------------------


def compartments(
    anatomy: Anatomy, shape: tuple[int, int], parenchyma: Mask, fray: Floats
) -> NDArray[np.uint8]:
    """Compartment of each texel (H, W), the tissue edge frayed by a noise field; zero is glass."""
    layers = [
        (anatomy.tissue, STROMA),
        (anatomy.lymphoid, LYMPHOID),
        (anatomy.fat, FAT),
        (anatomy.vessel, VESSEL),
        (anatomy.lesion, LESION),
    ]
    shapes = [
        (shapely.transform(p, lambda xy: xy / STEP_PX), value) for group, value in layers for p in group
    ]
    label: NDArray[np.uint8] = rasterio.features.rasterize(shapes, out_shape=shape, fill=0, dtype="uint8")
    label[(label == STROMA) & parenchyma] = PARENCHYMA
    near = ndimage.gaussian_filter((label > 0).astype(np.float32), 6)
    label[near + fray < 0.5] = 0
    return label


def paint_stroma(rng: Rng, canvas: Canvas) -> None:
    """Wavy collagen at two scales with clefts between the bundles and sparse spindle nuclei along it."""
    shape = canvas.label.shape
    x, y = grid_um(shape)
    turn = rng.uniform(0, np.pi)
    along = x * np.cos(turn) + y * np.sin(turn)
    across = y * np.cos(turn) - x * np.sin(turn)
    across = across + 34 * smooth_noise(rng, shape, 170) + 5 * smooth_noise(rng, shape, 38)
    along = along + 60 * smooth_noise(rng, shape, 150)
    bundle, fibre = streaks(rng, along, across, 110, 12), streaks(rng, along, across, 34, 2.8)
    fibre = 0.7 * fibre + 0.6 * streaks(rng, along, across, 16, 1.3)
    cleft = ramp(bundle + 0.3 * fibre + 0.5 * smooth_noise(rng, shape, 60), -1.95, -1.5)
    eosin = (0.40 + 0.06 * bundle + 0.10 * fibre + 0.03 * smooth_noise(rng, shape, 1.2)) * (
        0.12 + 0.88 * cleft
    )
    canvas.blend(canvas.label > 0, 0.05 + 0.03 * cleft + 0.02 * fibre, np.maximum(eosin, 0.02))
    slope_y, slope_x = np.gradient(across)
    xy = canvas.scatter(rng, 17)
    keep = (
        (canvas.at(canvas.label, xy) == STROMA) & (canvas.at(cleft, xy) > 0.9) & (rng.random(len(xy)) < 0.6)
    )
    angle = np.arctan2(canvas.at(slope_x, xy), -canvas.at(slope_y, xy)) + rng.normal(0, 0.15, len(xy))
    canvas.add_nuclei(xy[keep], angle[keep], NucleusKind(12, 2.8, 0.95, spread=0.22))


def paint_parenchyma(rng: Rng, canvas: Canvas) -> None:
    """Plates of granular cells with one small round nucleus each, and pale sinusoids between the plates."""
    inside, shape = canvas.label == PARENCHYMA, canvas.label.shape
    if not inside.any():
        return
    xy = canvas.scatter(rng, 15)
    warp = (2 * smooth_noise(rng, shape, 10), 2 * smooth_noise(rng, shape, 10))
    cells = grow_cells(inside, xy * np.float32(MPP), warp)
    border = 1 - ramp((cells.d2_um - cells.d1_um) / 2, 0.2, 0.9)
    plate = ramp(np.abs(smooth_noise(rng, shape, 26) + 0.3 * smooth_noise(rng, shape, 9)), 0.07, 0.16)
    grain = smooth_noise(rng, shape, 1.2)
    eosin = plate * (0.40 + 0.05 * grain + 0.22 * border + 0.05 * smooth_noise(rng, shape, 60)) + 0.07
    canvas.blend(inside, 0.02 + plate * (0.17 + 0.03 * grain), eosin)
    keep = (
        (canvas.at(canvas.label, xy) == PARENCHYMA)
        & (canvas.at(plate, xy) > 0.9)
        & (rng.random(len(xy)) < 0.85)
    )
    kind = NucleusKind(7.2, 6.6, 0.95, clumps=0.18, rim=0.25)
    canvas.add_nuclei(xy[keep], rng.uniform(0, np.pi, len(xy))[keep], kind)


def paint_lymphoid(rng: Rng, canvas: Canvas) -> None:
    """Small round uniform dark nuclei, shoulder to shoulder: dark like a lesion, but not one."""
    near = ndimage.gaussian_filter((canvas.label == LYMPHOID).astype(np.float32), 12)
    speckle = 0.1 * smooth_noise(rng, canvas.label.shape, 3)
    canvas.blend(near + speckle > 0.5, 0.30 + speckle, 0.17)
    xy = canvas.scatter(rng, 6.4)
    glass_or_other = np.isin(canvas.label, (0, FAT, VESSEL, LESION))
    keep = (rng.random(len(xy)) < canvas.at(near, xy) * 1.1) & ~canvas.at(glass_or_other, xy)
    kind = NucleusKind(6.9, 6.3, 1.45, spread=0.06, clumps=0.2, rim=0.05)
    canvas.add_nuclei(xy[keep], rng.uniform(0, np.pi, len(xy))[keep], kind)


def paint_fat(rng: Rng, canvas: Canvas) -> None:
    """Round empty vacuoles of 40–90 µm behind thin walls, with flat nuclei pressed against them."""
    inside, shape = canvas.label == FAT, canvas.label.shape
    if not inside.any():
        return
    warp = (5 * smooth_noise(rng, shape, 45), 5 * smooth_noise(rng, shape, 45))
    cells = grow_cells(inside, canvas.scatter(rng, 58) * np.float32(MPP), warp)
    gap = np.minimum((cells.d2_um - cells.d1_um) / 2, (cells.d3_um - cells.d1_um) / 2 - 2.0)
    wall = 1 - ramp(gap, 0.5, 1.1)
    canvas.blend(inside, 0.01 + 0.06 * wall, 0.015 + 0.38 * wall)
    xy = canvas.scatter(rng, 9)
    keep = (canvas.at(canvas.label, xy) == FAT) & (canvas.at(wall, xy) > 0.8) & (rng.random(len(xy)) < 0.25)
    centre = cells.seeds_um[canvas.at(cells.nearest, xy[keep])] / MPP
    angle = np.arctan2(*(xy[keep] - centre).T[::-1]) + np.pi / 2
    canvas.add_nuclei(xy[keep], angle, NucleusKind(9, 2.6, 1.15, spread=0.15))


def paint_vessels(rng: Rng, canvas: Canvas, vessels: Sequence[Polygon]) -> None:
    """Walls of concentric muscle with tangential nuclei, around lumina that are empty or full of red cells."""
    inside, shape = canvas.label == VESSEL, canvas.label.shape
    if not inside.any():
        return
    depth = ndimage.distance_transform_edt(inside).astype(np.float32) * np.float32(TEXEL_UM)
    parts, count = ndimage.label(inside)
    radius = np.concatenate([[1.0], ndimage.maximum(depth, parts, np.arange(1, count + 1))])
    filled = np.concatenate([[False], rng.random(count) < 0.6])
    wall_um = (rng.uniform(0.3, 0.5, count + 1) * radius).astype(np.float32)[parts] * (
        1 + 0.12 * smooth_noise(rng, shape, 12)
    )
    rings = np.sin(depth * 1.6 + 2.5 * smooth_noise(rng, shape, 14))
    canvas.blend(inside, 0.1, 0.58 + 0.1 * rings + 0.06 * smooth_noise(rng, shape, 4))
    lumen = inside & (depth > wall_um)
    canvas.blend(lumen, 0.01, 0.03)
    paint_red_cells(rng, canvas, lumen & filled[parts] & (smooth_noise(rng, shape, 30) > -0.8))
    slope_y, slope_x = np.gradient(depth)
    xy = canvas.scatter(rng, 8.5)
    from_lumen_um = canvas.at(wall_um - depth, xy)
    keep = (
        canvas.at(inside, xy)
        & (from_lumen_um > 0.5)
        & (rng.random(len(xy)) < np.where(from_lumen_um < 4, 0.6, 0.3))
    )
    angle = np.arctan2(canvas.at(slope_x, xy), -canvas.at(slope_y, xy))
    canvas.add_nuclei(xy[keep], angle[keep], NucleusKind(11, 2.6, 1.05, spread=0.18))


def paint_red_cells(rng: Rng, canvas: Canvas, inside: Mask) -> None:
    """Crowded discs of 6 µm, strong in eosin."""
    if inside.any():
        cells = grow_cells(inside, canvas.scatter(rng, 6.2) * np.float32(MPP))
        disc = 1 - ramp(cells.d1_um, 2.6, 3.2)
        canvas.blend(inside, 0.02, 0.04 + disc * (0.85 + 0.04 * cells.d1_um**2))


def paint_lesions(rng: Rng, canvas: Canvas) -> None:
    """Crowded glands and solid nests of 60–120 µm with large pleomorphic nuclei and little stroma between."""
    inside, shape = canvas.label == LESION, canvas.label.shape
    warp = (8 * smooth_noise(rng, shape, 40), 8 * smooth_noise(rng, shape, 40))
    gland_um = min(82.0, 0.9 * TEXEL_UM * float(np.sqrt(inside.sum() / np.pi)))
    seeds = canvas.scatter(rng, gland_um) * np.float32(MPP)
    cells = grow_cells(inside, seeds, warp)
    lumen_um = np.where(
        rng.random(len(seeds)) < 0.75, rng.uniform(0.14, 0.3, len(seeds)) * gland_um, 0
    ).astype(np.float32)
    septum_um = np.maximum(2.5 + 1.5 * smooth_noise(rng, shape, 70), 0.8)
    from_septum = (cells.d2_um**2 - cells.d1_um**2) / (2 * gland_um) - septum_um
    from_lumen = cells.d1_um - lumen_um[cells.nearest] + 2 * smooth_noise(rng, shape, 12)
    from_lumen[lumen_um[cells.nearest] == 0] = 99
    epithelium = ramp(from_septum, -0.5, 0.5) * ramp(from_lumen, -0.7, 0.3)
    grain = smooth_noise(rng, shape, 1.5)
    canvas.blend(inside & (from_septum > 0), 0.02, 0.03)
    canvas.blend(inside & (epithelium > 0.5), 0.26 + 0.03 * grain, 0.34 + 0.05 * grain)
    xy = canvas.scatter(rng, 8.9)
    basal, apical = canvas.at(from_septum, xy), canvas.at(from_lumen, xy)
    solid = apical > 90
    chance = np.where(solid | (basal < 16), 0.97, 0.35) * (basal > 1.5) * (apical > 5)
    keep = canvas.at(inside, xy) & (rng.random(len(xy)) < chance)
    centre = seeds[canvas.at(cells.nearest, xy)] / MPP
    angle = np.arctan2(*(xy - centre).T[::-1]) + rng.normal(0, 0.3, len(xy))
    kind = NucleusKind(11.5, 8.2, 1.0, spread=0.17, clumps=0.2, rim=0.32, wobble=0.07, nucleolus=0.8)
    canvas.add_nuclei(xy[keep], angle[keep], kind)
    between = canvas.at(inside, xy) & (basal < -1) & (rng.random(len(xy)) < 0.25)
    canvas.add_nuclei(xy[between], angle[between] + np.pi / 2, NucleusKind(11, 2.8, 1.0, spread=0.2))


def stamp(rng: Rng, haematoxylin: Floats, eosin: Floats, nucleus: Nucleus, chromatin: Floats) -> None:
    """Draw a nucleus into both level-0 concentration maps (H, W), in place."""
    kind = nucleus.kind
    size = max(rng.normal(1, kind.spread), 0.5)
    a, b = (
        axis * size / (2 * MPP) for axis in (kind.length_um, kind.width_um * rng.normal(1, kind.spread / 2))
    )
    reach = int(1.3 * max(a, b)) + 2
    left, top = max(int(nucleus.x_px) - reach, 0), max(int(nucleus.y_px) - reach, 0)
    window = np.s_[top : int(nucleus.y_px) + reach, left : int(nucleus.x_px) + reach]
    rows, columns = haematoxylin[window].shape
    dx = np.arange(left, left + columns, dtype=np.float32)[None, :] - nucleus.x_px
    dy = np.arange(top, top + rows, dtype=np.float32)[:, None] - nucleus.y_px
    cosine, sine = np.cos(nucleus.angle), np.sin(nucleus.angle)
    u, v = (dx * cosine + dy * sine) / a, (dy * cosine - dx * sine) / b
    turn = np.arctan2(v, u)
    bend = np.sin(2 * turn + rng.uniform(0, 6)) + np.sin(3 * turn + rng.uniform(0, 6))
    rho = np.hypot(u, v) * (1 + kind.wobble * bend)
    body = np.clip((1 - rho) * min(a, b) / 1.6 + 0.5, 0, 1)
    corner = rng.integers(0, 128, 2)
    clumps = chromatin[corner[0] : corner[0] + rows, corner[1] : corner[1] + columns]
    spot = np.exp(-((dx - rng.normal(0, b / 3)) ** 2 + (dy - rng.normal(0, b / 3)) ** 2) / 7)
    density = (
        1 - kind.rim + kind.rim * 1.6 * np.minimum(rho, 1) ** 2 + kind.clumps * clumps + kind.nucleolus * spot
    )
    strength = kind.haematoxylin * rng.normal(1, 0.1)
    np.maximum(haematoxylin[window], strength * body * density, out=haematoxylin[window])
    eosin[window] *= 1 - 0.55 * body


# --- Slides -------------------------------------------------------------------------------------------------------


def paint(slide: DemoSlide) -> tuple[NDArray[np.uint8], dict[str, list[Polygon]]]:
    """Paint a slide.

    Returns
    -------
    rgb : (height_px, width_px, 3) uint8
    classes : dict of str to list of Polygon
        Outlines of "Lesion", "Vessel" and "Fat" in level-0 pixels.
    """
    rng = np.random.default_rng(slide.seed)
    anatomy = lay_out(rng, slide.width_px, slide.height_px)
    canvas = paint_compartments(rng, anatomy, (-(-slide.height_px // STEP_PX), -(-slide.width_px // STEP_PX)))
    haematoxylin, eosin = (
        enlarge(field, slide.width_px, slide.height_px) for field in (canvas.haematoxylin, canvas.eosin)
    )
    chromatin = ndimage.gaussian_filter(rng.standard_normal((320, 320), dtype=np.float32), 2.0)
    tissue = ndimage.gaussian_filter((canvas.label > 0).astype(np.float32), 6)
    for nucleus in canvas.nuclei:
        if tissue[int(nucleus.y_px) // STEP_PX, int(nucleus.x_px) // STEP_PX] < 0.8:
            continue
        stamp(rng, haematoxylin, eosin, nucleus, chromatin / chromatin.std())
    classes = {"Lesion": anatomy.lesion, "Vessel": anatomy.vessel, "Fat": anatomy.fat}
    return render(rng, haematoxylin, eosin), {name: list(shapes) for name, shapes in classes.items()}


def paint_compartments(rng: Rng, anatomy: Anatomy, shape: tuple[int, int]) -> Canvas:
    """Paint every compartment at texel resolution; nuclei are left queued."""
    glass = np.full((2, *shape), 0.008, np.float32)
    parenchyma = smooth_noise(rng, shape, 230) > 0
    fray = np.clip(0.25 * smooth_noise(rng, shape, 7), -0.35, 0.35)
    canvas = Canvas(glass[0], glass[1], compartments(anatomy, shape, parenchyma, fray), [])
    paint_stroma(rng, canvas)
    paint_parenchyma(rng, canvas)
    paint_lymphoid(rng, canvas)
    paint_fat(rng, canvas)
    paint_vessels(rng, canvas, anatomy.vessel)
    paint_lesions(rng, canvas)
    return canvas


def enlarge(field: Floats, width_px: int, height_px: int) -> Floats:
    """Bring a texel field to level 0."""
    size = (field.shape[1] * STEP_PX, field.shape[0] * STEP_PX)
    whole = np.asarray(Image.fromarray(field).resize(size, Image.Resampling.BICUBIC))
    return whole[:height_px, :width_px].copy()


def render(rng: Rng, haematoxylin: Floats, eosin: Floats) -> NDArray[np.uint8]:
    """Colours (H, W, 3) of two stain maps by Beer and Lambert's law, in a stain basis drawn for the slide."""
    basis = np.array([[0.62, 0.70, 0.35], [0.20, 0.92, 0.34]]) + rng.normal(0, 0.035, (2, 3))
    basis = np.maximum(basis, 0.02)
    basis *= rng.uniform(0.85, 1.2, (2, 1)) / np.linalg.norm(basis, axis=1, keepdims=True)
    light = rng.uniform(242, 250, 3)
    haematoxylin, eosin = (np.maximum(ndimage.gaussian_filter(m, 0.7), 0) for m in (haematoxylin, eosin))
    rgb = np.empty((*haematoxylin.shape, 3), np.uint8)
    for channel in range(3):
        density = haematoxylin * np.float32(basis[0, channel]) + eosin * np.float32(basis[1, channel])
        noise = 1.3 * rng.standard_normal(density.shape, dtype=np.float32)
        rgb[..., channel] = np.clip(np.rint(np.float32(light[channel]) * np.exp(-density) + noise), 0, 255)
    return rgb


# --- Files --------------------------------------------------------------------------------------------------------


def area_mean(rgb: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """Mean colour of each factor × factor block (H, W, 3); blocks on the far edges may be smaller."""
    if factor == 1:
        return rgb
    at = [np.arange(0, n, factor) for n in rgb.shape[:2]]
    total = np.add.reduceat(np.add.reduceat(rgb, at[0], axis=0, dtype=np.uint32), at[1], axis=1)
    rows, columns = (np.diff(a, append=n) for a, n in zip(at, rgb.shape[:2], strict=True))
    mean: NDArray[np.uint8] = np.rint(total / (rows[:, None] * columns)[..., None]).astype(np.uint8)
    return mean


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
        None stores the pixels without loss (deflate).
    downsamples : sequence of int
        Level-0 pixels per pixel of each level, beginning with 1.
    """
    lossy = {"compression": "jpeg", "compressionargs": {"level": jpeg_quality}, "subsampling": (2, 1)}
    coding = {"compression": "adobe_deflate"} if jpeg_quality is None else lossy
    with written_whole(path) as draft, tifffile.TiffWriter(draft) as tiff:
        for factor in downsamples:
            tiff.write(
                area_mean(rgb, factor),
                photometric="rgb",
                tile=(256, 256),
                subfiletype=int(factor > 1),
                resolution=(1e4 / (mpp * factor), 1e4 / (mpp * factor)),
                resolutionunit="CENTIMETER",
                metadata=None,
                software=False,
                **coding,
            )


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
    """Every ring with its ASAP group."""
    for name, shapes in classes.items():
        for shape in shapes:
            yield name, shape.exterior
            yield from (("Exclusion", hole) for hole in shape.interiors)


def write_slide(folder: Path, jpeg_quality: int | None, slide: DemoSlide) -> str:
    """Write a slide and its annotation; give its row of the sheet."""
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
    """Cut a file to its first third, as a broken transfer would."""
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
    """The demo cohort: six annotated slides, one to infer, one that cannot be read."""
    return (
        DemoSlide("train_1", 3904, 3100, 101, "train", "qupath"),
        DemoSlide("train_2", 3333, 3700, 102, "train", "asap"),
        DemoSlide("train_3", 4210, 2850, 103, "train", "qupath"),
        DemoSlide("val_1", 3610, 3290, 104, "val", "asap"),
        DemoSlide("test_1", 3777, 3111, 105, "test", "qupath"),
        DemoSlide("test_2", 3050, 3999, 106, "test", "asap"),
        DemoSlide("new_1", 3460, 3420, 107, "inference"),
        DemoSlide("unreadable", 1500, 1100, 108, "inference", truncated=True),
    )


def main() -> None:
    """Write the demo cohort into the folder named on the command line."""
    parser = argparse.ArgumentParser(description="Write LesionMap's demo cohort: synthetic H&E slides.")
    parser.add_argument("folder", type=Path)
    write_cohort(parser.parse_args().folder, demo_slides())


if __name__ == "__main__":
    main()
