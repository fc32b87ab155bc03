import numpy as np
import pytest
from lesionmap.files.records import read_json
from lesionmap.stain.fit import FitFiles, fit_slide
from lesionmap.stain.profile import StainProfile
from lesionmap.stain.table import StainMatch, apply_table
from lesionmap.stain.white_point import GAPS, GLASS, NOT_FOUND, SET, find_white_point
from lesionmap.tissue.detection import TissueSettings, find_tissue
from pyramids import info_of, write_tiff
from stained import HE, SETTINGS, degrees, stained_pixels

GREY = (187.0, 187.0, 183.0)


def noisy(colour, shape=(64, 64), sigma=1.5, seed=0):
    return np.rint(np.random.default_rng(seed).normal(colour, sigma, (*shape, 3))).clip(0, 255).astype(np.uint8)


def tissue(shape=(64, 64), light=255.0):
    pixels = stained_pixels(HE, shape[0] * shape[1]).reshape(*shape, 3)
    return np.rint(pixels * (np.array(light) / 255)).astype(np.uint8)


def test_the_settings_go_before_what_is_found():
    found = find_white_point([240, 239, 241], (230.0, 231.0, 232.0), [noisy(GREY)])
    assert (found.colour, found.source, found.flags) == ((240.0, 239.0, 241.0), SET, [])


def test_the_glass_of_the_overview_goes_before_gaps():
    found = find_white_point("auto", (230.0, 231.0, 232.0), [noisy(GREY)])
    assert (found.colour, found.source, found.flags) == ((230.0, 231.0, 232.0), GLASS, [])


def test_gaps_in_the_tissue_show_glass_and_that_is_flagged():
    box = tissue(light=GREY)
    box[20:34, 30:50] = noisy(GREY, (14, 20))
    found = find_white_point("auto", None, [tissue(light=GREY), box])
    assert found.source == GAPS
    assert np.abs(np.subtract(found.colour, GREY)).max() <= 1
    assert found.flags == ["white point 187, 187, 183: the slide shows no glass but in gaps of its tissue"]


@pytest.mark.parametrize("gap", [None, "filler", "pink", "dark"])
def test_without_glass_255_is_assumed_and_flagged(gap):
    box = tissue()
    gaps = {"filler": np.uint8(243), "pink": noisy((235, 190, 215), (14, 20)), "dark": noisy((70, 70, 72), (14, 20))}
    if gap:
        box[20:34, 30:50] = gaps[gap]
    found = find_white_point("auto", None, [box, tissue()])
    assert (found.colour, found.source) == ((255.0, 255.0, 255.0), NOT_FOUND)
    assert found.flags == ["white point 255, 255, 255 assumed, as the slide shows no glass: see stain.white_point"]


def test_a_slide_without_tissue_boxes_has_none():
    assert find_white_point("auto", None, []).source == NOT_FOUND


def slide_with_glass(glass, filler):
    """800 × 1100 px: tissue on glass, and a strip that was not scanned."""
    image = noisy(np.array(glass), (800, 1100), sigma=2.0)
    image[150:650, 200:800] = np.rint(stained_pixels(HE, 500 * 600).reshape(500, 600, 3) * (np.array(glass) / 255))
    image[:, 1000:] = filler
    return image


LIGHTS = [((187, 187, 183), 255), ((200, 190, 205), 243), ((220, 235, 222), 0), ((240, 228, 215), 255)]


@pytest.mark.parametrize(("glass", "filler"), LIGHTS)
def test_a_slide_is_normalised_as_if_its_glass_were_white(tmp_path, glass, filler):
    def fitted(name, colour):
        image = slide_with_glass(colour, filler)
        info = info_of(write_tiff(tmp_path / f"{name}.tif", image, mpp=2.0))
        find_tissue(info, str(tmp_path / "t.tif"), TissueSettings(8.0, 20_000, 20_000))
        files = FitFiles(*(str(tmp_path / f"{name}_{end}") for end in ("f.json", "s.png", "t.png", "o.png")))
        fit_slide(info, str(tmp_path / "t.tif"), files, SETTINGS, {})
        record = read_json(files.profile)
        return image, StainProfile.of(record["profile"]), record["white_point"]

    (image, found, white), (_, same, _) = fitted("tinted", glass), fitted("white", (250, 250, 250))
    assert white["source"] == GLASS
    assert np.abs(np.subtract(white["colour"], glass)).max() <= 1
    assert found.verdict == same.verdict == "ok"
    assert degrees(found.basis, same.basis).max() <= 2
    np.testing.assert_allclose(found.p99, same.p99, rtol=0.1)
    table = StainMatch(found, same, (2.0, 2.0)).table()
    bare = apply_table(table, image[:100, :1000])
    assert np.abs(bare.mean(axis=(0, 1)) - 255).max() <= 3
