from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from engine_parts import ENGINES, Pixelwise, openvino_engine, torch_engine
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
SETTINGS = PassSettings(2.5, tile_px=32, overlap_px=0, flips=False, max_unreadable_fraction=0.0)


def pointwise(surely=0, batch_size=1):
    """A network without context, so that the map must be what each pixel alone gives."""
    return Pixelwise(lambda images: (128 - images[..., 0]) / 40 + surely, batch_size)


def slide_of(folder, size_px, factors):
    """A slide at 0.26 µm/px with a smooth asymmetric pattern, and tissue on all of it."""
    y, x = np.mgrid[: size_px[1], : size_px[0]]
    red = 128 + 100 * np.sin(x / 90) * np.cos(y / 140 + x / 400)
    image = np.stack([red, red / 2, red / 3 + 90], axis=2).astype(np.uint8)
    info = info_of(write_tiff(folder / "s.tif", image, mpp=0.26, factors=factors))
    tifffile.imwrite(folder / "tissue.tif", np.full((88, 140), 255, dtype=np.uint8))
    return info, TissueMask(folder / "tissue.tif", info)


@pytest.fixture
def slide(tmp_path):
    """A slide whose size no tile divides."""
    return slide_of(tmp_path, (1117, 703), (1, 4))


def passed(slide, settings, engine, threads=2):
    info, tissue = slide
    (found,) = sliding_window_maps(
        info, tissue, TABLE, [engine], settings, folder=Path(info.path).parent, threads=threads
    )
    assert found.unreadable == []
    return found


def mapped(slide, threads=2, engine=None, **changes):
    return passed(slide, replace(SETTINGS, **changes), engine or pointwise(), threads).scores


def test_the_stitched_map_is_that_of_the_whole_slide(slide):
    info = slide[0]
    found = mapped(slide)
    width, height = (int(np.ceil(length * 0.26 / 2.5)) for length in info.size_lv0)
    assert found.shape == (height, width)
    with Slide(info, "test") as opened:
        whole = apply_table(TABLE, opened.read((0, 0), (width, height), 2.5))
    grey_levels = np.abs((32768.0 - found.astype(float)) / 1024 * 40 + 128 - whole[..., 0])
    assert np.percentile(grey_levels, 99) <= 2.1  # reading in other boxes rounds a grey level differently
    assert grey_levels.max() <= 5


@pytest.mark.parametrize("batch_size", [3, 4])
def test_a_gpu_takes_batches_in_stages(tmp_path, slide, batch_size, monkeypatch):
    """With the CPU as the GPU, two models, and one tile that cannot be read among many."""
    image = np.random.default_rng(0).integers(0, 256, (320, 448, 3), dtype=np.uint8)
    info = info_of(write_tiff(tmp_path / "noise.tif", image, mpp=2.5))
    damage(tmp_path / "noise.tif", (200, 70))
    tissue = TissueMask(tmp_path / "tissue.tif", info)
    torch.manual_seed(0)
    engines = [torch_engine(LesionFPN(NARROW), tmp_path) for _ in range(2)]
    settings = replace(SETTINGS, tile_px=64, max_unreadable_fraction=0.5)
    monkeypatch.setattr(torch.Tensor, "pin_memory", torch.Tensor.clone)  # without a GPU, there is no such memory
    found = []
    for device, n in (("cpu", 1), ("cpu:0", batch_size)):
        for engine, size in zip(engines, (n, n + 1), strict=True):
            engine.device, engine.batch_size = device, size
        found.append(sliding_window_maps(info, tissue, TABLE, engines, settings, folder=tmp_path, threads=2))
    for alone, staged in zip(*found, strict=True):
        assert staged.unreadable == alone.unreadable == [[192.0, 64.0, 64.0, 64.0]]
        assert staged.n_read == 5 * 7 - 1
        assert np.ptp(alone.scores[:64]) > 20
        np.testing.assert_allclose(staged.scores.astype(int), alone.scores.astype(int), atol=1)
    one, other = found[1]
    assert (one.scores != other.scores).mean() > 0.5


def test_no_engine_gets_more_tiles_at_once_than_it_takes(slide, tmp_path):
    n = []
    engines = [Pixelwise(lambda images: n.append(len(images)) or images[..., 0] / 99, size) for size in (5, 3)]
    sliding_window_maps(*slide, TABLE, engines, SETTINGS, folder=tmp_path, threads=1)
    assert max(n) == 3


@pytest.mark.parametrize("surely", [21, -21])
def test_a_saturated_map_keeps_the_order_of_its_logits(slide, surely):
    """As float32, its probabilities would all be 1."""
    plain, saturated = mapped(slide).astype(int), mapped(slide, engine=pointwise(surely)).astype(int)
    assert np.ptp(plain) > 3 * 1024
    assert (expit(np.abs(saturated - 32768).astype(np.float32) / 1024) == 1).all()
    assert np.abs(saturated - 1024 * surely - plain).max() <= 1


@pytest.mark.parametrize("options", [{"engine": pointwise(batch_size=7)}, {"threads": 1}, {"threads": 5}])
def test_batches_and_threads_do_not_change_a_byte(slide, options):
    np.testing.assert_array_equal(mapped(slide, **options), mapped(slide))


