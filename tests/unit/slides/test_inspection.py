import json
import re
import struct
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from lesionmap.errors import SlideError
from lesionmap.slides.inspection import Resolution, find_resolution, inspect_slide, resolution_flags
from lesionmap.slides.slide import Slide, load_info
from PIL import ImageCms
from pyramids import INSPECTION, damage, info_of, inspection_files, row, write_tiff
from vendor_slides import write_mirax

pytestmark = pytest.mark.slides


def inspected(tmp_path, slide_row, **changes):
    inspect_slide(slide_row, inspection_files(tmp_path), replace(INSPECTION, **changes))
    return json.loads((tmp_path / "record.json").read_text())


def properties(mpp_x=None, mpp_y=None, power=None):
    values = {"openslide.mpp-x": mpp_x, "openslide.mpp-y": mpp_y, "openslide.objective-power": power}
    return {key: str(value) for key, value in values.items() if value is not None}


def test_a_good_slide_is_recorded_and_read_back(tmp_path, noise):
    path = write_tiff(tmp_path / "s.tif", noise, factors=(1, 2))
    record = inspected(tmp_path, row(path))
    assert (record["verdict"], record["flags"], record["icc_profile"]) == ("ok", [], None)
    assert record["resolution"] == {"mpp": 0.25, "source": "file", "objective_power": None}
    info = load_info(tmp_path / "info.json", tmp_path / "location.json")
    assert info == replace(info_of(path), identity=info.identity, reader="tiff")
    assert re.fullmatch("[0-9a-f]{64}", info.identity)


@pytest.mark.parametrize(
    ("sheet", "file", "assumed", "expected"),
    [
        (0.31, properties(0.25, 0.25, 40), 10.0, Resolution(0.31, "slide sheet", 40)),
        (None, properties(0.25, 0.26, 40), 10.0, Resolution(0.255, "file", 40)),
        (None, properties(power=40), 10.0, Resolution(0.25, "objective power 40, assumed", 40)),
        (None, properties(mpp_x=0.25, power=20), 9.9, Resolution(0.495, "objective power 20, assumed", 20)),
    ],
)
def test_resolution_of_slides_is_the_sheets_then_the_files_then_the_objectives(sheet, file, assumed, expected):
    assert find_resolution(row("s.tif", mpp=sheet), file, assumed) == expected


@pytest.mark.parametrize("power", [None, "40", "abc", "-1"])
@pytest.mark.parametrize("mpp", [None, "0", "nan", "inf", "-0.25", "unknown"])
def test_slides_without_resolution_are_refused(mpp, power):
    with pytest.raises(SlideError, match="no µm/px") as caught:
        find_resolution(row("s.tif"), properties(mpp, mpp, power), None)
    assert "column mpp" in caught.value.remedy
    assert ("40× objective" in caught.value.remedy) == (power == "40")


def test_no_resolution_is_quarantined_and_the_sheet_mends_it(tmp_path, noise):
    path = write_tiff(tmp_path / "s.tif", noise, mpp=None)
    record = inspected(tmp_path, row(path))
    assert (record["verdict"], record["finding"]) == (
        "quarantined",
        "the file does not say its resolution (no µm/px)",
    )
    assert inspected(tmp_path, row(path, mpp=0.5))["verdict"] == "ok"


