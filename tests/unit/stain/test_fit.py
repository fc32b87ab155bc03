import functools
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from lesionmap.files.pictures import read_png
from lesionmap.stain.fit import angles, fit, profile_of, read_boxes, read_sample, sample_tissue, shows_stain, verdict
from lesionmap.stain.profile import WHITE, StainProfile, optical_density
from lesionmap.stain.separation import concentrations
from pyramids import damage
from stained import CAMELYON, DEGENERATE, HE, METHODS, SETTINGS, fitted, opened, stained_pixels, unit

PINK, VIOLET = (200, 120, 190), (120, 70, 150)


def sampled(tmp_path, image, tissue=None, **changes):
    return sample(*opened(tmp_path, image, tissue), **changes)


def sample(slide, tissue, **changes):
    settings = replace(SETTINGS, **changes)
    generator = np.random.default_rng(settings.seed)
    boxes = list(read_boxes(slide, tissue, generator))
    return sample_tissue(boxes, WHITE, settings.n_pixels, generator)


def count(pixels, colour):
    return int((pixels == colour).all(axis=1).sum())


@pytest.fixture
def noise(tmp_path):
    """A slide of 32 boxes full of tissue-coloured noise, no two pixels alike by chance."""
    return np.random.default_rng(0).integers((120, 60, 110), (220, 120, 200), (1024, 2048, 3), dtype=np.uint8)


def test_dense_tissue_counts_no_more_than_loose_tissue(tmp_path):
    image = np.full((1024, 2048, 3), 255)
    image[:, :1024] = VIOLET
    image[::4, 1024::4] = PINK  # a sixteenth of the right half
    pixels = sampled(tmp_path, image)
    assert (count(pixels, VIOLET), count(pixels, PINK)) == (3200, 3200)


def test_tissue_counts_by_its_area_and_not_by_where_it_begins(tmp_path):
    image = np.full((1024, 2048, 3), VIOLET)
    image[:, 512:] = PINK
    pixels = sampled(tmp_path, image)
    assert (count(pixels, VIOLET), count(pixels, PINK)) == (1600, 4800)


def test_boxes_of_little_tissue_are_left_out_unless_there_are_no_others(tmp_path):
    image, tissue = np.full((512, 1024, 3), PINK), np.zeros((16, 32))
    image[:, :512] = VIOLET
    tissue[:8, :8], tissue[12:, 28:] = 1, 1  # one box of the left, a quarter of one of the right
    pixels = sampled(tmp_path, image, tissue)
    assert (count(pixels, VIOLET), count(pixels, PINK)) == (6400, 0)
    tissue[:8, 1:8] = 0
    tissue[8:] = 0
    pixels = sampled(tmp_path, image, tissue)
    assert (len(pixels), count(pixels, VIOLET)) == (6400, 6400)
    assert len(sampled(tmp_path, image, tissue, n_pixels=500_000)) == 256 * 32  # all that is tissue


def test_pens_glass_and_black_are_not_sampled(tmp_path):
    image = np.full((512, 512, 3), PINK)
    for column, colour in enumerate([(20, 150, 40), (40, 60, 200), (200, 20, 40), (40, 42, 44), (245,) * 3, (5, 5, 9)]):
        image[:, column * 16 : column * 16 + 16] = colour
    pixels = sampled(tmp_path, image)
    assert np.unique(pixels, axis=0).tolist() == [list(PINK)]
    assert len(pixels) == 6400


def test_pale_pixels_are_dropped_and_what_is_pale_depends_on_the_slide(tmp_path):
    """Shades of one hue, of known shares of the darkest one's optical density."""
    shares = np.array([0.05, 0.10, 0.135, 0.165, 0.25, 1.0])
    for strength in (1.0, 1.5):
        shades = np.rint(255 * np.exp(-strength * np.array([0.8, 1.2, 1.0]) * shares[:, None])).astype(np.uint8)
        density = optical_density(shades).mean(axis=1)
        assert ((density >= 0.15 * density[-1]) == (shares > 0.15)).all()  # rounding has moved none past it
        image = np.tile(shades.repeat(80, axis=0)[:480], (512, 1, 1))
        expected = shades[(shares > 0.15) & shows_stain(shades[None])[0]]
        assert len(expected) == 3
        found = np.unique(sampled(tmp_path, image), axis=0)
        assert found.tolist() == np.unique(expected, axis=0).tolist()


