import json
from itertools import product

import lesionmap.stain.table as library
import numpy as np
import pytest
from lesionmap.stain.profile import optical_density
from lesionmap.stain.separation import concentrations, find_basis
from lesionmap.stain.table import StainMatch, apply_table, stain_table
from stained import BROWN, CAMELYON, HE, OTHER_HE, profile, real_tile, stained_pixels

SOURCE, TARGET = OTHER_HE, HE * [[2.0], [0.7]]
GLASS = 250


def exact(colours, basis, target, sparsity):
    """What the float64 formula makes of colours (N, 3): the best of all sets of stains that may be present."""
    od = np.maximum(-np.log(np.maximum(np.arange(256), 1) / 255), 1e-6)[colours.T]
    gram, along = basis @ basis.T, basis @ od - sparsity
    least, densities = np.zeros(len(colours)), np.zeros((3, len(colours)))
    for present in ([0], [1], [0, 1]):
        found = np.linalg.inv(gram[np.ix_(present, present)]) @ along[present]
        cost = -0.5 * (found * along[present]).sum(axis=0)
        better = (found.min(axis=0) >= 0) & (cost < least)
        least = np.where(better, cost, least)
        densities = np.where(better, target[present].T @ found, densities)
    levels = 255 * np.exp(-densities)
    return np.where(colours.T.min(axis=0) >= GLASS, np.maximum(levels, GLASS), levels).T


def index_of(colours):
    return colours.astype(np.int64) @ (1 << 16, 1 << 8, 1)


def test_the_table_is_the_formula_for_all_colours():
    table = stain_table(SOURCE, TARGET)
    green_blue = np.stack(np.mgrid[:256, :256], axis=-1).reshape(-1, 2)
    for red in range(256):
        colours = np.insert(green_blue, 0, red, axis=1)
        error = np.abs(table[index_of(colours)] - exact(colours, SOURCE, TARGET, 0.01))
        assert error.max() <= 0.5 + 1e-3, f"red {red}"  # the nearest level; either one within 1e-3 of a half


@pytest.mark.parametrize(
    ("basis", "target", "sparsity"),
    [
        (OTHER_HE, HE, 0.0),
        (HE, CAMELYON * 2, 0.01),
        (CAMELYON, HE * 0.5, 0.01),
        (BROWN, OTHER_HE * [[0.5], [10.0]], 0.1),
        (np.eye(3)[[0, 1]], HE, 0.0),
        (3 * HE, HE, 0.01),  # rows of another length
    ],
)
def test_the_table_is_the_formula_for_other_stains_and_sparsities(basis, target, sparsity):
    levels = [*range(8), *range(8, 248, 5), *range(248, 256)]
    colours = np.array(list(product(levels, repeat=3)))
    error = np.abs(stain_table(basis, target, sparsity)[index_of(colours)] - exact(colours, basis, target, sparsity))
    assert error.max() <= 0.5 + 1e-3


@pytest.mark.parametrize("ratio", [1.25, 2.0, 10.0])
def test_white_stays_white(ratio):
    glass = stain_table(OTHER_HE, HE * ratio).reshape(256, 256, 256, 3)[GLASS:, GLASS:, GLASS:]
    assert glass.min() >= GLASS
    assert glass[-1, -1, -1].tolist() == [255, 255, 255]
    others = np.array(list(product(range(GLASS, 256), repeat=3)))
    bare = 255 * np.exp(-concentrations(optical_density(others.astype(np.uint8)), OTHER_HE, 0.01) @ HE * ratio)
    assert (bare.min() < GLASS - 0.5) == (ratio > 1.25)  # so that it is held white matters beyond that ratio alone


@pytest.mark.parametrize("white", [(189.0, 188.0, 186.0), (227.5, 222.0, 228.0)])
def test_colours_are_measured_from_the_white_point(white):
    table = stain_table(OTHER_HE, HE * 1.3, white_point=white)
    pixels = np.random.default_rng(0).integers(20, 256, (20_000, 3), dtype=np.uint8)
    exact = 255 * np.exp(-concentrations(optical_density(pixels, white), OTHER_HE, 0.01) @ HE * 1.3)
    stained = (pixels < np.array(white) * GLASS / 255).any(axis=1)
    np.testing.assert_allclose(apply_table(table, pixels)[stained], exact[stained], atol=0.51)
    brighter = pixels[(pixels >= np.array(white) * GLASS / 255).all(axis=1)]
    assert len(brighter) > 50
    assert apply_table(table, brighter).min() >= GLASS
    assert apply_table(table, np.rint([white]).astype(np.uint8)).min() == 255


@pytest.mark.parametrize(
    "basis", [HE[[0, 0]], [HE[0], HE[0] + [1e-4, 0, 0]], [HE[0], [0.0, 0.0, 0.0]], np.zeros((2, 3))]
)
def test_stains_that_cannot_be_told_apart_are_refused(basis):
    with pytest.raises(ValueError, match="too alike to be separated"):
        stain_table(basis, HE)


def test_a_match_is_the_same_after_its_json_and_normalises_to_the_reference_times_its_ratios():
    match = StainMatch(profile(SOURCE), profile(HE, p99=(1.0, 0.5)), (2.0, 0.7))
    assert StainMatch.of(json.loads(json.dumps(match.as_record() | {"slide": "s1", "flags": []}))) == match
    for threads in (1, 3):
        np.testing.assert_array_equal(match.table(threads), stain_table(SOURCE, TARGET))


