"""Tile stores: what h5py alone reads, every codec, and the same bytes for any number of threads."""

import h5py
import numpy as np
import pytest
import tifffile
from lesionmap.files.records import write_json
from lesionmap.geometry.tiling import TileSpec
from lesionmap.stain.table import StainMatch
from lesionmap.tiles.codec import TileCodec
from lesionmap.tiles.extraction import Extraction, extract_tiles
from lesionmap.tiles.store import Region, TileStore, new_store, packed
from pyramids import info_of, write_tiff
from stained import PROFILE

SPEC = TileSpec(region_px=128, tile_px=32, mpp=0.25)
LOSSLESS = [TileCodec(), TileCodec("jpegxl", 100)]
LOSSY = [TileCodec("jpeg", 90), TileCodec("jpegxl", 90)]


def smooth(n: int, side: int = 32) -> np.ndarray:
    """Different smooth colours in every image, none symmetric."""
    z, y, x = np.mgrid[:n, :side, :side]
    return np.stack([40 + 5 * x + 3 * z, 200 - 4 * y, 90 + 2 * x + 2 * y + z], axis=3).astype(np.uint8)


def region(n_tiles: int = 3) -> Region:
    masks = (np.arange(n_tiles * 32 * 32).reshape(n_tiles, 32, 32) // 100 % 4).astype(np.uint8)
    row_col = np.array([(index // 4, index % 4) for index in range(n_tiles)], np.uint8).reshape(-1, 2)
    return Region(
        (128.0, 256.0),
        smooth(1)[0],
        masks[0] if n_tiles else np.zeros((32, 32), np.uint8),
        np.where(np.arange(32) < 20, 1, 255).astype(np.uint8) * np.ones((32, 1), np.uint8),
        row_col,
        smooth(n_tiles),
        masks,
    )


def store(path, codec, *regions):
    with new_store(path, SPEC, {"slide": "s1"}, codec) as writer:
        for part in regions:
            writer.append(packed(part, codec))
    return path


@pytest.mark.parametrize("codec", LOSSLESS + LOSSY, ids=str)
def test_every_codec_gives_its_images_back(tmp_path, codec):
    part, empty = region(), region(0)
    with TileStore(store(tmp_path / "s.h5", codec, part, empty, part)) as opened:
        read = opened.region(2)
        np.testing.assert_array_equal(read.masks, part.masks)
        np.testing.assert_array_equal(read.low_mask, part.low_mask)
        np.testing.assert_array_equal(read.judged_mask, part.judged_mask)
        np.testing.assert_array_equal(read.row_col, part.row_col)
        for ours, put in ((read.images, part.images), (read.low_image, part.low_image)):
            assert ours.shape == put.shape
            difference = np.abs(ours.astype(int) - put)
            assert difference.max() == 0 if codec in LOSSLESS else 0 < difference.mean() < 3
        assert opened.region(1).images.shape == (0, 32, 32, 3)


def test_lossless_stores_are_read_by_h5py_alone(tmp_path):
    part = region()
    with h5py.File(store(tmp_path / "s.h5", TileCodec(), part, part)) as file:
        np.testing.assert_array_equal(file["high/image"][3:], part.images)
        np.testing.assert_array_equal(file["high/mask"][:3], part.masks)
        np.testing.assert_array_equal(file["low/image"][1], part.low_image)
        np.testing.assert_array_equal(file["low/mask"][0], part.low_mask)
        np.testing.assert_array_equal(file["low/judged_mask"][1], part.judged_mask)


@pytest.mark.parametrize("codec", [TileCodec(), *LOSSY], ids=str)
def test_stores_are_the_same_bytes_for_any_number_of_threads(tmp_path, codec):
    generator = np.random.default_rng(0)
    image = generator.integers(0, 60, (400, 700, 3)) + np.array([170, 80, 150])
    info = info_of(write_tiff(tmp_path / "s.tif", image.astype(np.uint8)))
    tifffile.imwrite(tmp_path / "tissue.tif", np.full((50, 88), 255, dtype=np.uint8))
    write_json(tmp_path / "a.geojson", {"type": "FeatureCollection", "features": []})
    settings = Extraction(SPEC, 0.0, 0.0, StainMatch(PROFILE, PROFILE, (1.0, 1.0)), codec)
    contents = []
    for threads in (1, 2, 7):
        output = tmp_path / f"{threads}.h5"
        extract_tiles(
            info,
            str(tmp_path / "tissue.tif"),
            str(tmp_path / "a.geojson"),
            str(output),
            settings,
            provenance={},
            threads=threads,
        )
        contents.append(output.read_bytes())
    assert contents[0] == contents[1] == contents[2]
    with TileStore(output) as opened:
        assert len(opened) == 24


def test_regions_with_little_tissue_are_left_out_unless_they_are_annotated(tmp_path):
    info = info_of(write_tiff(tmp_path / "s.tif", np.full((256, 512, 3), 200, np.uint8)))
    tissue = np.zeros((32, 64), np.uint8)
    tissue[0:8, 0:8] = 255  # a quarter of the first region
    tissue[0:4, 16:20] = 255  # a sixteenth of the second
    tissue[16:32, 48:64] = 255  # all of the last
    tifffile.imwrite(tmp_path / "tissue.tif", tissue)
    outline = [[300, 140], [301, 140], [301, 141], [300, 141], [300, 140]]  # one pixel
    lesion = {"properties": {"class": "lesion"}, "geometry": {"type": "Polygon", "coordinates": [outline]}}
    write_json(tmp_path / "a.geojson", {"type": "FeatureCollection", "features": [lesion]})
    settings = Extraction(SPEC, 0.1, 0.0, StainMatch(PROFILE, PROFILE, (1.0, 1.0)), TileCodec())
    extract_tiles(
        info, *(str(tmp_path / name) for name in ("tissue.tif", "a.geojson", "s.h5")), settings, provenance={}
    )
    with TileStore(tmp_path / "s.h5") as opened:
        regions = [opened.region(index) for index in range(len(opened))]
    assert [part.xy_lv0 for part in regions] == [(0, 0), (256, 128), (384, 128)]
    assert [len(part.images) for part in regions] == [4, 1, 16]
    assert regions[1].row_col.tolist() == [[0, 1]]
    assert np.argwhere(regions[1].masks[0]).tolist() == [[12, 12]]


def test_a_store_gives_back_what_was_put_in_and_the_same_bytes(tmp_path):
    parts = [region(5), region(0), region(16)]
    for name in ("one.h5", "two.h5"):
        with new_store(tmp_path / name, SPEC, {"slide": "s1"}, TileCodec()) as writer:
            for part in parts:
                writer.append(packed(part, TileCodec()))
    with TileStore(tmp_path / "one.h5") as opened:
        assert (len(opened), opened.spec, opened.slide) == (3, SPEC, "s1")
        for index, part in enumerate(parts):
            read = opened.region(index)
            assert read.xy_lv0 == part.xy_lv0
            for name in ("low_image", "low_mask", "judged_mask", "row_col", "images", "masks"):
                np.testing.assert_array_equal(getattr(read, name), getattr(part, name))
        expected = [[int((part.masks == code).sum()) for code in range(4)] for part in parts]
        assert opened.class_pixels().tolist() == expected
    assert (tmp_path / "one.h5").read_bytes() == (tmp_path / "two.h5").read_bytes()


def test_a_failing_writer_leaves_no_store(tmp_path):
    with pytest.raises(RuntimeError), new_store(tmp_path / "s.h5", SPEC, {"slide": "s"}, TileCodec()) as writer:
        writer.append(packed(region(), TileCodec()))
        raise RuntimeError
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("label", "facts", "same"), [(2, {}, True), (3, {}, False), (2, {"provenance": {"a": 2}}, False)]
)
def test_the_digest_tells_other_outlines_and_settings(tmp_path, label, facts, same):
    part, other = region(1), region(1)
    other.masks[part.masks == 2] = label
    digests = []
    for name, one, more in (("one.h5", part, {}), ("two.h5", other, facts)):
        with new_store(tmp_path / name, SPEC, {"slide": "s", "provenance": {"a": 1}} | more, TileCodec()) as writer:
            writer.append(packed(one, TileCodec()))
        with TileStore(tmp_path / name) as store:
            digests.append(store.digest())
    assert (digests[0] == digests[1]) == same
