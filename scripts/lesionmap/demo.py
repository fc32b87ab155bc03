"""The embedded demo cohort: synthetic H&E slides whose every outline is known.

``python -m lesionmap.demo FOLDER`` writes slides, annotations and the slide sheet. Outlines are drawn first,
as polygons in level-0 pixels; two maps of stain concentration are then painted inside them, and the colours
follow from Beer and Lambert's law. The same seeds give the same bytes.
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
from affine import Affine
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
    """One slide to make: size in level-0 pixels, seed, role in the sheet and format of its annotation."""

    name: str
    width_px: int
    height_px: int
    seed: int
    split: Literal["train", "val", "test", "inference"]
    annotation_format: Literal["qupath", "asap"] | None = None
    truncated: bool = False


class Anatomy(NamedTuple):
    """Where things are on a slide: disjoint polygons in level-0 pixels."""

    tissue: list[Polygon]
    lymphoid: list[Polygon]
    fat: list[Polygon]
    vessel: list[Polygon]
    lesion: list[Polygon]


@dataclass(frozen=True)
class NucleusKind:
    """Look of a kind of nucleus: axes, stain concentration, spread of the axes and weight of its details."""

    length_um: float
    width_um: float
    haematoxylin: float
    spread: float = 0.18
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


class Cells(NamedTuple):
    """Voronoi cells of seeds (N, 2): each texel's nearest seed and its distance to the nearest three."""

    seeds_px: Floats
    nearest: NDArray[np.int32]
    d1_um: Floats
    d2_um: Floats
    d3_um: Floats


# --- Outlines ---------------------------------------------------------------------------