@pytest.mark.parametrize(
    ("colour", "kept"),
    [
        ((150, 80, 160), True),
        ((230, 150, 200), True),
        ((60, 30, 100), True),  # a dense nucleus
        ((239, 239, 241), True),
        ((240, 240, 240), False),
        ((16, 14, 18), False),  # as dark as a black pen
        ((15, 15, 15), False),
        ((100, 111, 200), False),  # green above red, as of green and blue pens
        ((100, 110, 190), True),
        ((60, 60, 151), False),
        ((60, 60, 150), True),
        ((151, 69, 79), False),  # a red pen
        ((150, 69, 79), True),
        ((70, 70, 79), False),  # a black pen
        ((70, 70, 80), True),
    ],
)
def test_what_can_show_stain(colour, kept):
    assert shows_stain(np.array([[colour]], np.uint8)).tolist() == [[kept]]


def places(tmp_path, monkeypatch, tissue):
    """Column and row of the boxes that pixels come from, of a slide of 32 × 32 boxes that each have their own colour.

    The boxes are of 16 px, which makes the slide a small one.
    """
    monkeypatch.setattr("lesionmap.stain.fit.SAMPLED_BOX_PX", 16)
    row, column = np.indices((512, 512)) // 16
    pixels = sampled(tmp_path, np.stack([150 + column, np.full_like(row, 80), 140 + row], axis=2), tissue)
    found, counts = np.unique(pixels[:, [0, 2]].astype(int) - (150, 140), axis=0, return_counts=True)
    assert np.ptp(counts) <= 1  # as many from each
    return found


