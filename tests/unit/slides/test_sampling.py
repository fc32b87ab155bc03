"""Brightfield passes, fluorescence and dark-field do not; the images are made, and the real slides where they are."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from lesionmap.errors import SlideError
from lesionmap.slides.inspection import inspect_slide
from lesionmap.slides.sampling import check_illumination, count_tones
from odd_tiffs import scaled, stated, write_odd_tiff
from pyramids import INSPECTION, inspection_files, row, write_jpeg, write_tiff
from scipy.ndimage import gaussian_filter

DATA = Path(__file__).parents[4] / "shared/data"
REAL = sorted(
    [*DATA.glob("slides/*"), *DATA.glob("cases/fatty*"), *DATA.glob("cases/grey*"), *DATA.glob("cam8/slides/*")]
)
HEIGHT, WIDTH = 701, 903


@pytest.fixture(scope="module")
def nuclei():
    """Density of stain, 0 to about 1.5: cells of several sizes on a faint, uneven ground, (701, 903)."""
    chance = np.random.default_rng(3)
    seeds = chance.random((HEIGHT, WIDTH)) < 0.004
    cells = gaussian_filter(seeds * chance.uniform(20, 140, seeds.shape), 3)
    return 1.5 * (1 - np.exp(-cells)) + 0.2 * gaussian_filter(chance.random(seeds.shape), 40)


def noisy(image, sigma=2.0, seed=0):
    return (image + np.random.default_rng(seed).normal(0, sigma, image.shape)).clip(0, 255).astype(np.uint8)


def stained(density, glass=(238, 237, 240), absorption=(0.9, 1.3, 0.5)):
    """Light that a stain lets through; tissue covers the left 600 columns."""
    covered = density * (np.arange(WIDTH) < 600)
    eosin = 0.25 * (np.arange(WIDTH) < 600) * np.array([0.1, 1.0, 0.4])[:, None]
    return np.moveaxis(np.array([255 * np.exp(-covered * part) for part in absorption]), 0, 2) * (
        np.array(glass) / 255 * np.exp(-eosin.T)
    )


def shining(density, colour, background):
    return background + 150 * np.clip(density - 0.15, 0, None)[..., None] * np.array(colour)


def inspected(tmp_path, path, **changes):
    inspect_slide(row(path), inspection_files(tmp_path), replace(INSPECTION, **changes))
    return json.loads((tmp_path / "record.json").read_text())


def check(image):
    check_illumination(count_tones(image), "s1", "inspect_slide")


def test_an_image_of_another_scale_is_told():
    image = np.full((400, 400, 3), 64, dtype=np.uint8)
    image[::8, 1::8] -= 20  # no filler of one colour
    check(image)
    with pytest.raises(SlideError, match="it is dark: only 1 pixel in 1000 has more than 63 of 255") as raised:
        check(image - 1)
    assert "tiffset -s 281 3 4095 4095 4095 FILE" in raised.value.remedy


def test_values_of_12_bits_need_their_scale(tmp_path, nuclei):
    image = noisy(stained(nuclei))
    path = write_odd_tiff(tmp_path / "s.tif", image, as_stored=scaled("u2", 4095))
    assert "it is dark" in inspected(tmp_path, path)["finding"]
    path = write_odd_tiff(tmp_path / "t.tif", image, as_stored=scaled("u2", 4095), **stated(4095))
    assert inspected(tmp_path, path)["verdict"] == "ok"


@pytest.mark.parametrize("background", [0, 5, 25, 40])
@pytest.mark.parametrize(
    "colour", [(0, 0, 1), (0, 0.3, 1), (0, 1, 0), (1, 0, 0), (1, 0, 1), (1, 1, 1), (1, 0.97, 0.94)], ids=str
)
def test_fluorescence_and_dark_field_are_refused(nuclei, colour, background):
    image = shining(nuclei, colour, background)
    image = noisy(image, 1.5) if colour != (1, 1, 1) else np.repeat(noisy(image[..., :1], 4), 3, axis=2)
    with pytest.raises(SlideError, match="it is no brightfield image"):
        check(image)


def test_several_dyes_are_refused(nuclei):
    dyes = shining(nuclei, (0, 0.1, 1), 20) + shining(np.roll(nuclei, 90, 1), (0.1, 1, 0), 0)
    with pytest.raises(SlideError, match="shine in pure colours"):
        check(noisy(dyes + shining(np.roll(nuclei, 200, 0), (1, 0.2, 0), 0), 4))


def test_refused_slides_are_quarantined_with_figures_and_remedy(tmp_path, nuclei):
    blue = write_jpeg(tmp_path / "blue.tif", noisy(shining(nuclei, (0, 0, 1), 5)))
    record = inspected(tmp_path, blue)
    assert (record["verdict"], record["stage"]) == ("quarantined", "inspect_slide")
    assert record["finding"] == (
        "it is no brightfield image: its structures shine in pure colours (95 % of the bright pixels have at most 3 % "
        "of the slide's light in their darkest channel; H&E lets more than 40 % through)"
    )
    assert record["remedy"] == (
        "LesionMap reads H&E in brightfield: export such a scan of the slide, or remove it from the slide sheet"
    )
    grey = write_jpeg(tmp_path / "grey.tif", np.repeat(noisy(shining(nuclei, (1, 1, 1), 5)[..., :1]), 3, axis=2))
    finding = inspected(tmp_path, grey)["finding"]
    assert finding.startswith("it is no brightfield image: it is grey on a dark background (")
    assert "of the others 100 % are colourless" in finding


@pytest.mark.parametrize("fill", [(0, 0, 0), (3, 1, 2), (255, 255, 255)], ids=str)
def test_white_and_black_filler_says_nothing(nuclei, fill):
    for image, refused in ((noisy(stained(nuclei)), False), (noisy(shining(nuclei, (0, 0, 1), 5)), True)):
        filled = np.full((2 * HEIGHT, 3 * WIDTH, 3), fill, dtype=np.uint8)  # five sixths
        filled[100 : 100 + HEIGHT, 200 : 200 + WIDTH] = image
        if refused:
            with pytest.raises(SlideError, match="pure colours"):
                check(filled)
        else:
            check(filled)


BRIGHTFIELD = {
    "H&E": {},
    "grey glass": {"glass": (152, 150, 149)},
    "without glass, dark": {"glass": (120, 119, 120)},
    "brown": {"absorption": (0.7, 1.2, 1.9)},
    "faint": {"absorption": (0.06, 0.1, 0.04)},
}


@pytest.mark.parametrize("kind", BRIGHTFIELD)
@pytest.mark.parametrize("edge", ["none", "black", "ink"])
def test_brightfield_passes(nuclei, kind, edge):
    image = stained(nuclei, **BRIGHTFIELD[kind])
    image = np.tile(image[:, :600], (1, 2, 1))[:, :WIDTH] if kind.startswith("without") else image
    edged = np.concatenate([image, image], axis=0)
    if edge == "black":
        edged[: int(1.2 * HEIGHT)] = 12
    elif edge == "ink":
        edged[: int(0.9 * HEIGHT)] *= (0.12, 0.2, 0.6)
    check(noisy(edged))


def test_blank_glass_beside_a_black_edge_passes():
    image = np.full((HEIGHT, WIDTH, 3), 236.0)
    image[:, :700] = 14
    check(noisy(image, 3))


def test_an_image_of_one_colour_and_one_of_few_pixels_pass():
    for value in (0, 30, 255):
        check(np.full((2000, 2000, 3), value, dtype=np.uint8))
    blue = np.zeros((128, 128, 3), dtype=np.uint8)
    blue[..., 2] = np.random.default_rng(0).integers(1, 200, (128, 128))
    check(blue)  # 256 of its pixels are looked at
    with pytest.raises(SlideError):
        check(np.tile(blue, (2, 1, 1)))
    sparse = np.zeros((2000, 2000, 3), dtype=np.uint8)
    sparse[0, 1::8] = 9  # beside pixels that are looked at
    check(np.tile(sparse, (2, 2, 1)))


def test_tones_are_counted_at_every_eighth_pixel_that_is_no_filler():
    image = np.full((20, 20, 3), 7, dtype=np.uint8)
    image[8, 8] = (10, 40, 20)
    image[16, 1] = (9, 9, 9)  # beside (16, 0)
    tones = count_tones(image)
    assert tones.sum() == 2
    assert tones[40, 10] == tones[7, 7] == 1


@pytest.mark.skipif(not REAL, reason="the real slides of ../shared/data are absent")
@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem)
def test_real_slides_pass(tmp_path, path):
    inspect_slide(row(path, mpp=0.25), inspection_files(tmp_path), replace(INSPECTION, read_share=0.02))
    assert json.loads((tmp_path / "record.json").read_text())["verdict"] == "ok"


def test_the_pixels_of_all_levels_decide(tmp_path, nuclei):
    path = write_tiff(tmp_path / "s.tif", noisy(shining(nuclei, (0, 1, 0), 5)), factors=(1, 16))
    assert "pure colours" in inspected(tmp_path, path)["finding"]
