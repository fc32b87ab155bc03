import numpy as np
import pytest
import tifffile
from lesionmap.annotations.classes import IGNORE
from lesionmap.files.records import write_json
from lesionmap.geometry.tiling import TileSpec
from lesionmap.stain.table import StainMatch
from lesionmap.tiles.codec import TileCodec
from lesionmap.tiles.extraction import Extraction, extract_tiles
from lesionmap.tiles.store import TileStore
from pyramids import info_of, write_tiff
from stained import PROFILE

SPEC = TileSpec(region_px=128, tile_px=32, mpp=0.25)


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
    extract_tiles(info, tissue, annotation, store, settings, provenance={})
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


@pytest.mark.parametrize(("least", "expected"), [(1 / 64, 2), (1 / 64 + 1e-6, 1), (0, 2)])
def test_a_region_with_exactly_the_least_share_of_tissue_is_kept(tmp_path, least, expected):
    info = info_of(write_tiff(tmp_path / "s.tif", np.full((128, 256, 3), 150, dtype=np.uint8)))
    tissue = np.zeros((16, 32), dtype=np.uint8)
    tissue[3, 2:6] = 255  # 4 of the first region's 256 pixels
    tissue[:, 16:] = 255
    tifffile.imwrite(tmp_path / "tissue.tif", tissue)
    settings = Extraction(SPEC, least, 0.0, StainMatch(PROFILE, PROFILE, (1.0, 1.0)), TileCodec())
    extract_tiles(info, str(tmp_path / "tissue.tif"), None, str(tmp_path / "store.h5"), settings, provenance={})
    with TileStore(str(tmp_path / "store.h5")) as opened:
        assert len(opened) == expected


def test_what_is_judged_is_tissue_and_what_is_annotated_but_nothing_ignored_or_beyond_the_slide(tmp_path):
    """A slide of 110 × 128 px; tissue right of x = 48; a lesion half on glass; an ignored area on tissue."""
    info = info_of(write_tiff(tmp_path / "s.tif", np.full((128, 110, 3), 150, dtype=np.uint8)))
    tissue = np.zeros((16, 110 // 8 + 1), dtype=np.uint8)
    tissue[:, 6:] = 255
    tifffile.imwrite(tmp_path / "tissue.tif", tissue)
    boxes = {"lesion": (32, 16, 64, 48), "ignore": (80, 64, 104, 96)}
    features = []
    for label, (left, top, right, bottom) in boxes.items():
        ring = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
        geometry = {"type": "Polygon", "coordinates": [ring]}
        features.append({"type": "Feature", "properties": {"class": label}, "geometry": geometry})
    write_json(tmp_path / "a.geojson", {"type": "FeatureCollection", "features": features})
    settings = Extraction(SPEC, 0.0, 0.0, StainMatch(PROFILE, PROFILE, (1.0, 1.0)), TileCodec())
    paths = (str(tmp_path / name) for name in ("tissue.tif", "a.geojson", "store.h5"))
    extract_tiles(info, *paths, settings, provenance={})
    expected = np.full((32, 32), IGNORE)
    expected[:, 12:] = 0  # the tissue map's pixels are 8 · 110/112 px wide: x = 47.1 of the slide
    expected[4:12, 8:16] = 1
    expected[16:24, 20:26] = IGNORE
    expected[:, 27:] = IGNORE  # the centre of column 27 lies beyond the last pixel, 109
    with TileStore(str(tmp_path / "store.h5")) as opened:
        np.testing.assert_array_equal(opened.region(0).judged_mask, expected)
        assert set(opened.region(0).low_mask[:, :8].ravel()) == {0}, "glass is trained on"
