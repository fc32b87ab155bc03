"""Fit a slide's stain: sample its tissue, find the stain basis, judge the fit (METHOD.md §1.2)."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesionmap.files.pictures import read_png, write_png
from lesionmap.files.records import write_json
from lesionmap.geometry.tiling import map_size
from lesionmap.slides.slide import Slide, SlideInfo
from lesionmap.stain.profile import WHITE, Colour, StainProfile, optical_density
from lesionmap.stain.separation import concentrations, find_basis
from lesionmap.stain.table import CONCENTRATION_SPARSITY
from lesionmap.stain.white_point import AUTO, find_white_point
from lesionmap.tissue.detection import ink
from lesionmap.tissue.glass import white_balanced
from lesionmap.tissue.mask import TissueMask

FEWEST_PIXELS = 1000
SMALLEST_ANGLE, LARGEST_ANGLE = 10.0, 80.0  # degrees between the two stains
LEAST_P99 = 0.05  # below this, the stain is absent
FADED_P99 = 0.3  # if both stains are below this, even the darkest nuclei transmit three quarters of the light
MOST_BLUE = (0.9, 0.75)  # blue OD / green OD of haematoxylin, eosin
MOST_RED = 1.6  # red OD / green OD of either stain
SAMPLED_BOX_PX = 256
MOST_SAMPLED_BOXES = 256
SAMPLED_CELLS = 16  # per side of the grid
DARKEST, BRIGHTEST = 15, 240  # a pixel with a mean grey outside this range is ink, dust or glass
PALE = 0.15  # share of the slide's P99 of mean OD; H&E of that OD has L* 80, the tissue limit of StainTools
SAMPLE_WIDTH_PX = 500
VIEW_PX = 512
OVERVIEW_PX = 256


@dataclass(frozen=True)
class StainSettings:
    """Fit by `method` (:func:`lesionmap.stain.separation.find_basis`) on `n_pixels` drawn with `seed`.

    `white_point` is "auto" or (R, G, B), see :func:`lesionmap.stain.white_point.find_white_point`.
    """

    method: str
    n_pixels: int
    seed: int
    white_point: str | Sequence[float] = AUTO


@dataclass(frozen=True)
class FitFiles:
    """Output files of the fit of one slide, including the pictures that the plots use later.

    Parameters
    ----------
    profile : str
        JSON: the profile, whatever its verdict.
    sample : str
        PNG: the pixels used for the fit, see :func:`read_sample`.
    tissue : str
        PNG: 512 × 512 px at level-0 resolution, from where the slide has most tissue.
    overview : str
        PNG: the whole slide, at most 256 px per side.
    """

    profile: str
    sample: str
    tissue: str
    overview: str


def fit_slide(
    info: SlideInfo, tissue_path: str, files: FitFiles, settings: StainSettings, provenance: dict[str, Any]
) -> None:
    """Fit a slide's stain on tissue pixels spread over the whole slide.

    Parameters
    ----------
    tissue_path : str
        The slide's tissue mask.
    """
    tissue = TissueMask(tissue_path, info)
    scale = max(info.size_lv0) / OVERVIEW_PX
    generator = np.random.default_rng(settings.seed)
    with Slide(info, "fit_stain") as slide:
        boxes = list(read_boxes(slide, tissue, generator))
        view, _ = slide.read_where_possible(_fullest_corner(tissue), (VIEW_PX, VIEW_PX), info.mpp)
        overview, _ = slide.read_where_possible((0, 0), map_size(info.size_lv0, scale), info.mpp * scale)
    white = find_white_point(settings.white_point, tissue.glass, [box.image for box in boxes])
    pixels = sample_tissue(boxes, white.colour, settings.n_pixels, generator)
    write_png(files.sample, _as_image(pixels))
    write_png(files.tissue, view)
    write_png(files.overview, overview)
    record = {
        "slide": info.slide,
        "profile": asdict(fit(pixels, settings.method, white.colour)),
        "white_point": asdict(white),
        "parameters": asdict(settings),
        "provenance": provenance,
    }
    write_json(files.profile, record)


def _as_image(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    rows = max(1, -(-len(pixels) // SAMPLE_WIDTH_PX))
    image = np.full((rows, SAMPLE_WIDTH_PX, 3), 255, np.uint8)
    image.reshape(-1, 3)[: len(pixels)] = pixels
    return image


def read_sample(path: str, n_pixels: int) -> NDArray[np.uint8]:
    """Read the first `n_pixels` of a sample, (N, 3) uint8. The PNG has rows of 500 pixels, padded with white."""
    pixels: NDArray[np.uint8] = read_png(path).reshape(-1, 3)[:n_pixels]
    return pixels


def fit(pixels: NDArray[np.uint8], method: str, white_point: Colour = WHITE) -> StainProfile:
    """Fit basis and P99 to tissue pixels and judge the fit; the values are finite for any pixels.

    Parameters
    ----------
    pixels : (N, 3) uint8
        Tissue pixels from :func:`sample_tissue`.
    method : str
        See :func:`lesionmap.stain.separation.find_basis`.
    white_point : (float, float, float)
        Colour of the slide's glass.
    """
    enough = len(pixels) >= FEWEST_PIXELS
    od, balanced = optical_density(pixels, white_point), white_balanced(pixels, white_point)
    return profile_of(od, find_basis(balanced, od, method if enough else "none"), method, white_point)


def profile_of(
    od: NDArray[np.float64], basis: NDArray[np.float64], method: str, white_point: Colour = WHITE
) -> StainProfile:
    """Stain profile of tissue pixels, (N, 3) optical density relative to the white point, for a given basis."""
    found = concentrations(od, basis, CONCENTRATION_SPARSITY)
    p99 = np.percentile(found, 99, axis=0) if len(od) else np.zeros(2)
    residual = od - np.einsum("nk,kc->nc", found, basis)
    return StainProfile(
        basis=tuple(tuple(map(float, row)) for row in basis),  # type: ignore[arg-type]  # two rows of three
        p99=(float(p99[0]), float(p99[1])),
        n_pixels=len(od),
        reconstruction_error=float(np.sqrt(np.mean(residual**2))) if len(od) else 0.0,
        method=method,
        verdict=verdict(len(od), basis, p99),
        white_point=white_point,
    )


def verdict(n_pixels: int, basis: NDArray[np.float64], p99: NDArray[np.float64]) -> str:
    """Whether a fit shows haematoxylin and eosin.

    Returns
    -------
    str
        The first of these that holds, or ``ok``:

        - ``too few stained pixels``: fewer than 1000
        - ``faded``: both P99 below 0.3
        - ``one stain``: one P99 below 0.05
        - ``stains too different``: more than 80° apart
        - ``not H&E``: haematoxylin absorbs more than 0.9 times, or eosin more than 0.75 times, as much blue as green
          (brown chromogens, red ink, greys); or either absorbs more than 1.6 times as much red as green (blue and
          green ink)
        - ``stains too alike``: less than 10° apart
    """
    red, green, blue = np.asarray(basis).T
    angle = angles(basis[:1], basis[1:])[0]
    findings = {
        "too few stained pixels": n_pixels < FEWEST_PIXELS or not basis.any(),
        "faded": p99.max() < FADED_P99,
        "one stain": p99.min() < LEAST_P99,
        "stains too different": angle > LARGEST_ANGLE,
        "not H&E": bool((blue > MOST_BLUE * green).any() or (red > MOST_RED * green).any()),
        "stains too alike": angle < SMALLEST_ANGLE,
    }
    return next((finding for finding, holds in findings.items() if holds), "ok")


def angles(rows: Any, others: Any) -> NDArray[np.float64]:
    """Angles between unit vectors in degrees, row by row."""
    cosines = (np.asarray(rows) * np.asarray(others)).sum(axis=1)
    degrees: NDArray[np.float64] = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
    return degrees


@dataclass(frozen=True)
class TissueBox:
    """A box of a slide, (H, W, 3) uint8, and where it shows tissue, (H, W) bool."""

    image: NDArray[np.uint8]
    tissue: NDArray[np.bool_]


def read_boxes(slide: Slide, tissue: TissueMask, generator: np.random.Generator) -> Iterator[TissueBox]:
    """Read up to 256 boxes of 256 px at level-0 resolution, evenly from the tissue of the whole slide."""
    size = (SAMPLED_BOX_PX, SAMPLED_BOX_PX)
    for x, y in _spread(_tissue_boxes(tissue), generator):
        image, _ = slide.read_where_possible((x, y), size, slide.info.mpp)
        yield TissueBox(image, tissue.at((x, y), size, 1.0))


def sample_tissue(
    boxes: Sequence[TissueBox], white_point: Colour, n_pixels: int, generator: np.random.Generator
) -> NDArray[np.uint8]:
    """Sample up to `n_pixels` stained pixels from boxes; (N, 3) uint8.

    All boxes give the same number of pixels, so dense tissue counts no more than loose tissue. Pale pixels are then
    dropped because they hold more noise than stain. The limit depends on how strongly the slide is stained.
    """
    quotas = np.diff(np.linspace(0, n_pixels, len(boxes) + 1).astype(int))
    samples = [np.empty((0, 3), np.uint8)]
    for box, quota in zip(boxes, quotas, strict=True):
        pixels = box.image[box.tissue & shows_stain(white_balanced(box.image, white_point))]
        samples.append(pixels[generator.permutation(len(pixels))[:quota]])
    sample = np.concatenate(samples)
    density = optical_density(sample, white_point).mean(axis=1)
    return sample[density >= PALE * np.percentile(density, 99)] if len(sample) else sample


def shows_stain(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels of a white-balanced image that can show stain: not glass, not black, not ink; (H, W) bool."""
    grey = image.mean(axis=-1)
    kept: NDArray[np.bool_] = (grey > DARKEST) & (grey < BRIGHTEST) & ~ink(image)
    return kept


