import functools
import sys

import numpy as np
import pytest
from lesionmap.errors import SettingsError
from lesionmap.stain.profile import optical_density
from lesionmap.stain.separation import FIT_SPARSITY, concentrations, find_basis
from stained import CAMELYON, HE, METHODS, OTHER_HE, degrees, real_tile, stained_pixels

try:
    import spams
except ImportError:
    spams = None  # the tests that need it are skipped


REAL_TILES = {
    "camelyon_1.tif": (512, 512),
    "camelyon_3.tif": (1024, 768),
    "metaplasia_he.tif": (4000, 4000),
    "cmu_small_region.svs": (900, 1500),
    "tcga_cr_7395.svs": (2000, 1500),
}


def found(pixels, method):
    return find_basis(pixels, optical_density(pixels), method)


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    """SPAMS on one core: its threads wait for one another, which takes minutes where other tests run beside it."""
    if spams:
        monkeypatch.setattr(spams, "trainDL", functools.partial(spams.trainDL, numThreads=1))


@pytest.fixture
def brief_staintools(monkeypatch):
    """StainTools with a number of iterations in place of its second of wall-clock time."""
    pytest.importorskip("staintools")
    monkeypatch.setattr(spams, "trainDL", functools.partial(spams.trainDL, iter=200))


@pytest.mark.parametrize("sparsity", [0.0, 0.01, 0.1])
@pytest.mark.parametrize("basis", [HE, OTHER_HE, CAMELYON, 3 * HE])
def test_concentrations_are_the_minimum_of_the_lasso(basis, sparsity):
    od = np.concatenate([np.random.default_rng(3).uniform(0, 5.5, (20_000, 3)), [[1e-6] * 3, *basis, *5 * np.eye(3)]])
    h = concentrations(od, basis, sparsity)
    assert (h >= 0).all()
    assert (h == 0).any(axis=0).all()  # each stain is absent somewhere
    slope = (h @ basis - od) @ basis.T + sparsity  # of the cost; the conditions of Karush, Kuhn and Tucker
    np.testing.assert_allclose(slope[h > 0], 0, atol=1e-9)
    assert slope[h == 0].min() >= -1e-9


@pytest.mark.parametrize(("method", "most_degrees"), [("vahadane", 2.5), ("macenko", 2.5)])
@pytest.mark.parametrize("basis", [HE, OTHER_HE, CAMELYON], ids=["he", "other", "alike"])
def test_a_known_basis_is_found_haematoxylin_first(method, most_degrees, basis):
    rows = found(stained_pixels(basis), method)
    between = np.degrees(np.arccos(np.clip((rows * basis).sum(axis=1), -1, 1)))
    # Sparsity draws Vahadane's stains together, here as in StainTools; Macenko leaves out eosin that absorbs no red.
    assert between.max() <= most_degrees
    assert (rows >= 0).all()
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1)


def test_haematoxylin_is_found_where_both_stains_absorb_as_much_red():
    rows = found(stained_pixels(CAMELYON), "vahadane")
    assert rows[0, 0] < rows[1, 0]  # by red alone, as StainTools has it, they would change places
    assert np.trace(rows @ CAMELYON.T) > np.trace(rows @ CAMELYON[::-1].T)


def test_nothing_is_fitted_by_none():
    np.testing.assert_allclose(found(stained_pixels(CAMELYON), "none"), HE)


TILES = {
    "made": lambda _: stained_pixels(HE, 50_000)[None],
    "made, other": lambda _: stained_pixels(OTHER_HE, 50_000)[None],
    "made, alike": lambda _: stained_pixels(CAMELYON, 50_000)[None],
    "camelyon_3": lambda request: real_tile(request, "camelyon_3.tif", (1200, 700)),
    "metaplasia_he": lambda request: real_tile(request, "metaplasia_he.tif", (6000, 5000)),
}


@pytest.fixture(params=TILES)
def tissue(request):
    """Pixels of a tile that StainTools takes for tissue; it does not look at the others."""
    locator = pytest.importorskip("staintools.tissue_masks.luminosity_threshold_tissue_locator")
    tile = TILES[request.param](request)
    return tile[locator.LuminosityThresholdTissueLocator.get_tissue_mask(tile)]


