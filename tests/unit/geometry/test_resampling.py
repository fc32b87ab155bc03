import numpy as np
import pytest
from lesionmap.annotations.classes import MAJORITY_ORDER
from lesionmap.geometry.resampling import area_majority, area_resample, area_weights, block_mean


def shares(start, step, n_out, n_in):
    """The weights as an (n_out, n_in) matrix."""
    matrix = np.zeros((n_out, n_in))
    for row, first, weights in zip(matrix, *area_weights(start, step, n_out, n_in), strict=True):
        for column, weight in enumerate(weights, start=first):
            if weight:
                row[column] = weight
    return matrix


def test_weights_are_shares_of_the_output_pixel():
    np.testing.assert_allclose(shares(0.5, 2.0, 2, 4), [[0.25, 0.5, 0.25, 0], [0, 0, 0.25, 0.5]])


def test_a_row_that_reaches_beyond_the_input_sums_to_its_part():
    np.testing.assert_allclose(shares(-1.0, 2.0, 2, 2).sum(axis=1), [0.5, 0.5])


def test_upsampling_splits_pixels():
    np.testing.assert_allclose(shares(0.0, 0.5, 4, 2), [[1, 0], [1, 0], [0, 1], [0, 1]])


def naive(image, start, step, size_px, fill):
    fine = 20
    height, width = image.shape[:2]
    out = np.empty((size_px[1], size_px[0], 3))
    for j in range(size_px[1]):
        for i in range(size_px[0]):
            points = (np.arange(fine) + 0.5) / fine
            xs = np.floor(start[0] + (i + points) * step).astype(int)
            ys = np.floor(start[1] + (j + points) * step).astype(int)
            total = np.zeros(3)
            for y in ys:
                for x in xs:
                    total += image[y, x] if 0 <= x < width and 0 <= y < height else fill
            out[j, i] = total / fine**2
    return out


@pytest.mark.parametrize(("start", "step"), [((0.25, 0.75), 1.0), ((-1.5, 2.0), 2.5), ((3.0, -0.4), 0.8)])
def test_against_brute_force_on_an_asymmetric_image(start, step):
    image = np.random.default_rng(1).integers(0, 255, (9, 13, 3), dtype=np.uint8)
    ours = area_resample(image, start, step, (6, 5))
    # all edges fall on the naive sampling grid, so that only rounding differs
    assert np.abs(ours - naive(image, start, step, (6, 5), 255)).max() <= 0.51


def test_area_mean_rounds_half_up():
    block = np.array([[0, 1], [0, 1]], dtype=np.uint8)[..., None].repeat(3, axis=2)
    assert block_mean(block, 2).ravel().tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("block", "winner"),
    [([[1, 1], [0, 0]], 1), ([[2, 3], [3, 0]], 3), ([[255, 255], [255, 1]], 255), ([[0, 0], [0, 1]], 0)],
)
def test_area_majority(block, winner):
    assert area_majority(np.array(block, dtype=np.uint8), 2, MAJORITY_ORDER).tolist() == [[winner]]
