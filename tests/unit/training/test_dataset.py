"""The training dataset: any process, any thread, any number of stores, with and without stored images."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import tifffile
from lesionmap.errors import ChangedSlideError
from lesionmap.files.records import read_json, write_json
from lesionmap.geometry.tiling import TileSpec
from lesionmap.slides.identity import sampled_digest, slide_state
from lesionmap.stain.table import StainMatch
from lesionmap.tiles.codec import TileCodec
from lesionmap.tiles.extraction import Extraction, extract_tiles, write_record
from lesionmap.tiles.store import UNJUDGED, Region, TileStore, new_store, packed
from lesionmap.tiles.summary import summarise_tiles
from lesionmap.tissue.quality import RegionQuality
from lesionmap.training import dataset as library
from lesionmap.training.dataset import RegionDataset
from pyramids import info_of, write_tiff
from stained import PROFILE
from torch.utils.data import DataLoader

SPEC = TileSpec(region_px=128, tile_px=32, mpp=0.25)
LESION_OUTLINE = [[150, 20], [310, 40], [280, 200], [170, 150], [150, 20]]


def store(path: Path, n_regions: int, quality: RegionQuality = UNJUDGED) -> str:
    rng = np.random.default_rng(int(path.stem))
    codec = TileCodec()
    metadata = {"slide": path.stem, "identity": "f" * 64, "stain": {"reference": {}}}
    with new_store(path, SPEC, metadata, codec) as writer:
        for index in range(n_regions):
            images = rng.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
            masks = rng.integers(0, 4, (2, 32, 32), dtype=np.uint8)
            places = np.array([[0, 1], [3, 2]], np.uint8)
            region = Region((128.0 * index, 0.0), images[1], masks[0], masks[1], places, images, masks, quality)
            writer.append(packed(region, codec))
    return str(path)


def assert_same(one: Region, other: Region) -> None:
    assert one.xy_lv0 == other.xy_lv0
    for name in ("low_image", "low_mask", "judged_mask", "row_col", "images", "masks"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert one.quality == other.quality


@pytest.fixture
def stores(tmp_path) -> list[str]:
    return [store(tmp_path / f"{number}.h5", 1 + number % 3) for number in range(20)]


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_get_what_the_process_gets(stores, start):
    dataset = RegionDataset(stores[:4])
    here = [dataset[number] for number in range(len(dataset))]
    loader = DataLoader(dataset, batch_size=None, num_workers=2, multiprocessing_context=start)
    there = list(loader)
    assert len(here) == len(there) == 7
    for one, other in zip(here, there, strict=True):
        assert_same(one, other)


def test_threads_share_it_and_few_files_are_open_at_once(stores):
    dataset = RegionDataset(stores)
    order = np.random.default_rng(0).permutation(np.tile(np.arange(len(dataset)), 10)).tolist()
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(dataset.__getitem__, order))
    held = {str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()}
    assert 0 < len(held & set(stores)) <= library.MOST_OPEN < len(stores)
    alone = {number: TileStore(dataset.metadata(number).path) for number in range(len(dataset))}
    for number, region in zip(order, read, strict=True):
        index = int(region.xy_lv0[0] / 128)
        assert_same(region, alone[number].region(index))


def test_a_store_that_is_written_anew_is_read_anew(tmp_path):
    dataset = RegionDataset([store(tmp_path / "1.h5", 2)])
    before = dataset[0]
    os.replace(store(tmp_path / "2.h5", 2), tmp_path / "1.h5")
    assert not np.array_equal(dataset[0].images, before.images)


def test_poor_regions_are_left_out_if_asked(tmp_path):
    paths = [
        store(tmp_path / "1.h5", 3, RegionQuality(blur=0.5)),
        store(tmp_path / "2.h5", 2, RegionQuality(pen=0.2)),
        store(tmp_path / "3.h5", 1, RegionQuality(fold=0.1)),
    ]
    assert len(RegionDataset(paths)) == len(RegionDataset(paths, {"blur": 1, "pen": 1, "fold": 1})) == 6
    assert len(RegionDataset(paths, {"blur": 0.49})) == 3
    left = RegionDataset(paths, {"blur": 0.5, "pen": 0.1, "fold": 0.05})
    assert [left.metadata(number).slide for number in range(len(left))] == ["1"] * 3
    assert [metadata.lesion_px > 0 for metadata in left.stores] == [True, False, False]


@pytest.fixture
def extracted(tmp_path):
    """The same slide of odd size, with tissue in its middle and a lesion, extracted with and without images."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 60, (301, 407, 3)) + np.array([170, 80, 150])
    info = info_of(write_tiff(tmp_path / "s.tif", image.astype(np.uint8)))
    tissue = np.zeros((38, 51), np.uint8)
    tissue[5:30, 9:40] = 255
    tifffile.imwrite(tmp_path / "tissue.tif", tissue)
    lesion = {
        "type": "Feature",
        "properties": {"class": "lesion"},
        "geometry": {"type": "Polygon", "coordinates": [LESION_OUTLINE]},
    }
    write_json(tmp_path / "a.geojson", {"type": "FeatureCollection", "features": [lesion]})
    match = StainMatch(PROFILE, PROFILE, (0.8, 1.3))
    for name, stored in (("stored", True), ("none", False)):
        settings = Extraction(SPEC, 0.0, 0.0, match, TileCodec(), stored)
        paths = [str(tmp_path / part) for part in ("tissue.tif", "a.geojson", f"{name}.h5")]
        extract_tiles(info, *paths, settings, provenance={}, location=str(tmp_path / "location.json"))
    seen = {"path": info.path, "state": slide_state(info.path), "sample": sampled_digest(info.path)}
    write_json(tmp_path / "location.json", seen)
    return tmp_path


