"""Missing tiles: no damage where the slide is blank, unreadable where another level shows tissue."""

import numpy as np
import pytest
import tifffile
from lesionmap.errors import SlideError
from lesionmap.slides.damage import hidden_content
from lesionmap.slides.inspection import inspect_slide
from lesionmap.slides.slide import Slide, load_info
from odd_tiffs import write_odd_tiff
from pyramids import INSPECTION, info_of, inspection_files, row, write_jpeg

TILE = (64, 96)  # rows, columns
PINK, GLASS = (200, 120, 170), (243, 240, 244)


@pytest.fixture
def image():
    """Glass, 401 × 597 px, with tissue at x 200 to 449, y 130 to 299."""
    picture = np.full((401, 597, 3), GLASS, dtype=np.uint8)
    picture[130:300, 200:450] = PINK
    return picture


def drop_tiles(path, level, *spots):
    """Make the tiles of a level that hold some of its pixels (x, y) missing: 0 bytes at offset 0."""
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[level]
        for x, y in spots:
            tile = y // TILE[0] * page.chunked[1] + x // TILE[1]
            for name in ("TileOffsets", "TileByteCounts"):
                tag = page.tags[name]
                width = {3: 2, 4: 4}[tag.dtype]
                at = tag.valueoffset + tile * width
                content[at : at + width] = bytes(width)
    path.write_bytes(content)
    return path


@pytest.fixture(params=["openslide and its tiles", "tifffile"])
def write(request):
    if request.param == "tifffile":
        return lambda path, image: write_odd_tiff(path, image, byteorder=">")
    return lambda path, image: write_jpeg(path, image, factors=(1, 2, 4))


def test_missing_tiles_of_tissue_are_unreadable(tmp_path, image, write):
    info = info_of(drop_tiles(write(tmp_path / "s.tif", image), 0, (300, 200)))  # x 288 to 383, y 192 to 255
    with Slide(info, "extract_tiles") as slide:
        with pytest.raises(SlideError, match=r"level 0, box .* lacks tiles: level 1 shows tissue there") as raised:
            slide.read((192, 128), (192, 128), 0.25)
        assert raised.value.stage == "extract_tiles"
        assert "copy the file again" in raised.value.remedy
        slide.read((0, 0), (288, 192), 0.25)
        slide.read((192, 192), (96, 64), 0.25)
        _, found = slide.read_where_possible((0, 0), (597, 401), 0.25)
        slide.read((0, 0), (298, 200), 0.5)  # level 1 has all its tiles
    assert found[192:256, 288:384].mean() < 0.1  # but for strips as narrow as a pixel of level 1
    assert found[:100].all()


def test_missing_tiles_of_glass_are_white(tmp_path, image, write):
    info = info_of(drop_tiles(write(tmp_path / "s.tif", image), 0, (10, 10), (500, 370)))
    with Slide(info, "test") as slide:
        pixels = slide.read((0, 0), (597, 401), 0.25)
    assert (pixels[:64, :96] == 255).all()
    assert (pixels[320:384, 480:576] == 255).all()
    assert np.abs(pixels[:64, 96:].astype(int) - GLASS).max() < 4


def test_the_nearest_level_with_pixels_decides(tmp_path, image, write):
    path = drop_tiles(write(tmp_path / "s.tif", image), 0, (300, 200))
    drop_tiles(path, 1, (150, 100))
    with Slide(info_of(path), "test") as slide:
        with pytest.raises(SlideError, match=r"level 0, box .* lacks tiles: level 2 shows tissue there"):
            slide.read((288, 192), (96, 64), 0.25)
        with pytest.raises(SlideError, match=r"level 1, box .* lacks tiles: level 2 shows tissue there"):
            slide.read((192, 128), (96, 64), 0.5)


def test_tiles_that_only_a_finer_level_has_are_unreadable_in_the_coarser(tmp_path, image, write):
    path = drop_tiles(write(tmp_path / "s.tif", image), 2, (80, 50))
    with Slide(info_of(path), "test") as slide:
        with pytest.raises(SlideError, match=r"level 2, box .* lacks tiles: level 1 shows tissue there"):
            slide.read((0, 0), (100, 80), 1.0)
        slide.read((0, 0), (597, 401), 0.25)


def test_tiles_that_no_level_has_are_blank(tmp_path, image, write):
    path = write(tmp_path / "s.tif", image)
    for level, spot in enumerate([(300, 200), (150, 100), (75, 50)]):
        drop_tiles(path, level, spot)
    with Slide(info_of(path), "test") as slide:
        assert (slide.read((288, 192), (96, 64), 0.25) == 255).all()


def test_an_inspection_flags_missing_tiles(tmp_path, image, write):
    path = drop_tiles(write(tmp_path / "s.tif", image), 0, (300, 200))
    inspect_slide(row(path), inspection_files(tmp_path), INSPECTION)
    with pytest.raises(SlideError, match=r"1 of 2 boxes cannot be read, .* lacks tiles: level 1 shows tissue"):
        load_info(tmp_path / "info.json", tmp_path / "location.json")


def block(alpha, colour=PINK):
    pixels = np.full((64, 64, 4), (*colour, 255), dtype=np.uint8)
    pixels[..., 3] = alpha
    return pixels


def test_a_part_is_missing_if_three_tenths_of_it_have_colour_elsewhere():
    def found(coloured_rows):
        shown = block(255, GLASS)
        shown[:coloured_rows, :, :3] = PINK
        return hidden_content(block(0), {1: 2.0}, lambda level, box: shown)

    assert found(20) == ((0, 0, 64, 64), 1)  # 20 of 64 rows are 0.31
    assert found(19) is None


@pytest.mark.parametrize(("width_px", "reach"), [(2.0, 2), (3.4, 4), (0.25, 1)])
def test_pixels_that_a_coarser_pixel_may_share_with_tissue_beside_them_do_not_count(width_px, reach):
    def found(blank_columns):
        rgba = block(255)
        rgba[:, 64 - blank_columns :, 3] = 0
        return hidden_content(rgba, {1: width_px}, lambda level, box: block(255))

    assert found(reach) is None
    assert found(reach + 1) is not None  # one column of 64 px


def test_colour_is_more_than_the_tint_of_glass():
    def found(colour):
        return hidden_content(block(0), {1: 2.0}, lambda level, box: block(255, colour))

    assert found((240, 226, 216)) is None  # 24 between the brightest and darkest channel
    assert found((240, 226, 215)) is not None
    assert found((0, 0, 0)) is None


def test_levels_are_asked_in_their_order_until_one_has_pixels():
    asked = []

    def read(level, box):
        asked.append((level, box))
        return {1: None, 2: half_shown, 3: block(255, GLASS), 4: block(255)}[level]

    half_shown = block(0)
    half_shown[:31, :, 3] = 255  # of 64 rows

    assert hidden_content(block(0), dict.fromkeys([1, 2, 3, 4], 2.0), read) is None
    assert asked == [(level, (0, 0, 64, 64)) for level in (1, 2, 3)]


def test_the_place_is_that_of_the_block():
    rgba = np.full((100, 170, 4), 255, dtype=np.uint8)
    rgba[64:, 128:, 3] = 0  # 36 × 42 px at the corner
    found = hidden_content(rgba, {5: 2.0}, lambda level, box: np.full((36, 42, 4), (*PINK, 255), dtype=np.uint8))
    assert found == ((128, 64, 170, 100), 5)
