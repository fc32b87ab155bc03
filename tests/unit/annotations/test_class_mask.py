"""Class masks."""

import json
import re
import struct
import zlib
from collections import Counter

import lesionmap.annotations.class_mask
import numpy as np
import pytest
import tifffile
from annotation_imports import canonical_of, level_0, refused
from annotation_writers import drawn, info_at, write_mask
from lesionmap.annotations.canonical import AnnotationSettings, canonical
from lesionmap.annotations.class_mask import mask_scale
from lesionmap.annotations.formats import read_annotation
from PIL import Image
from shapely import box

pytestmark = pytest.mark.annotations


@pytest.mark.parametrize("name", ["m.tif", "m.TIFF", "m.png"])
@pytest.mark.parametrize("factor", [1, 2, 3])
def test_a_mask_is_placed_by_its_size_and_its_scale_is_stated(tmp_path, name, factor):
    mask = np.zeros((90 // factor, 120 // factor), dtype=np.uint8)
    mask[10:20, 5:9] = 1
    mask[28, 30] = 3
    write_mask(tmp_path / name, mask)
    output = canonical_of(tmp_path, tmp_path / name)
    content = json.loads(output.read_text())
    assert content["source"] == {"format": "class mask", "level_0_px_per_mask_px": [factor, factor]}
    assert content["classes"]["lesion"] == {"polygons": 1, "area_mm2": round(40 * factor**2 * 1e-4, 6)}
    assert content["classes"]["fat"] == {"polygons": 1, "area_mm2": round(factor**2 * 1e-4, 6)}
    np.testing.assert_array_equal(level_0(output), np.kron(mask, np.ones((factor, factor))))


@pytest.mark.parametrize(
    ("slide", "mask", "expected"),
    [
        ((120, 90), (120, 90), (1, 1)),
        ((1001, 703), (500, 351), (2, 2)),  # halved, rounded down
        ((1001, 703), (501, 352), (2, 2)),  # rounded up
        ((1001, 703), (500, 352), (2, 2)),  # each its own way
        ((1001, 703), (143, 101), (7, 7)),  # 703 / 7 = 100.4
        ((1000, 700), (300, 210), (10 / 3, 10 / 3)),
        ((120, 90), (240, 180), (0.5, 0.5)),
    ],
)
def test_the_scale_of_a_mask_that_covers_the_slide(slide, mask, expected):
    assert mask_scale(mask, info_at(size=slide), None) == pytest.approx(expected, abs=1e-12)


def test_the_scale_of_a_mask_is_its_stated_resolution():
    assert mask_scale((20, 30), info_at(mpp=0.25), 0.625) == (2.5, 2.5)
    assert mask_scale((48, 36), info_at(mpp=0.25), 0.625) == (2.5, 2.5)  # all of the slide
    assert mask_scale((49, 37), info_at(mpp=0.25), 0.625) == (2.5, 2.5)  # all, and a last pixel that it ends in


@pytest.mark.parametrize("size", [(50, 36), (48, 38)])
def test_a_mask_beyond_the_slide_at_its_stated_resolution_is_refused(size):
    with pytest.raises(
        ValueError, match=rf"^at 0\.625 µm/px the mask of {size[0]}×{size[1]} px is larger than the slide$"
    ):
        mask_scale(size, info_at(mpp=0.25), 0.625)


def test_a_mask_of_a_part_starts_at_the_slides_corner(tmp_path):
    mask = np.zeros((20, 10), dtype=np.uint8)
    mask[4:7, 2] = 2
    write_mask(tmp_path / "m.png", mask)
    output = canonical_of(tmp_path, tmp_path / "m.png", info_at(mpp=0.5), mask_mpp=1.5)
    found = np.argwhere(level_0(output) == 2)
    assert (found.min(axis=0).tolist(), found.max(axis=0).tolist()) == ([12, 6], [20, 8])


def test_masks_start_at_the_slides_corner_whatever_its_bounds(tmp_path):
    write_mask(tmp_path / "m.png", drawn({"Lesion": [box(10, 20, 14, 30)]}))
    output = canonical_of(tmp_path, tmp_path / "m.png", info_at(bounds_xy_lv0=(37, 11)))
    assert np.argwhere(level_0(output))[0].tolist() == [20, 10]


def test_a_palette_png_is_read_by_its_indices(tmp_path):
    picture = Image.fromarray(drawn({"Fat": [box(10, 20, 14, 30)], "Lesion": [box(1, 2, 4, 8)]}))
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 200, 180, 20])
    picture.save(tmp_path / "m.png")
    with Image.open(tmp_path / "m.png") as saved:
        assert saved.mode == "P"
    assert Counter(level_0(canonical_of(tmp_path, tmp_path / "m.png")).ravel().tolist()) == {0: 10742, 3: 40, 1: 18}


