from dataclasses import replace

import numpy as np
import pytest
import shapely
from lesionmap.files.pictures import write_tiff
from lesionmap.slides.slide import SlideInfo
from lesionmap.tissue.mask import GAP, TissueMask
from lesionmap.viewer.negatives import negative_squares

IDENTITY = "0123456789abcdef" * 4


@pytest.fixture
def info() -> SlideInfo:
    """A slide of 4 × 3 squares of 256 µm, and a bit, at 0.25 µm/px."""
    size = (4200, 3100)
    return SlideInfo("s1", "/s1.tif", IDENTITY, "generic-tiff", size, 0.25, (1.0,), (size,), (0, 0))


def tissue_of(info: SlideInfo, tmp_path, codes: np.ndarray) -> TissueMask:
    write_tiff(tmp_path / "tissue.tif", codes, mpp=16)
    return TissueMask(str(tmp_path / "tissue.tif"), info)


def numbers(squares) -> set[tuple[int, int]]:
    return {(int(square.bounds[0] / 1024), int(square.bounds[1] / 1024)) for square in squares}


def test_squares_are_tissue_without_lesion(info: SlideInfo, tmp_path) -> None:
    codes = np.full((49, 66), 255, dtype=np.uint8)
    codes[:16, :16] = 0
    codes[:16, 16:32] = GAP
    tissue = tissue_of(info, tmp_path, codes)
    lesions = [shapely.box(2040, 2000, 2060, 2100)]  # at the corner of four squares
    squares = negative_squares(tissue, lesions, info)
    assert len(squares) == 5
    assert numbers(squares) <= {(2, 0), (3, 0), (0, 1), (3, 1), (0, 2), (3, 2)}
    assert all(square.bounds[2] - square.bounds[0] == square.bounds[3] - square.bounds[1] == 1024 for square in squares)


def test_the_draw_is_the_slides_own(info: SlideInfo, tmp_path) -> None:
    tissue = tissue_of(info, tmp_path, np.full((49, 66), 255, dtype=np.uint8))
    drawn = [numbers(negative_squares(tissue, [], one)) for one in (info, info, replace(info, identity="f" * 64))]
    assert drawn[0] == drawn[1] != drawn[2]


def test_where_there_is_little_tissue_there_are_fewer_squares(info: SlideInfo, tmp_path) -> None:
    codes = np.zeros((49, 66), dtype=np.uint8)
    assert negative_squares(tissue_of(info, tmp_path, codes), [], info) == []
    codes[:9, :16] = 255
    assert numbers(negative_squares(tissue_of(info, tmp_path, codes), [], info)) == {(0, 0)}


def test_a_slide_smaller_than_a_square_has_none(info: SlideInfo, tmp_path) -> None:
    small = replace(info, size_lv0=(900, 3100))
    assert negative_squares(tissue_of(small, tmp_path, np.full((49, 15), 255, dtype=np.uint8)), [], small) == []
