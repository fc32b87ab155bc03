"""The second look, held against a computation at level 0, pixel by pixel."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import tifffile
import torch
from engine_parts import ENGINES, openvino_engine
from lesionmap.errors import SlideError
from lesionmap.geometry.tiling import TileSpec
from lesionmap.inference.refinement import Fusion, RefineSettings, refine_maps
from lesionmap.inference.sliding_window import PassSettings, sliding_window_maps
from lesionmap.network.forward import logits_of
from lesionmap.network.model import LesionFPN
from lesionmap.slides.slide import Slide
from lesionmap.stain.table import StainMatch, apply_table
from lesionmap.tissue.mask import TissueMask
from narrow_resnet import NARROW
from pyramids import damage, info_of, write_tiff
from scipy.special import expit
from stained import OTHER_HE, PROFILE, profile

STAIN = StainMatch(PROFILE, profile(OTHER_HE), (0.8, 1.1))
TABLE = STAIN.table()
SPEC = TileSpec(region_px=128, tile_px=32, mpp=0.25)  # the low view at 1 µm/px
FIRST = PassSettings(1.25, tile_px=32, overlap_px=0, flips=False, max_unreadable_fraction=0.0)
ALL = RefineSettings(SPEC, (0, 65535), Fusion(), t2_of_first_pass=False, flips=False, max_unreadable_fraction=0.0)
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


def network(fusion="mean", *, saturated=False, norm="group"):
    torch.manual_seed(0)
    model = LesionFPN(replace(NARROW, fusion=fusion, norm=norm))
    for name, buffer in model.named_buffers():
        if name.endswith(("_mean", "_var")):
            buffer += torch.rand_like(buffer)
    torch.nn.init.normal_(model.head.weight, std=1.2 if saturated or norm == "batch" else 0.1)
    if saturated:
        torch.nn.init.constant_(model.head.bias, 15)
    if fusion == "learned":
        torch.nn.init.constant_(model.fusion.a, 0.7)
    return model.eval()


def first_pass(slide, engine, tmp_path):
    return sliding_window_maps(*slide, TABLE, [engine], FIRST, folder=tmp_path, threads=2)[0]


def refine_map(mapped, info, tissue, stain, engine, *, settings, threads):
    (counts,) = refine_maps([mapped], info, tissue, stain, [engine], settings=[settings], threads=threads)
    return counts


def refined(slide, engine, tmp_path, threads=2, **changes):
    mapped = first_pass(slide, engine, tmp_path)
    counts = refine_map(mapped, *slide, STAIN, engine, settings=replace(ALL, **changes), threads=threads)
    return mapped.scores, counts


def probabilities(model, image, turns=UNTURNED):
    """Of lesion and of none, in float64; (2, H, W)."""
    views = [torch.from_numpy(image[::y, ::x].copy()).permute(2, 0, 1)[None] for y, x in turns]
    logits = [
        logits_of(model, view)[0, 0].double().numpy()[::y, ::x] for view, (y, x) in zip(views, turns, strict=True)
    ]
    return np.array([np.mean([expit(sign * part) for part in logits], axis=0) for sign in (1, -1)])


FUSED = {
    "mean": lambda t1, t2: (t1 + t2) / 2,
    "max": lambda t1, t2: np.where(t1[1] < t2[1], t1, t2),  # where the probability of no lesion is smaller
    "learned": lambda t1, t2: (t1 * np.exp(0.7) + t2) / (1 + np.exp(0.7)),
    "tiles": lambda t1, t2: t1,
}


def of_tiles(model):
    """The network with the tiles' statistics in the place of the low view's."""
    twin, state = copy.deepcopy(model), model.state_dict()
    twin.load_state_dict({name: state.get(name.replace("running_", "tile_"), state[name]) for name in state})
    return twin


@torch.no_grad()
def naively(slide, model, fusion, first_scores, turns=UNTURNED):
    """Logit of every pixel's probability, averaged over its level-0 pixels; and the number of regions and tiles."""
    info, tissue = slide
    tile_model = of_tiles(model)
    canvas = np.array([expit(sign * (first_scores / 1024 - 32)) for sign in (1, -1)])
    canvas = canvas.repeat(PX, axis=1).repeat(PX, axis=2)
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
            fused = probabilities(model, low, turns)
            for r, c in tiles:
                tile = probabilities(tile_model, image[32 * r : 32 * r + 32, 32 * c : 32 * c + 32], turns)
                place = (slice(None), slice(8 * r, 8 * r + 8), slice(8 * c, 8 * c + 8))
                fused[place] = FUSED[fusion](tile.reshape(2, 8, 4, 8, 4).mean(axis=(2, 4)), fused[place])
            inside = canvas[:, y : y + 128, x : x + 128]
            inside[:] = fused.repeat(LOW_PX, axis=1).repeat(LOW_PX, axis=2)[:, : inside.shape[1], : inside.shape[2]]
            counts = [counts[0] + 1, counts[1] + len(tiles)]
    height, width = first_scores.shape
    lesion, other = canvas.reshape(2, height, PX, width, PX).mean(axis=(2, 4))
    return np.log(lesion / other), counts


