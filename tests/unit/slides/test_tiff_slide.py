"""The reader of TIFF files that OpenSlide does not know: every pixel, in place, on every level."""

import struct
from functools import partial

import numpy as np
import openslide
import pytest
import tifffile
from lesionmap.errors import SlideError
from lesionmap.slides.inspection import inspect_slide
from lesionmap.slides.reader_selection import choose_reader
from lesionmap.slides.slide import TIFFFILE, Slide, load_info
from lesionmap.slides.tiff_reader import Unusable
from lesionmap.slides.tiff_slide import TiffSlide, why_not_openslide
from odd_tiffs import four_channels, scaled, stated, write_odd_tiff, write_ome_tiff
from PIL import ImageCms
from pyramids import INSPECTION, info_of, inspection_files, row, smooth_image, write_jpeg, write_tiff

KINDS = {  # writer, what OpenSlide does not know, grey levels by which a pixel may differ
    "webp": (partial(write_odd_tiff, compression="webp", compressionargs={"lossless": True}), "compression WEBP", 0),
    "jpeg-xl": (partial(write_odd_tiff, compression="jpegxl"), "compression JPEGXL", 0),
    "jpeg-2000": (partial(write_odd_tiff, compression="jpeg2000"), "compression JPEG2000", 0),
    "lzma": (partial(write_odd_tiff, compression="lzma"), "compression LZMA", 0),
    "big-endian": (partial(write_odd_tiff, byteorder=">"), "big-endian", 0),
    "big-endian-16": (partial(write_odd_tiff, byteorder=">", as_stored=scaled("u2", 65535)), "big-endian", 0),
    "big-endian-jpeg": (
        partial(write_odd_tiff, byteorder=">", compression="jpeg", compressionargs={"level": 98}, subsampling=(1, 1)),
        "big-endian",
        8,
    ),
    "big-endian-planar": (
        partial(
            write_odd_tiff, byteorder=">", as_stored=lambda level: np.moveaxis(level, 2, 0), planarconfig="separate"
        ),
        "big-endian",
        0,
    ),
    "big-endian-alpha": (
        partial(write_odd_tiff, byteorder=">", as_stored=four_channels(255), extrasamples=["unassalpha"]),
        "big-endian",
        0,
    ),
    "12-of-16-bits": (partial(write_odd_tiff, as_stored=scaled("u2", 4095), **stated(4095)), "16 bits", 0),
    "10-of-16-bits": (partial(write_odd_tiff, as_stored=scaled("u2", 1023), **stated(1023)), "16 bits", 0),
    "16-bits": (partial(write_odd_tiff, as_stored=scaled("u2", 65535)), "16 bits", 0),
    "32-bits": (partial(write_odd_tiff, as_stored=scaled("u4", 2**32 - 1)), "32 bits", 0),
    "float": (partial(write_odd_tiff, as_stored=scaled("f4", 1.0)), "32 bits", 0),
    "half-float": (partial(write_odd_tiff, as_stored=scaled("f2", 1.0)), "16 bits", 0),
    "float-of-255": (partial(write_odd_tiff, as_stored=scaled("f4", 255.0), **stated(255)), "32 bits", 0),
    "rgbx": (partial(write_odd_tiff, as_stored=four_channels(0), extrasamples=["unspecified"]), "fourth channel", 0),
    "strips": (partial(write_odd_tiff, tile=None, rowsperstrip=7), "strips", 0),
    "strips-uncompressed": (partial(write_odd_tiff, tile=None, compression=None), "strips", 0),
    "ome": (write_ome_tiff, "OME-TIFF", 0),
    "ome-jpeg": (
        partial(write_ome_tiff, compression="jpeg", compressionargs={"level": 98}, subsampling=(1, 1)),
        "OME-TIFF",
        8,
    ),
    "ome-planes": (partial(write_ome_tiff, planes="RGB"), "OME-TIFF", 0),
    "ome-planes-backwards": (partial(write_ome_tiff, planes="BGR"), "OME-TIFF", 0),
}


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def image():
    """301 × 427 px, no two places alike; no tile divides its sides."""
    return smooth_image()