def _spread(boxes: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.float64]:
    """Choose up to 256 of `boxes` (N, 2), in turn from the cells of a grid over them."""
    if not len(boxes):
        return boxes
    corner = boxes.min(axis=0)
    cells = (SAMPLED_CELLS * (boxes - corner) / (np.ptp(boxes, axis=0) + 1)).astype(int) @ (SAMPLED_CELLS, 1)
    lot = generator.permutation(len(boxes))
    order = np.lexsort((lot, cells))
    turn = np.empty(len(boxes), int)  # place of each box in the random order of its cell
    turn[order] = np.arange(len(boxes)) - np.searchsorted(cells[order], cells[order])
    chosen: NDArray[np.float64] = boxes[np.sort(np.lexsort((lot, turn))[:MOST_SAMPLED_BOXES])]
    return chosen


def _tissue_boxes(tissue: TissueMask) -> NDArray[np.float64]:
    """Top-left corners of the 256-px boxes that are at least half tissue (if none is, of those with any tissue)."""
    shares = np.array([(x, y, share) for x, y, share in _box_shares(tissue)]).reshape(-1, 3)
    enough = 0.5 if (shares[:, 2] >= 0.5).any() else 1e-9
    return shares[shares[:, 2] >= enough, :2]


def _box_shares(tissue: TissueMask) -> Iterator[tuple[float, float, float]]:
    """Split the slide into boxes of about 256 px; yield x, y (level-0 pixels) and tissue share of each."""
    side = max(1, round(SAMPLED_BOX_PX / tissue.scale[0]))
    height, width = tissue.mask.shape
    for row in range(0, height, side):
        for column in range(0, width, side):
            share = float(tissue.mask[row : row + side, column : column + side].mean())
            yield column * tissue.scale[0], row * tissue.scale[1], share


def _fullest_corner(tissue: TissueMask) -> tuple[float, float]:
    x, y, _ = max(_box_shares(tissue), key=lambda box: box[2])
    return x, y