def test_tiles_without_tissue_are_left_out(slide, tmp_path):
    info, _ = slide
    tissue = np.zeros((88, 140), dtype=np.uint8)
    tissue[50:, 80:] = 255
    tifffile.imwrite(tmp_path / "some.tif", tissue)
    found = mapped((info, TissueMask(tmp_path / "some.tif", info)))
    assert not found[:32, :64].any()
    assert found[40:, 70:].any()
    in_grid = passed((info, TissueMask(tmp_path / "some.tif", info)), SETTINGS, pointwise())
    assert (in_grid.n_read, in_grid.n_skipped) == (4, 8)


def network(*, saturated=False):
    torch.manual_seed(0)
    model = LesionFPN(NARROW)
    torch.nn.init.normal_(model.head.weight, std=1.2 if saturated else 0.1)
    if saturated:
        torch.nn.init.constant_(model.head.bias, 14)
    return model.eval()


def naively(slide, model, settings):
    """Logit of the mean probability of the whole slide in float64, each tile and each of its pixels by itself."""
    info, _ = slide
    scale, side, overlap = settings.mpp / info.mpp, settings.tile_px, settings.overlap_px
    width, height = (int(np.ceil(length / scale)) for length in info.size_lv0)
    sums = np.zeros((2, height + 2 * side, width + 2 * side))  # of lesion, and of none
    along = [
        min(1, np.sin(np.pi / 2 * min(1, (min(i, side - 1 - i) + 0.5) / max(1, overlap))) ** 2) for i in range(side)
    ]
    along = np.array(along if overlap else [1] * side)
    with Slide(info, "test") as opened, torch.no_grad():
        top = 0
        while top == 0 or top + overlap < height:
            left = 0
            while left == 0 or left + overlap < width:
                image = apply_table(TABLE, opened.read((left * scale, top * scale), (side, side), settings.mpp))
                views = [image, image[::-1], image[:, ::-1], image[::-1, ::-1]][: 4 if settings.flips else 1]
                maps = [logits_of(model, torch.from_numpy(view.copy()).permute(2, 0, 1)[None])[0, 0] for view in views]
                back = [part.double().numpy()[::y, ::x] for part, (y, x) in zip(maps, TURNS, strict=False)]
                for part, sign in zip(sums, (1, -1), strict=True):
                    mean = np.mean([expit(sign * logits) for logits in back], axis=0)
                    part[top : top + side, left : left + side] += np.outer(along, along) * mean
                left += side - overlap
            top += side - overlap
    return np.log(sums[0][:height, :width] / sums[1][:height, :width])


def steps_off(scores, logits):
    """The largest distance of a score from its logit."""
    return np.abs(scores.astype(float) - 32768 - 1024 * logits).max()


TURNS = [(1, 1), (-1, 1), (1, -1), (-1, -1)]
WHOLE, SMALL = ((1117, 703), (1, 4)), ((201, 305), (1,))


@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize(
    ("size_px", "factors", "changes"),
    [
        (*WHOLE, {}),
        (*WHOLE, {"overlap_px": 8}),
        (*WHOLE, {"overlap_px": 16, "tile_px": 64, "flips": True}),
        (*WHOLE, {"mpp": 2.2, "tile_px": 64, "overlap_px": 13}),
        (*SMALL, {}),
        (*SMALL, {"overlap_px": 8}),
        (*SMALL, {"tile_px": 64, "overlap_px": 16}),  # one tile, of which the slide fills a part
    ],
)
def test_the_map_is_that_of_a_naive_computation(tmp_path, full_precision, size_px, factors, changes, kind):
    slide, settings = slide_of(tmp_path, size_px, factors), replace(SETTINGS, **changes)
    model = network()
    expected, engine = naively(slide, model, settings), ENGINES[kind](model, tmp_path)
    found = passed(slide, settings, engine).scores
    assert (found.shape, found.dtype) == (expected.shape, np.uint16)
    assert np.ptp(expected) > 1
    assert steps_off(found, expected) <= 0.5 + 0.05  # 5e-5 of a logit before it is rounded
    info, tissue = slide
    shifted = (replace(info, bounds_xy_lv0=(31, 47)), tissue)
    np.testing.assert_array_equal(passed(shifted, settings, engine).scores, found)


@pytest.mark.parametrize("changes", [{}, {"overlap_px": 13, "flips": True}])
def test_a_saturated_map_is_that_of_a_naive_computation(tmp_path, full_precision, changes):
    slide, settings = slide_of(tmp_path, (601, 505), (1, 4)), replace(SETTINGS, **changes)
    model = network(saturated=True)
    expected = naively(slide, model, settings)
    as_1 = expit(expected).astype(np.float32) == 1
    assert as_1.mean() > 0.1
    assert np.ptp(expected[as_1]) > 3
    assert expected[~as_1].min() < 10
    assert steps_off(passed(slide, settings, openvino_engine(model, tmp_path)).scores, expected) <= 0.5 + 0.05


def test_overlap_hides_seams_that_are_measured_without_it(slide, tmp_path):
    engine, settings = openvino_engine(network(), tmp_path), replace(SETTINGS, mpp=1.0, tile_px=128)
    seams = [passed(slide, replace(settings, overlap_px=overlap), engine).seam_measure for overlap in (0, 32)]
    assert seams[0] > 5
    assert seams[1] <= 1.05


@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize("threads", [1, 3])
def test_the_threads_of_an_engine_do_not_change_a_byte(slide, tmp_path, kind, threads):
    found = [mapped(slide, n, ENGINES[kind](network(), tmp_path, threads=n), overlap_px=8) for n in (2, threads)]
    np.testing.assert_array_equal(*found)
