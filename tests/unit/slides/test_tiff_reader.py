"""Tiles of TIFF slides read directly, held against OpenSlide."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from lesionmap.errors import SlideError
from lesionmap.slides.reader_selection import choose_reader
from lesionmap.slides.slide import Slide
from lesionmap.slides.tiff_reader import TiffReader
from pyramids import damage, info_of, smooth_image, write_jpeg, write_tiff


@pytest.fixture(scope="module")
def image():
    return smooth_image()


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