def test_regions_are_the_same_with_and_without_stored_images(extracted):
    stored, none = (RegionDataset([str(extracted / f"{name}.h5")]) for name in ("stored", "none"))
    assert len(stored) == len(none) == 6
    for number in range(6):
        assert_same(stored[number], none[number])
        np.testing.assert_array_equal(stored.low_image(number), none.low_image(number))
    for number, region in enumerate(DataLoader(none, batch_size=None, num_workers=2)):
        assert_same(region, stored[number])
    with h5py.File(extracted / "none.h5") as file:
        assert "image" not in file["high"]


def test_without_stored_images_a_moved_slide_is_read_where_it_is_and_another_in_its_place_is_refused(extracted):
    seen = read_json(extracted / "location.json")
    before = RegionDataset([str(extracted / "stored.h5")])[2]
    (extracted / "archive").mkdir()
    (extracted / "s.tif").rename(extracted / "archive/moved.tif")
    write_json(extracted / "location.json", seen | {"path": str(extracted / "archive/moved.tif")})
    assert_same(RegionDataset([str(extracted / "none.h5")])[2], before)
    write_tiff(extracted / "archive/moved.tif", np.full((301, 407, 3), 200, np.uint8))
    with (
        pytest.raises(ChangedSlideError, match=r"moved\.tif is not the file that was inspected"),
        TileStore(extracted / "none.h5"),
    ):
        pass


def test_records_and_table_say_what_stores_hold(extracted):
    (extracted / "benchmarks").mkdir()
    (extracted / "benchmarks/s1.tsv").write_text("s\tmax_rss\n12.5\t400\n")
    write_record(str(extracted / "stored.h5"), str(extracted / "s1.json"))
    summarise_tiles([str(extracted / "s1.json")], str(extracted / "benchmarks"), str(extracted / "summary.tsv"))
    row = pd.read_csv(extracted / "summary.tsv", sep="\t").iloc[0]
    with TileStore(extracted / "stored.h5") as opened:
        regions = [opened.region(index) for index in range(len(opened))]
    masks = np.concatenate([region.masks for region in regions])
    assert (row["slide"], row["regions"], row["tiles"]) == ("s1", 6, len(masks))
    assert row["lesion_mm2"] == pytest.approx((masks == 1).sum() * 0.0625 / 1e6, abs=1e-6)
    assert row["background_mm2"] == pytest.approx((masks == 0).sum() * 0.0625 / 1e6, abs=1e-6)
    assert (row["vessel_mm2"], row["unreadable_regions"], row["seconds"]) == (0, 0, 12.5)
    assert row["bytes"] == (extracted / "stored.h5").stat().st_size
    assert read_json(extracted / "s1.json")["unreadable"] == []
    summarise_tiles([str(extracted / "s1.json")], str(extracted / "absent"), str(extracted / "summary.tsv"))
    assert pd.read_csv(extracted / "summary.tsv", sep="\t")["seconds"].isna().all()
