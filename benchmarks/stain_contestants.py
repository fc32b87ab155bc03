"""What `stain.py` times: the pixels, and each contestant's work on them, ready to be called again and again."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import torch
from lesionmap.stain.fit import fit
from lesionmap.stain.profile import StainProfile
from lesionmap.stain.table import apply_table, stain_table
from numpy.typing import NDArray

REAL_SLIDES = Path("../shared/data/slides")
DEMO_SLIDES = Path("demo/slides")
TILE_PX, REGION_PX = 512, 4096
SMALL_TILE = slice(192, 320)  # the middle of a tile, which holds tissue
OVERVIEW_DOWNSAMPLE = 64

Image = NDArray[np.uint8]
Call = Callable[[], Any]


@dataclass(frozen=True)
class Pixels:
    """What everyone works on.

    Parameters
    ----------
    tiles : tuple of (512, 512, 3) uint8
        Eight tiles of `slide`: those on the diagonal of the region (fewer where it is smaller).
    reference : (512, 512, 3) uint8
        The darkest tile of another slide, which all of them are brought to.
    region : (4096, 4096, 3) uint8
        The darkest region of `slide`, smaller where the slide is.
    slide : Path
    region_xy_lv0 : (int, int)
    """

    tiles: tuple[Image, ...]
    reference: Image
    region: Image
    slide: Path
    region_xy_lv0: tuple[int, int]


@dataclass(frozen=True)
class Work:
    """Calls to be timed, and what is known of them: `n_pixels` of all together, the `shape` that each gives."""

    calls: Sequence[Call]
    n_pixels: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Contestant:
    """One row of the table: who does what; `prepare` imports, fits and converts all that is not to be timed.

    Contestants of one `group` do the same job, and are compared with its first, LesionMap.
    """

    group: str
    package: str
    timed: str
    prepare: Callable[[Pixels, int], Work]


def slide_paths() -> list[Path]:
    """The slide that is normalised and the reference: real ones, else the demo's."""
    real = [REAL_SLIDES / "metaplasia_he.tif", REAL_SLIDES / "camelyon_1.tif"]
    return real if all(path.exists() for path in real) else sorted(DEMO_SLIDES.glob("train_*.tif"))[:2]