@pytest.mark.parametrize(
    ("resolution", "file", "expected"),
    [
        (Resolution(0.25, "file", 40), properties(0.25, 0.25), []),
        (Resolution(0.1, "file", None), {}, []),
        (Resolution(2.0, "file", None), {}, []),
        (Resolution(0.099, "file", None), {}, ["0.099 µm/px (file) is implausible"]),
        (Resolution(2.01, "slide sheet", None), {}, ["2.01 µm/px (slide sheet) is implausible"]),
        (Resolution(0.256, "file", None), properties(0.25, 0.262), []),  # 4.8 % apart
        (Resolution(0.2565, "file", None), properties(0.25, 0.263), ["differs between x (0.25) and y (0.263)"]),
        (Resolution(0.3, "slide sheet", None), properties(0.25, 0.5), []),  # the sheet has decided
        (Resolution(0.3, "file", 40), {}, []),  # 0.3 · 40 = 12, 20 % above 10
        (Resolution(0.301, "file", 40), {}, ["0.301 µm/px (file) contradicts its 40× objective (about 0.25)"]),
        (Resolution(0.2, "file", 40), {}, ["contradicts its 40× objective"]),
        (Resolution(0.25, "slide sheet", 20), {}, ["0.25 µm/px (slide sheet) contradicts its 20× objective"]),
        (Resolution(0.3, "slide sheet", None), properties(0.25, 0.25), []),  # 20 % more
        (
            Resolution(0.31, "slide sheet", None),
            properties(0.25, 0.25),
            ["0.31 µm/px (slide sheet) contradicts the file's own 0.25"],
        ),
        (
            Resolution(0.2525, "slide sheet", None),
            properties(1.0, 1.0),
            ["contradicts the file's own 1, 4-fold: it may be that of another level"],
        ),
        (
            Resolution(1.0, "slide sheet", None),
            properties(0.5, 0.5),
            ["contradicts the file's own 0.5, 2-fold: it may be that of another level"],
        ),
        (Resolution(0.25, "slide sheet", None), properties(352.8, 352.8), []),  # 72 dpi, of no microscope
        (
            Resolution(0.25, "slide sheet", None),
            properties(29.0, 29.0) | {"openslide.vendor": "dicom"},
            ["0.25 µm/px (slide sheet) contradicts the file's own 29"],
        ),
    ],
)
def test_implausible_and_contradictory_resolution_of_slides_is_flagged(resolution, file, expected):
    flags = resolution_flags(resolution, file)
    assert len(flags) == len(expected)
    assert all(part in flag for part, flag in zip(expected, flags, strict=True))


def test_flagged_slides_are_used(tmp_path, noise):
    path = write_tiff(tmp_path / "s.tif", noise, mpp=0.05)
    record = inspected(tmp_path, row(path))
    assert record["verdict"] == "ok"
    assert record["flags"] == ["0.05 µm/px (file) is implausible for level 0 of a slide"]


@pytest.mark.parametrize(
    ("content", "finding", "remedy"),
    [
        (None, "does not exist", "correct its path"),
        (b"", r"is empty \(0 bytes\)", "copy it again"),
        (b"not a slide\n", r"is text, not an image \(it begins with 'not a slide'\)", "own file"),
        (b"QUJD" * 100, "is base64 text", "decode"),
        (b"<!DOCTYPE html><title>Sign in</title>", "is a web page", "download"),
        (b"\x1f\x8b\x08" + bytes(40), "is a gzip archive", "unpack"),
        (b"PK\x03\x04" + bytes(40), "is a zip archive", "unpack"),
        (b"\xff\xd8\xff\xe0" + bytes(40), "is a single JPEG picture", "export"),
        (bytes(5000), "begins with zeros", "copy it again"),
        (b"\x01\x02\x03\x04\x05\x06\x07\x08\x09", "known slide format .*01 02 03 04 05 06 07 08", "convert"),
    ],
)
def test_files_that_are_no_slides_are_quarantined_with_what_they_are(tmp_path, content, finding, remedy):
    path = tmp_path / "bad.svs"
    if content is not None:
        path.write_bytes(content)
    record = inspected(tmp_path, row(path))
    assert (record["verdict"], record["stage"]) == ("quarantined", "inspect_slide")
    assert re.search(finding, record["finding"])
    assert remedy in record["remedy"]


def test_slides_that_the_system_does_not_let_us_read_are_quarantined(tmp_path, noise, monkeypatch):
    record = inspected(tmp_path, row(tmp_path / ("x" * 300)))
    assert "cannot be read (File name too long)" in record["finding"]
    assert "check its permissions" in record["remedy"]

    def broken(path):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("lesionmap.slides.inspection.content_digest", broken)
    record = inspected(tmp_path, row(write_tiff(tmp_path / "s.tif", noise)))
    assert record["verdict"] == "quarantined"
    assert "s.tif cannot be read (Input/output error)" in record["finding"]


def test_the_record_of_refused_slides_hands_their_reason_on(tmp_path):
    inspected(tmp_path, row(tmp_path / "absent.svs"))
    with pytest.raises(SlideError, match=r"slide s1, inspect_slide: the file .*absent.svs does not exist"):
        load_info(tmp_path / "info.json", tmp_path / "location.json")


def test_a_folder_and_a_plain_picture_are_said_to_be_none_of_our_slides(tmp_path, noise):
    (tmp_path / "folder.tif").mkdir()
    assert "is a folder" in inspected(tmp_path, row(tmp_path / "folder.tif"))["finding"]
    tifffile.imwrite(tmp_path / "plain.tif", noise[..., 0])
    assert "does not say its resolution (no µm/px)" in inspected(tmp_path, row(tmp_path / "plain.tif"))["finding"]


