from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from lesionmap.files.pictures import write_tiff as write_mask
from lesionmap.slides.slide import Slide, SlideInfo
from lesionmap.tissue.mask import TissueMask
from lesionmap.viewer.pyramid import ZoomLadder
from lesionmap.viewer.slide_tiles import JPEG_QUALITY, Content, SlideCutter, glass_colour
from pyramids import damage, info_of, write_tiff

GLASS = np.array([240, 241, 242], dtype=np.uint8)
TILE_PX = 64


def picture_of(tile: Path) -> bytes:
    """What a tile's script holds."""
    return b64decode(tile.read_text(encoding="ascii").split('"')[3])


def as_jpeg(pixels: np.ndarray) -> bytes:
    """The file of exactly these pixels."""
    return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=JPEG_QUALITY, colorsubsampling="420")


def framed(pixels: np.ndarray, side: int) -> np.ndarray:
    """Glass, with some pixels in its corner."""
    tile = np.full((side, side, 3), GLASS, dtype=np.uint8)
    tile[: pixels.shape[0], : pixels.shape[1]] = pixels
    return tile


def cutter_of(info: SlideInfo, slide: Slide, folder: Path, threads: int = 1) -> SlideCutter:
    return SlideCutter(slide, ZoomLadder(info.size_lv0, TILE_PX), GLASS, folder, threads)


def test_the_finest_tiles_are_what_is_read_there(noise: np.ndarray, noise_info: SlideInfo, tmp_path: Path) -> None:
    """517 × 333 px, so that the last tiles reach beyond the slide; zoom 2 has 4 level-0 pixels a pixel."""
    with Slide(noise_info, "test") as slide:
        cutter = cutter_of(noise_info, slide, tmp_path / "tiles")
        cutter.whole(2)
        first, right, below = (
            slide.read(corner, size, 4 * noise_info.mpp)
            for corner, size in (((0, 0), (64, 64)), ((512, 0), (1, 64)), ((0, 256), (64, 19)))
        )
    files = {str(path.relative_to(tmp_path / "tiles")): picture_of(path) for path in tmp_path.rglob("*.js")}
    assert set(files) == {f"2/{x}_{y}.js" for x in range(3) for y in range(2)} | {
        "1/0_0.js",
        "1/1_0.js",
        "0/0_0.js",
    }
    assert sorted(cutter.cut.tiles) == [
        (0, 0, 0),
        *((1, x, 0) for x in range(2)),
        *((2, x, y) for x in range(3) for y in range(2)),
    ]
    assert files["2/0_0.js"] == as_jpeg(first)
    assert files["2/2_0.js"] == as_jpeg(framed(right, 64))  # 5 level-0 pixels of it lie on the slide
    assert files["2/0_1.js"] == as_jpeg(framed(below, 64))
    assert cutter.cut.damaged == 0


def test_coarser_tiles_are_means_of_four_pixels(noise_info: SlideInfo, tmp_path: Path) -> None:
    with Slide(noise_info, "test") as slide:
        cutter_of(noise_info, slide, tmp_path / "tiles").whole(2)
        tiles = [framed(slide.read((x, 0), (64, 64), 4 * noise_info.mpp), 64) for x in (0, 256)]
        tiles += [framed(slide.read((x, 256), (64, 19), 4 * noise_info.mpp), 64) for x in (0, 256)]
    four = np.block([[[tiles[0]], [tiles[1]]], [[tiles[2]], [tiles[3]]]]).astype(np.uint16)
    means = (four.reshape(64, 2, 64, 2, 3).sum(axis=(1, 3)) + 2) // 4
    assert picture_of(tmp_path / "tiles/1/0_0.js") == as_jpeg(means.astype(np.uint8))


def test_details_are_read_from_the_slide(noise: np.ndarray, noise_info: SlideInfo, tmp_path: Path) -> None:
    with Slide(noise_info, "test") as slide:
        cutter = cutter_of(noise_info, slide, tmp_path / "tiles")
        cutter.details([(4, 8, 5), (4, 1, 2), (3, 0, 1)])
        half = slide.read((0, 128), (64, 64), 2 * noise_info.mpp)
    assert cutter.cut.tiles == [(3, 0, 1), (4, 1, 2), (4, 8, 5)]
    assert picture_of(tmp_path / "tiles/4/1_2.js") == as_jpeg(noise[128:192, 64:128])
    assert picture_of(tmp_path / "tiles/4/8_5.js") == as_jpeg(framed(noise[320:, 512:], 64))
    assert picture_of(tmp_path / "tiles/3/0_1.js") == as_jpeg(half)