def read_pixels() -> Pixels:
    """Read the tiles and the region."""
    paths = slide_paths()
    with openslide.OpenSlide(paths[0]) as slide:
        side_px = min(REGION_PX, min(slide.dimensions) // TILE_PX * TILE_PX)
        corner = darkest_corner(slide, side_px)
        region = decode(slide, corner, (side_px, side_px)).copy()
    with openslide.OpenSlide(paths[1]) as other:
        reference = decode(other, darkest_corner(other, TILE_PX), (TILE_PX, TILE_PX)).copy()
    diagonal = range(0, side_px, TILE_PX)
    tiles = tuple(region[start : start + TILE_PX, start : start + TILE_PX].copy() for start in diagonal)
    return Pixels(tiles, reference, region, paths[0], corner)


def darkest_corner(slide: openslide.OpenSlide, side_px: int) -> tuple[int, int]:
    """Top-left corner (x, y of level 0, multiples of 512) of the square with the most stain."""
    width_px, height_px = slide.dimensions
    overview = slide.get_thumbnail((width_px // OVERVIEW_DOWNSAMPLE, height_px // OVERVIEW_DOWNSAMPLE))
    grey, side = np.asarray(overview.convert("L")), side_px // OVERVIEW_DOWNSAMPLE

    def brightness(corner: tuple[int, int]) -> float:
        column, row = (at // OVERVIEW_DOWNSAMPLE for at in corner)
        return float(grey[row : row + side, column : column + side].mean())

    columns, rows = (range(0, length_px - side_px + 1, TILE_PX) for length_px in slide.dimensions)
    return min(product(columns, rows), key=brightness)


def decode(slide: openslide.OpenSlide, xy_lv0: tuple[int, int], size_px: tuple[int, int]) -> Image:
    """(height, width, 3) uint8, as OpenSlide's documentation does it."""
    return np.asarray(slide.read_region(xy_lv0, 0, size_px).convert("RGB"))


def on_images(images: Sequence[Image], functions: Sequence[Callable[[Any], Any]], inputs: Sequence[Any]) -> Work:
    """One function per image; `inputs` are the images in the form that the functions take."""
    calls = [partial(function, image) for function, image in zip(functions, inputs, strict=True)]
    return Work(calls, sum(image.size // 3 for image in images), images[0].shape)


def on_tiles(pixels: Pixels, *functions: Callable[[Any], Any], form: Callable[[Image], Any] = np.copy) -> Work:
    """One function for all tiles, or one per tile. Everyone gets copies, as some packages write into them."""
    functions = functions if len(functions) > 1 else functions * len(pixels.tiles)
    return on_images(pixels.tiles, functions, [form(tile) for tile in pixels.tiles])


def on_first_tile(pixels: Pixels, find_basis: Callable[[Image], Any]) -> Work:
    """A fit of one tile, which gives a (2, 3) basis."""
    return Work([partial(find_basis, pixels.tiles[0].copy())], TILE_PX**2, (2, 3))


# LesionMap


def profile_of(image: Image) -> StainProfile:
    return fit(image.reshape(-1, 3), "vahadane")


def table_of(profile: StainProfile, reference: StainProfile) -> Image:
    ratio = np.array(reference.p99) / np.array(profile.p99)
    return stain_table(profile.basis, np.array(reference.basis) * ratio[:, None])


def lesionmap_table(pixels: Pixels, threads: int) -> Work:
    profiles = profile_of(np.concatenate(pixels.tiles)), profile_of(pixels.reference)
    return Work([partial(table_of, *profiles)], 2**24, (2**24, 3))


def slide_table(pixels: Pixels) -> Image:
    (build,) = lesionmap_table(pixels, 1).calls
    table: Image = build()
    return table


def lesionmap_tiles(pixels: Pixels, threads: int) -> Work:
    return on_tiles(pixels, partial(apply_table, slide_table(pixels), threads=threads))


def lesionmap_region(pixels: Pixels, threads: int) -> Work:
    return on_images([pixels.region], [partial(apply_table, slide_table(pixels), threads=threads)], [pixels.region])


def lesionmap_fit(pixels: Pixels, threads: int) -> Work:
    return on_first_tile(pixels, lambda tile: profile_of(tile).basis)


# OpenSlide


def openslide_region(pixels: Pixels, threads: int) -> Work:
    slide = openslide.OpenSlide(pixels.slide)
    slide.set_cache(openslide.OpenSlideCache(0))  # so that every repeat decodes
    x, y = pixels.region_xy_lv0
    height_px, width_px, _ = pixels.region.shape
    band_px = height_px // threads

    def read_band(top_px: int) -> Image:
        return decode(slide, (x, y + top_px), (width_px, min(band_px, height_px - top_px)))

    def read_bands() -> Image:
        with ThreadPoolExecutor(threads) as pool:
            return np.concatenate(list(pool.map(read_band, range(0, height_px, band_px))))

    call = read_bands if threads > 1 else partial(read_band, 0)
    return Work([call], height_px * width_px, pixels.region.shape)


# StainTools, and tiatoolbox, whose normalisers are made after it


@dataclass(frozen=True)
class GivenBasis:
    """An extractor that has the basis already, so that `transform` does not fit the tile again."""

    basis: NDArray[np.float64]

    def get_stain_matrix(self, image: Image) -> NDArray[np.float64]:
        """The basis, whatever the image shows."""
        return self.basis


def with_given_basis(normaliser: Any, tile: Image) -> Callable[[Image], Image]:
    own = copy(normaliser)
    own.extractor = GivenBasis(normaliser.extractor.get_stain_matrix(tile.copy()))
    transform: Callable[[Image], Image] = own.transform
    return transform


def fit_normaliser(normaliser: Any, tile: Image) -> NDArray[np.float64]:
    normaliser.fit(tile)
    basis: NDArray[np.float64] = normaliser.stain_matrix_target
    return basis


def staintools_normaliser(tile: Image) -> Any:
    from staintools import StainNormalizer

    normaliser = StainNormalizer("vahadane")
    normaliser.fit(tile.copy())
    return normaliser


def staintools_fitting(pixels: Pixels, threads: int) -> Work:
    return on_tiles(pixels, staintools_normaliser(pixels.reference).transform)


def staintools_given(pixels: Pixels, threads: int) -> Work:
    normaliser = staintools_normaliser(pixels.reference)
    return on_tiles(pixels, *(with_given_basis(normaliser, tile) for tile in pixels.tiles))


def staintools_fit(pixels: Pixels, threads: int) -> Work:
    return on_first_tile(pixels, partial(fit_normaliser, staintools_normaliser(pixels.reference)))


def tiatoolbox_normaliser(tile: Image) -> Any:
    from tiatoolbox.tools.stainnorm import get_normalizer

    normaliser = get_normalizer("vahadane")
    normaliser.fit(tile.copy())
    return normaliser


def tiatoolbox_fitting(pixels: Pixels, threads: int) -> Work:
    return on_tiles(pixels, tiatoolbox_normaliser(pixels.reference).transform)


def tiatoolbox_given(pixels: Pixels, threads: int) -> Work:
    normaliser = tiatoolbox_normaliser(pixels.reference)
    return on_tiles(pixels, *(with_given_basis(normaliser, tile) for tile in pixels.tiles))


def tiatoolbox_fit(pixels: Pixels, threads: int) -> Work:
    return on_first_tile(pixels, partial(fit_normaliser, tiatoolbox_normaliser(pixels.reference)))


# The ones that take tensors: conversion to what each takes best is not timed


def channels_first(tile: Image) -> torch.Tensor:
    return torch.from_numpy(tile.copy()).permute(2, 0, 1).contiguous()  # (3, H, W) uint8


def batch_of_one(tile: Image) -> torch.Tensor:
    return channels_first(tile)[None].float() / 255  # (1, 3, H, W) float32 in [0, 1]


def torchstain_numpy(pixels: Pixels, threads: int) -> Work:
    from torchstain.numpy.normalizers import NumpyMacenkoNormalizer

    normaliser = NumpyMacenkoNormalizer()
    normaliser.fit(pixels.reference)
    return on_tiles(pixels, lambda tile: normaliser.normalize(tile, stains=False)[0])


def torchstain_torch(pixels: Pixels, threads: int) -> Work:
    from torchstain.torch.normalizers import TorchMacenkoNormalizer

    normaliser = TorchMacenkoNormalizer()
    normaliser.fit(channels_first(pixels.reference))
    return on_tiles(pixels, lambda tile: normaliser.normalize(tile, stains=False)[0], form=channels_first)


def stainx_macenko(pixels: Pixels, threads: int) -> Work:
    from stainx import Macenko

    normaliser = Macenko(device="cpu", backend="torch")
    normaliser.fit(batch_of_one(pixels.reference))
    return on_tiles(pixels, normaliser.transform, form=batch_of_one)


def torch_staintools_normaliser(method: str, tile: Image, *, cached: bool) -> Any:
    from torch_staintools.constants import CONFIG
    from torch_staintools.normalizer import NormalizerBuilder

    CONFIG.ENABLE_COMPILE = False  # it takes minutes for Vahadane and gains nothing where the basis is given
    normaliser = NormalizerBuilder.build(method, use_cache=cached)
    normaliser.fit(batch_of_one(tile), cache_keys=["reference"] if cached else None)
    return normaliser


def torch_staintools_given(pixels: Pixels, threads: int) -> Work:
    normaliser = torch_staintools_normaliser("macenko", pixels.reference, cached=True)
    keys = range(len(pixels.tiles))  # the warm-up fits each tile under its key
    return on_tiles(pixels, *(partial(normaliser.transform, cache_keys=[key]) for key in keys), form=batch_of_one)


def torch_staintools_vahadane(pixels: Pixels, threads: int) -> Work:
    goal, tile = (np.ascontiguousarray(one[SMALL_TILE, SMALL_TILE]) for one in (pixels.reference, pixels.tiles[0]))
    normaliser = torch_staintools_normaliser("vahadane", goal, cached=False)
    return on_images([tile], [normaliser.transform], [batch_of_one(tile)])


TILES = "normalising 512 px tiles of one slide"
REGION = "one region of 4096 px (smaller where the slide is)"
FIT = "fitting one 512 px tile"
CONTESTANTS = (
    Contestant(TILES, "LesionMap", "Vahadane: table gather", lesionmap_tiles),
    Contestant(TILES, "StainTools", "Vahadane: transform as it is (fits each tile)", staintools_fitting),
    Contestant(TILES, "StainTools", "Vahadane: transform, each tile's basis given", staintools_given),
    Contestant(TILES, "tiatoolbox", "Vahadane: transform as it is (fits each tile)", tiatoolbox_fitting),
    Contestant(TILES, "tiatoolbox", "Vahadane: transform, each tile's basis given", tiatoolbox_given),
    Contestant(TILES, "torch-staintools", "Macenko: transform, each tile's basis cached", torch_staintools_given),
    Contestant(TILES, "torch-staintools", "Vahadane: transform (fits), one 128 px tile", torch_staintools_vahadane),
    Contestant(TILES, "torchstain", "Macenko, numpy: normalize (fits each tile)", torchstain_numpy),
    Contestant(TILES, "torchstain", "Macenko, torch: normalize (fits each tile)", torchstain_torch),
    Contestant(TILES, "stainx", "Macenko, torch: transform (fits each tile)", stainx_macenko),
    Contestant(REGION, "LesionMap", "table gather", lesionmap_region),
    Contestant(REGION, "LesionMap", "building the table, once a slide", lesionmap_table),
    Contestant(REGION, "OpenSlide", "decoding: read_region as RGB", openslide_region),
    Contestant(FIT, "LesionMap", "Vahadane", lesionmap_fit),
    Contestant(FIT, "StainTools", "Vahadane", staintools_fit),
    Contestant(FIT, "tiatoolbox", "Vahadane", tiatoolbox_fit),
)
QUOTED = {
    "staintools": (staintools_fitting,),
    "torchstain": (torchstain_numpy, torchstain_torch),
    "torch_staintools": (torch_staintools_given,),
}
