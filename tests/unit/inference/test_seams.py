import numpy as np
import pytest
import tifffile
from evaluated import scores_of
from lesionmap.geometry.tiling import corners_px
from lesionmap.inference.seams import refined_seam_measure, seam_measure
from lesionmap.slides.slide import SlideInfo
from lesionmap.tissue.mask import TissueMask


def measured(tmp_path, probability_u8, tissue, tile_px, stride_px):
    height, width = probability_u8.shape
    tifffile.imwrite(tmp_path / "tissue.tif", tissue.astype(np.uint8) * 255)
    info = SlideInfo("s", "", "", "", (width * 4, height * 4), 0.5, (1.0,), ((width * 4, height * 4),), (0, 0))
    corners = corners_px((width, height), tile_px, stride_px)
    on, scores = TissueMask(tmp_path / "tissue.tif", info), scores_of(probability_u8 / 255)
    return seam_measure(scores, on, 4.0, corners, tile_px=tile_px, stride_px=stride_px)


def naively(probability_u8, tissue, tile_px, stride_px):
    edges, elsewhere = [], []
    for turned, on in ((probability_u8, tissue), (probability_u8.T, tissue.T)):
        starts = [0]
        while starts[-1] + tile_px < turned.shape[1]:
            starts.append(starts[-1] + stride_px)
        for y, x in np.ndindex(turned.shape[0], turned.shape[1] - 1):
            if on[y, x] and on[y, x + 1]:
                at_edge = x + 1 in starts or x + 1 - tile_px in starts
                jump = abs(int(turned[y, x + 1]) - int(turned[y, x]))
                if at_edge:
                    edges.append(jump)
                elif (x + 1) % 4 == 0:
                    elsewhere.append(jump)
    return np.mean(edges) / np.mean(elsewhere)


@pytest.mark.parametrize(("tile_px", "stride_px"), [(16, 16), (16, 12), (16, 8)])
def test_jumps_at_the_edges_of_tiles_are_held_against_the_others(tmp_path, tile_px, stride_px):
    rng = np.random.default_rng(0)
    probability_u8 = rng.integers(0, 30, (37, 45)) + 40 * (np.arange(45) // stride_px % 2)
    probability_u8, tissue = probability_u8.astype(np.uint8), rng.random((37, 45)) < 0.7
    found = measured(tmp_path, probability_u8, tissue, tile_px, stride_px)
    assert found == pytest.approx(naively(probability_u8, tissue, tile_px, stride_px))
    assert found > 1.2


def test_without_a_border_or_a_jump_there_is_no_measure(tmp_path):
    flat, everywhere = np.full((20, 20), 7, dtype=np.uint8), np.ones((20, 20), dtype=bool)
    assert measured(tmp_path, flat, everywhere, 32, 32) is None
    assert measured(tmp_path, flat, everywhere, 8, 8) is None


def refined_naively(probability_u8, tissue, corners, region, tile):
    """As the library, in map pixels, pixel by pixel."""
    borders, elsewhere = [], []
    height, width = probability_u8.shape
    for x, y in corners:
        for axis, (start, other) in enumerate(((x, y), (y, x))):
            values, on = (array if axis == 0 else array.T for array in (probability_u8.astype(int), tissue))
            begins = {int(np.floor(start + n * tile + 1e-9)) for n in range(round(region / tile))}
            length, breadth = (width, height) if axis == 0 else (height, width)
            first, last = max(0, int(np.floor(start)) - 1), min(length, int(np.ceil(start + region)))
            across = range(max(0, int(np.floor(other)) - 1), min(breadth, int(np.ceil(other + region))))
            for place in range(first + 1, last - 1):
                for row in across:
                    if on[row, place - 1] and on[row, place] and on[row, place + 1]:
                        jump = abs(values[row, place + 1] - values[row, place - 1])
                        if place in begins:
                            borders.append(jump)
                        elif not begins & {place - 1, place + 1}:
                            elsewhere.append(jump)
    return np.mean(borders) / np.mean(elsewhere)


@pytest.mark.parametrize(("region", "tile"), [(20.48, 10.24), (19.2, 6.4), (16.0, 8.0)])
def test_of_refined_regions_the_borders_of_their_tiles_are_measured(tmp_path, region, tile):
    rng = np.random.default_rng(1)
    height, width = 47, 66
    columns = np.floor((np.arange(width) + 0.5) / tile).astype(int)
    probability_u8 = (rng.integers(0, 30, (height, width)) + 60 * (columns % 2)).astype(np.uint8)
    tissue = rng.random((height, width)) < 0.8
    corners = [(n * region, m * region) for m in range(2) for n in range(3) if n * region < width]
    tifffile.imwrite(tmp_path / "tissue.tif", tissue.astype(np.uint8) * 255)
    info = SlideInfo("s", "", "", "", (width * 4, height * 4), 0.5, (1.0,), ((width * 4, height * 4),), (0, 0))
    on, scores = TissueMask(tmp_path / "tissue.tif", info), scores_of(probability_u8 / 255)
    lv0 = [(x * 4, y * 4) for x, y in corners]
    found = refined_seam_measure(scores, on, 4.0, lv0, region * 4, tile * 4)
    assert found == pytest.approx(refined_naively(probability_u8, tissue, corners, region, tile))
    assert found > 1.5
    assert refined_seam_measure(scores, on, 4.0, [], 80, 40) is None