@pytest.fixture(scope="module")
def table():
    """Any table will do to look colours up."""
    return np.random.default_rng(0).integers(0, 256, (1 << 24, 3), dtype=np.uint8)


@pytest.fixture
def image():
    return np.random.default_rng(1).integers(0, 256, (40, 60, 3), dtype=np.uint8)


@pytest.mark.parametrize("shape", [(3,), (0, 3), (5, 7, 3), (2, 5, 7, 3), (4, 0, 3), (1, 1, 1, 1, 3)])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_images_of_any_shape_are_looked_up_by_any_threads(table, shape, threads):
    image = np.random.default_rng(2).integers(0, 256, shape, dtype=np.uint8)
    found = apply_table(table, image, threads=threads)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, table[index_of(image)], strict=True)


VIEWS = {
    "whole": lambda image: image,
    "crop": lambda image: image[3:31, 5:50],
    "turned": lambda image: image.transpose(1, 0, 2),
    "backwards": lambda image: image[::-1, ::-1],
    "thinned": lambda image: image[::3, ::2],
    "channels backwards": lambda image: image[..., ::-1],
    "one pixel": lambda image: image[7, 9],
}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("threads", [1, 2])
def test_views_are_looked_up_and_left_alone(table, image, view, threads):
    before = image.copy()
    part = VIEWS[view](image)
    np.testing.assert_array_equal(apply_table(table, part, threads=threads), table[index_of(part)], strict=True)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("threads", [1, 2])
def test_views_are_normalised_in_place_and_nothing_beside_them(table, image, view, threads):
    expected = image.copy()
    VIEWS[view](expected)[...] = table[index_of(VIEWS[view](image))]
    part = VIEWS[view](image)
    assert apply_table(table, part, out=part, threads=threads) is part
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("view", VIEWS)
def test_the_result_may_go_elsewhere(table, image, view):
    out = np.zeros_like(image)
    part, place = VIEWS[view](image), VIEWS[view](out)
    assert apply_table(table, part, out=place) is place
    np.testing.assert_array_equal(VIEWS[view](out), table[index_of(part)])


def test_images_that_must_not_be_written_to_are_read(table, image):
    image.flags.writeable = False
    np.testing.assert_array_equal(apply_table(table, image), table[index_of(image)])


@pytest.mark.parametrize(
    ("image", "out"),
    [
        (np.zeros((4, 4, 3)), None),
        (np.zeros((4, 4, 3), np.int16), None),
        (np.zeros((4, 4, 4), np.uint8), None),
        (np.zeros((3, 4), np.uint8), None),
        (np.zeros((), np.uint8), None),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4, 3))),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((4, 3), np.uint8)),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((16, 3), np.uint8)),
    ],
)
def test_other_types_and_shapes_are_refused(table, image, out):
    name, odd = ("image", image) if out is None else ("out", out)
    with pytest.raises(ValueError, match=f"{name} must be uint8 .* found {odd.dtype} .{str(odd.shape)[1:-1]}"):
        apply_table(table, image, out)


@pytest.mark.parametrize("wrong", [np.zeros((256, 3), np.uint8), np.zeros((1 << 24, 3), np.int8)])
def test_a_table_of_another_type_or_shape_is_refused(image, wrong):
    with pytest.raises(ValueError, match="table must be uint8"):
        apply_table(wrong, image)


@pytest.mark.parametrize("kernel", ["_gather", "tabulate"])
def test_other_python_threads_go_on_meanwhile(kernel):
    assert getattr(library, kernel).targetoptions["nogil"]


def made_tile(basis):
    return stained_pixels(basis, 128 * 128).reshape(128, 128, 3)


@pytest.mark.parametrize(
    "tile",
    [
        lambda _: made_tile(HE),
        lambda _: made_tile(CAMELYON),
        lambda request: real_tile(request, "camelyon_1.tif", (600, 600)),
        lambda request: real_tile(request, "camelyon_3.tif", (1200, 700)),
        lambda request: real_tile(request, "metaplasia_he.tif", (6000, 5000)),
    ],
    ids=["made", "made, alike", "camelyon_1", "camelyon_3", "metaplasia_he"],
)
def test_tiles_are_normalised_as_staintools_does_with_the_same_matrices(request, tile):
    solver = pytest.importorskip("staintools.miscellaneous.get_concentrations")
    image, ratio = tile(request), np.array([1.2, 0.8])
    pixels = image.reshape(-1, 3)
    od = optical_density(pixels)
    basis = find_basis(pixels, od, "vahadane")
    theirs = solver.get_concentrations(image.copy(), basis) * ratio  # it writes into the image
    theirs = (255 * np.exp(-theirs @ TARGET)).astype(np.uint8).astype(int)  # it truncates
    imitated = (255 * np.exp(-concentrations(od, basis, 0.01) * ratio @ TARGET)).astype(np.uint8)
    assert np.abs(imitated - theirs).max() <= 1
    assert np.abs(imitated - theirs).mean() <= 0.05
    rounded = apply_table(stain_table(basis, TARGET * ratio[:, None]), pixels)
    assert np.abs(np.where((pixels >= GLASS).all(axis=1, keepdims=True), theirs, rounded) - theirs).max() <= 1
