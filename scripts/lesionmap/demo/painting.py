"""Paint a demo slide inside its outlines: maps of stain concentration, then colours by the Beer-Lambert law."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import rasterio.features
from affine import Affine
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from scipy.spatial import KDTree
from shapely import Polygon

from lesionmap.demo.outlines import MPP, Anatomy, Rng, lay_out

Floats = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]
Scalar = TypeVar("Scalar", bound=np.generic)
STEP_PX = 2  # level-0 pixels per texel: textures are painted on a grid this much coarser
TEXEL_UM = MPP * STEP_PX
STROMA, PARENCHYMA, LYMPHOID, FAT, VESSEL, LESION = range(1, 7)


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


@dataclass(frozen=True)
class NucleusKind:
    """Appearance of one kind of nucleus: axes, stain concentration, spread of the axes and weights of its details."""

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
    """Voronoi cells of seeds (N, 2): for each texel, the nearest seed and the distances to the nearest three."""

    seeds_px: Floats
    nearest: NDArray[np.int32]
    d1_um: Floats
    d2_um: Floats
    d3_um: Floats


# --- Canvas -----------------------------------------------------------------------------


@dataclass
class Canvas:
    """Stain concentrations and compartment of each texel, each (H, W), and the nuclei to stamp later."""

    rng: Rng
    label: NDArray[np.uint8]
    haematoxylin: Floats
    eosin: Floats
    nuclei: list[Nucleus]

    def blend(self, inside: Mask, haematoxylin: Floats | float, eosin: Floats | float) -> None:
        """Replace both concentrations inside a mask, with a soft edge of half a micrometre."""
        weight = ndimage.gaussian_filter(inside.astype(np.float32), 1.0)
        self.haematoxylin += weight * (haematoxylin - self.haematoxylin)
        self.eosin += weight * (eosin - self.eosin)

    def noise(self, scale_um: float) -> Floats:
        """Smooth noise (H, W) with about unit variance and bumps `scale_um` wide."""
        height, width = self.label.shape
        return smooth_noise(self.rng, (height, width), scale_um)

    def streaks(self, along_um: Floats, across_um: Floats, length_um: float, width_um: float) -> Floats:
        """Noise (H, W) stretched along one of two coordinate fields: fibres that follow their bends."""
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
        """Voronoi cells of seeds (N, 2) inside a mask, with borders bent by noise of `warp_um`."""
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
        """Angle of a field's contour lines at level-0 points (N, 2)."""
        slope_y, slope_x = (np.asarray(slope) for slope in np.gradient(field))
        return np.asarray(np.arctan2(self.at(slope_x, xy_px), -self.at(slope_y, xy_px)))

    def outward(self, cells: Cells, xy_px: Floats) -> Floats:
        """Angle of the line to each level-0 point (N, 2) from the seed of its cell."""
        x, y = (xy_px - cells.seeds_px[self.at(cells.nearest, xy_px)]).T
        return np.asarray(np.arctan2(y, x))

    def sow(self, xy_px: Floats, chance: Floats, angle: Floats | None, kind: NucleusKind) -> None:
        """Queue nuclei of one kind at level-0 points (N, 2), each with its own probability; angle None means random."""
        keep = self.rng.random(len(xy_px)) < chance
        turn = self.rng.uniform(0, np.pi, len(xy_px)) if angle is None else angle
        self.nuclei += [Nucleus(x, y, a, kind) for (x, y), a in zip(xy_px[keep], turn[keep], strict=True)]


def smooth_noise(rng: Rng, shape: tuple[int, int], scale_um: float) -> Floats:
    """Smooth noise on a texel grid (H, W) with about unit variance and bumps `scale_um` wide."""
    height, width = (n * TEXEL_UM / scale_um for n in shape)
    grid = 1.3 * rng.standard_normal((int(height) + 4, int(width) + 4), np.float32)
    box = (1.0, 1.0, 1.0 + width, 1.0 + height)
    return np.asarray(Image.fromarray(grid).resize((shape[1], shape[0]), Image.Resampling.BICUBIC, box=box))


def ramp(value: Floats, start: float, end: float) -> Floats:
    """Zero below `start`, one above `end`, linear between."""
    return np.asarray(np.clip((value - start) / (end - start), 0, 1))


# --- Compartments -----------------------------------------------------------------------


def new_canvas(rng: Rng, anatomy: Anatomy, width_px: int, height_px: int) -> Canvas:
    """Unpainted canvas (glass) with the compartment of each texel; the tissue edge is frayed by a few micrometres."""
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
    """Wavy collagen at three scales, clefts between the bundles, and sparse spindle nuclei along the fibres."""
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
    """Plates of granular cells, each with one small round nucleus; pale sinusoids between the plates."""
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
    """Densely packed small, round, uniform, dark nuclei: as dark as a lesion, but not one."""
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
    """Walls of concentric muscle with tangential nuclei; lumens are empty or full of red blood cells."""
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
    """Stamp the queued nuclei, except those that would extend beyond the tissue."""
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
    """Enlarge a texel field to level-0 pixels."""
    size = (field.shape[1] * STEP_PX, field.shape[0] * STEP_PX)
    whole = np.asarray(Image.fromarray(field).resize(size, Image.Resampling.BICUBIC))
    return whole[:height_px, :width_px].copy()


def render(rng: Rng, haematoxylin: Floats, eosin: Floats) -> NDArray[np.uint8]:
    """Colours (H, W, 3) of two stain maps by the Beer-Lambert law, with a random stain basis for each slide."""
    basis = np.array([[0.62, 0.70, 0.35], [0.20, 0.92, 0.34]]) + rng.normal(0, 0.045, (2, 3))
    basis = np.maximum(basis, 0.02)
    basis *= rng.uniform(0.8, 1.25, (2, 1)) / np.linalg.norm(basis, axis=1, keepdims=True)
    light = rng.uniform(242, 250, 3).astype(np.float32)
    stains = [ndimage.gaussian_filter(field, 0.7) for field in (haematoxylin, eosin)]
    rgb = np.empty((*haematoxylin.shape, 3), np.uint8)
    for rows in (slice(top, top + 128) for top in range(0, len(rgb), 128)):  # bands that fit the processor's cache
        density = np.stack([stain[rows] for stain in stains], axis=-1) @ basis.astype(np.float32)
        colour = light * np.exp(-density) + 1.3 * rng.standard_normal(density.shape, dtype=np.float32)
        rgb[rows] = np.clip(np.rint(colour), 0, 255)
    return rgb
