"""What the settings of the map come to in pixels and grey values."""

from dataclasses import replace

import pytest
from lesionmap.geometry.tiling import TileSpec
from lesionmap.inference.settings import MapSettings, overlap_px

SETTINGS = MapSettings(TileSpec(1024, 128, 0.25))


@pytest.mark.parametrize(
    ("overlap", "tile_px", "expected"),
    [(0, 64, 0), (0.1, 64, 4), (0.12, 64, 4), (0.125, 64, 8), (0.3, 96, 28), (0.5, 512, 256)],
)
def test_the_overlap_is_the_largest_that_keeps_tiles_on_the_networks_finest_map(overlap, tile_px, expected):
    assert overlap_px(overlap, tile_px) == expected
    assert expected % 4 == 0
    assert expected <= overlap * tile_px < expected + 4


@pytest.mark.parametrize(
    ("refine", "expected"), [("unsure", (26, 229)), ("lesion", (102, 255)), ("all", (0, 255))], ids=str
)
def test_what_is_refined_is_a_range_of_grey_values(refine, expected):
    assert replace(SETTINGS, refine=refine).refined_range(0.4) == expected


def test_unsure_is_from_the_least_to_the_largest_probability_that_the_config_names():
    assert replace(SETTINGS, refine="unsure", unsure=(0.2, 0.8)).refined_range(0.5) == (51, 204)


def test_the_map_has_the_methods_resolution_or_that_of_the_low_view():
    assert (SETTINGS.mpp, SETTINGS.view, SETTINGS.needs_training_tiles) == (2.5, "low", False)
    matching = replace(SETTINGS, magnification="match_training", refine="all")
    assert (matching.mpp, matching.view, matching.needs_training_tiles) == (2.0, "fused", True)
