import numpy as np
import pytest
from lesionmap.errors import StainError
from lesionmap.stain import (
    CONCENTRATION_SPARSITY,
    RUIFROK,
    StainProfile,
    _concentrations,
    apply_table,
    fit,
    optical_density,
    transform_table,
    usable,
)


def unit(basis):
    basis = np.array(basis, dtype=float)
    return basis / np.linalg.norm(basis, axis=1, keepdims=True)


TRUE_BASIS = unit(RUIFROK)
OTHER_BASIS = unit([[0.55, 0.75, 0.37], [0.20, 0.95, 0.25]])


def stained_pixels(basis, n=20000, seed=0):
    """Tissue in which some pixels hold one stain alone, as in nuclei and in stroma."""
    rng = np.random.default_rng(seed)
    concentrations = rng.gamma(2.0, 0.3, (n, 2))
    concentrations[: n // 3, 0] *= 0.02
    concentrations[n // 3 : 2 * n // 3, 1] *= 0.02
    return np.rint(255 * np.exp(-concentrations @ basis)).astype(np.uint8)


def profile(basis, p99=(1.5, 1.2)):
    return StainProfile(tuple(map(tuple, unit(basis))), p99, 1, 0.0, "test")


def angles(found, true):
    return np.degrees(np.arccos(np.clip((np.array(found) * true).sum(axis=1), -1, 1)))


@pytest.mark.parametrize(("method", "most_degrees"), [("vahadane", 3.0), ("macenko", 6.0)])
@pytest.mark.parametrize("basis", [TRUE_BASIS, OTHER_BASIS])
def test_a_known_basis_is_found_haematoxylin_first(method, most_degrees, basis):
    found = fit(stained_pixels(basis), method, "s1")
    assert angles(found.basis, basis).max() <= most_degrees
    assert found.basis[0][0] > found.basis[1][0]
    np.testing.assert_allclose(np.linalg.norm(found.basis, axis=1), 1)


def test_the_fit_is_deterministic_and_finite():
    pixels = stained_pixels(TRUE_BASIS)
    first, second = fit(pixels, "vahadane", "s1"), fit(pixels.copy(), "vahadane", "s1")
    assert first == second
    assert np.isfinite([*first.p99, first.reconstruction_error]).all()


def test_p99_is_that_of_the_concentrations():
    pixels = stained_pixels(TRUE_BASIS)
    found = fit(pixels, "none", "s1")
    exact = _concentrations(optical_density(pixels), TRUE_BASIS, CONCENTRATION_SPARSITY)
    np.testing.assert_allclose(found.p99, np.percentile(exact, 99, axis=0))


def test_concentrations_are_the_minimum_of_the_lasso():
    from scipy.optimize import minimize

    od = np.random.default_rng(3).uniform(0, 2, (40, 3))
    ours = _concentrations(od, OTHER_BASIS, 0.1)
    for density, h in zip(od, ours, strict=True):

        def cost(h, density=density):
            return 0.5 * ((density - h @ OTHER_BASIS) ** 2).sum() + 0.1 * h.sum()

        best = minimize(cost, [0.1, 0.1], bounds=[(0, None)] * 2, tol=1e-12)
        assert cost(h) <= best.fun + 1e-9


@pytest.fixture(scope="module")
def tables():
    source, target = profile(OTHER_BASIS, (1.8, 0.9)), profile(TRUE_BASIS, (1.2, 1.1))
    return source, target, transform_table(source, target)


def test_the_table_is_the_formula(tables):
    source, target, table = tables
    colours = np.random.default_rng(1).integers(0, 256, (5000, 3), dtype=np.uint8)
    h = _concentrations(optical_density(colours), np.array(source.basis), CONCENTRATION_SPARSITY)
    od = h * (np.array(target.p99) / np.array(source.p99)) @ np.array(target.basis)
    exact = 255 * np.exp(-od)
    looked_up = apply_table(table, colours.reshape(50, 100, 3)).reshape(-1, 3)
    assert np.abs(looked_up - exact).max() <= 0.5 + 1e-9


def test_white_stays_white_and_ink_black_stays_dark(tables):
    table = tables[2]
    assert table[(255 << 16) | (255 << 8) | 255].tolist() == [255, 255, 255]
    assert table[0].max() < 80


def test_normalising_to_itself_changes_colours_of_its_plane_little():
    own = profile(TRUE_BASIS)
    pixels = stained_pixels(TRUE_BASIS)[None]
    back = apply_table(transform_table(own, own), pixels)
    assert np.abs(back.astype(int) - pixels).mean() < 2


def test_channels_are_not_mixed_up(tables):
    table = tables[2]
    image = np.array([[[200, 100, 50], [50, 100, 200]]], dtype=np.uint8)
    out = apply_table(table, image)
    np.testing.assert_array_equal(out[0, 0], table[(200 << 16) | (100 << 8) | 50])
    np.testing.assert_array_equal(out[0, 1], table[(50 << 16) | (100 << 8) | 200])


def test_glass_black_and_pens_are_not_fitted_on():
    colours = np.array([[250, 250, 250], [5, 5, 5], [20, 150, 40], [40, 60, 200], [150, 80, 160]], dtype=np.uint8)
    assert usable(colours[None])[0].tolist() == [False, False, False, False, True]


@pytest.mark.parametrize(
    ("pixels", "finding"),
    [
        (np.full((10, 3), 120, np.uint8), "10 usable tissue pixels; 1000 are needed"),
        (np.full((5000, 3), 254, np.uint8), "does not show two stains"),
    ],
)
@pytest.mark.parametrize("method", ["vahadane", "macenko", "none"])
def test_what_has_no_two_stains_is_refused(pixels, finding, method):
    with pytest.raises(StainError, match=f"slide s1, fit_stain: .*{finding}.* Remedy: "):
        fit(pixels, method, "s1")
