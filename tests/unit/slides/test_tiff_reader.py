"""Tiles of TIFF slides read directly, held against OpenSlide."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from lesionmap.errors import SlideError
from lesionmap.slides import reader_selection
from lesionmap.slides.inspection import inspect_slide
from lesionmap.slides.reader_selection import choose_reader, difference
from lesionmap.slides.slide import Slide, load_info
from lesionmap.slides.tiff_reader import TiffReader
from pyramids import INSPECTION, damage, info_of, row, write_tiff

SIZE = (301, 427)  # height, width: neither fills its last tiles


@pytest.fixture(scope="module")
def image():
    """Smooth colours that differ along x and y, with a hard edge."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    channels = [120 + 80 * np.sin(x / 9), 100 + 90 * np.cos(y / 7), 60 + x / 4 + y / 5]
    picture = np.stack(channels, axis=2)
    picture[40:200, 100:103] = (20, 30, 200)
    return picture.clip(0, 255).astype(np.uint8)


def write_jpeg(path: Path, image: np.ndarray, subsampling=(2, 2), factors=(1, 2)) -> Path:
    with tifffile.TiffWriter(path) as tiff:
        for factor in factors:
            tiff.write(
                image[::factor, ::factor],
                tile=(64, 96),
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": 90},
                subsampling=subsampling,
                subfiletype=int(factor > 1),
                resolution=(40000 / factor,) * 2,
                resolutionunit="CENTIMETER",
                metadata=None,
            )
    return path


def both(info):
    return Slide(replace(info, reader="openslide"), "test"), Slide(replace(info, reader="tiff"), "test")


@pytest.mark.parametrize("subsampling", [(1, 1), (2, 1), (2, 2)])
@pytest.mark.parametrize(
    "box", [((0, 0), (427, 301)), ((95, 63), (2, 2)), ((150, 130), (277, 171)), ((3, 250), (97, 51))]
)
def test_jpeg_tiles_are_the_same_pixels(tmp_path, image, subsampling, box):
    info = info_of(write_jpeg(tmp_path / "s.tif", image, subsampling))
    openslide, tiff = both(info)
    with openslide, tiff:
        ours, theirs = (slide.read(*box, info.mpp) for slide in (tiff, openslide))
    np.testing.assert_array_equal(ours, theirs)
    assert ours.std() > 0


@pytest.mark.parametrize("mpp", [0.5, 0.61, 2.0])
def test_coarser_reads_and_places_beyond_the_slide_are_the_same(tmp_path, image, mpp):
    info = info_of(write_jpeg(tmp_path / "s.tif", image[:300, :426]))
    openslide, tiff = both(info)
    with openslide, tiff:
        ours, theirs = (slide.read((-20, 160), (120, 110), mpp) for slide in (tiff, openslide))
    np.testing.assert_array_equal(ours, theirs)
    assert (ours[:, 0] == 255).all()


def test_threads_share_a_reader(tmp_path, image):
    info = info_of(write_jpeg(tmp_path / "s.tif", image))
    with TiffReader(info.path, info.level_sizes) as reader, ThreadPoolExecutor(8) as pool:
        whole = reader.read(0, (0, 0), info.size_lv0)
        boxes = [(x, y) for x in range(0, 380, 19) for y in range(0, 260, 19)]
        for (x, y), box in zip(boxes, pool.map(lambda xy: reader.read(0, xy, (40, 40)), boxes), strict=True):
            np.testing.assert_array_equal(box, whole[y : y + 40, x : x + 40])


def record_of(tmp_path, path, **changes):
    output = tmp_path / "record.json"
    inspect_slide(row(path), str(output), replace(INSPECTION, needed_mpp={"tiles": 1.0, "inference": 1.0}, **changes))
    return load_info(output)


def test_an_inspection_chooses_the_reader_and_the_config_can_forbid_it(tmp_path, image):
    path = write_jpeg(tmp_path / "s.tif", image)
    assert record_of(tmp_path, path).reader == "tiff"
    assert record_of(tmp_path, path, reader="openslide").reader == "openslide"


def test_a_reader_that_differs_is_not_used(tmp_path, image, monkeypatch, caplog):
    class Shifted(TiffReader):
        def read(self, level, xy_level, size_px):
            return np.roll(super().read(level, xy_level, size_px), 1, axis=1)

    monkeypatch.setattr(reader_selection, "TiffReader", Shifted)
    choice = choose_reader(info_of(write_jpeg(tmp_path / "s.tif", image)), "auto", "test")
    assert choice.reader == "openslide"
    assert choice.reason.startswith("readers differ at level 0, box x=")
    assert "s1: read by OpenSlide, as readers differ" in caplog.text


@pytest.mark.parametrize(("levels", "reader"), [(2, "tiff"), (3, "openslide")])
def test_readers_may_differ_by_two_grey_levels_of_luma_and_no_more(tmp_path, image, monkeypatch, levels, reader):
    class Lighter(TiffReader):
        def read(self, level, xy_level, size_px):
            box = super().read(level, xy_level, size_px)
            box[5, 7] += np.uint8(levels)  # of one pixel
            return box

    monkeypatch.setattr(reader_selection, "TiffReader", Lighter)
    info = info_of(write_tiff(tmp_path / "s.tif", np.full((301, 427, 3), 100, np.uint8)))
    choice = choose_reader(info, "auto", "test")
    assert (choice.reader, "luma by up to 3," in choice.reason) == (reader, levels > 2)