def outline(
    rng: Rng, centre: tuple[float, float], radii_px: tuple[float, float], roughness: float, power: float = 2.0
) -> Polygon:
    """Closed smooth curve around `centre`: a superellipse whose radius is modulated by random harmonics."""
    count = int(np.clip(2 * np.pi * max(radii_px) / 7, 48, 1500))
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    order = np.arange(2, count // 12)
    phase = rng.uniform(0, 2 * np.pi, order.size)
    height = roughness * rng.normal(1, 0.3, order.size) / order**1.3
    radius = 1 + (height * np.sin(angle[:, None] * order + phase)).sum(axis=1)
    cosine, sine = np.cos(angle), np.sin(angle)
    radius /= (np.abs(cosine) ** power + np.abs(sine) ** power) ** (1 / power)
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
    radii_px = lesion_radii(rng, tissue.area, scale)
    lesion, room = place_all(rng, tissue.buffer(-20 * scale), radii_px, 0.3, 30 * scale)
    lesion[0] = with_hole(rng, lesion[0])
    fat, room = place_all(rng, room, rng.uniform(95, 135, 2) * scale, 0.2, 15 * scale)
    vessel, room = place_all(rng, room, rng.uniform(28, 75, rng.integers(4, 7)) * scale, 0.06, 15 * scale)
    lymphoid, _ = place_all(rng, room, rng.uniform(40, 70, rng.integers(3, 6)) * scale, 0.15, 15 * scale)
    groups = (list(shapely.get_parts(tissue)), lymphoid, fat, vessel, lesion)
    return Anatomy(*([largest(shapely.set_precision(shape, 0.25)) for shape in group] for group in groups))


def tissue_outline(rng: Rng, width_px: int, height_px: int, scale: float) -> BaseGeometry:
    """One large piece, torn in two on every other slide, and a few fragments."""
    slide = shapely.box(8, 8, width_px - 8, height_px - 8)
    radii = (width_px * rng.uniform(0.42, 0.455), height_px * rng.uniform(0.42, 0.455))
    tissue = outline(rng, (width_px / 2, height_px / 2), radii, 0.09, power=3.2).intersection(slide)
    if rng.random() < 0.5:
        at = np.linspace(-0.1, 1.1, 40)
        bend = rng.uniform(0.3, 0.7) + 0.05 * np.sin(rng.uniform(0, 6) + 7 * at) + 0.012 * rng.normal(size=40)
        tear = shapely.LineString(np.stack([bend * width_px, at * height_px], axis=1))
        tissue = tissue.difference(tear.buffer(18 * scale))
    glass = slide.difference(tissue.buffer(10 * scale))
    fragments, _ = place_all(rng, glass, rng.uniform(18, 40, 4) * scale, 0.4, 9)
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


# --- Canvas -----------------------------------------------------------------------------


@dataclass
class Canvas:
    """Stain concentrations and compartment of each texel, each (H, W), and the nuclei still to be stamped."""

    rng: Rng
    label: NDArray[np.uint8]
    haematoxylin: Floats
    eosin: Floats
    nuclei: list[Nucleus]

    def blend(self, inside: Mask, haematoxylin: Floats | float, eosin: Floats | float) -> None:
        """Replace both concentrations inside a mask, with an edge half a micrometre soft."""
        weight = ndimage.gaussian_filter(inside.astype(np.float32), 1.0)
        self.haematoxylin += weight * (haematoxylin - self.haematoxylin)
        self.eosin += weight * (eosin - self.eosin)

    def noise(self, scale_um: float) -> Floats:
        """Smooth noise (H, W) of about unit variance whose bumps are `scale_um` wide."""
        height, width = self.label.shape
        return smooth_noise(self.rng, (height, width), scale_um)

    def streaks(self, along_um: Floats, across_um: Floats, length_um: float, width_um: float) -> Floats:
        """Noise (H, W) drawn out along one of two coordinate fields: fibres, wherever these bend."""
        sheet = ndimage.gaussian_filter(self.rng.standard_normal((512, 512), np.float32), 1.0, mode="wrap")
        at = np.stack([across_um * (2 / width_um), along_um * (2 / length_um)])
        return np.asarray(ndimage.map_coordinates(sheet / sheet.std(), at, order=1, mode="grid-wrap"))

    def scatter(self, spacing_um: float) -> Floats:
        """Points (N, 2) in level-0 pixels on a jittered hexagonal grid over the whole slide."""
        spacing, size = spacing_um / MPP, np.array(self.label.shape[::-1]) * STEP_PX
        y, x = np.mgrid[0 : size[1] : spacing * 0.87, 0 : size[0] : spacing]
        x[1::2] += spacing / 2
        xy = np.stack([x.ravel(), y.ravel()], axis=1)
        xy += self.rng.uniform(-0.32, 0.32, xy.shape) * spacing
        inside: Floats = xy[(xy >= 0).all(axis=1) & (xy < size).all(axis=1)]
        return inside

    def cells(self, inside: Mask, seeds_px: Floats, warp_um: float = 0) -> Cells:
        """Voronoi cells of seeds (N, 2) inside a mask, their borders bent by a noise of `warp_um`."""
        at_px = np.argwhere(inside)[:, ::-1] * STEP_PX
        if warp_um:
            at_px = at_px + np.stack([self.noise(5 * warp_um)[inside] for _ in "xy"], axis=1) * warp_um / MPP
        distance_px, index = (np.asarray(part) for part in KDTree(seeds_px).query(at_px, k=3))
        nearest, distance_um = np.zeros(inside.shape, np.int32), np.zeros((3, *inside.shape), np.float32)
        nearest[inside] = index[:, 0]
        distance_um[:, inside] = distance_px.T * MPP
        return Cells(seeds_px, nearest, *distance_um)

    def at(self, field: NDArray[Scalar], xy_px: Floats) -> NDArray[Scalar]:
        """Values of a texel field at level-0 points (N, 2)."""
        column, row = (xy_px // STEP_PX).astype(int).T
        return np.asarray(field[row, column])

    def along(self, field: Floats, xy_px: Floats) -> Floats:
        """Angle at which a field's contour lines pass through level-0 points (N, 2)."""
        slope_y, slope_x = (np.asarray(slope) for slope in np.gradient(field))
        return np.asarray(np.arctan2(self.at(slope_x, xy_px), -self.at(slope_y, xy_px)))

    def outward(self, cells: Cells, xy_px: Floats) -> Floats:
        """Angle of the line from the centre of its cell to each level-0 point (N, 2)."""
        x, y = (xy_px - cells.seeds_px[self.at(cells.nearest, xy_px)]).T
        return np.asarray(np.arctan2(y, x))

    def sow(self, xy_px: Floats, chance: Floats, angle: Floats | None, kind: NucleusKind) -> None:
        """Queue nuclei of one kind at level-0 points (N, 2), each with its chance; no angle means any."""
        keep = self.rng.random(len(xy_px)) < chance
        turn = self.rng.uniform(0, np.pi, len(xy_px)) if angle is None else angle
        self.nuclei += [Nucleus(x, y, a, kind) for (x, y), a in zip(xy_px[keep], turn[keep], strict=True)]


def smooth_noise(rng: Rng, shape: tuple[int, int], scale_um: float) -> Floats:
    """Smooth noise on a texel grid (H, W) of about unit variance whose bumps are `scale_um` wide."""
    height, width = (n * TEXEL_UM / scale_um for n in shape)
    grid = 1.3 * rng.standard_normal((int(height) + 4, int(width) + 4), np.float32)
    box = (1.0, 1.0, 1.0 + width, 1.0 + height)
    return np.asarray(Image.fromarray(grid).resize((shape[1], shape[0]), Image.Resampling.BICUBIC, box=box))


def ramp(value: Floats, start: float, end: float) -> Floats:
    """Zero below `start`, one above `end`, linear between."""
    return np.asarray(np.clip((value - start) / (end - start), 0, 1))


# --- Compartments -----------------------------------------------------------------------


def new_canvas(rng: Rng, anatomy: Anatomy, width_px: int, height_px: int) -> Canvas:
    """Glass, with the compartment of each texel; the tissue edge is frayed by a few micrometres."""
    shape = (-(-height_px // STEP_PX), -(-width_px // STEP_PX))
    layers = zip(anatomy, (STROMA, LYMPHOID, FAT, VESSEL, LESION), strict=True)
    shapes = [(polygon, value) for group, value in layers for polygon in group]
    texels = Affine.scale(STEP_PX)
    label: NDArray[np.uint8] = rasterio.features.rasterize(shapes, shape, transform=texels, dtype="uint8")
    label[(label == STROMA) & (smooth_noise(rng, shape, 230) > 0)] = PARENCHYMA
    fray = np.clip(0.25 * smooth_noise(rng, shape, 7), -0.35, 0.35)
    label[ndimage.gaussian_filter((label > 0).astype(np.float32), 6) + fray < 0.5] = 0
    glass = np.full((2, *shape), 0.008, np.float32)
    return Canvas(rng, label, glass[0], glass[1], [])


def paint_stroma(canvas: Canvas) -> None:
    """Wavy collagen at three scales with clefts between the bundles and sparse spindle nuclei along it."""
    y, x = np.indices(canvas.label.shape, dtype=np.float32) * np.float32(TEXEL_UM)
    turn = canvas.rng.uniform(0, np.pi)
    along = x * np.cos(turn) + y * np.sin(turn) + 60 * canvas.noise(150)
    across = y * np.cos(turn) - x * np.sin(turn) + 34 * canvas.noise(170) + 5 * canvas.noise(38)
    bundle = canvas.streaks(along, across, 110, 12)
    fibre = 0.7 * canvas.streaks(along, across, 34, 2.8) + 0.6 * canvas.streaks(along, across, 16, 1.3)
    whole = ramp(bundle + 0.3 * fibre + 0.5 * canvas.noise(60), -1.95, -1.5)
    collagen = np.maximum(0.40 + 0.06 * bundle + 0.10 * fibre + 0.03 * canvas.noise(1.2), 0.05)
    canvas.blend(canvas.label > 0, 0.05 + 0.03 * whole + 0.02 * fibre, collagen * (0.12 + 0.88 * whole))
    xy = canvas.scatter(17)
    chance = 0.6 * (canvas.at(canvas.label, xy) == STROMA) * (canvas.at(whole, xy) > 0.9)
    angle = canvas.along(across, xy) + canvas.rng.normal(0, 0.15, len(xy))
    canvas.sow(xy, chance, angle, NucleusKind(12, 2.8, 0.95))


def paint_parenchyma(canvas: Canvas) -> None:
    """Plates of granular cells with one small round nucleus each, and pale sinusoids between the plates."""
    inside = canvas.label == PARENCHYMA
    xy = canvas.scatter(15)
    cells = canvas.cells(inside, xy, warp_um=2)
    border = 1 - ramp((cells.d2_um - cells.d1_um) / 2, 0.2, 0.9)
    plate = ramp(np.abs(canvas.noise(26) + 0.3 * canvas.noise(9)), 0.07, 0.16)
    grain = canvas.noise(1.2)
    eosin = 0.07 + plate * (0.40 + 0.05 * grain + 0.22 * border + 0.05 * canvas.noise(60))
    canvas.blend(inside, 0.02 + plate * (0.17 + 0.03 * grain), eosin)
    chance = 0.85 * canvas.at(inside, xy) * (canvas.at(plate, xy) > 0.9)
    canvas.sow(xy, chance, None, NucleusKind(7.2, 6.6, 0.95, spread=0.08, clumps=0.18, rim=0.25))


def paint_lymphoid(canvas: Canvas) -> None:
    """Small round uniform dark nuclei, shoulder to shoulder: dark like a lesion, but not one."""
    near = ndimage.gaussian_filter((canvas.label == LYMPHOID).astype(np.float32), 12)
    speckle = 0.1 * canvas.noise(3)
    canvas.blend((near > 0.2) & (near + speckle > 0.5), 0.30 + speckle, 0.17)
    xy = canvas.scatter(6.4)
    room = np.isin(canvas.label, (STROMA, PARENCHYMA, LYMPHOID))
    chance = 1.1 * canvas.at(near, xy) * canvas.at(room, xy)
    canvas.sow(xy, chance, None, NucleusKind(6.9, 6.3, 1.45, spread=0.06, clumps=0.2, rim=0.05))


def paint_fat(canvas: Canvas) -> None:
    """Empty vacuoles of 40–90 µm behind thin walls, with flat nuclei pressed against them."""
    inside = canvas.label == FAT
    cells = canvas.cells(inside, canvas.scatter(58), warp_um=6)
    gap = np.minimum((cells.d2_um - cells.d1_um) / 2, (cells.d3_um - cells.d1_um) / 2 - 1.3)
    wall = 1 - ramp(gap, 0.5, 1.1)
    canvas.blend(inside, 0.01 + 0.06 * wall, 0.015 + 0.38 * wall)
    xy = canvas.scatter(9)
    chance = 0.25 * canvas.at(inside, xy) * (canvas.at(wall, xy) > 0.8)
    canvas.sow(xy, chance, canvas.outward(cells, xy) + np.pi / 2, NucleusKind(9, 2.6, 1.15))


def paint_vessels(canvas: Canvas) -> None:
    """Walls of concentric muscle with tangential nuclei; lumina empty or full of red cells."""
    inside = canvas.label == VESSEL
    depth = ndimage.distance_transform_edt(inside).astype(np.float32) * np.float32(TEXEL_UM)
    vessel, count = ndimage.label(inside)
    radius = np.concatenate([[0], ndimage.maximum(depth, vessel, np.arange(1, count + 1))])
    wall_um = (canvas.rng.uniform(0.3, 0.5, count + 1) * radius)[vessel] * (1 + 0.12 * canvas.noise(12))
    rings = np.sin(depth * 1.6 + 2.5 * canvas.noise(14))
    canvas.blend(inside, 0.1, 0.58 + 0.1 * rings + 0.06 * canvas.noise(4))
    lumen = inside & (depth > wall_um)
    canvas.blend(lumen, 0.01, 0.03)
    filled = lumen & (canvas.rng.random(count + 1) < 0.6)[vessel] & (canvas.noise(30) > -0.8)
    red = canvas.cells(filled, canvas.scatter(6.2))
    disc = 1 - ramp(red.d1_um, 2.6, 3.2)
    canvas.blend(filled, 0.02, 0.04 + disc * (0.85 + 0.04 * red.d1_um**2))
    xy = canvas.scatter(8.5)
    to_lumen_um = canvas.at(wall_um - depth, xy)
    chance = canvas.at(inside, xy) * (to_lumen_um > 0.5) * np.where(to_lumen_um < 4, 0.6, 0.3)
    canvas.sow(xy, chance, canvas.along(depth, xy), NucleusKind(11, 2.6, 1.05))


def paint_lesions(canvas: Canvas) -> None:
    """Crowded glands and solid nests of 60–120 µm with large pleomorphic nuclei and little stroma between."""
    inside = canvas.label == LESION
    gland_um = min(82.0, 0.9 * TEXEL_UM * float(np.sqrt(inside.sum() / np.pi)))
    seeds_px = canvas.scatter(gland_um)
    cells = canvas.cells(inside, seeds_px, warp_um=8)
    hollow = canvas.rng.random(len(seeds_px)) < 0.75
    lumen_um = np.where(hollow, gland_um * canvas.rng.uniform(0.14, 0.3, len(seeds_px)), -99)[cells.nearest]
    septum_um = np.maximum(2.5 + 1.5 * canvas.noise(70), 0.8)
    from_septum = (cells.d2_um**2 - cells.d1_um**2) / (2 * gland_um) - septum_um
    from_lumen = cells.d1_um - lumen_um + 2 * canvas.noise(12)
    grain = canvas.noise(1.5)
    canvas.blend(inside & (from_septum > 0), 0.02, 0.03)
    canvas.blend(inside & (from_septum > 0) & (from_lumen > 0), 0.26 + 0.03 * grain, 0.34 + 0.05 * grain)
    xy = canvas.scatter(8.9)
    basal, apical = canvas.at(from_septum, xy), canvas.at(from_lumen, xy)
    angle = canvas.outward(cells, xy) + canvas.rng.normal(0, 0.3, len(xy))
    crowded = np.where((basal < 16) | (apical > 60), 0.97, 0.6) * (basal > 1.5) * (apical > 5)
    tumour = NucleusKind(11.5, 8.2, 1.0, clumps=0.2, rim=0.32, wobble=0.07, nucleolus=0.8)
    canvas.sow(xy, crowded * canvas.at(inside, xy), angle, tumour)
    between = 0.25 * canvas.at(inside, xy) * (basal < -1)
    canvas.sow(xy, between, angle + np.pi / 2, NucleusKind(11, 2.8, 1.0))


def stamp_all(canvas: Canvas, haematoxylin: Floats, eosin: Floats) -> None:
    """Stamp the queued nuclei, except those that would stick out of the tissue."""
    tissue = ndimage.gaussian_filter((canvas.label > 0).astype(np.float32), 6)
    chromatin = ndimage.gaussian_filter(canvas.rng.standard_normal((320, 320), np.float32), 2.0)
    chromatin /= chromatin.std()
    xy = np.array([nucleus[:2] for nucleus in canvas.nuclei])
    for nucleus, share in zip(canvas.nuclei, canvas.at(tissue, xy), strict=True):
        if share > 0.8:
            stamp(canvas.rng, haematoxylin, eosin, nucleus, chromatin)


def stamp(rng: Rng, haematoxylin: Floats, eosin: Floats, nucleus: Nucleus, chromatin: Floats) -> None:
    """Draw a nucleus into both level-0 concentration maps (H, W), in place."""
    kind = nucleus.kind
    size = max(rng.normal(1, kind.spread), 0.5)
    a = kind.length_um * size / (2 * MPP)
    b = kind.width_um * size * rng.normal(1, kind.spread / 2) / (2 * MPP)
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
    density = 1 - kind.rim + kind.rim * 1.6 * np.minimum(rho, 1) ** 2 + kind.clumps * clumps + kind.nucleolus * spot
    strength = kind.haematoxylin * rng.normal(1, 0.1)
    np.maximum(haematoxylin[window], strength * body * density, out=haematoxylin[window])
    eosin[window] *= 1 - 0.55 * body


# --- Slides -----------------------------------------------------------------------------


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
    canvas = new_canvas(rng, anatomy, slide.width_px, slide.height_px)
    for painter in (paint_stroma, paint_parenchyma, paint_lymphoid, paint_fat, paint_vessels, paint_lesions):
        painter(canvas)
    haematoxylin = enlarge(canvas.haematoxylin, slide.width_px, slide.height_px)
    eosin = enlarge(canvas.eosin, slide.width_px, slide.height_px)
    stamp_all(canvas, haematoxylin, eosin)
    classes = {"Lesion": anatomy.lesion, "Vessel": anatomy.vessel, "Fat": anatomy.fat}
    return render(rng, haematoxylin, eosin), classes


def enlarge(field: Floats, width_px: int, height_px: int) -> Floats:
    """Bring a texel field to level 0."""
    size = (field.shape[1] * STEP_PX, field.shape[0] * STEP_PX)
    whole = np.asarray(Image.fromarray(field).resize(size, Image.Resampling.BICUBIC))
    return whole[:height_px, :width_px].copy()


def render(rng: Rng, haematoxylin: Floats, eosin: Floats) -> NDArray[np.uint8]:
    """Colours (H, W, 3) of two stain maps by Beer and Lambert's law, in a stain basis drawn for the slide."""
    basis = np.array([[0.62, 0.70, 0.35], [0.20, 0.92, 0.34]]) + rng.normal(0, 0.045, (2, 3))
    basis = np.maximum(basis, 0.02)
    basis *= rng.uniform(0.8, 1.25, (2, 1)) / np.linalg.norm(basis, axis=1, keepdims=True)
    light = rng.uniform(242, 250, 3).astype(np.float32)
    stains = [ndimage.gaussian_filter(field, 0.7) for field in (haematoxylin, eosin)]
    rgb = np.empty((*haematoxylin.shape, 3), np.uint8)
    for rows in (slice(top, top + 128) for top in range(0, len(rgb), 128)):  # bands that fit the cache
        density = np.stack([stain[rows] for stain in stains], axis=-1) @ basis.astype(np.float32)
        colour = light * np.exp(-density) + 1.3 * rng.standard_normal(density.shape, dtype=np.float32)
        rgb[rows] = np.clip(np.rint(colour), 0, 255)
    return rgb


# --- Files ------------------------------------------------------------------------------


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