def steps_off(scores, logits):
    """The largest distance of a score from its logit."""
    return np.abs(scores.astype(float) - 32768 - 1024 * logits).max()


@pytest.mark.parametrize(
    ("fusion", "turns", "saturated", "norm", "kind"),
    [
        ("mean", FLIPS, False, "group", "openvino"),
        ("mean", FLIPS, False, "batch", "openvino"),
        ("mean", UNTURNED, False, "batch", "torch"),
        ("max", UNTURNED, False, "group", "torch"),
        ("learned", UNTURNED, False, "group", "openvino"),
        ("mean", FLIPS, True, "group", "torch"),
        ("learned", UNTURNED, True, "group", "torch"),
        ("max", UNTURNED, True, "group", "openvino"),
        ("tiles", UNTURNED, True, "group", "openvino"),
    ],
)
def test_regions_are_fused_as_in_training_and_take_their_share_of_each_pixel(
    slide, tmp_path, fusion, turns, saturated, norm, kind
):
    model = network(fusion, saturated=saturated, norm=norm)
    engine = ENGINES[kind](model, tmp_path, settings=replace(NARROW, fusion=fusion, norm=norm))
    first = first_pass(slide, engine, tmp_path).scores.copy()
    expected, counts = naively(slide, model, fusion, first, turns)
    chosen = Fusion(fusion, 1 / (1 + math.exp(-0.7)) if fusion == "learned" else 0.5)
    found, refinement = refined(slide, engine, tmp_path, fusion=chosen, flips=turns == FLIPS)
    assert steps_off(found, expected) <= 0.5 + 0.05  # 5e-5 of a logit before it is rounded
    assert [refinement.regions, refinement.tiles] == counts
    assert counts[0] == 3  # one of four has no tissue
    np.testing.assert_array_equal(found[26:, 26:], first[26:, 26:])
    assert (found[:26] != first[:26]).mean() > 0.99
    as_1 = expit(expected).astype(np.float32) == 1
    assert (as_1.mean() > 0.1) == saturated


def test_a_pixel_keeps_what_regions_do_not_cover_of_it(slide, tmp_path):
    """Row 25 lies at y 125 to 130: right of x 130, only its upper three fifths are refined."""
    model = network(saturated=True)
    engine = openvino_engine(model, tmp_path)
    mapped = first_pass(slide, engine, tmp_path)
    mapped.scores[:] = np.random.default_rng(0).choice([0, 1, 20000, 45000, 60000, 65535], mapped.scores.shape)
    first = mapped.scores.copy()
    expected, _ = naively(slide, model, "mean", first)
    refine_map(mapped, *slide, STAIN, engine, settings=ALL, threads=1)
    for partly in (np.s_[25, 25:], np.s_[26:, 25]):
        assert steps_off(mapped.scores[partly], expected[partly]) <= 0.5 + 0.05
        assert (mapped.scores[partly] != first[partly]).all()
    np.testing.assert_array_equal(mapped.scores[26:, 26:], first[26:, 26:])
    np.testing.assert_array_equal(mapped.scores[:25], refined(slide, engine, tmp_path)[0][:25])


