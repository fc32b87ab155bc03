"""Draw the outlines of a demo slide: polygons in level-0 pixels, made before anything is painted."""

from typing import NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import Polygon
from shapely.geometry.base import BaseGeometry

Rng = np.random.Generator
MPP = 0.25  # µm per level-0 pixel


class Anatomy(NamedTuple):
    """The structures on a slide: disjoint polygons in level-0 pixels."""

    tissue: list[Polygon]
    lymphoid: list[Polygon]
    fat: list[Polygon]
    vessel: list[Polygon]
    lesion: list[Polygon]


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
    """Random outline within `room`: the try (of up to 60) with the largest share inside, clipped to `room`."""
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
    """Place one outline per radius, `gap_px` apart; also return the room that is left."""
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
    """Draw all outlines of a slide; small slides get fewer and smaller structures, but always a lesion.

    Coordinates are multiples of a quarter of a pixel, so that any text format keeps them exactly.
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
    """One large piece of tissue, torn in two on half of the slides, and a few fragments."""
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
    """Radii of the lesions in pixels, largest first; together they cover a fifth to a quarter of the tissue."""
    count = int(rng.integers(2, 6)) if scale * MPP > 0.6 else 1
    share = rng.dirichlet(np.full(count, 5.0)) * rng.uniform(0.2, 0.27)
    return np.sort(np.sqrt(share * tissue_area_px / np.pi))[::-1]


def with_hole(rng: Rng, lesion: Polygon) -> Polygon:
    """The lesion with a hole (an island of spared tissue) of a tenth of its area."""
    radius = float(np.sqrt(lesion.area / np.pi))
    centre = lesion.representative_point()
    hole = outline(rng, (centre.x, centre.y), (0.33 * radius, 0.33 * radius), 0.2)
    return largest(lesion.difference(largest(hole.intersection(lesion.buffer(-0.15 * radius)))))