@pytest.mark.parametrize("name", ["m.tif", "m.png"])
def test_a_mask_of_one_bit_has_class_one(tmp_path, name):
    mask = drawn({"Lesion": [box(10, 20, 14, 30)]}) > 0
    Image.fromarray(mask).save(tmp_path / name)
    np.testing.assert_array_equal(level_0(canonical_of(tmp_path, tmp_path / name)), mask)


def test_a_mask_of_16_bits_may_have_class_values(tmp_path):
    mask = drawn({"Vessel": [box(10, 20, 14, 30)]}).astype(np.uint16)
    tifffile.imwrite(tmp_path / "m.tif", mask)
    np.testing.assert_array_equal(level_0(canonical_of(tmp_path, tmp_path / "m.tif")), mask)


def test_zero_is_background_and_an_empty_mask_says_there_is_no_lesion(tmp_path):
    write_mask(tmp_path / "m.tif", np.zeros((45, 60), dtype=np.uint8))
    assert json.loads(canonical_of(tmp_path, tmp_path / "m.tif").read_text())["features"] == []


def test_an_unmapped_mask_value_is_refused_with_all_that_the_file_has(tmp_path):
    mask = drawn({"Lesion": [box(1, 2, 4, 8), box(50, 50, 60, 55)]})
    mask[80, 100] = 255
    write_mask(tmp_path / "m.png", mask)
    error = refused(tmp_path, tmp_path / "m.png")
    assert error.finding == "classes that the config does not map: '255'; the file has '1' (2), '255' (1)"
    assert "annotations.mask_values for a mask" in error.remedy


def test_mask_pixels_that_touch_at_a_corner_need_no_repair(tmp_path):
    mask = np.zeros((90, 120), dtype=np.uint8)
    mask[10:13, 20:23] = [[1, 1, 1], [1, 0, 1], [1, 1, 0]]  # the hole touches the outside
    mask[13, 23] = 1
    write_mask(tmp_path / "m.tif", mask)
    output = canonical_of(tmp_path, tmp_path / "m.tif")
    assert json.loads(output.read_text())["repaired"] == {}
    np.testing.assert_array_equal(level_0(output), mask)


