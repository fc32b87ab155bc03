"""What the settings of the map come to in pixels and scores."""

from dataclasses import replace

import pytest
from lesionmap.geometry.tiling import TileSpec
from lesionmap.inference.settings import MapSettings, overlap_px, view_of

SETTINGS = MapSettings(TileSpec(1024, 128, 0.25))


@pytest.mark.parametrize(
    ("overlap", "tile_px", "expected"),
    [(0, 64, 0), (0.1, 64, 4), (0.12, 64, 4), (0.125, 64, 8), (0.3, 96, 28), (0.5, 512, 256)],
)
def test_the_overlap_is_the_largest_that_keeps_tiles_on_the_networks_finest_map(overlap, tile_px, expected):
    assert overlap_px(overlap, tile_px) == expected
    assert expected % 4 == 0
    assert expected <= overlap * tile_px < expected + 4


@pytest.mark.parametrize("magnification", ["patent", "match_training"])
@pytest.mark.parametrize("overlap", [0, 0.02, 0.25])
def test_t2_is_of_the_first_pass_if_that_overlaps_at_its_resolution(magnification, overlap):
    settings = replace(SETTINGS, magnification=magnification, overlap=overlap)
    assert settings.t2_of_first_pass == ((magnification, overlap) == ("match_training", 0.25))


@pytest.mark.parametrize(
    ("refine", "expected"),
    [
        ("unsure", (30518, 35018)),  # 32768 ± 1024 · logit(0.9)
        ("lesion", (32368, 65535)),  # the first 64th of a logit that is not below logit(0.4)
        ("all", (0, 65535)),
    ],
    ids=str,
)
def test_what_is_refined_is_a_range_of_scores(refine, expected):
    assert replace(SETTINGS, refine=refine).refined_range(0.4) == expected


def test_unsure_is_from_the_least_to_the_largest_probability_that_the_config_names():
    assert replace(SETTINGS, refine="unsure", unsure=(0.2, 0.8)).refined_range(0.5) == (31348, 34188)
    assert replace(SETTINGS, refine="unsure", unsure=(0, 0.99995)).refined_range(0.5) == (0, 42909)


def test_the_map_has_the_methods_resolution_or_that_of_the_low_view():
    assert (SETTINGS.mpp, SETTINGS.needs_training_tiles) == (2.5, False)
    matching = replace(SETTINGS, magnification="match_training", refine="all")
    assert (matching.mpp, matching.needs_training_tiles) == (2.0, True)


@pytest.mark.parametrize("refine", ["unsure", "lesion", "all"])
def test_a_refined_map_is_the_fused_view_or_that_of_tiles_if_they_alone_were_trained(refine):
    assert [view_of(refine, fusion) for fusion in ("mean", "max", "learned", "", "tiles")] == ["fused"] * 4 + ["high"]
    assert view_of("none", "mean") == view_of("none", "tiles") == "low"
