"""Tissue with known stains, and profiles of it."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import openslide
import pytest
import tifffile
from lesionmap.files.records import read_json
from lesionmap.slides.slide import Slide
from lesionmap.stain.fit import FitFiles, StainSettings, fit_slide
from lesionmap.tissue.mask import TissueMask
from pyramids import info_of, write_tiff
from stains import BROWN, CAMELYON, HE, OTHER_HE, PROFILE, profile, unit

__all__ = ["BROWN", "CAMELYON", "HE", "OTHER_HE", "PROFILE", "profile", "unit"]  # for those who import the rest, too


def stained_pixels(basis, n: int = 20_000, seed: int = 0, strength: float = 1.0) -> np.ndarray:
    """Tissue, (n, 3) uint8; a third of the pixels each hold one stain almost alone, as nuclei and stroma do."""
    rng = np.random.default_rng(seed)
    concentrations = rng.gamma(2.0, 0.3, (n, 2)) * strength
    concentrations[: n // 3, 0] *= 0.02
    concentrations[n // 3 : 2 * n // 3, 1] *= 0.02
    return rng.permutation(np.rint(255 * np.exp(-concentrations @ basis)).astype(np.uint8))


def real_tile(request, slide: str, xy: tuple[int, int]) -> np.ndarray:
    """512 × 512 px of one of the real slides; the test is skipped where they are absent."""
    path = request.config.rootpath.parent / "shared/data/slides" / slide
    if not path.exists():
        pytest.skip(f"{path} is not there")
    with openslide.OpenSlide(path) as opened:
        return np.array(opened.read_region(xy, 0, (512, 512)).convert("RGB"))


def degrees(found, true) -> np.ndarray:
    """Between the rows of two bases, in the order in which they fit better."""
    between = np.degrees(np.arccos(np.clip(np.array(found) @ np.array(true).T, -1, 1)))
    return min((np.diag(between), np.diag(between[:, ::-1])), key=np.sum)


SETTINGS = StainSettings("vahadane", 6400, 0)


def opened(tmp_path, image, tissue=None, name="s") -> tuple[Slide, TissueMask]:
    """An image as a slide, open, and its tissue mask, which covers it all unless it is given."""
    info = info_of(write_tiff(tmp_path / f"{name}.tif", np.asarray(image, np.uint8)))
    mask = np.ones([-(-length // 32) for length in image.shape[:2]]) if tissue is None else tissue
    tifffile.imwrite(tmp_path / f"{name}_tissue.tif", (255 * mask).astype(np.uint8))
    return Slide(info, "fit_stain"), TissueMask(tmp_path / f"{name}_tissue.tif", info)


def fitted(tmp_path, image, tissue=None, name="s", **changes) -> tuple[FitFiles, dict]:
    """The files of the fit of an image as a slide, and its record."""
    slide, _ = opened(tmp_path, image, tissue, name)
    files = FitFiles(*(str(tmp_path / f"{name}{end}") for end in (".json", "_sample.png", "_view.png", "_all.png")))
    settings = replace(SETTINGS, **changes)
    fit_slide(slide.info, str(tmp_path / f"{name}_tissue.tif"), files, settings, {"code": "abc"})
    return files, read_json(files.profile)


class Case(NamedTuple):
    """Pixels, and the verdict on them by each method; several where chance or rounding decides."""

    pixels: np.ndarray
    vahadane: str
    macenko: str
    none: str
    staintools: str


def _even(colour) -> np.ndarray:
    return np.full((2000, 3), colour, np.uint8)


def _greys(levels) -> np.ndarray:
    return np.repeat(np.rint(levels)[:, None], 3, axis=1).astype(np.uint8)


def _pen(colour) -> np.ndarray:
    """Strokes with soft edges on glass."""
    cover = np.random.default_rng(1).random((20_000, 1))
    return np.rint(255 * (1 - cover) + np.array(colour) * cover).astype(np.uint8)


def _one_stain(row) -> np.ndarray:
    return np.rint(255 * np.exp(-np.random.default_rng(2).gamma(2.0, 0.3, (20_000, 1)) * row)).astype(np.uint8)


METHODS = ("vahadane", "macenko", "none", "staintools")
FEW, FADED, ONE, FOREIGN, ALIKE = "too few stained pixels", "faded", "one stain", "not H&E", "stains too alike"
DEGENERATE = {
    "no pixel": Case(np.empty((0, 3), np.uint8), FEW, FEW, FEW, FEW),
    "999 pixels": Case(stained_pixels(HE, 999), FEW, FEW, FEW, FEW),
    "white": Case(_even(255), FADED, FADED, FADED, FEW),
    "almost white": Case(_even(245), FADED, FADED, FADED, FEW),
    "black": Case(_even(0), ONE, f"{ONE}, {FOREIGN}", ONE, f"{FEW}, {ONE}, {FOREIGN}"),
    "one colour": Case(_even((150, 80, 160)), ONE, f"{ONE}, {ALIKE}", "ok", f"{FEW}, {ONE}, {ALIKE}"),
    "grey photograph": Case(_greys(np.linspace(0, 255, 20_000)), ONE, f"{ONE}, {FOREIGN}", ONE, f"{ONE}, {FOREIGN}"),
    "grey tissue": Case(_greys(stained_pixels(HE).mean(axis=1)), ONE, f"{ONE}, {FOREIGN}", ONE, f"{ONE}, {FOREIGN}"),
    "brown": Case(stained_pixels(BROWN), FOREIGN, FOREIGN, "ok", FOREIGN),
    "blue pen": Case(_pen((20, 40, 160)), ALIKE, ALIKE, ONE, ALIKE),
    "green pen": Case(_pen((10, 120, 50)), FOREIGN, FOREIGN, ONE, FOREIGN),
    "red pen": Case(_pen((200, 20, 30)), FOREIGN, FOREIGN, "ok", FOREIGN),
    "black pen": Case(_pen((10, 10, 15)), FOREIGN, FOREIGN, ONE, FOREIGN),
    "haematoxylin alone": Case(_one_stain(HE[:1]), ONE, ALIKE, ONE, f"{ALIKE}, {ONE}"),
    "eosin alone": Case(_one_stain(HE[1:]), ONE, ALIKE, ONE, f"{ALIKE}, {ONE}"),
    "faded": Case(stained_pixels(HE, strength=0.1), FADED, FADED, FADED, FADED),
    "alike": Case(stained_pixels(unit([[0.4, 0.8, 0.3], [0.45, 0.8, 0.3]])), ALIKE, ALIKE, "ok", ALIKE),
    "at right angles": Case(
        stained_pixels(unit([[1, 0.02, 0.02], [0.02, 1, 0.02]])), FOREIGN, "stains too different", "ok", FOREIGN
    ),
}
