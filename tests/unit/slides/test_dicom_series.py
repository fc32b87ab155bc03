"""The files of DICOM slides: padded levels, missing files, several series, concatenations, and what is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from lesionmap.slides.cache import CacheSettings, cached_slide
from lesionmap.slides.dicom_series import series_flags, series_of, spacing_factors
from lesionmap.slides.file_checks import why_unopened
from lesionmap.slides.identity import content_digest, slide_parts
from lesionmap.slides.inspection import inspect_slide
from lesionmap.slides.slide import Slide, load_info, open_slide
from lesionmap.tissue.detection import TissueSettings, find_tissue
from lesionmap.tissue.mask import TissueMask
from pydicom import Dataset
from pydicom.uid import CTImageStorage, JPEGLSLossless, generate_uid
from pyramids import INSPECTION, info_of, inspection_files, row, slides_config
from scipy.ndimage import gaussian_filter
from vendor_slides import TILE_PX, dicom_level, encode, padded_to_tiles, reduce, tiles, write_instance

MPP = 0.5
BLOCK = (603, 301, 803, 401)  # left, top, right, bottom in level-0 pixels


def tissue(height: int = 900, width: int = 1100) -> np.ndarray:
    """Structured purple in the block, on glass; no tile divides the size."""
    grain = gaussian_filter(np.random.default_rng(3).normal(0, 1, (height, width)), 4)
    image = np.full((height, width, 3), 244, dtype=np.uint8)
    left, top, right, bottom = BLOCK
    structure = (25 * grain / grain.std())[top:bottom, left:right, None].clip(-60, 60)
    image[top:bottom, left:right] = structure + np.array([170, 110, 165])
    return image


def write_series(folder, image, factors=(1, 4, 16), *, padded=True, names="{}.dcm", **attributes) -> Path:
    """A DICOM slide, each coarser level padded to an even number of tiles; returns the file of the finest level."""
    folder.mkdir(exist_ok=True)
    series = generate_uid()
    for factor in factors:
        level = reduce(image, factor)
        write_instance(
            folder / names.format(factor),
            padded_to_tiles(level, even=True) if padded and factor > 1 else level,
            MPP * factor,
            resampled=factor > 1,
            **{"SeriesInstanceUID": series} | attributes,
        )
    return folder / names.format(factors[0])


def inspected(tmp_path, path, **changes):
    inspect_slide(row(path, **changes), inspection_files(tmp_path), replace(INSPECTION))
    return json.loads((tmp_path / "record.json").read_text())


def spacing(*along_y_and_x_mm) -> dict:
    """PixelSpacing with these decimals, as an attribute to replace."""
    measures, groups = Dataset(), Dataset()
    measures.PixelSpacing = list(along_y_and_x_mm)
    groups.PixelMeasuresSequence = [measures]
    return {"SharedFunctionalGroupsSequence": [groups]}


def test_levels_padded_to_whole_tiles_have_their_own_factors(tmp_path):
    path = write_series(tmp_path / "s", tissue())
    with open_slide(str(path), "s", "test") as handle:
        assert handle.level_dimensions == (
            (1100, 900),
            (512, 256),
            (256, 256),
        )  # 4×2 tiles for 2.1×1.8, 2×2 for 0.5×0.4
        assert handle.level_downsamples[1] == pytest.approx((1100 / 512 + 900 / 256) / 2)
    record = inspected(tmp_path, path)
    assert record["verdict"] == "ok"
    assert record["info"]["downsamples"] == [1, 4, 16]
    assert record["flags"] == []
    assert record["resolution"] == {"mpp": 0.5, "source": "file", "objective_power": None}


@pytest.mark.parametrize("factor", [4, 5, 16])  # 5: 2.5 µm/px, from the level of 2
def test_pixels_of_padded_levels_are_read_in_their_place(tmp_path, factor):
    image = tissue()
    info = info_of(write_series(tmp_path / "s", image))
    means = reduce(image, factor).astype(int)
    with Slide(info, "test") as slide:
        assert info.level_for(MPP * factor) == {4: 1, 5: 1, 16: 2}[factor]
        found = slide.read((0, 0), means.shape[1::-1], MPP * factor)
        x, y = 600 // factor // 2 * 2, 288 // factor // 2 * 2
        part = slide.read((x * factor, y * factor), (9, 5), MPP * factor)
    assert np.abs(found - means).mean() < 1.5
    assert np.abs(part - means[y : y + 5, x : x + 9]).mean() < 6
    dark = np.argwhere(found[..., 1] < 170)
    expected = np.argwhere(means[..., 1] < 170)
    np.testing.assert_allclose(dark.min(axis=0), expected.min(axis=0), atol=1)
    np.testing.assert_allclose(dark.max(axis=0), expected.max(axis=0), atol=1)


@pytest.mark.parametrize("fill", [0, 90])
def test_padding_beyond_level_0_is_white(tmp_path, fill):
    series, image = generate_uid(), tissue()
    path = tmp_path / "1.dcm"
    write_instance(path, image, MPP, resampled=False, SeriesInstanceUID=series)
    coarse = padded_to_tiles(reduce(image, 4), even=False, fill=fill)
    write_instance(tmp_path / "4.dcm", coarse, MPP * 4, resampled=True, SeriesInstanceUID=series)
    with Slide(info_of(path), "test") as slide:
        box = slide.read((1040, 840), (40, 40), MPP * 4)  # 1040/4 = 260 of 275 columns, 210 of 225 rows
    assert (box[16:] == 255).all()
    assert (box[:, 16:] == 255).all()
    assert box[15, :15].min() > 245  # OpenSlide starts a fraction of a pixel away
    assert np.abs(box[:14, :14].astype(int) - 244).max() < 30


def tissue_of(tmp_path, path) -> np.ndarray:
    inspect_slide(row(path), inspection_files(tmp_path), INSPECTION)
    info = load_info(tmp_path / "info.json", tmp_path / "location.json")
    find_tissue(info, str(tmp_path / "tissue.tif"), TissueSettings(8.0, 500, 500))
    return TissueMask(tmp_path / "tissue.tif", info).codes_at((0, 0), (275, 225), 4.0) > 0


def test_tissue_found_on_padded_levels_is_that_of_level_0(tmp_path):
    image = tissue()
    found = tissue_of(tmp_path, write_series(tmp_path / "padded", image))
    plain = tissue_of(tmp_path, write_series(tmp_path / "plain", image, padded=False))
    truth = np.zeros((225, 275), dtype=bool)
    truth[301 // 4 : 401 // 4, 603 // 4 : 803 // 4] = True
    assert (found & plain).sum() / (found | plain).sum() > 0.98
    np.testing.assert_allclose(np.argwhere(found).mean(axis=0), np.argwhere(truth).mean(axis=0), atol=4)


def test_sizes_that_fit_a_wrong_factor_do_not_mislead(tmp_path):
    image = tissue(1536, 1536)  # 12×12 tiles; 1536/8 = 192 px, 1.5 tiles, padded to 2: 1536/256 = 6
    path = write_series(tmp_path / "s", image, (1, 8))
    assert inspected(tmp_path, path)["info"]["downsamples"] == [1, 8]
    plain = write_series(tmp_path / "t", image, (1, 6))
    record = inspected(tmp_path, plain)
    assert record["info"]["level_sizes"][1] == [256, 256]
    assert record["info"]["downsamples"] == [1, 6]
    assert record["flags"] == []


@pytest.mark.parametrize(("true", "flags"), [(8, 0), (6, 1)])
def test_without_pixel_spacing_the_pixels_decide(tmp_path, true, flags):
    image = tissue(1536, 1536)
    path = write_series(tmp_path / "s", image, (1, true), SharedFunctionalGroupsSequence=None)
    record = inspected(tmp_path, path, mpp=MPP)
    assert record["info"]["level_sizes"][1] == [256, 256]
    assert record["info"]["downsamples"] == [1, true]
    assert len(record["flags"]) == flags
    if flags:
        assert record["flags"] == [
            "level 1 may be padded: its factor is 8 or 16 or 6 by its size and µm/px; 6 is used, as its pixels show"
        ]


def test_a_wrong_pixel_spacing_gives_way_to_the_pixels_and_is_flagged(tmp_path):
    path = write_series(tmp_path / "s", tissue(), (1, 4), padded=False)
    series = series_of(path)[0].series
    level = reduce(tissue(), 4)
    write_instance(tmp_path / "s/4.dcm", level, MPP * 8, resampled=True, SeriesInstanceUID=series)  # 8 is wrong
    record = inspected(tmp_path, path)
    assert record["info"]["downsamples"] == [1, 4]
    said = "level 1 may be padded: its factor is 8 or 4 by its size and µm/px; 4 is used"
    assert record["flags"][-1].startswith(said)


def test_a_pixel_spacing_that_the_size_rules_out_is_flagged(tmp_path):
    path = write_series(tmp_path / "s", tissue(), (1, 4), padded=False)
    series = series_of(path)[0].series  # by a factor of 2, the level would have 550×450 px
    write_instance(tmp_path / "s/4.dcm", reduce(tissue(), 4), MPP * 2, resampled=True, SeriesInstanceUID=series)
    record = inspected(tmp_path, path)
    assert record["info"]["downsamples"] == [1, 4]
    assert record["flags"] == ["level 1's PixelSpacing makes its factor 2, and its size 4"]


@pytest.mark.parametrize(
    ("fine", "coarse", "expected", "rounding"),
    [
        (("0.00025", "0.00025"), ("0.0040", "0.0040"), 16, 0.5e-5 / 0.00025 + 0.5e-4 / 0.004),
        (("0.000253", "0.000251"), ("0.004048", "0.004016"), 16, 0.5e-6 / 0.000251 + 0.5e-6 / 0.004016),  # rows first
        (("0.0003", "0.0003"), ("0.0040", "0.0040"), 40 / 3, 0.05),
        (("2.5e-4", "2.5e-4"), ("1.25e-3", "1.25e-3"), 5, 0.5e-5 / 2.5e-4 + 0.5e-5 / 1.25e-3),
    ],
)
def test_spacing_factors_know_how_far_rounding_may_change_them(tmp_path, fine, coarse, expected, rounding):
    series, image = generate_uid(), tissue(300, 400)
    write_instance(tmp_path / "1", image, MPP, resampled=False, SeriesInstanceUID=series, **spacing(*fine))
    write_instance(
        tmp_path / "16", reduce(image, 16), MPP, resampled=True, SeriesInstanceUID=series, **spacing(*coarse)
    )
    found = series_of(tmp_path / "1")
    assert found[0].spacing_um == pytest.approx((float(fine[1]) * 1000, float(fine[0]) * 1000))
    (of_0, of_1) = spacing_factors(found, [(400, 300), (25, 18)])
    assert of_0[0] == 1
    assert of_1[0] == pytest.approx(expected)
    assert of_1[1] == pytest.approx(rounding)
    assert spacing_factors(found, [(400, 300), (24, 18)])[1] is None


def test_a_folder_without_the_full_resolution_is_read_by_its_own_mpp_and_flagged(tmp_path):
    write_series(tmp_path / "s", tissue(), (1, 2, 4, 8), padded=False)
    (tmp_path / "s/1.dcm").unlink()
    record = inspected(tmp_path, tmp_path / "s/4.dcm")
    assert record["verdict"] == "ok"
    assert record["info"]["size_lv0"] == [550, 450]
    assert record["info"]["mpp"] == 1.0
    missing = "its finest level (1 µm/px) is resampled: the file of the full resolution is not in its folder"
    assert record["flags"] == [missing]
    record = inspected(tmp_path, tmp_path / "s/4.dcm", mpp=0.5)  # areas would be 4 times too small
    assert missing in record["flags"]
    contradiction = "0.5 µm/px (slide sheet) contradicts the file's own 1, 2-fold: it may be that of another level"
    assert contradiction in record["flags"]


def test_a_missing_level_between_others_is_flagged(tmp_path):
    path = write_series(tmp_path / "s", tissue(), (1, 2, 4, 8), padded=False)
    assert inspected(tmp_path, path)["flags"] == []
    (tmp_path / "s/2.dcm").unlink()
    assert inspected(tmp_path, path)["flags"] == []  # 1, 4, 8: scanners do that
    series = series_of(path)
    sizes = [(1100, 900), (550, 450)]
    assert series_flags(series, [*sizes, *[(9, 9)] * 3], [1, 2, 8, 16, 32]) == [
        "a level between the factors 2 and 8 is missing: its other levels are 2 apart"
    ]
    for usual in ([1, 4, 16, 64, 256], [1, 4, 16, 32, 64], [1, 4, 16, 32], [1, 2, 8], [1]):
        assert series_flags(series, [*sizes, *[(9, 9)] * 9][: len(usual)], usual) == []


def test_contradictory_volumes_and_more_optical_paths_are_flagged(tmp_path):
    def flags(**attributes):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        path = write_series(folder, tissue(), (1,), **attributes)
        return inspected(tmp_path, path)["flags"]

    assert flags(ImagedVolumeWidth=0.55, ImagedVolumeHeight=0.45) == []  # 1100 and 900 px of 0.5 µm
    assert flags(ImagedVolumeWidth=0.48, ImagedVolumeHeight=0.45) == []  # 140 px, 1.1 tiles, of padding
    said = "its PixelSpacing (0.5 µm/px) contradicts its imaged volume"
    assert flags(ImagedVolumeWidth=0.275, ImagedVolumeHeight=0.225) == [f"{said} (0.25 µm/px)"]
    assert flags(ImagedVolumeWidth=1.1, ImagedVolumeHeight=0.9) == [f"{said} (1 µm/px)"]
    assert flags(NumberOfOpticalPaths=2) == ["only the first of its 2 optical paths is read"]


def test_the_files_of_a_slide_are_those_of_its_series_whatever_their_names(tmp_path):
    path = write_series(tmp_path, tissue(), names="IM{}")
    uid = series_of(path)[0].series
    (tmp_path / "IM4").rename(tmp_path / "level.DCM")
    label = {"ImageType": ["ORIGINAL", "PRIMARY", "LABEL", "NONE"], "SeriesInstanceUID": uid}
    write_instance(tmp_path / "label.ima", tissue()[:99, :90], 0.5, resampled=False, **label)
    expected = {"IM1", "level.DCM", "IM16", "label.ima"}
    for series, folder in (("other", ""), (f"{uid}.1", ""), (uid, "sub")):
        (tmp_path / folder).mkdir(exist_ok=True)
        other = tmp_path / folder / f"{series}.dcm"
        write_instance(other, tissue()[:99, :98], 0.5, resampled=False, SeriesInstanceUID=series)
    (tmp_path / "notes.dcm").write_text("no image")
    assert {part.name for part in slide_parts(path)} == expected
    assert slide_parts(tmp_path / "level.DCM") == slide_parts(path) == sorted(slide_parts(path))
    with open_slide(str(path), "s", "test") as handle:
        assert len(handle.level_dimensions) == 3
        assert set(handle.associated_images) == {"label"}


def test_the_digest_of_a_slide_is_that_of_all_its_files_as_they_are_now(tmp_path):
    path = write_series(tmp_path, tissue(), names="IM{}")
    whole = content_digest(path)
    coarse = (tmp_path / "IM16").read_bytes()
    (tmp_path / "IM16").write_bytes(coarse[:-40] + bytes(40))
    assert content_digest(path) != whole
    (tmp_path / "IM16").write_bytes(coarse)
    assert content_digest(path) == whole
    (tmp_path / "IM16").unlink()
    assert content_digest(path) != whole


def test_copies_of_a_slide_have_all_its_files(tmp_path):
    (tmp_path / "in").mkdir()
    path = write_series(tmp_path / "in", tissue(), names="IM{}")
    (tmp_path / "in/notes.txt").write_text("of no slide")
    inspected(tmp_path, path)
    copies = CacheSettings("all", str(tmp_path / "copies"), 1)
    files = inspection_files(tmp_path)
    with cached_slide(files.info, files.location, slides_config(copies)) as info, Slide(info, "test"):
        assert Path(info.path).parent != path.parent
        assert {part.name for part in Path(info.path).parent.iterdir()} == {"IM1", "IM4", "IM16"}


def write_parts(folder: Path, image: np.ndarray, n: int) -> list[Path]:
    """One level as a concatenation of files, each with some of its tiles."""
    series, concatenation = generate_uid(), generate_uid()
    frames = [encode(tile, quality=100, subsampling=1) for tile in tiles(image)]
    length, paths = -(-len(frames) // n), []
    for part in range(n):
        dataset = dicom_level(image.shape, MPP, frames[part * length : (part + 1) * length], resampled=False)
        dataset.SeriesInstanceUID, dataset.ConcatenationUID = series, concatenation
        dataset.InConcatenationNumber, dataset.InConcatenationTotalNumber = part + 1, n
        dataset.ConcatenationFrameOffsetNumber = part * length
        dataset.SOPInstanceUIDOfConcatenationSource = f"{series}.9"
        paths.append(folder / f"part{part + 1}.dcm")
        dataset.save_as(paths[-1], enforce_file_format=True)
    return paths


def test_concatenations_are_read_and_must_be_complete(tmp_path):
    image = tissue()
    paths = write_parts(tmp_path, image, 3)  # 9×8 tiles: 24 a file
    record = inspected(tmp_path, paths[1])
    assert (record["verdict"], record["flags"]) == ("ok", [])
    with Slide(load_info(tmp_path / "info.json", tmp_path / "location.json"), "test") as slide:
        found = slide.read((0, 0), (1100, 900), MPP)
    assert np.abs(found.astype(int) - image).mean() < 1
    assert slide_parts(paths[0]) == paths
    paths[1].unlink()
    record = inspected(tmp_path, paths[2])
    assert record["finding"] == f"part 2 of the 3 parts of {paths[0]}'s level is not in its folder"
    assert record["remedy"] == "copy all files of the slide's series into one folder"


def test_two_levels_of_one_size_are_refused_and_the_remedy_works(tmp_path):
    path = write_series(tmp_path / "s", tissue(), (1, 8, 16))  # both 2×2 tiles
    record = inspected(tmp_path, path)
    fine, coarse = tmp_path / "s/8.dcm", tmp_path / "s/16.dcm"
    assert record["finding"] == (
        f"{fine} and {coarse} are different levels of one series and both have 256×256 px, which OpenSlide does "
        "not read"
    )
    assert record["remedy"].startswith(f"move {coarse}, ")
    shutil.move(coarse, tmp_path / "elsewhere.dcm")
    assert inspected(tmp_path, path)["info"]["downsamples"] == [1, 8]


def test_copies_of_a_file_are_no_second_level(tmp_path):
    path = write_series(tmp_path / "s", tissue(), (1, 4))
    shutil.copy(path, tmp_path / "s/copy.dcm")
    assert inspected(tmp_path, path)["flags"] == []


@pytest.mark.parametrize(
    ("attributes", "finding", "remedy"),
    [
        ({"TotalPixelMatrixFocalPlanes": 3}, "has 3 focal planes, and OpenSlide reads files of one", "one focal plane"),
        ({"SamplesPerPixel": 1}, "has 1 channels, not the three of RGB", "8-bit RGB"),
        (
            {"ImageType": ["ORIGINAL", "PRIMARY", "OVERVIEW", "NONE"], "TotalPixelMatrixRows": 128},
            "has no level of its slide (ImageType ORIGINAL/PRIMARY/OVERVIEW/NONE)",
            "copy all files",
        ),
    ],
)
def test_dicom_that_openslide_does_not_read_is_refused_with_its_reason(tmp_path, attributes, finding, remedy):
    path = write_series(tmp_path / "s", tissue(), (1,), **attributes)
    record = inspected(tmp_path, path)
    assert record["verdict"] == "quarantined"
    assert finding in record["finding"]
    assert remedy in record["remedy"]


def test_other_compressions_and_other_kinds_of_dicom_are_named(tmp_path):
    for name, syntax, kind in (("jls", JPEGLSLossless, None), ("ct", None, CTImageStorage)):
        dataset = dicom_level((128, 128, 3), MPP, [b"\0" * 8], resampled=False)
        dataset.SeriesInstanceUID = generate_uid()
        dataset.file_meta.TransferSyntaxUID = syntax or dataset.file_meta.TransferSyntaxUID
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = kind or dataset.SOPClassUID
        dataset.save_as(tmp_path / name, enforce_file_format=True)
    finding = inspected(tmp_path, tmp_path / "jls")["finding"]
    assert (
        finding == f"{tmp_path}/jls is compressed as JPEG-LS Lossless Image Compression, which OpenSlide does not read"
    )
    finding = inspected(tmp_path, tmp_path / "ct")["finding"]
    assert finding == f"{tmp_path}/ct is DICOM of another kind (CT Image Storage), no whole-slide image"
    (tmp_path / "cut.dcm").write_bytes(bytes(128) + b"DICM" + b"\xff" * 20)
    assert why_unopened(str(tmp_path / "cut.dcm")) is not None


def test_sparse_tiles_that_are_missing_are_white(tmp_path):
    image = tissue()
    image[:128, :256] = (90, 30, 120)
    frames = [encode(tile, quality=100, subsampling=1) for tile in tiles(image)]
    kept = [index for index in range(len(frames)) if index != 1]
    dataset = dicom_level(image.shape, MPP, [frames[index] for index in kept], resampled=False)
    dataset.SeriesInstanceUID, dataset.DimensionOrganizationType = generate_uid(), "TILED_SPARSE"
    dataset.PerFrameFunctionalGroupsSequence = [position(*divmod(index, 9)) for index in kept]
    dataset.save_as(tmp_path / "sparse.dcm", enforce_file_format=True)
    record = inspected(tmp_path, tmp_path / "sparse.dcm")
    assert record["verdict"] == "ok"
    with Slide(load_info(tmp_path / "info.json", tmp_path / "location.json"), "test") as slide:
        found = slide.read((0, 0), (1100, 900), MPP).astype(int)
    image[:128, 128:256] = 255
    assert np.abs(found - image).mean() < 1
    assert (found[:128, 128:256] == 255).all()


def position(row_of_tiles: int, column: int) -> Dataset:
    """Where a sparse tile lies; DICOM counts pixels from 1."""
    place, groups = Dataset(), Dataset()
    place.RowPositionInTotalImagePixelMatrix = row_of_tiles * TILE_PX + 1
    place.ColumnPositionInTotalImagePixelMatrix = column * TILE_PX + 1
    place.XOffsetInSlideCoordinateSystem = place.YOffsetInSlideCoordinateSystem = 0
    place.ZOffsetInSlideCoordinateSystem = 0
    groups.PlanePositionSlideSequence = [place]
    return groups