@pytest.mark.parametrize(
    ("place", "finding"),
    [
        (3, "level 3 of 60×100 px has other proportions than level 0 of 517×333 px, or is a label that is marked"),
        (2, "is a TIFF that OpenSlide does not read, as it has images that are no levels of the first"),
    ],
)
def test_a_label_among_the_levels_is_told_with_the_command_that_leaves_it_out(tmp_path, noise, place, finding):
    path = tmp_path / "s.tif"
    shown = [noise, noise[::2, ::2], noise[::4, ::4]]
    shown.insert(place, noise[:100, :60] if place == 3 else noise[:200, :120])
    with tifffile.TiffWriter(path) as tiff:
        for number, pixels in enumerate(shown):
            options = {"subfiletype": int(number > 0), "photometric": "rgb", "metadata": None, "tile": (64, 64)}
            tiff.write(pixels, resolution=(40_000, 40_000), resolutionunit="CENTIMETER", **options)
    record = inspected(tmp_path, row(path))
    assert finding in record["finding"]
    kept = ",".join(str(number) for number in range(4) if number != place)
    assert f"or keep its levels alone: tiffcp {path},{kept} NEW.tif" in record["remedy"]


def test_what_keeps_a_mirax_slide_from_being_opened_is_told(tmp_path):
    def told(path):
        record = inspected(tmp_path, row(path))
        return record["finding"], record["remedy"]

    grey = np.full((331, 517, 3), 200, np.uint8)
    path = write_mirax(tmp_path / "case.mrxs", grey, 0.25, corner_px=(75, 139), grid=(6, 5))
    assert inspected(tmp_path, row(path))["verdict"] == "ok"
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "case.mrxs").symlink_to(path)
    finding, remedy = told(tmp_path / "linked" / "case.mrxs")
    assert "is a link to a MIRAX slide, and beside it is no folder case with its pixels" in finding
    assert f"write {path} into the slide sheet" in remedy

    path.rename(tmp_path / "case.MRXS")
    assert told(tmp_path / "case.MRXS") == (
        f"{tmp_path}/case.MRXS is a MIRAX slide without the ending .mrxs",
        "rename it to case.mrxs",
    )
    (tmp_path / "case.MRXS").rename(tmp_path / "renamed.mrxs")
    finding, remedy = told(tmp_path / "renamed.mrxs")
    assert f"only the start of a MIRAX slide: the folder {tmp_path}/renamed with its pixels does not exist" in finding
    assert "copy the folder renamed beside it" in remedy
    assert "give file and folder the same name again (there is case)" in remedy
    (tmp_path / "case" / "Slidedat.ini").unlink()
    assert "there is" not in told(tmp_path / "renamed.mrxs")[1]
    (tmp_path / "case").rename(tmp_path / "renamed")
    finding, remedy = told(tmp_path / "renamed.mrxs")
    assert finding == f"the folder {tmp_path}/renamed of a MIRAX slide lacks Slidedat.ini"
    assert "copy the folder again" in remedy


@pytest.mark.parametrize("share", [0.3, 0.6, 0.97])
def test_slides_that_are_cut_short_are_quarantined(tmp_path, noise, share):
    whole = write_tiff(tmp_path / "whole.tif", noise, factors=(1, 2, 4)).read_bytes()
    cut = tmp_path / "cut.tif"
    cut.write_bytes(whole[: int(share * len(whole))])
    record = inspected(tmp_path, row(cut))
    assert record["verdict"] == "quarantined"
    assert re.search(r"is cut short: (image|directory) \d+ .* at byte \d+, the file", record["finding"])


def patched(path, page, tag, value):
    """Overwrite one 32-bit value of a directory; tag None is the link to the next directory."""
    with tifffile.TiffFile(path) as tiff:
        directory = tiff.pages[page]
        where = directory.tags[tag].valueoffset if tag else directory.offset + 2 + 12 * len(directory.tags)
    content = bytearray(path.read_bytes())
    content[where : where + 4] = struct.pack("<I", value)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("page", "tag", "value", "finding"),
    [
        (1, None, 8, "directory 2 repeats an earlier one"),
        (0, "ImageLength", 5000, r"image 0 lists 54 of the 711 tiles that its size asks for"),
        (0, "TileWidth", 2**24, r"has tiles of 1.07e\+09 px"),
        (1, "ImageWidth", 64, r"level 1 of 64×166 px has other proportions than level 0 of 517×333 px"),
    ],
)
def test_directories_of_slides_that_cannot_be_are_refused(tmp_path, noise, page, tag, value, finding):
    path = write_tiff(tmp_path / "s.tif", noise, factors=(1, 2))
    patched(path, page, tag, value)
    record = inspected(tmp_path, row(path))
    assert record["verdict"] == "quarantined"
    assert re.search(finding, record["finding"])
    assert "copy it again" in record["remedy"]