def test_the_dictionary_is_that_of_staintools(tissue):
    assert degrees(found(tissue, "vahadane"), found(tissue, "staintools")).max() <= 2


@pytest.mark.skipif(not spams, reason="SPAMS is not installed")
@pytest.mark.parametrize(("iterations", "most_degrees"), [(1000, 2.0), (5000, 0.2)])
def test_the_dictionary_is_what_spams_comes_to(tissue, iterations, most_degrees):
    learnt = spams.trainDL(
        X=np.asfortranarray(optical_density(tissue).T),
        K=2,
        lambda1=FIT_SPARSITY,
        mode=2,
        modeD=0,
        posAlpha=True,
        posD=True,
        iter=iterations,
        verbose=False,
    ).T
    theirs = learnt / np.linalg.norm(learnt, axis=1, keepdims=True)
    assert degrees(found(tissue, "vahadane"), theirs).max() <= most_degrees


def test_macenkos_angles_are_those_of_staintools(tissue):
    extractor = pytest.importorskip("staintools.stain_extraction.macenko_stain_extractor").MacenkoStainExtractor
    stained = tissue[(optical_density(tissue) > 0.15).all(axis=1)]
    theirs = extractor.get_stain_matrix(stained[None].copy())
    assert degrees(found(stained, "macenko"), theirs).max() <= 0.1


@pytest.mark.parametrize("white", [255.0, 240.0])
@pytest.mark.parametrize("slide", REAL_TILES)
def test_macenko_is_the_published_one(request, slide, white):
    """As in torchstain, a port of the authors' code, which adds 1 to every pixel."""
    normaliser = pytest.importorskip("torchstain.numpy.normalizers.macenko").NumpyMacenkoNormalizer()
    tile = real_tile(request, slide, REAL_TILES[slide])
    normaliser.fit(tile, Io=white)
    theirs = normaliser.HERef.T / np.linalg.norm(normaliser.HERef.T, axis=1, keepdims=True)
    pixels = tile.reshape(-1, 3)
    ours = find_basis(pixels, optical_density(pixels, (white,) * 3), "macenko")
    assert degrees(ours, theirs).max() <= 1


ODD = {
    "white": np.full((2000, 3), 255, np.uint8),
    "black": np.zeros((2000, 3), np.uint8),
    "one colour": np.full((2000, 3), (150, 80, 160), np.uint8),
    "grey": np.repeat(np.arange(2000)[:, None] // 8, 3, axis=1).astype(np.uint8),
    "almost white": np.random.default_rng(0).integers(250, 256, (2000, 3), dtype=np.uint8),
    "noise": np.random.default_rng(0).integers(0, 256, (2000, 3), dtype=np.uint8),
    "primaries": np.random.default_rng(0).permutation(np.repeat(255 - 255 * np.eye(3, dtype=np.uint8), 700, axis=0)),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("pixels", ODD)
def test_pixels_without_two_stains_give_finite_rows(brief_staintools, method, pixels):
    rows = found(ODD[pixels], method)
    assert rows.shape == (2, 3)
    assert (rows >= 0).all()  # nor NaN
    lengths = np.linalg.norm(rows, axis=1)
    assert np.minimum(lengths, np.abs(lengths - 1)).max() < 1e-9  # each one or none


def test_staintools_where_it_is_not_installed_is_named(monkeypatch, tissue):
    monkeypatch.setitem(sys.modules, "staintools.stain_extraction.vahadane_stain_extractor", None)
    with pytest.raises(SettingsError, match=r"needs StainTools and SPAMS, which are not installed .* vahadane"):
        found(tissue, "staintools")


def test_the_pixels_are_left_alone_by_staintools(brief_staintools):
    pixels = stained_pixels(HE)
    pixels[0] = 0  # which StainTools makes 1
    before = pixels.copy()
    found(pixels, "staintools")
    np.testing.assert_array_equal(pixels, before)
