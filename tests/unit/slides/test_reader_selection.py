"""Which reader a slide gets, and why."""

from dataclasses import replace

import numpy as np
import pytest
import tifffile
from lesionmap.slides import reader_selection
from lesionmap.slides.inspection import inspect_slide
from lesionmap.slides.reader_selection import choose_reader, difference
from lesionmap.slides.slide import load_info
from lesionmap.slides.tiff_reader import TiffReader
from pyramids import INSPECTION, damage, info_of, inspection_files, row, smooth_image, write_jpeg, write_tiff


@pytest.fixture(scope="module")
def image():
    return smooth_image()


def record_of(tmp_path, path, **changes):
    files = inspection_files(tmp_path)
    inspect_slide(row(path), files, replace(INSPECTION, needed_mpp={"tiles": 1.0, "inference": 1.0}, **changes))
    return load_info(files.info, files.location)


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


def test_difference_is_of_luma_and_mean_colour():
    one = np.full((4, 4, 3), 100, np.uint8)
    other = one.copy()
    other[0, 0] = (110, 100, 100)
    assert difference(one, other) == (pytest.approx(2.99), pytest.approx(10 / 16))
