"""The reader on the formats of scanners, each opened by OpenSlide's own driver for it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from lesionmap.slides.identity import content_digest
from lesionmap.slides.slide import Slide, SlideInfo
from pyramids import info_of
from vendor_slides import write_aperio, write_dicom, write_mirax, write_ndpi, write_scn, write_vms

SPOTS = [(70.5, 60.0), (430.25, 95.5), (255.0, 268.75)]  # x, y of the dark blobs in the image
WHITE = 255


@dataclass(frozen=True)
class Format:
    """How a format is written, and what must be read from it.

    Parameters
    ----------
    width_px, height_px : int
        How much of the image is written.
    size_lv0, corner : (int, int)
        Size of level 0, and where the image's top-left pixel lies on it.
    tolerance : int
        Grey levels that the compression may change: JPEG rounds YCbCr, of which Cb counts 1.8-fold in blue.
    """

    name: str
    file: str
    write: Callable[..., Path]
    vendor: str
    mpp: float
    width_px: int = 517
    height_px: int = 331
    size_lv0: tuple[int, int] = (517, 331)
    corner: tuple[int, int] = (0, 0)
    tolerance: int = 4


def _aperio(compression: str) -> Callable[..., Path]:
    return lambda path, image, mpp: write_aperio(path, image, mpp, compression)


def _ndpi_with_restarts(path: Path, image: np.ndarray, mpp: float) -> Path:
    return write_ndpi(path, image, mpp, restart_px=64)


def _scn(corner_px: tuple[int, int], collection_px: tuple[int, int]) -> Callable[..., Path]:
    return lambda path, image, mpp: write_scn(path, image, mpp, corner_px=corner_px, collection_px=collection_px)


def _mirax(path: Path, image: np.ndarray, mpp: float) -> Path:
    return write_mirax(path, image, mpp, corner_px=(75, 139), grid=(6, 5))


FORMATS = [
    Format("aperio-jpeg", "slide.svs", _aperio("jpeg"), "aperio", 0.499),
    Format("aperio-jpeg2000-ycbcr", "slide.svs", _aperio("33003"), "aperio", 0.499, tolerance=3),
    Format("aperio-jpeg2000-rgb", "slide.svs", _aperio("33005"), "aperio", 0.499, tolerance=0),
    Format("hamamatsu", "slide.ndpi", write_ndpi, "hamamatsu", 0.2205),
    Format(  # whole tiles of 64×8 px: 8×64 = 512, 41×8 = 328
        "hamamatsu-tiled", "slide.ndpi", _ndpi_with_restarts, "hamamatsu", 0.2205, 512, 328, size_lv0=(512, 328)
    ),
    Format("hamamatsu-vms", "slide.vms", write_vms, "hamamatsu", 0.25, 512, 320, size_lv0=(512, 320)),
    Format(
        "leica", "slide.scn", _scn((204, 308), (804, 1200)), "leica", 0.25, 516, size_lv0=(804, 1200), corner=(204, 308)
    ),
    Format(  # 6×5 camera positions of 128 px: 6×128 = 768, 5×128 = 640
        "mirax", "slide.mrxs", _mirax, "mirax", 0.25, size_lv0=(768, 640), corner=(75, 139), tolerance=0
    ),
    Format("dicom", "slide.dcm", write_dicom, "dicom", 0.25),
]


def blobs_on_gradients() -> np.ndarray:
    """Red grows to the right, blue to the bottom, green has the blobs: (331, 517, 3) uint8, no two places alike."""
    y, x = np.mgrid[:331, :517] + 0.5
    blobs = sum(160 * np.exp(-((x - at_x) ** 2 + (y - at_y) ** 2) / (2 * 11.0**2)) for at_x, at_y in SPOTS)
    return np.rint(np.stack([90 + 150 * x / 517, 240 - blobs, 90 + 150 * y / 331], axis=-1)).astype(np.uint8)


def written(folder: Path, made: Format) -> tuple[np.ndarray, SlideInfo]:
    """The image that was written, and what the slide says of itself."""
    image = blobs_on_gradients()[: made.height_px, : made.width_px]
    return image, info_of(made.write(folder / made.file, image, made.mpp))


def expected_lv0(image: np.ndarray, corner: tuple[int, int], xy: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """A box of level 0, by index arithmetic: white but where the image lies."""
    box = np.full((size[1], size[0], 3), WHITE, dtype=np.uint8)
    for y in range(size[1]):
        for x in range(size[0]):
            column, line = xy[0] + x - corner[0], xy[1] + y - corner[1]
            if 0 <= column < image.shape[1] and 0 <= line < image.shape[0]:
                box[y, x] = image[line, column]
    return box


def misplacements(slide: Slide, corner: tuple[int, int], scale: float) -> np.ndarray:
    """How far from its place each blob is found, in level-0 pixels: (blobs × starts, 2)."""
    found = []
    for spot in SPOTS:
        for shift in (0.0, 0.37, 1.0, 2.0, 3.0):  # boxes that start at different fractions of a level's pixel
            centre = np.array(spot) + corner
            start = (float(centre[0] - 41.3 - shift), float(centre[1] - 39.7 - shift))
            box = slide.read(start, (int(83 / scale), int(80 / scale)), slide.info.mpp * scale)
            weight = np.clip(240.0 - box[..., 1], 0, None)
            rows, columns = (np.indices(weight.shape) + 0.5) * scale
            centroid = [(columns * weight).sum(), (rows * weight).sum()] / weight.sum() + start
            found.append(centroid - centre)
    return np.array(found)


@pytest.fixture(params=FORMATS, ids=lambda made: made.name)
def made(request: pytest.FixtureRequest) -> Format:
    return request.param


def test_the_driver_of_the_format_is_used_and_its_facts_are_right(tmp_path, made):
    _, info = written(tmp_path, made)
    assert info.vendor == made.vendor
    assert info.size_lv0 == made.size_lv0
    assert info.mpp == pytest.approx(made.mpp, rel=1e-5)
    assert info.bounds_xy_lv0 == made.corner
    assert len(info.level_sizes) > 1
    assert all(factor.is_integer() for factor in info.downsamples)


@pytest.mark.parametrize("offset", [(101, 57), (347, 259), (-13, -9), (455, 287)])
def test_level_0_is_read_to_the_pixel_and_white_beyond(tmp_path, made, offset):
    image, info = written(tmp_path, made)
    xy = (made.corner[0] + offset[0], made.corner[1] + offset[1])
    with Slide(info, "test") as slide:
        box = slide.read(xy, (131, 67), info.mpp)
    difference = np.abs(box.astype(int) - expected_lv0(image, made.corner, xy, (131, 67)))
    assert difference.max() <= made.tolerance


@pytest.mark.parametrize("scale", [1.7, 2, 4, 5.3])
def test_coarser_reads_are_in_place(tmp_path, made, scale):
    _, info = written(tmp_path, made)
    with Slide(info, "test") as slide:
        assert np.abs(misplacements(slide, made.corner, scale)).max() <= 0.3


@pytest.mark.parametrize("scale", [1, 4])
def test_the_whole_plane_is_white_outside_the_image(tmp_path, made, scale):
    image, info = written(tmp_path, made)
    with Slide(info, "test") as slide:
        plane = slide.read((0, 0), (info.size_lv0[0] // scale, info.size_lv0[1] // scale), info.mpp * scale)
    left, top = made.corner
    inked = np.argwhere((plane < WHITE - made.tolerance).any(axis=-1)) * scale
    bottom_right = (top + image.shape[0] - 1, left + image.shape[1] - 1)
    # a coarse pixel may lie partly beyond the edge, and levels leave out what does not fill a pixel
    np.testing.assert_allclose(inked.min(axis=0), (top, left), atol=scale - 1)
    np.testing.assert_allclose(inked.max(axis=0), bottom_right, atol=2 * (scale - 1))


def test_dicom_slides_in_one_folder_have_their_own_identity(tmp_path):
    for name, image in (("one", blobs_on_gradients()), ("two", blobs_on_gradients()[::-1])):
        (tmp_path / name).mkdir()
        write_dicom(tmp_path / name / f"{name}.dcm", image, 0.25)
    alone = content_digest(tmp_path / "one/one.dcm")
    for file in sorted((tmp_path / "two").glob("*.dcm")):
        file.rename(tmp_path / "one" / file.name)
    assert len(list((tmp_path / "one").glob("*.dcm"))) == 4  # two levels each
    assert content_digest(tmp_path / "one/one.dcm") == alone
    assert content_digest(tmp_path / "one/two.dcm") != alone


@pytest.mark.parametrize(
    ("corner", "collection"),
    [
        ((203, 309), (804, 1200)),  # 203/4 = 50.75: OpenSlide places level 1 at 50
        ((204, 308), (803, 1201)),  # OpenSlide's factor of level 1 is (803/201 + 1201/301) / 2 = 3.9925
        ((203, 309), (801, 1202)),
    ],
)
def test_leica_levels_that_start_within_a_pixel_are_in_place(tmp_path, corner, collection):
    odd = Format("leica", "slide.scn", _scn(corner, collection), "leica", 0.25, 516, size_lv0=collection, corner=corner)
    _, info = written(tmp_path, odd)
    with Slide(info, "test") as slide:
        assert np.abs(misplacements(slide, corner, 4)).max() <= 0.3
