"""Glass, tissue and stain on slides as scanners give them: the real slides, and copies of them in other light."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import tifffile
from lesionmap.files.records import read_json
from lesionmap.geometry.tiling import map_size
from lesionmap.maps.map_file import MapFile
from lesionmap.slides.inspection import inspect_slide
from lesionmap.slides.slide import Slide, SlideInfo, load_info
from lesionmap.stain.fit import FitFiles, StainSettings, angles, fit_slide
from lesionmap.stain.profile import StainProfile
from lesionmap.stain.table import StainMatch, apply_table
from lesionmap.tissue.detection import TissueSettings, find_tissue, tissue_map
from lesionmap.tissue.mask import FOLD, TissueMask, tiles_with_tissue
from pydicom.uid import generate_uid
from pyramids import INSPECTION, info_of, inspection_files, row
from scipy import ndimage
from vendor_slides import padded_to_tiles, reduce, write_instance

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results"
DATA = ROOT.parent / "shared/data"
MPP = {
    "cases/fatty_node_2um.tif": 2.0175,
    "cases/grey_glass_biopsy.tif": 2.0,
    "cases/dicom_j2k.dcm": 2.0,
    "slides/metaplasia_he.tif": 0.504,
    "slides/tcga_cr_7395.svs": 0.5,
    "slides/cmu_small_region.svs": 0.499,
    "slides/camelyon_1.tif": 0.25,
    "slides/camelyon_4.tif": 0.25,
}
SETTINGS = TissueSettings(8.0, 20_000, 5_000)
# The colour of each slide's own glass, by eye.
GLASS = {
    "slides/metaplasia_he.tif": (239, 237, 240),
    "slides/cmu_small_region.svs": (246, 243, 243),
    "slides/camelyon_1.tif": (228, 224, 224),
    "cases/dicom_j2k.dcm": (228, 231, 231),
}
LIGHTS = [(187, 187, 183), (200, 190, 205), (220, 235, 222), (240, 228, 215)]

pytestmark = pytest.mark.skipif(not DATA.exists(), reason="the real slides of ../shared/data are absent")


@cache
def overview(name: str, mpp: float) -> np.ndarray:
    info = info_of(DATA / name, mpp=MPP[name])
    with Slide(info, "test") as slide:
        return slide.read_where_possible((0, 0), map_size(info.size_lv0, mpp / info.mpp), mpp)[0]


def in_light(tmp_path: Path, name: str, light: tuple[int, int, int]) -> tuple[Path, float]:
    """A copy of a slide as if its glass had another colour, JPEG, at most 1 µm/px."""
    mpp = max(1.0, MPP[name]) if "camelyon" not in name else MPP[name]
    image = overview(name, mpp) * (np.array(light) / GLASS[name])
    tifffile.imwrite(
        tmp_path / "copy.tif",
        np.rint(image).clip(0, 255).astype(np.uint8),
        tile=(256, 256),
        photometric="rgb",
        compression="jpeg",
        compressionargs={"level": 90},
    )
    return tmp_path / "copy.tif", mpp


def fitted(tmp_path: Path, path: Path, mpp: float) -> tuple[SlideInfo, TissueMask, StainProfile]:
    info = info_of(path, mpp=mpp)
    find_tissue(info, str(tmp_path / "tissue.tif"), SETTINGS)
    files = FitFiles(*(str(tmp_path / part) for part in ("fit.json", "sample.png", "tissue.png", "all.png")))
    fit_slide(info, str(tmp_path / "tissue.tif"), files, StainSettings("vahadane", 200_000, 0), {})
    profile = StainProfile.of(read_json(files.profile)["profile"])
    return info, TissueMask(tmp_path / "tissue.tif", info), profile


def glass_after(info: SlideInfo, tissue: TissueMask, profile: StainProfile, mpp: float) -> np.ndarray:
    """Median colour of glass, 30 µm and more from tissue and ink, where both stains are made twice as strong."""
    with Slide(info, "test") as slide:
        image, _ = slide.read_where_possible((0, 0), map_size(info.size_lv0, mpp / info.mpp), mpp)
    codes = tissue.codes_at((0, 0), (image.shape[1], image.shape[0]), mpp / info.mpp)
    bare = ndimage.binary_erosion(codes == 0, iterations=max(1, round(30 / mpp)))
    normalised = apply_table(StainMatch(profile, profile, (2.0, 2.0)).table(), image)[bare]
    return np.median(normalised, axis=0)


@pytest.mark.parametrize("name", GLASS)
def test_in_any_light_glass_is_white_and_the_stain_the_same(tmp_path, name):
    *_, white = fitted(tmp_path, *in_light(tmp_path, name, (253, 253, 253)))
    for light in LIGHTS:
        info, tissue, found = fitted(tmp_path, *in_light(tmp_path, name, light))
        assert found.verdict == "ok"
        assert angles(found.basis, white.basis).max() <= 2
        for mpp in (8.0, 2.5):
            assert np.abs(glass_after(info, tissue, found, mpp) - 255).max() <= 3


@pytest.mark.parametrize("name", [name for name in MPP if "camelyon" not in name])
def test_glass_of_the_slides_themselves_is_white(tmp_path, name):
    info, tissue, found = fitted(tmp_path, DATA / name, MPP[name])
    assert found.verdict == "ok"
    for mpp in (8.0, 2.5):
        assert np.abs(glass_after(info, tissue, found, mpp) - 255).max() <= 3


@pytest.mark.parametrize("name", MPP)
def test_the_share_of_tissue_does_not_depend_on_the_resolution(name):
    share = {}
    for mpp in (6.0, 7.0, 8.0, 10.0, 12.0):
        codes = tissue_map(overview(name, mpp), TissueSettings(mpp, SETTINGS.min_area_um2, SETTINGS.min_hole_um2))
        share[mpp] = (codes >= FOLD).mean()
    assert max(abs(one / share[8.0] - 1) for one in share.values()) <= 0.1


def test_boxes_drawn_by_eye_are_what_they_show():
    """As `make bench-tissue` measures it."""
    shares: dict[str, list[float]] = {}
    boxes = json.loads((ROOT / "benchmarks/tissue_boxes.geojson").read_text())["features"]
    codes = {Path(name).name: tissue_map(overview(name, 8.0), SETTINGS) >= FOLD for name in MPP}
    for box in boxes:
        name = box["properties"]["slide"]
        if name in codes:
            scale = 8.0 / next(mpp for path, mpp in MPP.items() if path.endswith(name))
            corners = np.array(box["geometry"]["coordinates"][0]) / scale
            left, top = np.floor(corners.min(axis=0)).astype(int)
            right, bottom = np.ceil(corners.max(axis=0)).astype(int)
            shares.setdefault(box["properties"]["class"], []).append(codes[name][top:bottom, left:right].mean())
    means = {label: np.mean(found) for label, found in shares.items()}
    assert means["tissue"] >= 0.95
    assert means["fat"] >= 0.85
    assert means["glass"] <= 0.05


@pytest.mark.parametrize("name", ["slides/metaplasia_he.tif", "slides/tcga_cr_7395.svs", "cases/dicom_j2k.dcm"])
def test_tiles_that_are_kept_show_tissue(tmp_path, name):
    """Tiles of 128 µm: some of their pixels are at least as dense or coloured as a cell membrane."""
    info = info_of(DATA / name, mpp=MPP[name])
    find_tissue(info, str(tmp_path / "tissue.tif"), SETTINGS)
    tissue, side = TissueMask(tmp_path / "tissue.tif", info), 128 / info.mpp
    columns, rows = map_size(info.size_lv0, side)
    empty = kept = 0
    with Slide(info, "test") as slide:
        for row, column in np.ndindex(rows, columns):
            corner = (column * side, row * side)
            if tiles_with_tissue(tissue.codes_at(corner, (64, 64), side / 64), 1).any():
                density = -np.log(slide.read(corner, (64, 64), 2.0).clip(1) / np.array(tissue.glass))
                kept, empty = kept + 1, empty + int(np.percentile(density.mean(axis=2), 99.8) < 0.05)
    assert kept > 100
    assert empty <= 0.002 * kept


def test_maps_are_0_without_tissue():
    maps = sorted(RESULTS.glob("lesions/*/probability.ome.tif"))
    assert maps
    for path in maps:
        info = load_info(*(RESULTS / f"slides/{part}/{path.parent.name}.json" for part in ("info", "location")))
        tissue = TissueMask(RESULTS / f"tissue/{path.parent.name}.tif", info)
        with MapFile(path) as mapped:
            probability, scale = mapped[0 : mapped.shape[0]], mapped.mpp / info.mpp
        beside = ndimage.binary_dilation(tissue.mask, np.ones((3, 3)))
        height, width = probability.shape
        y = ((np.arange(height) + 0.5) * scale / tissue.scale[1]).astype(int)
        x = ((np.arange(width) + 0.5) * scale / tissue.scale[0]).astype(int)
        far = ~beside[np.minimum(y, beside.shape[0] - 1)[:, None], np.minimum(x, beside.shape[1] - 1)]
        assert probability.any()
        assert not probability[far].any()


def test_a_dicom_level_without_its_full_resolution_is_said_to_be_one(tmp_path):
    path = DATA / "cases/dicom_j2k.dcm"
    records = []
    for mpp in (None, 2.0):
        inspect_slide(row(path, mpp=mpp, upsample=True), inspection_files(tmp_path), INSPECTION)
        records.append(read_json(tmp_path / "record.json"))
    refused, given = records
    assert refused["verdict"] == "quarantined"
    assert "28.97 µm/px, 876.8 dpi, is that of a screen or an overview" in refused["finding"]
    assert given["resolution"]["mpp"] == 2
    missing = "its finest level (28.97 µm/px) is resampled: the file of the full resolution is not in its folder"
    assert missing in given["flags"]
    assert "2 µm/px (slide sheet) contradicts the file's own 28.97" in given["flags"]


def test_tissue_of_a_real_scan_is_the_same_on_levels_padded_as_in_dicom(tmp_path):
    image = tifffile.imread(DATA / "slides/camelyon_1.tif", level=0)[:1900, :2900]
    masks = []
    for name, padded in (("plain", False), ("padded", True)):
        (tmp_path / name).mkdir()
        series = generate_uid()
        for factor in (1, 8, 32):
            level = reduce(image, factor)
            write_instance(
                tmp_path / name / f"{factor}",
                padded_to_tiles(level, even=True) if padded and factor > 1 else level,
                0.25 * factor,
                resampled=factor > 1,
                SeriesInstanceUID=series,
            )
        inspect_slide(row(tmp_path / name / "1"), inspection_files(tmp_path), INSPECTION)
        info = load_info(tmp_path / "info.json", tmp_path / "location.json")
        assert info.downsamples == (1, 8, 32)
        find_tissue(info, str(tmp_path / "tissue.tif"), SETTINGS)
        masks.append(TissueMask(tmp_path / "tissue.tif", info).codes_at((0, 0), (725, 475), 4.0) > 0)
    assert masks[0].mean() > 0.2
    assert (masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum() >= 0.99