def test_pixels_of_slides_that_are_half_as_wide_as_high_are_refused():
    with pytest.raises(SlideError, match=r"0.25 µm/px along x and 0.5 along y, which contradict each other"):
        find_resolution(row("s.tif"), properties(0.25, 0.5), None)
    assert find_resolution(row("s.tif", mpp=0.25), properties(0.25, 0.5), None).mpp == 0.25


@pytest.mark.parametrize(("split", "verdict"), [("train", "quarantined"), ("val", "quarantined"), ("test", "ok")])
def test_resolution_is_judged_by_the_role(tmp_path, noise, split, verdict):
    path = write_tiff(tmp_path / "s.tif", noise, mpp=0.499)
    record = inspected(tmp_path, row(path, split))
    assert record["verdict"] == verdict
    if verdict == "quarantined":
        assert "0.499 µm/px (file) is coarser than the 0.25 µm/px" in record["finding"]
        assert "give it the split 'inference' or 'test'" in record["remedy"]
        assert "write upsample: true into its row" in record["remedy"]


def test_refinement_needs_the_resolution_of_training(tmp_path, noise):
    path = write_tiff(tmp_path / "s.tif", noise, mpp=0.499)
    refining = {"needed_mpp": {"tiles": 0.25, "inference": 0.25, "first_pass": 2.5}}
    record = inspected(tmp_path, row(path, "inference"), **refining)
    assert "coarser than the 0.25 µm/px that the split 'inference' needs" in record["finding"]
    assert "set inference.refine to none, for all slides" in record["remedy"]
    assert "inference.refine" not in inspected(tmp_path, row(path, "train"), **refining)["remedy"]


@pytest.mark.parametrize("dpi", [72, 96, 300, 1200])
def test_the_resolution_of_a_screen_or_printer_is_none(tmp_path, noise, dpi):
    path = write_tiff(tmp_path / "s.tif", noise, mpp=25_400 / dpi)
    record = inspected(tmp_path, row(path))
    said = f"does not say its resolution ({25_400 / dpi:.4g} µm/px, {dpi} dpi, is that of a screen or an overview)"
    assert said in record["finding"]
    assert "column mpp" in record["remedy"]
    assert inspected(tmp_path, row(path, mpp=0.25))["verdict"] == "ok"


def test_slides_too_coarse_for_any_role_and_implausible_are_told_so(tmp_path, noise):
    path = write_tiff(tmp_path / "s.tif", noise, mpp=15.3)
    record = inspected(tmp_path, row(path, "test"))
    assert "15.3 µm/px (file) is coarser than the 2.5 µm/px" in record["finding"]
    assert "correct its implausible µm/px in the column mpp" in record["remedy"]
    assert "split 'inference'" not in record["remedy"]


def test_a_row_may_allow_upsampling(tmp_path, noise):
    path = write_tiff(tmp_path / "s.tif", noise, mpp=0.5)
    record = inspected(tmp_path, row(path, "train", upsample=True))
    assert record["verdict"] == "ok"
    assert record["flags"] == ["upsampled 2-fold, from 0.5 to 0.25 µm/px, as its row allows"]


def test_tolerance_admits_a_scanner_sold_as_40x(tmp_path, noise):
    path = write_tiff(tmp_path / "s.tif", noise, mpp=0.2749)
    assert inspected(tmp_path, row(path, "train"))["verdict"] == "ok"
    assert inspected(tmp_path, row(path, "train"), mpp_tolerance=0.05)["verdict"] == "quarantined"


def test_a_missing_annotation_is_quarantined(tmp_path, noise):
    path = write_tiff(tmp_path / "s.tif", noise)
    record = inspected(tmp_path, row(path, "train", annotation=str(tmp_path / "none.xml")))
    assert "none.xml does not exist" in record["finding"]


@pytest.fixture
def damaged(tmp_path):
    """A slide of 2048 × 2048 px, four inspected boxes a side, of which one cannot be read."""
    image = np.random.default_rng(1).integers(0, 255, (2048, 2048, 3), dtype=np.uint8)
    return damage(write_tiff(tmp_path / "damaged.tif", image), (1100, 700)), image


