"""The second look, held against a computation at level 0, pixel by pixel."""

from dataclasses import replace

import numpy as np
import pytest
import tifffile
import torch
from lesionmap.errors import SlideError
from lesionmap.geometry.tiling import TileSpec
from lesionmap.inference.refinement import RefineSettings, refine_map
from lesionmap.inference.sliding_window import PassSettings, sliding_window_map
from lesionmap.network.forward import logits_of
from lesionmap.network.model import LesionFPN
from lesionmap.slides.slide import Slide
from lesionmap.stain.table import StainMatch, apply_table
from lesionmap.tissue.mask import TissueMask
from narrow_resnet import NARROW
from pyramids import damage, info_of, write_tiff
from stained import OTHER_HE, PROFILE, profile

STAIN = StainMatch(PROFILE, profile(OTHER_HE), (0.8, 1.1))
TABLE = STAIN.table()
SPEC = TileSpec(region_px=128, tile_px=32, mpp=0.25)  # the low view at 1 µm/px
FIRST = PassSettings(1.25, tile_px=32, overlap_px=0, flips=False, batch_size=4, max_unreadable_fraction=0.0)
ALL = RefineSettings(SPEC, (0, 255), tile_batch=3, flips=False, max_unreadable_fraction=0.0)
WIDTH, HEIGHT = 219, 147  # two columns and two rows of regions
PX, LOW_PX = 5, 4  # level-0 pixels of a pixel of the map, and of the low view
UNTURNED = [(1, 1)]
FLIPS = [(1, 1), (-1, 1), (1, -1), (-1, -1)]


