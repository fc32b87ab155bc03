import numpy as np
import pytest
from lesionmap.errors import SettingsError
from lesionmap.geometry.tiling import TileSpec, cut, grid_xy, inside, map_size


def test_the_methods_numbers_follow_from_three():
    spec = TileSpec(4096, 512, 0.25)
    assert (spec.tiles_per_side, spec.low_mpp, spec.region_side_lv0(0.5)) == (8, 2.0, 2048)


@pytest.mark.parametrize(("region_px", "tile_px"), [(1000, 128), (96, 48)])
def test_sizes_that_do_not_fit_are_refused(region_px, tile_px):
    with pytest.raises(SettingsError, match=r"tiles\.region_px .* do not fit"):
        TileSpec(region_px, tile_px, 0.25)


def test_grid_covers_the_slide_row_by_row():
    np.testing.assert_array_equal(grid_xy((250, 129), 128), [[0, 0], [128, 0], [0, 128], [128, 128]])
    np.testing.assert_array_equal(grid_xy((256, 128), 128), [[0, 0], [128, 0]])
    np.testing.assert_allclose(grid_xy((100, 10), 33.3)[:, 0], [0, 33.3, 66.6, 99.9])


def test_a_fraction_of_a_rounding_error_makes_no_extra_box():
    assert len(grid_xy((3000, 10), 1000 * (1 - 1e-13))) == 3
    assert map_size((3000, 2001), 10 * (1 - 1e-13)) == (300, 201)


def test_inside_goes_by_pixel_centres():
    assert inside((96, 0), 4, 2.0, (100, 3)) == (2, 1)
    assert inside((0, 0), 4, 2.0, (100, 8)) == (4, 4)


def test_cut_orders_tiles_by_row_and_column():
    region = np.arange(64, dtype=np.uint8).reshape(8, 8)
    tiles = cut(region, 4)
    np.testing.assert_array_equal(tiles[1, 0], region[4:, :4])
    np.testing.assert_array_equal(tiles[0, 1], region[:4, 4:])