def test_every_level_is_read_to_the_pixel(tmp_path, image, kind):
    write, why, tolerance = KINDS[kind]
    info = info_of(write(tmp_path / "s.tif", image))
    assert info.size_lv0 == (427, 301)
    assert info.level_sizes == ((427, 301), (214, 151), (107, 76))
    assert info.downsamples == (1.0, 2.0, 4.0)
    assert info.mpp == pytest.approx(0.25)
    assert why in why_not_openslide(info.path)
    with Slide(info, "test") as slide:
        for level, factor in enumerate((1, 2, 4)):
            x, y, width, height = 41 // factor, 53 // factor, 201 // factor, 119 // factor  # over several tiles
            pixels, origin = slide.read_level(level, (x, y), (width, height))
            expected = image[::factor, ::factor][y : y + height, x : x + width]
            assert origin == (x, y)
            assert np.abs(pixels.astype(int) - expected).max() <= tolerance


def test_boxes_over_the_edge_are_white_there(tmp_path, image, kind):
    write, _, tolerance = KINDS[kind]
    info = info_of(write(tmp_path / "s.tif", image))
    with Slide(info, "test") as slide:
        box = slide.read((400, 290), (50, 30), info.mpp)
    assert (box[11:] == 255).all()
    assert (box[:, 27:] == 255).all()
    assert np.abs(box[:11, :27].astype(int) - image[290:, 400:]).max() <= tolerance


def test_the_record_says_which_reader_and_why(tmp_path, image, kind):
    write, why, _ = KINDS[kind]
    inspect_slide(row(write(tmp_path / "s.tif", image)), inspection_files(tmp_path), INSPECTION)
    info = load_info(tmp_path / "info.json", tmp_path / "location.json")
    assert info.reader == TIFFFILE
    choice = choose_reader(info, "openslide", "test")
    assert choice.reader == TIFFFILE
    assert choice.reason.startswith("OpenSlide does not know ")
    assert why in choice.reason


@pytest.mark.parametrize(
    "write",
    [
        write_jpeg,
        partial(write_tiff, factors=(1, 2)),
        partial(write_odd_tiff, compression="zstd"),
        partial(write_odd_tiff, compression="lzw"),
        partial(write_odd_tiff, as_stored=lambda level: level[..., 1], photometric="minisblack"),
    ],
)
def test_what_openslide_reads_is_left_to_it(tmp_path, image, write):
    info = info_of(write(tmp_path / "s.tif", image))
    assert why_not_openslide(info.path) is None
    assert info.vendor == "generic-tiff"


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize(("photometric", "inverted"), [("minisblack", False), ("miniswhite", True)])
def test_grey_levels_are_shown_as_the_file_says(tmp_path, image, byteorder, photometric, inverted):
    def grey(level):
        return 255 - level[..., 1] if inverted else level[..., 1]

    info = info_of(
        write_odd_tiff(tmp_path / "s.tif", image, as_stored=grey, photometric=photometric, byteorder=byteorder)
    )
    with Slide(info, "test") as slide:
        pixels = slide.read((20, 30), (100, 80), info.mpp)
    assert (pixels == image[30:110, 20:120, 1:2]).all()