@pytest.fixture
def slide(tmp_path, full_precision):
    """Noise with a gradient; tissue on some tiles of all regions but the last."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 60, (HEIGHT, WIDTH, 3)) + np.array([170, 80, 150])
    image[..., 0] -= np.arange(WIDTH) // 3
    info = info_of(write_tiff(tmp_path / "s.tif", image.astype(np.uint8)))
    tissue = np.full((HEIGHT // PX, WIDTH // PX + 1), 255, dtype=np.uint8)
    tissue[4:18, 5:20] = 0
    tissue[25:, 25:] = 0
    tifffile.imwrite(tmp_path / "tissue.tif", tissue)
    return info, TissueMask(tmp_path / "tissue.tif", info)


def network(fusion="mean"):
    torch.manual_seed(0)
    model = LesionFPN(replace(NARROW, fusion=fusion))
    torch.nn.init.normal_(model.head.weight, std=0.1)
    if fusion == "learned":
        torch.nn.init.constant_(model.fusion.a, 0.7)
    return model.eval()


def first_pass(slide, model, tmp_path):
    return sliding_window_map(slide[0], slide[1], STAIN, model, FIRST, folder=tmp_path, threads=2)


def refined(slide, model, tmp_path, threads=2, **changes):
    mapped = first_pass(slide, model, tmp_path)
    counts = refine_map(mapped, *slide, STAIN, model, settings=replace(ALL, **changes), threads=threads)
    return mapped.probability_u8, counts


def probability(model, image, turns=UNTURNED):
    views = [torch.from_numpy(image[::y, ::x].copy()).permute(2, 0, 1)[None] for y, x in turns]
    maps = [torch.sigmoid(logits_of(model, view))[0, 0].numpy().astype(float) for view in views]
    return np.mean([part[::y, ::x] for part, (y, x) in zip(maps, turns, strict=True)], axis=0)


FUSED = {
    "mean": lambda t1, t2: (t1 + t2) / 2,
    "max": np.maximum,
    "learned": lambda t1, t2: (t1 * np.exp(0.7) + t2) / (1 + np.exp(0.7)),
}


@torch.no_grad()
def naively(slide, model, fusion, first_positives, turns=UNTURNED):
    """Probability of every level-0 pixel, averaged over each pixel of the map; and the number of regions and tiles."""
    info, tissue = slide
    canvas = (first_positives / 255).repeat(PX, axis=0).repeat(PX, axis=1)
    counts = [0, 0]
    with Slide(info, "test") as opened:
        for top, left in np.ndindex(2, 2):
            y, x = top * 128, left * 128
            on_tissue = tissue.at((x, y), (32, 32), LOW_PX)
            tiles = [(r, c) for r, c in np.ndindex(4, 4) if on_tissue[8 * r : 8 * r + 8, 8 * c : 8 * c + 8].any()]
            if not tiles:
                continue
            raw = opened.read((x, y), (128, 128), 0.25)
            low = (raw.reshape(32, 4, 32, 4, 3).sum(axis=(1, 3)) + 8) // 16
            image, low = (apply_table(TABLE, part.astype(np.uint8)) for part in (raw, low))
            fused = probability(model, low, turns)
            for r, c in tiles:
                tile = probability(model, image[32 * r : 32 * r + 32, 32 * c : 32 * c + 32], turns)
                place = (slice(8 * r, 8 * r + 8), slice(8 * c, 8 * c + 8))
                fused[place] = FUSED[fusion](tile.reshape(8, 4, 8, 4).mean(axis=(1, 3)), fused[place])
            inside = canvas[y : y + 128, x : x + 128]
            inside[:] = fused.repeat(LOW_PX, axis=0).repeat(LOW_PX, axis=1)[: inside.shape[0], : inside.shape[1]]
            counts = [counts[0] + 1, counts[1] + len(tiles)]
    height, width = first_positives.shape
    return canvas.reshape(height, PX, width, PX).mean(axis=(1, 3)), counts


@pytest.mark.parametrize(("fusion", "turns"), [("mean", FLIPS), ("max", UNTURNED), ("learned", UNTURNED)])
def test_regions_are_fused_as_in_training_and_take_their_share_of_each_pixel(slide, tmp_path, fusion, turns):
    model = network(fusion)
    expected, counts = naively(slide, model, fusion, first_pass(slide, model, tmp_path).probability_u8.copy(), turns)
    found, refinement = refined(slide, model, tmp_path, flips=turns == FLIPS)
    assert np.abs(found - 255 * expected).max() <= 0.5 + 255e-5  # 1e-5 before it is rounded
    assert [refinement.regions, refinement.tiles] == counts
    assert counts[0] == 3  # one of four has no tissue


def test_only_regions_with_asked_for_probability_are_refined(slide, tmp_path):
    model = network()
    first = first_pass(slide, model, tmp_path).probability_u8.copy()
    on_tissue = slide[1].at((0, 0), first.shape[::-1], PX)
    least = int(np.percentile(first[on_tissue], 99.8))
    everywhere, _ = refined(slide, model, tmp_path)
    found, counts = refined(slide, model, tmp_path, looked_at=(least, 255))
    assert 0 < counts.regions < 3
    for top, left in np.ndindex(2, 2):
        place = tuple(slice(-(-128 * at // PX), 128 * (at + 1) // PX) for at in (top, left))  # the region's own pixels
        box = tuple(slice(128 * at // PX, -(-128 * (at + 1) // PX)) for at in (top, left))
        asked = (first[box] >= least)[on_tissue[box]].any()
        np.testing.assert_array_equal(found[place], (everywhere if asked else first)[place])
    _, none = refined(slide, model, tmp_path, looked_at=(256, 255))
    assert (none.regions, none.tiles, none.unreadable) == (0, 0, [])


def test_what_lies_beside_the_tissue_asks_for_no_second_look(slide, tmp_path):
    mapped = first_pass(slide, network(), tmp_path)
    on_tissue = slide[1].at((0, 0), mapped.probability_u8.shape[::-1], PX)
    only_beside = replace(ALL, looked_at=(255, 255))
    mapped.probability_u8[:] = np.where(on_tissue, 254, 255)
    assert refine_map(mapped, *slide, STAIN, network(), settings=only_beside, threads=1).regions == 0
    mapped.probability_u8[2, 6] = 255
    assert on_tissue[2, 6]
    assert refine_map(mapped, *slide, STAIN, network(), settings=only_beside, threads=1).regions == 1


def test_a_region_whose_tissue_no_pixel_of_the_low_view_shows_has_no_tiles_to_look_at(slide, tmp_path):
    info, _ = slide
    tissue = np.zeros((-(-HEIGHT // 2), -(-WIDTH // 2)), dtype=np.uint8)  # finer than the low view
    tissue[:, 6] = 255  # level-0 columns 12 and 13, between the centres of its pixels but on one of the map's
    tifffile.imwrite(tmp_path / "fine.tif", tissue)
    fine = TissueMask(tmp_path / "fine.tif", info)
    assert fine.at((0, 0), (WIDTH // PX, 1), PX).any()
    assert not fine.at((0, 0), (WIDTH // LOW_PX, 1), LOW_PX).any()
    mapped = first_pass(slide, network(), tmp_path)
    assert refine_map(mapped, info, fine, STAIN, network(), settings=ALL, threads=1).regions == 0


def test_threads_do_not_change_a_byte(slide, tmp_path):
    found = [refined(slide, network(), tmp_path, threads)[0] for threads in (1, 3)]
    np.testing.assert_array_equal(*found)


def test_an_unreadable_region_keeps_the_first_pass_and_is_listed(slide, tmp_path):
    model = network()
    mapped = first_pass(slide, model, tmp_path)
    first = mapped.probability_u8.copy()
    damage(tmp_path / "s.tif", (200, 40))
    counts = refine_map(mapped, *slide, STAIN, model, settings=replace(ALL, max_unreadable_fraction=0.4), threads=1)
    assert counts.unreadable == [[128, 0, 128, 128]]
    assert counts.regions == 2
    np.testing.assert_array_equal(mapped.probability_u8[:25, 26:], first[:25, 26:])
    with pytest.raises(SlideError, match=r"slide s1, map_slide: 1 of 3 boxes cannot be read, more than 10 %"):
        refine_map(mapped, *slide, STAIN, model, settings=replace(ALL, max_unreadable_fraction=0.1), threads=1)