def test_threads_change_nothing(noise_info: SlideInfo, tmp_path: Path) -> None:
    found = []
    for threads in (1, 3):
        with Slide(noise_info, "test") as slide:
            cutter = cutter_of(noise_info, slide, tmp_path / str(threads), threads)
            content = cutter.whole(2)
            cutter.details((4, x, y) for x in range(9) for y in range(6))
        files = {path.relative_to(tmp_path / str(threads)): picture_of(path) for path in tmp_path.rglob("*.js")}
        found.append((cutter.cut, content.flags.tolist(), sorted(files.values())))
        for path in tmp_path.rglob("*.js"):
            path.unlink()
    assert found[0] == found[1]


def drawn_slide(path: Path, *boxes: tuple[int, int, int, int], level: int = 120) -> SlideInfo:
    """A slide of 1000 × 700 px of glass with a few boxes (x, y, width, height) of another grey."""
    image = np.full((700, 1000, 3), GLASS, dtype=np.uint8)
    for x, y, width, height in boxes:
        image[y : y + height, x : x + width] = level
    return info_of(write_tiff(path, image))


@pytest.mark.parametrize(
    ("box", "level", "seen"),
    [
        ((130, 70, 20, 20), 120, {(2, 1)}),
        ((120, 70, 20, 20), 120, {(1, 1), (2, 1)}),
        ((130, 70, 50, 50), 228, {(2, 1)}),  # 14 levels darker than the blue of the glass
        ((130, 70, 50, 50), 231, set()),  # 11 levels: real glass varies as much
        ((128, 64, 128, 192), 255, set()),  # not scanned
        ((128, 64, 1, 1), 120, set()),  # noise
    ],
)
def test_tiles_of_glass_are_not_written(
    tmp_path: Path, box: tuple[int, int, int, int], level: int, seen: set[tuple[int, int]]
) -> None:
    info = drawn_slide(tmp_path / "slide.tif", box, level=level)
    with Slide(info, "test") as slide:
        cutter = cutter_of(info, slide, tmp_path / "tiles")
        content = cutter.whole(2)
    assert {(int(x), int(y)) for y, x in np.argwhere(content.flags)} == seen
    zooms = {(zoom, x >> 4 - zoom, y >> 4 - zoom) for x, y in seen for zoom in (2, 1, 0)}
    assert set(cutter.cut.tiles) == zooms
    assert len(list((tmp_path / "tiles").rglob("*.js"))) == len(zooms)
    for zoom in (4, 3, 2, 0):
        tiles = [(zoom, column, row) for column in range(16) for row in range(11)]
        assert {tile for tile in tiles if tile in content} == {(zoom, x >> 4 - zoom, y >> 4 - zoom) for x, y in seen}


def test_unreadable_parts_are_empty_and_counted(tmp_path: Path, noise: np.ndarray) -> None:
    path = write_tiff(tmp_path / "noise.tif", noise)
    info = info_of(path)
    damage(path, (70, 70))
    with Slide(info, "test") as slide:
        cutter = cutter_of(info, slide, tmp_path / "tiles")
        cutter.details([(4, 0, 0), (4, 1, 1), (3, 0, 0)])
    assert cutter.cut.damaged == 2
    assert picture_of(tmp_path / "tiles/4/0_0.js") == as_jpeg(noise[:64, :64])
    assert picture_of(tmp_path / "tiles/4/1_1.js") == as_jpeg(framed(noise[:0, :0], 64))
    assert (tmp_path / "tiles/3/0_0.js").exists()


def test_content_is_asked_of_any_zoom() -> None:
    flags = np.zeros((8, 16), dtype=np.bool_)
    flags[5, 12] = True
    content = Content(flags, native=4)
    inside = [(4, 12, 5), (3, 6, 2), (2, 3, 1), (1, 1, 0), (0, 0, 0)]
    assert all(tile in content for tile in inside)
    assert not any(tile in content for tile in [(4, 11, 5), (3, 6, 3), (2, 2, 1), (1, 0, 0), (4, 99, 99)])


def test_the_colour_of_the_glass_is_the_most_frequent_beside_tissue(tmp_path: Path) -> None:
    image = np.full((700, 1000, 3), GLASS, dtype=np.uint8)
    image[:200] = 255  # not scanned
    image[200:400] = 90  # tissue
    image[690:] = 30  # a shadow
    info = info_of(write_tiff(tmp_path / "slide.tif", image))
    codes = np.zeros((70, 100), dtype=np.uint8)
    codes[20:40] = 255
    write_mask(tmp_path / "tissue.tif", codes, mpp=2.5)
    with Slide(info, "test") as slide:
        assert glass_colour(slide, TissueMask(tmp_path / "tissue.tif", info)).tolist() == GLASS.tolist()
        codes[:] = 255
        write_mask(tmp_path / "all.tif", codes, mpp=2.5)
        assert glass_colour(slide, TissueMask(tmp_path / "all.tif", info)).tolist() == [255, 255, 255]
