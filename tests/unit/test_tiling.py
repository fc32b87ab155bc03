import numpy as np
import pytest
import tifffile
from lesionmap.errors import SettingsError
from lesionmap.extraction import Extraction, extract_tiles
from lesionmap.files import write_json
from lesionmap.resampling import area_majority, area_mean
from lesionmap.stain import StainMatch
from lesionmap.store import TileStore
from lesionmap.tile_codec import TileCodec
from lesionmap.tiling import IGNORE, TileSpec, cut, grid_xy, inside, map_size
from pyramids import info_of, write_tiff
from stained import PROFILE

SPEC = TileSpec(region_px=128, tile_px=32, mpp=0.25)


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
    assert len(grid_xy((3000, 10), 1000 * (1 + 1e-13))) == 3
    assert map_size((3000, 2001), 10) == (300, 201)


def test_inside_goes_by_pixel_centres():
    assert inside((96, 0), 4, 2.0, (100, 3)) == (2, 1)
    assert inside((0, 0), 4, 2.0, (100, 8)) == (4, 4)


def test_cut_orders_tiles_by_row_and_column():
    region = np.arange(64, dtype=np.uint8).reshape(8, 8)
    tiles = cut(region, 4)
    np.testing.assert_array_equal(tiles[1, 0], region[4:, :4])
    np.testing.assert_array_equal(tiles[0, 1], region[:4, 4:])


def test_area_mean_rounds_half_up():
    block = np.array([[0, 1], [0, 1]], dtype=np.uint8)[..., None].repeat(3, axis=2)
    assert area_mean(block, 2).ravel().tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("block", "winner"),
    [([[1, 1], [0, 0]], 1), ([[2, 3], [3, 0]], 3), ([[255, 255], [255, 1]], 255), ([[0, 0], [0, 1]], 0)],
)
def test_area_majority(block, winner):
    assert area_majority(np.array(block, dtype=np.uint8), 2).tolist() == [[winner]]


def regions_with_marker(tmp_path, xy_lv0, size=(333, 301)):
    """Cut a slide whose one black pixel, also annotated as lesion, lies at `xy_lv0`."""
    width, height = size
    x, y = xy_lv0
    image = np.full((height, width, 3), 255, dtype=np.uint8)
    image[y, x] = 0
    info = info_of(write_tiff(tmp_path / "marker.tif", image))
    ring = [[x, y], [x + 1, y], [x + 1, y + 1], [x, y + 1], [x, y]]
    geometry = {"type": "Polygon", "coordinates": [ring]}
    feature = {"type": "Feature", "properties": {"class": "lesion"}, "geometry": geometry}
    write_json(tmp_path / "a.geojson", {"type": "FeatureCollection", "features": [feature]})
    tifffile.imwrite(tmp_path / "tissue.tif", np.full((height // 8 + 1, width // 8 + 1), 255, dtype=np.uint8))
    settings = Extraction(SPEC, 0.0, 0.0, StainMatch(PROFILE, PROFILE, (1.0, 1.0)), TileCodec())
    tissue, annotation, store = (str(tmp_path / name) for name in ("tissue.tif", "a.geojson", "store.h5"))
    extract_tiles(info, tissue, annotation, store, settings, {})
    with TileStore(store) as opened:
        return [opened.region(index) for index in range(len(opened))]


@pytest.mark.parametrize(
    ("xy_lv0", "region", "row_col", "in_tile", "low_xy"),
    [
        ((0, 0), (0, 0), (0, 0), (0, 0), (0, 0)),
        ((31, 32), (0, 0), (1, 0), (31, 0), (7, 8)),
        ((127, 127), (0, 0), (3, 3), (31, 31), (31, 31)),
        ((128, 5), (128, 0), (0, 0), (0, 5), (0, 1)),
        ((300, 200), (256, 128), (2, 1), (12, 8), (11, 18)),
        ((332, 300), (256, 256), (1, 2), (12, 12), (19, 11)),  # last pixel of a slide that no tile divides
    ],
)
def test_a_marker_lands_where_arithmetic_says(tmp_path, xy_lv0, region, row_col, in_tile, low_xy):
    found = {part.xy_lv0: part for part in regions_with_marker(tmp_path, xy_lv0)}
    marked = [xy for xy, part in found.items() if (part.masks == 1).any()]
    assert marked == [region]
    part = found[region]
    tile, y, x = np.argwhere(part.masks == 1)[0]
    assert (part.masks == 1).sum() == 1
    assert tuple(part.row_col[tile]) == row_col
    assert (x, y) == in_tile
    assert part.images[tile, y, x].max() < 60 < 250 < part.images[tile].max()
    assert np.argwhere(part.low_image.min(axis=2) < 250).tolist() == [[low_xy[1], low_xy[0]]]


def test_beyond_the_slide_is_white_and_ignored(tmp_path):
    last = regions_with_marker(tmp_path, (332, 300))[-1]
    assert last.xy_lv0 == (256, 256)
    tile = np.flatnonzero((last.row_col == (1, 2)).all(axis=1))[0]
    mask, image = last.masks[tile], last.images[tile]
    assert (mask[:13, :13] != IGNORE).all()
    assert (mask[13:] == IGNORE).all()
    assert (mask[:, 13:] == IGNORE).all()
    assert (image[13:] == 255).all()
    assert (last.low_mask[11:] == IGNORE).all()  # level-0 rows 300 (one of four inside) and below
    assert (last.low_mask[:11, :19] == 0).all()