@pytest.mark.parametrize("tissue", [np.ones((32, 32)), np.indices((32, 32)).sum(axis=0) % 2], ids=["all", "half"])
def test_all_cells_of_a_slide_are_sampled(tmp_path, monkeypatch, tissue):
    found = places(tmp_path, monkeypatch, tissue)
    assert len(found) == 256  # of more than that
    assert len(np.unique(found // 2, axis=0)) == 16 * 16


def test_all_boxes_of_tissue_are_sampled_if_they_are_few(tmp_path, monkeypatch):
    tissue = np.zeros((32, 32))
    tissue[3:18, 5:22] = 1
    assert places(tmp_path, monkeypatch, tissue).tolist() == [[x, y] for x in range(5, 22) for y in range(3, 18)]


def test_each_cell_is_sampled_before_any_is_sampled_more(tmp_path, monkeypatch):
    tissue = np.zeros((32, 32))
    tissue[:16, :16], tissue[:, 31], tissue[31] = 1, 1, 1  # 256 boxes in 64 cells, and two edges of 63 boxes
    found = places(tmp_path, monkeypatch, tissue)
    assert len(found) == 256
    assert (found == 31).any(axis=1).sum() == 63  # all of the edges: none of their cells has four boxes


@pytest.mark.parametrize("n_pixels", [1, 10, 1000, 1001, 9999])
def test_as_many_pixels_as_asked_for_are_drawn(tmp_path, noise, n_pixels):
    assert len(sampled(tmp_path, noise, n_pixels=n_pixels)) == n_pixels  # of 32 boxes


def test_the_seed_decides_the_pixels(tmp_path, noise):
    first = sampled(tmp_path, noise)
    np.testing.assert_array_equal(sampled(tmp_path, noise), first)
    other = sampled(tmp_path, noise, seed=1)
    assert (other != first).any(axis=1).mean() > 0.9


def test_no_pixel_is_drawn_twice(tmp_path):
    image = np.full((512, 512, 3), 255)
    image[100:110, 100:110] = PINK
    assert len(sampled(tmp_path, image)) == 100


def test_a_slide_without_tissue_gives_no_pixel(tmp_path):
    pixels = sampled(tmp_path, np.full((300, 300, 3), PINK), np.zeros((10, 10)))
    assert (pixels.shape, pixels.dtype) == ((0, 3), np.uint8)


def test_damaged_parts_are_not_sampled(tmp_path):
    slide, tissue = opened(tmp_path, np.full((512, 512, 3), PINK))
    damage(Path(slide.info.path), (70, 70), (300, 300))
    pixels = sample(slide, tissue, n_pixels=500_000)
    assert count(pixels, PINK) == len(pixels) == 512 * 512 - 2 * 128 * 128  # what is read at once


def test_the_files_of_a_fit(tmp_path):
    image = stained_pixels(HE, 700 * 1100).reshape(700, 1100, 3)
    files, record = fitted(tmp_path, image)
    pixels = sampled(tmp_path, image)
    assert StainProfile.of(record["profile"]) == fit(pixels, "vahadane")
    assert (record["slide"], record["provenance"]) == ("s1", {"code": "abc"})
    assert record["parameters"] == {"method": "vahadane", "n_pixels": 6400, "seed": 0, "white_point": "auto"}
    assert record["white_point"] == {"colour": [255, 255, 255], "source": "not found"}
    np.testing.assert_array_equal(read_sample(files.sample, len(pixels)), pixels)
    assert (read_png(files.sample).reshape(-1, 3)[len(pixels) :] == 255).all()
    np.testing.assert_array_equal(read_png(files.tissue), image[:512, :512])
    assert read_png(files.overview).shape == (163, 256, 3)


def test_the_view_is_of_the_fullest_tissue(tmp_path, noise):
    tissue = np.zeros((32, 64))
    tissue[8:16, 40:48], tissue[0:8, 0:4] = 1, 1
    files, _ = fitted(tmp_path, noise, tissue)
    np.testing.assert_array_equal(read_png(files.tissue), noise[256:768, 1280:1792])


def test_a_fit_gives_the_same_bytes_again(tmp_path, noise):
    first, second = (fitted(tmp_path, noise, name=name)[0] for name in ("one", "two"))
    for one, two in zip(vars(first).values(), vars(second).values(), strict=True):
        assert Path(one).read_bytes() == Path(two).read_bytes()


@pytest.mark.parametrize("size", [(1, 1), (40, 1024), (90, 100), (300, 300)])
def test_slides_smaller_than_a_box_or_a_view_are_fitted(tmp_path, size):
    image = stained_pixels(HE, size[0] * size[1]).reshape(*size, 3)
    files, record = fitted(tmp_path, image)
    enough = size != (1, 1)
    assert record["profile"]["verdict"] == ("ok" if enough else "too few stained pixels")
    height, width = np.minimum(size, 512)
    view = read_png(files.tissue)
    np.testing.assert_array_equal(view[:height, :width], image[:512, :512])
    assert view[height:].min(initial=255) == view[:, width:].min(initial=255) == 255
    assert max(read_png(files.overview).shape) == 256


@pytest.mark.parametrize(("n_pixels", "expected"), [(0, "too few stained pixels"), (32 * 32, "one stain")])
def test_slides_of_one_pixel_of_the_tissue_mask_or_none_are_fitted(tmp_path, n_pixels, expected):
    tissue = np.zeros((16, 16))
    tissue[3, 5] = n_pixels > 0
    _, record = fitted(tmp_path, np.full((512, 512, 3), PINK), tissue, n_pixels=500_000)
    assert (record["profile"]["n_pixels"], record["profile"]["verdict"]) == (n_pixels, expected)


@pytest.fixture
def brief_staintools(monkeypatch):
    """StainTools with a number of iterations in place of its second of wall-clock time."""
    spams = pytest.importorskip("spams")
    pytest.importorskip("staintools")
    monkeypatch.setattr(spams, "trainDL", functools.partial(spams.trainDL, iter=200, numThreads=1))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", DEGENERATE)
@pytest.mark.parametrize("method", METHODS)
def test_pixels_that_show_no_two_stains_get_their_verdict(brief_staintools, name, method):
    case = DEGENERATE[name]
    found = fit(case.pixels, method)
    assert np.isfinite([*found.basis[0], *found.basis[1], *found.p99, found.reconstruction_error]).all()
    assert (found.n_pixels, found.method) == (len(case.pixels), method)
    assert found.verdict in getattr(case, method).split(", ")


@pytest.mark.parametrize("basis", [HE, CAMELYON])
@pytest.mark.parametrize("method", ["vahadane", "macenko", "none"])
def test_a_fit_says_what_its_basis_makes_of_the_pixels(basis, method):
    pixels = stained_pixels(basis)
    found = fit(pixels, method)
    od = optical_density(pixels)
    exact = concentrations(od, np.array(found.basis), 0.01)
    np.testing.assert_allclose(found.p99, np.percentile(exact, 99, axis=0))
    np.testing.assert_allclose(found.reconstruction_error, np.sqrt(((od - exact @ found.basis) ** 2).mean()))
    assert (found.n_pixels, found.method, found.verdict) == (20_000, method, "ok")
    assert found == fit(pixels.copy(), method)


def test_tissue_of_one_stain_mixed_with_another_reconstructs_exactly():
    h = np.random.default_rng(0).uniform(0.1, 1, (2000, 2))
    found = profile_of(h @ HE, HE, "none")
    assert found.reconstruction_error < 0.01  # what the sparsity of 0.01 leaves
    np.testing.assert_allclose(found.p99, np.percentile(h, 99, axis=0), atol=0.01)


def at(degrees):
    """Two stains so far apart, that are haematoxylin- and eosin-like otherwise."""
    half = np.radians(degrees) / 2
    middle, aside = unit([[0.45, 0.85, 0.2]])[0], unit([[0.85, -0.45, 0]])[0]
    return np.cos(half) * middle + np.sin(half) * np.array([[1], [-1]]) * aside


@pytest.mark.parametrize(
    ("expected", "n_pixels", "basis", "p99"),
    [
        ("ok", 1000, HE, (0.3, 0.05)),
        ("too few stained pixels", 999, HE, (1.0, 1.0)),
        ("too few stained pixels", 9999, np.zeros((2, 3)), (0.0, 0.0)),
        ("faded", 1000, HE, (0.29, 0.29)),
        ("faded", 1000, HE, (0.29, 0.01)),
        ("ok", 1000, HE, (0.31, 0.29)),
        ("one stain", 1000, HE, (1.0, 0.049)),
        ("one stain", 1000, HE, (0.049, 1.0)),
        ("stains too alike", 1000, at(9.9), (1.0, 1.0)),
        ("ok", 1000, at(10.1), (1.0, 1.0)),
        ("stains too different", 1000, at(80.1), (1.0, 1.0)),
        ("not H&E", 1000, at(79.9), (1.0, 1.0)),  # red far above green
        ("not H&E", 1000, unit([HE[0], (0.2, 0.6, 0.451)]), (1.0, 1.0)),
        ("ok", 1000, unit([HE[0], (0.2, 0.6, 0.449)]), (1.0, 1.0)),
        ("not H&E", 1000, unit([(0.4, 0.6, 0.541), HE[1]]), (1.0, 1.0)),
        ("ok", 1000, unit([(0.4, 0.6, 0.539), HE[1]]), (1.0, 1.0)),
        ("not H&E", 1000, unit([(0.801, 0.5, 0.2), HE[1]]), (1.0, 1.0)),
        ("ok", 1000, unit([(0.799, 0.5, 0.2), HE[1]]), (1.0, 1.0)),
    ],
)
def test_the_limits_of_the_verdicts(expected, n_pixels, basis, p99):
    assert verdict(n_pixels, np.array(basis), np.array(p99)) == expected


def test_angles_are_in_degrees_row_by_row():
    found = angles([[1, 0, 0], [0, 1, 0], HE[0]], [[0, 1, 0], unit([[0, 1, 1]])[0], HE[0]])
    np.testing.assert_allclose(found, [90, 45, 0], atol=1e-5)


THREADED = """
import json, sys
from dataclasses import asdict
from lesionmap.stain.fit import fit
from lesionmap.stain.match import mean_concentrations
from stained import OTHER_HE, stained_pixels
pixels = stained_pixels(OTHER_HE, 50_000)
fits = [fit(pixels, method) for method in ("vahadane", "macenko", "none")]
print(json.dumps([list(map(asdict, fits)), mean_concentrations(pixels, fits[0])]))
"""


def test_the_number_of_threads_does_not_matter(request):
    printed = set()
    for threads in ("1", "4"):
        libraries = ("OMP", "OPENBLAS", "MKL", "NUMBA")
        environment = os.environ | {f"{library}_NUM_THREADS": threads for library in libraries}
        environment["PYTHONPATH"] = os.pathsep.join(str(request.config.rootpath / d) for d in ("scripts", "tests/unit"))
        done = subprocess.run([sys.executable, "-c", THREADED], env=environment, capture_output=True, check=True)
        printed.add(done.stdout)
    assert len(printed) == 1
    assert b'"vahadane"' in printed.pop()