def test_only_regions_with_asked_for_probability_are_refined(slide, tmp_path):
    engine = openvino_engine(network(), tmp_path)
    first = first_pass(slide, engine, tmp_path).scores.copy()
    on_tissue = slide[1].at((0, 0), first.shape[::-1], PX)
    least = int(np.percentile(first[on_tissue], 99.8))
    everywhere, _ = refined(slide, engine, tmp_path)
    found, counts = refined(slide, engine, tmp_path, looked_at=(least, 65535))
    assert 0 < counts.regions < 3
    for top, left in np.ndindex(2, 2):
        place = tuple(slice(-(-128 * at // PX), 128 * (at + 1) // PX) for at in (top, left))  # the region's own pixels
        box = tuple(slice(128 * at // PX, -(-128 * (at + 1) // PX)) for at in (top, left))
        asked = (first[box] >= least)[on_tissue[box]].any()
        np.testing.assert_array_equal(found[place], (everywhere if asked else first)[place])
    _, none = refined(slide, engine, tmp_path, looked_at=(65535, 65534))
    assert (none.regions, none.tiles, none.unreadable) == (0, 0, [])


def test_what_lies_beside_the_tissue_asks_for_no_second_look(slide, tmp_path):
    engine = openvino_engine(network(), tmp_path)
    mapped = first_pass(slide, engine, tmp_path)
    on_tissue = slide[1].at((0, 0), mapped.scores.shape[::-1], PX)
    only_beside = replace(ALL, looked_at=(40001, 40003))
    around = np.resize([40000, 40004], mapped.scores.shape)
    assert on_tissue[2, 6]
    for score, regions in ((40000, 0), (40001, 1), (40003, 1), (40004, 0)):
        mapped.scores[:] = np.where(on_tissue, around, 40002)
        mapped.scores[2, 6] = score
        assert refine_map(mapped, *slide, STAIN, engine, settings=only_beside, threads=1).regions == regions


def test_a_region_whose_tissue_no_pixel_of_the_low_view_shows_has_no_tiles_to_look_at(slide, tmp_path):
    info, _ = slide
    tissue = np.zeros((-(-HEIGHT // 2), -(-WIDTH // 2)), dtype=np.uint8)  # finer than the low view
    tissue[:, 6] = 255  # level-0 columns 12 and 13, between the centres of its pixels but on one of the map's
    tifffile.imwrite(tmp_path / "fine.tif", tissue)
    fine = TissueMask(tmp_path / "fine.tif", info)
    assert fine.at((0, 0), (WIDTH // PX, 1), PX).any()
    assert not fine.at((0, 0), (WIDTH // LOW_PX, 1), LOW_PX).any()
    engine = openvino_engine(network(), tmp_path)
    mapped = first_pass(slide, engine, tmp_path)
    assert refine_map(mapped, info, fine, STAIN, engine, settings=ALL, threads=1).regions == 0


OVERLAPPING = replace(FIRST, mpp=1.0, overlap_px=8)  # a pixel of the map is one of the low view


@torch.no_grad()
def of_first_pass_naively(slide, model, first_scores):
    """Logits of the mean of T1 and the first pass in each tile with tissue, and of the first pass elsewhere."""
    info, tissue = slide
    shares = np.array([expit(sign * (first_scores / 1024 - 32)) for sign in (1, -1)])
    height, width = first_scores.shape
    with Slide(info, "test") as opened:
        for row, column in np.ndindex(8, 8):
            y, x = 8 * row, 8 * column
            if y >= height or x >= width or not tissue.at((4 * x, 4 * y), (8, 8), LOW_PX).any():
                continue
            image = apply_table(TABLE, opened.read((4 * x, 4 * y), (32, 32), 0.25))
            t1 = probabilities(of_tiles(model), image).reshape(2, 8, 4, 8, 4).mean(axis=(2, 4))
            place = shares[:, y : y + 8, x : x + 8]
            place[...] = (place + t1[:, : place.shape[1], : place.shape[2]]) / 2
    return np.log(shares[0] / shares[1])


def overlapping_first_pass(slide, engine, tmp_path):
    return sliding_window_maps(*slide, TABLE, [engine], OVERLAPPING, folder=tmp_path, threads=2)[0]


def test_a_first_pass_that_overlaps_takes_the_place_of_t2(slide, tmp_path):
    model = network()
    engine = openvino_engine(model, tmp_path)
    mapped = overlapping_first_pass(slide, engine, tmp_path)
    first = mapped.scores.copy()
    counts = refine_map(mapped, *slide, STAIN, engine, settings=replace(ALL, t2_of_first_pass=True), threads=2)
    assert counts.regions == 3
    looked = first > 0
    expected = of_first_pass_naively(slide, model, first)
    assert np.abs(mapped.scores - (np.float64(32768) + 1024 * expected))[looked].max() <= 1
    assert (mapped.scores != first)[looked].mean() > 0.5


def test_where_the_first_pass_has_not_looked_at_tissue_a_region_has_its_own_t2(slide, tmp_path):
    engine, found = openvino_engine(network(), tmp_path), []
    for of_first in (False, True):
        mapped = overlapping_first_pass(slide, engine, tmp_path)
        mapped.scores[:4, :4] = mapped.scores[:4, 40:44] = mapped.scores[34:36, :4] = 0
        refine_map(mapped, *slide, STAIN, engine, settings=replace(ALL, t2_of_first_pass=of_first), threads=2)
        found.append(mapped.scores)
    assert found[0].any()
    np.testing.assert_array_equal(*found)


def test_threads_do_not_change_a_byte(slide, tmp_path):
    found = [
        refined(slide, openvino_engine(network(), tmp_path, threads=threads), tmp_path, threads)[0]
        for threads in (1, 3)
    ]
    np.testing.assert_array_equal(*found)


def test_an_unreadable_region_keeps_the_first_pass_and_is_listed(slide, tmp_path):
    engine = openvino_engine(network(), tmp_path)
    mapped = first_pass(slide, engine, tmp_path)
    first = mapped.scores.copy()
    damage(tmp_path / "s.tif", (200, 40))
    counts = refine_map(mapped, *slide, STAIN, engine, settings=replace(ALL, max_unreadable_fraction=0.4), threads=1)
    assert counts.unreadable == [[128, 0, 128, 128]]
    assert counts.regions == 2
    np.testing.assert_array_equal(mapped.scores[:25, 26:], first[:25, 26:])
    with pytest.raises(SlideError, match=r"slide s1, map_slide: 1 of 3 boxes cannot be read, more than 10 %"):
        refine_map(mapped, *slide, STAIN, engine, settings=replace(ALL, max_unreadable_fraction=0.1), threads=1)