def test_of_a_huge_pyramid_a_coarser_level_is_taken(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(lesionmap.annotations.class_mask, "LARGEST_MASK_PX", 60 * 45)
    mask = drawn({"Lesion": [box(10, 20, 14, 30)]})
    with tifffile.TiffWriter(tmp_path / "m.tif") as tiff:
        for factor in (1, 2, 4):
            tiff.write(mask[::factor, ::factor], subfiletype=int(factor > 1), tile=(16, 16), metadata=None)
    output = canonical_of(tmp_path, tmp_path / "m.tif")
    assert json.loads(output.read_text())["source"]["level_0_px_per_mask_px"] == [2, 2]
    assert "the level of 60×45 px is used" in caplog.text
    np.testing.assert_array_equal(level_0(output), mask)


# --- Pictures that say how their values are shown

CLASSES = drawn({"Lesion": [box(10, 20, 14, 30)], "Vessel": [box(31, 2, 37, 5)], "Fat": [box(1, 2, 4, 8)]})
LESION = (CLASSES == 1).astype(np.uint8)


def write_png(path, rows, depth, colour_type, *chunks):
    """A PNG of these rows of bytes, as its header says; `chunks` go between header and pixels."""
    header = struct.pack(">IIBBBBB", 120, 90, depth, colour_type, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    parts = [(b"IHDR", header), *chunks, (b"IDAT", pixels), (b"IEND", b"")]
    packed = b""
    for kind, data in parts:
        packed += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + packed)


def imported(folder, name):
    return level_0(canonical_of(folder, folder / name))


@pytest.mark.parametrize("photometric", ["miniswhite", "minisblack"])
@pytest.mark.parametrize("compression", [None, "ccitt_t6"])
def test_in_a_tiff_of_one_bit_white_is_class_one(tmp_path, photometric, compression):
    stored = LESION ^ (photometric == "miniswhite")
    if compression:
        picture = Image.fromarray(LESION * 255).convert("1")
        picture.save(tmp_path / "m.tif", compression="group4", tiffinfo={262: int(photometric == "minisblack")})
    else:
        tifffile.imwrite(tmp_path / "m.tif", stored.astype(bool), photometric=photometric)
    with tifffile.TiffFile(tmp_path / "m.tif") as tiff:
        assert tiff.pages[0].photometric.name.lower() == photometric
        assert tiff.pages[0].bitspersample == 1
    np.testing.assert_array_equal(imported(tmp_path, "m.tif"), LESION)


def test_in_8_bits_of_black_and_white_white_is_255_by_either_photometric(tmp_path):
    how = AnnotationSettings({}, {"255": "vessel"}, "repair")
    for photometric, stored in (("minisblack", LESION * 255), ("miniswhite", 255 - LESION * 255)):
        tifffile.imwrite(tmp_path / "m.tif", stored.astype(np.uint8), photometric=photometric)
        content = canonical(read_annotation(str(tmp_path / "m.tif"), info_at()), info_at(), how)
        assert content["classes"]["vessel"] == {"polygons": 1, "area_mm2": 0.004}


@pytest.mark.parametrize("values", [CLASSES, LESION, LESION * 0], ids=["three", "one", "none"])
def test_other_values_of_8_bits_are_classes_as_stored(tmp_path, values):
    tifffile.imwrite(tmp_path / "m.tif", values, photometric="miniswhite")
    np.testing.assert_array_equal(imported(tmp_path, "m.tif"), values)


def test_the_levels_of_a_miniswhite_pyramid_are_turned_over_too(tmp_path, monkeypatch):
    monkeypatch.setattr(lesionmap.annotations.class_mask, "LARGEST_MASK_PX", 60 * 45)
    with tifffile.TiffWriter(tmp_path / "m.tif") as tiff:
        for factor in (1, 2):
            level = (LESION ^ 1)[::factor, ::factor].astype(bool)
            tiff.write(level, photometric="miniswhite", subfiletype=int(factor > 1), metadata=None)
    np.testing.assert_array_equal(imported(tmp_path, "m.tif"), LESION)


def test_indices_of_a_palette_tiff_are_classes(tmp_path):
    colours = np.random.default_rng(0).integers(0, 65535, (3, 256), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "m.tif", CLASSES, photometric="palette", colormap=colours)
    np.testing.assert_array_equal(imported(tmp_path, "m.tif"), CLASSES)


@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("colour_type", [0, 3])
def test_pngs_of_few_bits_hold_classes(tmp_path, depth, colour_type):
    values = LESION if depth == 1 else CLASSES
    bits = np.unpackbits(values[:, :, None], axis=2)[:, :, -depth:].reshape(90, -1)
    palette = [(b"PLTE", bytes(range(30, 36)) * 2 ** (depth - 1)), (b"tRNS", b"\xff\0")] if colour_type == 3 else []
    write_png(tmp_path / "m.png", np.packbits(bits, axis=1), depth, colour_type, *palette)
    np.testing.assert_array_equal(imported(tmp_path, "m.png"), values)


@pytest.mark.parametrize("chunk", [(b"tRNS", b"\0\1"), (b"gAMA", struct.pack(">I", 45455))])
def test_colours_that_a_png_shows_change_no_class(tmp_path, chunk):
    write_png(tmp_path / "m.png", CLASSES, 8, 0, chunk)
    np.testing.assert_array_equal(imported(tmp_path, "m.png"), CLASSES)


@pytest.mark.parametrize("name", ["m.png", "m.tif"])
@pytest.mark.parametrize("mode", ["LA", "RGB", "RGBA"])
def test_equal_channels_are_grey_and_what_is_transparent_is_background(tmp_path, name, mode):
    alpha = np.full((90, 120), 255, dtype=np.uint8)
    if mode.endswith("A"):
        alpha[25:] = 0
    channels = [CLASSES] * (len(mode) - mode.endswith("A")) + [alpha] * mode.endswith("A")
    Image.fromarray(np.stack(channels, axis=2), mode=mode).save(tmp_path / name)
    np.testing.assert_array_equal(imported(tmp_path, name), np.where(alpha == 0, 0, CLASSES))


def test_equal_planes_are_grey(tmp_path):
    tifffile.imwrite(tmp_path / "m.tif", np.stack([CLASSES] * 3), photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(imported(tmp_path, "m.tif"), CLASSES)


def test_a_png_of_16_bits_may_have_class_values(tmp_path):
    Image.fromarray(CLASSES.astype(np.uint16)).save(tmp_path / "m.png")
    np.testing.assert_array_equal(imported(tmp_path, "m.png"), CLASSES)


# --- What is no mask


@pytest.mark.parametrize(
    ("mask", "finding"),
    [
        (np.full((90, 120), 300, dtype=np.uint16), "the mask has values from 300 to 300; class values are 0 to 255"),
        (np.full((90, 120), -1, dtype=np.int16), "the mask has values from -1 to -1; class values are 0 to 255"),
        (np.full((90, 120), 0.9, dtype=np.float32), "the mask has values of type float32; class values are whole"),
        (np.zeros((60, 60), dtype=np.uint8), "the mask of 60×60 px has other proportions than the slide of 120×90 px"),
    ],
)
def test_a_tiff_that_is_no_mask_of_the_slide_is_refused(tmp_path, mask, finding):
    tifffile.imwrite(tmp_path / "m.tif", mask, photometric="rgb" if mask.ndim == 3 else "minisblack")
    error = refused(tmp_path, tmp_path / "m.tif")
    assert re.search(finding, error.finding)
    assert "one channel with class values 0 to 255 that covers the whole slide, or state its µm/px" in error.remedy


@pytest.mark.parametrize("name", ["m.png", "m.tif"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_colours_are_no_classes(tmp_path, name, mode):
    Image.new(mode, (120, 90), (200, 30, 30, 255)[: len(mode)]).save(tmp_path / name)
    error = refused(tmp_path, tmp_path / name)
    assert f"the mask has {len(mode)} channels of different values: colours" in error.finding
    assert error.remedy.startswith("save it with one channel of 8 bits whose values are the classes")


def test_pages_are_no_classes(tmp_path):
    tifffile.imwrite(tmp_path / "m.tif", np.ones((2, 90, 120), dtype=np.uint8), photometric="minisblack")
    assert "so several pages; it needs one" in refused(tmp_path, tmp_path / "m.tif").finding


@pytest.mark.parametrize("colour_type", [2, 4, 6])
def test_a_png_of_several_channels_of_16_bits_is_refused(tmp_path, colour_type):
    """Pillow would keep their high bytes alone, in which class 1 is 0."""
    n_channels = {2: 3, 4: 2, 6: 4}[colour_type]
    write_png(tmp_path / "m.png", np.ones((90, 120 * n_channels), dtype=">u2").view(np.uint8), 16, colour_type)
    assert "several channels of 16 bits" in refused(tmp_path, tmp_path / "m.png").finding


def test_a_mask_larger_than_the_slide_at_its_stated_resolution_is_refused(tmp_path):
    write_mask(tmp_path / "m.png", np.ones((45, 60), dtype=np.uint8))
    error = refused(tmp_path, tmp_path / "m.png", mask_mpp=25.0)
    assert "at 25 µm/px the mask of 60×45 px is larger than the slide" in error.finding


def test_a_pyramid_without_a_level_that_fits_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(lesionmap.annotations.class_mask, "LARGEST_MASK_PX", 10_799)
    write_mask(tmp_path / "m.tif", np.ones((90, 120), dtype=np.uint8))
    assert "its smallest level has 10800 pixels, more than 10799" in refused(tmp_path, tmp_path / "m.tif").finding