def test_damage_names_level_and_box_of_slides_and_the_handle_survives(damaged):
    path, image = damaged
    with Slide(info_of(path), "test") as slide:
        with pytest.raises(SlideError, match=r"slide s1, test: level 0, box x=1088 y=600 of 64×110 px cannot be read"):
            slide.read((1088, 600), (64, 110), 0.25)
        np.testing.assert_array_equal(slide.read((0, 0), (20, 20), 0.25), image[:20, :20])


def test_damage_is_flagged_up_to_the_limit_and_quarantined_beyond(tmp_path, damaged):
    path, _ = damaged
    flagged = inspected(tmp_path, row(path), max_unreadable_fraction=1 / 16)
    assert flagged["verdict"] == "ok"
    assert flagged["flags"] == ["1 of 16 sampled boxes of level 0 cannot be read"]
    refused = inspected(tmp_path, row(path), max_unreadable_fraction=0.06)
    assert refused["verdict"] == "quarantined"
    assert refused["finding"].startswith(
        "1 of 16 boxes cannot be read, more than 6 %; the first: level 0, box x=1024 y=512"
    )


@pytest.mark.parametrize(("share", "sampled"), [(0.001, 64), (0.5, 64), (0.75, 90), (1.0, 120)])
def test_at_least_64_boxes_of_a_slide_are_read(tmp_path, monkeypatch, share, sampled):
    monkeypatch.setattr("lesionmap.slides.sampling.BOX_PX", 16)  # so that 192 × 160 px are 120 boxes
    image = np.random.default_rng(1).integers(0, 255, (160, 192, 3), dtype=np.uint8)
    path = damage(write_tiff(tmp_path / "s.tif", image), (70, 70))
    record = inspected(tmp_path, row(path), read_share=share, max_unreadable_fraction=1.0)
    assert f" of {sampled} sampled boxes of level 0 cannot be read" in record["flags"][0]


def test_overviews_of_damaged_slides_lack_the_damaged_part_alone(damaged):
    path, image = damaged
    with Slide(info_of(path), "test") as slide:
        pixels, found = slide.read_where_possible((0, 0), (2048, 1024), 0.25)
    assert not found[640:704, 1088:1152].any()  # the damaged tile
    assert found.mean() > 0.99
    np.testing.assert_array_equal(pixels[found], image[:1024][found])
    assert (pixels[~found] == 255).all()


def swapped_profile() -> bytes:
    """An sRGB profile whose red and blue primaries have changed places."""
    content = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return content.replace(b"rXYZ", b"????").replace(b"bXYZ", b"rXYZ").replace(b"????", b"bXYZ")


def write_with_profile(path, image, profile):
    described = {"description": "Aperio Image Library v1|MPP = 0.25|AppMag = 40", "iccprofile": profile}
    tifffile.imwrite(path, image, tile=(64, 64), photometric="rgb", compression="zlib", metadata=None, **described)
    return path


def test_broken_colour_profiles_of_slides_are_flagged_and_refused_if_they_are_to_be_applied(tmp_path):
    path = write_with_profile(tmp_path / "icc.svs", np.zeros((80, 80, 3), dtype=np.uint8), b"no profile" * 20)
    record = inspected(tmp_path, row(path))
    assert record["verdict"] == "ok"
    assert "its colour profile cannot be read" in record["flags"][0]
    record = inspected(tmp_path, row(path), apply_icc=True)
    assert record["verdict"] == "quarantined"
    assert "its colour profile cannot be applied" in record["finding"]


def test_colour_profiles_of_slides_are_recorded_and_applied_if_asked(tmp_path):
    image = np.zeros((80, 80, 3), dtype=np.uint8)
    image[..., 0] = 200
    path = write_with_profile(tmp_path / "icc.svs", image, swapped_profile())
    record = inspected(tmp_path, row(path))
    assert record["icc_profile"].startswith("sRGB")
    with Slide(info_of(path), "test") as slide:
        assert slide.read((0, 0), (1, 1), 0.25)[0, 0].tolist() == [200, 0, 0]
    assert inspected(tmp_path, row(path), apply_icc=True)["verdict"] == "ok"
    with Slide(load_info(tmp_path / "info.json", tmp_path / "location.json"), "test") as slide:
        red, green, blue = slide.read((0, 0), (1, 1), 0.25)[0, 0].astype(int)
    assert blue > 190
    assert red < 30
    assert green < 30
