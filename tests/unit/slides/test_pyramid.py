"""What the levels of a pyramid show of level 0."""

import json
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from lesionmap.slides.inspection import inspect_slide
from lesionmap.slides.pyramid import (
    LevelDifference,
    Place,
    compare_levels,
    factor_candidates,
    pyramid_flags,
    richest_places,
)
from lesionmap.slides.slide import Slide, SlideInfo
from pyramids import INSPECTION, damage, info_of, inspection_files, row, write_tiff
from scipy.ndimage import gaussian_filter


@pytest.fixture(scope="module")
def tissue():
    """Fine structures on pale ground, with a white margin; no factor divides the size, (1031, 1543, 3)."""
    chance = np.random.default_rng(1)
    grain = gaussian_filter(chance.normal(0, 1, (1031, 1543, 3)), (1.5, 1.5, 0))
    image = 150 + 40 * grain / grain.std()
    image[:, 1100:] = 250
    return image.clip(0, 255).astype(np.uint8)


def mean(image, factor):
    height, width = (length // factor for length in image.shape[:2])
    blocks = image[: height * factor, : width * factor].reshape(height, factor, width, factor, 3)
    return np.rint(blocks.mean(axis=(1, 3))).astype(np.uint8)


def every(image, factor):
    return image[: image.shape[0] // factor * factor : factor, : image.shape[1] // factor * factor : factor]


def shifted(image, factor):
    return np.roll(mean(image, factor), 1, axis=1)


def write_levels(path, levels, quality=None):
    jpeg = {"compression": "jpeg", "compressionargs": {"level": quality}, "subsampling": (2, 2)}
    with tifffile.TiffWriter(path) as tiff:
        for index, level in enumerate(levels):
            tiff.write(
                level,
                tile=(64, 64),
                photometric="rgb",
                subfiletype=int(index > 0),
                resolution=(40000 / round(levels[0].shape[0] / level.shape[0]),) * 2,
                resolutionunit="CENTIMETER",
                metadata=None,
                **(jpeg if quality else {"compression": "zlib"}),
            )
    return path


def inspected(tmp_path, path, **changes):
    settings = replace(INSPECTION, needed_mpp=dict.fromkeys(INSPECTION.needed_mpp, 1.0)) if not changes else INSPECTION
    inspect_slide(row(path), inspection_files(tmp_path), replace(settings, **changes))
    return json.loads((tmp_path / "record.json").read_text())


@pytest.mark.parametrize("reader", ["auto", "openslide"])
def test_levels_of_area_means_differ_by_nothing(tmp_path, tissue, reader):
    path = write_levels(tmp_path / "s.tif", [tissue, mean(tissue, 2), mean(tissue, 4), mean(tissue, 16)])
    record = inspected(tmp_path, path, reader=reader)
    assert [one["level"] for one in record["pyramid"]] == [1, 2, 3]
    limit = 0.2 if reader == "auto" else 4  # OpenSlide resamples: 1031 rows make its factor 2.0013
    assert all(0 <= one["mean_difference"] < limit for one in record["pyramid"])
    assert all(one["neighbour_difference"] > 3 for one in record["pyramid"])
    assert record["flags"] == []


@pytest.mark.parametrize("quality", [70, 90])
def test_jpeg_of_area_means_is_not_flagged(tmp_path, tissue, quality):
    path = write_levels(tmp_path / "s.tif", [tissue, mean(tissue, 2), mean(tissue, 4), mean(tissue, 16)], quality)
    for mpp in (0.5, 1.0, 4.0):
        assert inspected(tmp_path, path, needed_mpp=dict.fromkeys(INSPECTION.needed_mpp, mpp))["flags"] == []


@pytest.mark.parametrize("quality", [None, 70])
@pytest.mark.parametrize("made_by", [every, shifted])
def test_levels_that_are_no_averages_are_flagged_if_they_are_read(tmp_path, tissue, made_by, quality):
    path = write_levels(tmp_path / "s.tif", [tissue, mean(tissue, 2), made_by(tissue, 4)], quality)
    record = inspected(tmp_path, path)
    of_level = record["pyramid"][1]
    assert record["flags"] == [
        f"level 2 is no average of level 0: its luma differs from it by {of_level['mean_difference']:.3g} grey levels, "
        f"where neighbouring pixels differ by {of_level['neighbour_difference']:.3g}"
    ]
    assert inspected(tmp_path, path, needed_mpp=dict.fromkeys(INSPECTION.needed_mpp, 0.5))["flags"] == []


def test_a_shift_by_one_pixel_differs_as_neighbours_do(tmp_path, tissue):
    path = write_levels(tmp_path / "s.tif", [tissue, shifted(tissue, 4)])
    (of_level,) = inspected(tmp_path, path)["pyramid"]
    assert of_level["mean_difference"] == pytest.approx(of_level["neighbour_difference"], rel=0.02)


@pytest.mark.parametrize(
    ("of_level", "of_neighbours", "is_average"),
    [(4.0, 1.0, True), (4.01, 1.0, False), (6.0, 10.0, True), (6.01, 10.0, False)],
)
def test_the_limit_of_an_average(of_level, of_neighbours, is_average):
    found = LevelDifference(2, of_level, of_neighbours)
    assert found.is_average is is_average
    assert len(pyramid_flags([found], {0, 2})) == (not is_average)
    assert pyramid_flags([found], {0, 1}) == []


def test_slides_of_one_level_and_blank_ones_have_nothing_to_compare(tmp_path, tissue):
    assert inspected(tmp_path, write_levels(tmp_path / "one.tif", [tissue]))["pyramid"] == []
    for value in (250, 0, 100):
        blank = np.full((600, 600, 3), value, dtype=np.uint8)
        assert inspected(tmp_path, write_tiff(tmp_path / "s.tif", blank, factors=(1, 4)))["pyramid"] == []


def test_damage_is_left_out_of_the_comparison(tmp_path, tissue):
    path = write_tiff(tmp_path / "s.tif", tissue, factors=(1, 4))
    places = {1: [Place(9.0, 64, 64), Place(8.0, 0, 0)]}
    info = info_of(path)
    damage(path, (300, 300))  # below the first place
    with Slide(info, "test") as slide:
        (found,) = compare_levels(slide, places)
        assert found.mean_difference < 4
        assert compare_levels(slide, {1: places[1][:1]}) == []
    record = inspected(tmp_path, path, max_unreadable_fraction=1.0)
    assert record["verdict"] == "ok"


def info_with(size_lv0, factor, size_level) -> SlideInfo:
    return SlideInfo("s1", "s.tif", "", "x", size_lv0, 0.25, (1.0, factor), (size_lv0, size_level), (0, 0))


def test_places_are_the_boxes_with_most_detail_and_content():
    pixels = np.full((256, 512, 3), 250, dtype=np.uint8)
    chance = np.random.default_rng(0)
    pixels[64:128, 128:192] = chance.integers(100, 140, (64, 64, 1))
    pixels[64:128, 192:256] = chance.integers(60, 180, (64, 64, 1))
    pixels[128:192, 256:278] = chance.integers(60, 180, (64, 22, 1))  # a third of a box
    info = info_with((4096, 4096), 4.0, (1024, 1024))
    places = richest_places(info, 1, pixels, (512, 256))
    assert [(place.x, place.y) for place in places] == [(512 + 192, 256 + 64), (512 + 128, 256 + 64)]
    assert places[0].detail == pytest.approx(120 / 12**0.5, rel=0.15)
    more = richest_places(info, 1, chance.integers(90, 110, (256, 512, 3), dtype=np.uint8), (0, 0), places)
    assert len(more) == 8
    assert more[:2] == places


@pytest.mark.parametrize(
    ("factor", "size", "side"), [(4.0, 1024, 64), (16.0, 256, 32), (64.0, 64, 8), (512.0, 64, 2), (4.0, 40, 32)]
)
def test_boxes_of_coarse_and_small_levels_are_smaller(factor, size, side):
    info = info_with((int(size * factor),) * 2, factor, (size, size))
    pixels = np.random.default_rng(0).integers(60, 180, (size, size, 3), dtype=np.uint8)
    corners = {place.x % side for place in richest_places(info, 1, pixels, (0, 0))}
    assert corners == {0}
    assert any(place.x % (2 * side) for place in richest_places(info, 1, pixels, (0, 0))) or size < 2 * side


def test_places_do_not_reach_beyond_level_0():
    pixels = np.random.default_rng(0).integers(60, 180, (64, 64, 3), dtype=np.uint8)
    assert richest_places(info_with((256, 256), 4.0, (64, 64)), 1, pixels, (0, 0))
    assert richest_places(info_with((255, 256), 4.0, (64, 64)), 1, pixels, (0, 0)) == []


def test_places_with_edges_count_glass_as_a_flat_part():
    pixels = np.full((256, 512, 3), 250, dtype=np.uint8)
    pixels[64:128, 128:140] = 120  # a fifth of a box
    info = info_with((4096, 4096), 4.0, (1024, 1024))
    assert richest_places(info, 1, pixels, (0, 0)) == []
    (place,) = richest_places(info, 1, pixels, (512, 256), content_only=False)
    assert (place.x, place.y) == (512 + 128, 256 + 64)
    assert place.detail == pytest.approx(130 * (0.25 * 0.75) ** 0.5)  # 2 of 8 sampled columns


PHILIPS = [(104448, 55296), (53248, 28672), (26624, 14336), (14336, 8192), (8192, 4096), (4096, 2048), (2048, 2048)]


@pytest.mark.parametrize("level", range(7))
@pytest.mark.parametrize("rounding", [0.0, 0.005])
def test_a_real_scan_padded_to_even_numbers_of_tiles(level, rounding):
    size, true = PHILIPS[level], 2.0**level
    reported = (PHILIPS[0][0] / size[0] + PHILIPS[0][1] / size[1]) / 2
    assert factor_candidates(PHILIPS[0], size, (1024, 1024), reported)[0] == true
    spaced = (true * (1 + rounding * 0.9), rounding)
    assert factor_candidates(PHILIPS[0], size, (1024, 1024), reported, spaced) == (true,)


@pytest.mark.parametrize(
    ("size_lv0", "size", "tile", "reported", "by_spacing", "expected"),
    [
        ((61440, 61440), (4096, 4096), 1024, 15.0, None, (16.0, 15.0)),  # 60 tiles, 3.75 filled up to 4
        ((61440, 61440), (4096, 4096), 1024, 15.0, (16.0, 0.001), (16.0,)),
        ((61440, 61440), (4096, 4096), 1024, 15.0, (15.0, 0.001), (15.0, 16.0)),
        ((4096, 8192), (1024, 2048), 512, 4.0, None, (4.0,)),
        ((4096, 8192), (1024, 2048), 512, 4.0, (8.0, 0.001), (8.0, 4.0)),
        ((4096, 8192), (1024, 2048), 512, 4.0, (2.0, 0.001), (4.0,)),  # a level of factor 2 would be larger
        ((4096, 8192), (1024, 2048), 512, 4.0, (4.07, 0.02), (4.0,)),
        ((3001, 2001), (1000, 667), 256, 3.0, None, (3.0,)),
        ((3001, 2001), (1000, 667), 256, 3.0, (3.0004, 0.0), (3.0,)),
        ((1000, 1000), (780, 780), 128, 1.2821, (1.2821, 0.0), (1.2821,)),
        ((5000, 3000), (1024, 512), 512, 5.371, None, (8.0, 16.0)),  # ratios 4.9 and 5.9
        ((25472, 12800), (199, 100), 64, 128.0, (127.4, 0.0), (128.0,)),  # some divide a volume by the rounded size
        ((2000, 2000), (930, 930), 64, 2.15, (2.0, 0.05), (2.15,)),  # of factor 2, it would have 1000 px
        ((2000, 2000), (1070, 1070), 64, 1.869, (2.0, 0.05), (2.0, 1.869)),
        ((5000, 3000), (1024, 512), 500, 5.371, None, ()),  # no whole tiles: damaged
        ((5000, 3000), (1024, 512), 0, 5.371, None, ()),
        ((1536, 1536), (384, 512), 128, 3.5, None, (4.0,)),  # 3 tiles, and 3 filled up to 4
    ],
)
def test_sizes_and_spacing_leave_few_factors(size_lv0, size, tile, reported, by_spacing, expected):
    assert factor_candidates(size_lv0, size, (tile, tile), reported, by_spacing) == expected


def padded(level, tiles=1, fill=255):
    """Filled up to a multiple of some tiles of 64 px, to the right and below."""
    fills = [(0, -length % (64 * tiles)) for length in level.shape[:2]]
    return np.pad(level, (*fills, (0, 0)), constant_values=fill)


@pytest.mark.parametrize("fill", [255, 0])
def test_levels_of_tiff_padded_to_whole_tiles_are_used_by_their_true_factor(tmp_path, tissue, fill):
    levels = [tissue, padded(mean(tissue, 4), fill=fill), padded(mean(tissue, 16), 2, fill)]
    path = write_levels(tmp_path / "s.tif", levels)
    record = inspected(tmp_path, path)
    assert record["info"]["level_sizes"] == [[1543, 1031], [448, 320], [128, 128]]  # ratios 3.44 and 3.22, 12.1 and 8.1
    assert record["info"]["downsamples"] == [1, 4, 16]
    assert record["flags"] == []
    assert all(one["mean_difference"] < 4 for one in record["pyramid"])


@pytest.mark.parametrize(("true", "side"), [(8, 96), (6, 128)])
def test_sizes_of_two_meanings_are_decided_by_the_pixels(tmp_path, tissue, true, side):
    image = tissue[:768, :768]  # 12 tiles of 64 px; 2 tiles are a sixth, or an eighth filled up
    assert mean(image, true).shape[0] == side
    path = write_levels(tmp_path / "s.tif", [image, padded(mean(image, true))])
    record = inspected(tmp_path, path)
    assert record["info"]["level_sizes"][1] == [128, 128]
    assert record["info"]["downsamples"] == [1, true]
    assert len(record["flags"]) == (true == 6)


def test_what_pixels_do_not_tell_is_flagged(tmp_path):
    blank = np.full((768, 768, 3), 250, dtype=np.uint8)
    record = inspected(tmp_path, write_levels(tmp_path / "s.tif", [blank, padded(mean(blank, 8), fill=250)]))
    assert record["info"]["downsamples"] == [1, 8]
    assert record["flags"] == [
        "level 1 may be padded: its factor is 8 or 16 or 6 by its size and µm/px, and its pixels do not tell; 8 is used"
    ]
