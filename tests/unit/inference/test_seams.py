import numpy as np
import pytest
import tifffile
from evaluated import scores_of
from lesionmap.geometry.tiling import corners_px
from lesionmap.inference.seams import seam_measure
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