def test_readers_are_compared_where_there_is_tissue(tmp_path, image, monkeypatch):
    class ShiftedTissue(TiffReader):
        def read(self, level, xy_level, size_px):
            box = super().read(level, xy_level, size_px)
            return np.roll(box, 1, axis=1) if box.std() > 5 else box

    slide = np.full((4000, 4000, 3), 244, np.uint8)
    slide[2500:2560, 1300:1400] = image[:60, :100]
    monkeypatch.setattr(reader_selection, "TiffReader", ShiftedTissue)
    monkeypatch.setattr(reader_selection, "RANDOM_BOXES", 0)
    choice = choose_reader(info_of(write_jpeg(tmp_path / "s.tif", slide)), "auto", "test")
    assert choice.reason.startswith("readers differ at level 0, box x=1344 y=2496")


def test_a_reader_that_sees_no_damage_where_openslide_does_is_not_used(tmp_path, image, monkeypatch):
    class Careless(TiffReader):
        def read(self, level, xy_level, size_px):
            return np.zeros((*size_px[::-1], 3), np.uint8)

    monkeypatch.setattr(reader_selection, "TiffReader", Careless)
    spots = [(x, y) for x in range(0, 427, 64) for y in range(0, 301, 64)]
    path = damage(write_tiff(tmp_path / "s.tif", image), *spots)
    assert choose_reader(info_of(path), "auto", "test").reason.startswith("only one reader finds damage at level 0")


def test_slides_that_are_no_grid_of_tiles_are_left_to_openslide(tmp_path, image):
    path = tmp_path / "s.tif"
    tifffile.imwrite(path, image, tile=(64, 64), photometric="rgb", compression="packbits", metadata=None)
    choice = choose_reader(info_of(path, mpp=0.25), "auto", "test")
    assert choice.reader == "openslide"
    assert choice.reason == "no directory of 427×301 px holds RGB tiles in a known compression"
    other = replace(info_of(path, mpp=0.25), vendor="mirax")
    assert choose_reader(other, "auto", "test").reason == "the only one that knows mirax"


def test_a_reader_that_cannot_make_sense_of_a_file_leaves_it_to_openslide(tmp_path, image, monkeypatch):
    def puzzled(*_):
        raise tifffile.TiffFileError("corrupted tag list")

    monkeypatch.setattr(reader_selection, "TiffReader", puzzled)
    choice = choose_reader(info_of(write_jpeg(tmp_path / "s.tif", image)), "auto", "test")
    assert (choice.reader, choice.reason) == ("openslide", "corrupted tag list")


def test_a_file_that_has_changed_since_its_inspection_is_left_to_openslide(tmp_path, image):
    info = replace(info_of(write_tiff(tmp_path / "s.tif", image), mpp=0.25), reader="tiff")
    tifffile.imwrite(info.path, image, tile=(64, 64), photometric="rgb", compression="packbits", metadata=None)
    with Slide(info, "test") as slide:
        np.testing.assert_array_equal(slide.read((0, 0), (427, 301), 0.25), image)
    Path(info.path).write_bytes(b"no slide any more")
    with pytest.raises(SlideError, match="slide s1, test: "):
        Slide(info, "test")


def test_damage_has_the_error_of_openslide_and_the_rest_is_read(tmp_path, image):
    info = info_of(damage(write_tiff(tmp_path / "s.tif", image), (200, 200)))
    assert choose_reader(info, "auto", "test").reader == "tiff"
    with Slide(replace(info, reader="tiff"), "test") as slide:
        with pytest.raises(SlideError, match="level 0, box x=180 y=180 of 40×40 px cannot be read"):
            slide.read((180, 180), (40, 40), info.mpp)
        np.testing.assert_array_equal(slide.read((0, 0), (190, 190), info.mpp), image[:190, :190])


@pytest.mark.parametrize("harm", [b"\x00", b"\xff", b"\xff\xd9"])
def test_jpeg_data_that_decodes_in_part_is_damage(tmp_path, image, harm):
    info = info_of(write_jpeg(tmp_path / "s.tif", image))
    with tifffile.TiffFile(info.path) as tiff:
        page = tiff.pages[0]
        start, length = page.dataoffsets[6], page.databytecounts[6]  # row 1, column 1
    content = bytearray(Path(info.path).read_bytes())
    content[start + length // 2 : start + length] = (harm * length)[: length - length // 2]
    Path(info.path).write_bytes(content)
    with Slide(replace(info, reader="tiff"), "test") as slide:
        with pytest.raises(SlideError, match=r"level 0, box x=100 y=70 of 40×40 px cannot be read \(.*JPEG"):
            slide.read((100, 70), (40, 40), info.mpp)
        assert slide.read((0, 0), (96, 64), info.mpp).std() > 0


def test_difference_is_of_luma_and_mean_colour():
    one = np.full((4, 4, 3), 100, np.uint8)
    other = one.copy()
    other[0, 0] = (110, 100, 100)
    assert difference(one, other) == (pytest.approx(2.99), pytest.approx(10 / 16))