def test_palette_colours_are_shown(tmp_path, image):
    indices = (image[..., 0] // 4).astype(np.uint8)
    palette = np.random.default_rng(1).integers(0, 256, (256, 3)).astype(np.uint16)
    path = write_odd_tiff(
        tmp_path / "s.tif",
        indices,
        as_stored=lambda level: level,
        photometric="palette",
        colormap=(palette * 257).T,
        byteorder=">",
    )
    with Slide(info_of(path), "test") as slide:
        assert (slide.read((9, 17), (80, 70), 0.25) == palette[indices[17:87, 9:89]]).all()


@pytest.mark.parametrize(
    ("extrasamples", "stored", "shown"),
    [("unassalpha", (200, 100, 60), 0.4), ("assocalpha", (80, 40, 24), 0.4)],  # 0.4 = 102 / 255
)
def test_transparent_pixels_are_blended_with_white(tmp_path, extrasamples, stored, shown):
    rgba = np.full((150, 130, 4), (*stored, 102), dtype=np.uint8)
    path = write_odd_tiff(tmp_path / "s.tif", rgba, byteorder=">", extrasamples=[extrasamples])
    with Slide(info_of(path), "test") as slide:
        pixel = slide.read((5, 5), (1, 1), 0.25)[0, 0]
    assert np.abs(pixel - (np.array([200, 100, 60]) * shown + 255 * (1 - shown))).max() <= 1


def test_values_beyond_the_scale_are_white_and_no_numbers_black(tmp_path):
    image = np.full((80, 100, 3), 0.5, dtype=np.float32)
    image[10:20, 10:20], image[30:40, 30:40], image[50:60, 50:60] = 3.0, -1.0, np.nan
    info = info_of(write_odd_tiff(tmp_path / "s.tif", image, factors=(1,)))
    with Slide(info, "test") as slide:
        pixels = slide.read((0, 0), (100, 80), 0.25)
    assert [int(pixels[at, at, 0]) for at in (5, 15, 35, 55)] == [128, 255, 0, 0]


@pytest.mark.parametrize(("unit", "mpp"), [("INCH", 0.5), ("CENTIMETER", 0.23)])
def test_resolution_tags_in_any_unit(tmp_path, image, unit, mpp):
    path = write_odd_tiff(tmp_path / "s.tif", image, mpp, unit=unit, byteorder=">")
    with TiffSlide(str(path)) as slide:
        found = [
            float(slide.properties[name]) for name in (openslide.PROPERTY_NAME_MPP_X, openslide.PROPERTY_NAME_MPP_Y)
        ]
    assert found == pytest.approx([mpp, mpp])


@pytest.mark.parametrize(("unit", "per_unit", "mpp"), [("um", 4.0, 0.25), ("micron", 2.0, 0.5), ("mm", 4000.0, 0.25)])
def test_resolution_of_imagej(tmp_path, image, unit, per_unit, mpp):
    tifffile.imwrite(tmp_path / "s.tif", image, imagej=True, resolution=(per_unit, per_unit), metadata={"unit": unit})
    info = info_of(tmp_path / "s.tif")
    assert info.vendor == "imagej-tiff"
    assert info.mpp == pytest.approx(mpp)


@pytest.mark.parametrize("unit", ["pixel", None])
def test_imagej_without_a_unit_has_no_resolution(tmp_path, image, unit):
    tifffile.imwrite(tmp_path / "s.tif", image, imagej=True, resolution=(4.0, 4.0), metadata={"unit": unit})
    with pytest.raises(SlideError, match="does not say its resolution"):
        info_of(tmp_path / "s.tif")


def test_resolution_of_ome_is_that_of_the_largest_image(tmp_path, image):
    with tifffile.TiffWriter(tmp_path / "s.ome.tif", ome=True) as tiff:
        label = {"axes": "YXS", "PhysicalSizeX": 30.0, "PhysicalSizeY": 30.0}
        tiff.write(image[:90, :70], photometric="rgb", tile=(64, 64), metadata=label)
        slide = {"axes": "YXS", "PhysicalSizeX": 0.3, "PhysicalSizeY": 0.3, "SignificantBits": 12}
        tiff.write((image / 255 * 4095 + 0.5).astype(np.uint16), photometric="rgb", tile=(64, 64), metadata=slide)
    info = info_of(tmp_path / "s.ome.tif")
    assert (info.size_lv0, info.mpp) == ((427, 301), pytest.approx(0.3))
    with Slide(info, "test") as slide:
        assert (slide.read((30, 40), (60, 50), 0.3) == image[40:90, 30:90]).all()


def test_the_colour_profile_is_found(tmp_path, image):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path = write_odd_tiff(tmp_path / "s.tif", image, byteorder=">", iccprofile=profile)
    info = info_of(path, upsample=True)
    with TiffSlide(info.path) as slide:
        assert "sRGB" in ImageCms.getProfileDescription(slide.color_profile)
    path = write_odd_tiff(tmp_path / "t.tif", image, byteorder=">")
    with TiffSlide(str(path)) as slide:
        assert slide.color_profile is None


GREY = {"photometric": "minisblack", "planarconfig": "contig"}


def refused(path, image, **options):
    with pytest.raises(SlideError) as raised:
        info_of(write_odd_tiff(path, image, **options))
    return raised.value


@pytest.mark.parametrize(
    ("options", "finding", "remedy"),
    [
        ({"photometric": "separated", "as_stored": four_channels(9)}, "in the colour space SEPARATED", "vips tiffsave"),
        ({"photometric": "cielab"}, "in the colour space CIELAB", "vips tiffsave"),
        (
            {"as_stored": lambda level: level.astype(np.int16), "photometric": "rgb"},
            "samples of the type int16",
            "vips",
        ),
        ({"as_stored": lambda level: np.dstack([level] * 2)} | GREY, "6 channels", "as RGB"),
        ({"as_stored": lambda level: level[..., :2]} | GREY, "2 channels", "as RGB"),
    ],
)
def test_what_is_no_rgb_is_refused_with_what_it_is(tmp_path, image, options, finding, remedy):
    error = refused(tmp_path / "s.tif", image, byteorder=">", **options)
    assert finding in error.finding
    assert remedy in error.remedy
    assert "damaged" not in error.remedy


def test_stacks_and_channels_of_fluorescence_are_refused(tmp_path, image):
    for axes, stack, finding in (
        ("ZYXS", np.stack([image] * 5), "5 images"),
        ("TCYX", np.stack([np.moveaxis(image, 2, 0)] * 2), "2 images"),
        ("CYX", np.stack([image[..., 0]] * 5), "5 channels"),
        ("CYX", np.stack([image[..., 0]] * 2), "2 channels"),
    ):
        with tifffile.TiffWriter(tmp_path / "s.ome.tif", ome=True) as tiff:
            tiff.write(
                stack,
                photometric="rgb" if axes[-1] == "S" else "minisblack",
                tile=(64, 64),
                metadata={"axes": axes, "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25},
            )
        with pytest.raises(SlideError, match=finding):
            info_of(tmp_path / "s.ome.tif")


def test_an_unknown_compression_is_named(tmp_path, image):
    path = write_odd_tiff(tmp_path / "s.tif", image, byteorder=">", factors=(1,), compression=None)
    with tifffile.TiffFile(path) as tiff:
        where = tiff.pages[0].tags["Compression"].valueoffset
    content = bytearray(path.read_bytes())
    content[where : where + 2] = struct.pack(">H", 32908)
    path.write_bytes(content)
    with pytest.raises(SlideError, match="compression PIXARFILM, which cannot be decoded") as raised:
        info_of(path)
    assert "damaged" not in f"{raised.value.finding} {raised.value.remedy}"


def test_a_damaged_tile_is_unreadable_and_the_rest_is_read(tmp_path, image):
    path = write_odd_tiff(tmp_path / "s.tif", image, byteorder=">", factors=(1,))
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        index = 1 * page.chunked[1] + 2  # x 192 to 287, y 64 to 127
        start, length = page.dataoffsets[index], page.databytecounts[index]
    content = bytearray(path.read_bytes())
    content[start : start + length] = b"\xff" * length
    path.write_bytes(content)
    with Slide(info_of(path), "map_slide") as slide:
        with pytest.raises(SlideError, match=r"map_slide: level 0, box x=200 y=70 of 10×10 px cannot be read"):
            slide.read((200, 70), (10, 10), 0.25)
        assert (slide.read((96, 64), (96, 64), 0.25) == image[64:128, 96:192]).all()
        _, found = slide.read_where_possible((0, 0), (427, 301), 0.25)
    assert not found[64:128, 192:288].any()
    assert found[:, :90].all()


def test_a_file_without_directories_is_refused(tmp_path):
    (tmp_path / "s.tif").write_bytes(b"MM\0*\0\0\0\x08\0\0\0\0\0\0")
    with pytest.raises(Unusable, match="is a TIFF"):
        TiffSlide(str(tmp_path / "s.tif"))
