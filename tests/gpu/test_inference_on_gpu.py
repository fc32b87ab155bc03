"""Inference on the GPU gives the maps of the CPU."""

from dataclasses import replace

import numpy as np
import pytest
import tifffile
import torch
from lesionmap.inference.engines import BF16, FP32, TOLERANCE
from lesionmap.inference.sliding_window import PassSettings, sliding_window_maps
from lesionmap.inference.torch_engine import TableOnGpu, TorchEngine
from lesionmap.network.model import LesionFPN
from lesionmap.network.model_file import save_model
from lesionmap.network.settings import ModelSettings
from lesionmap.stain.table import StainMatch, apply_table
from lesionmap.tissue.mask import TissueMask
from narrow_resnet import NARROW
from pyramids import damage, info_of, write_tiff
from stains import OTHER_HE, PROFILE, profile

TABLE = StainMatch(PROFILE, profile(OTHER_HE), (0.8, 1.1)).table()


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    torch.manual_seed(0)
    model = LesionFPN(NARROW)
    torch.nn.init.normal_(model.head.weight, std=0.3)
    path = tmp_path_factory.mktemp("model") / "network.safetensors"
    save_model(path, model, NARROW, {})
    return str(path)


def engine(path, device, precision=FP32, batch=3, tile_px=32):
    return TorchEngine(path, precision, batch, tile_px=tile_px, threads=2, device=str(device))


def images(*shape):
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)


@pytest.mark.parametrize("precision", [FP32, BF16])
def test_its_logits_are_those_of_the_cpu(model_file, device, precision):
    pictures = images(3, 64, 96)
    found, expected = (
        engine(model_file, place, one).logits(pictures) for place, one in ((device, precision), ("cpu", FP32))
    )
    difference = float(np.abs(found - expected).max() / max(1, expected.std()))
    print(f"logits in {precision} on {device.type} differ by {difference:.2g} of {TOLERANCE[precision]}")
    assert difference <= TOLERANCE[precision]
    assert np.ptp(expected) > 0.5


@pytest.mark.parametrize("options", [{}, {"factor": 4}, {"flips": True}, {"factor": 8, "flips": True}])
@pytest.mark.parametrize(("precision", "tolerance"), [(FP32, 1e-4), (BF16, 0.03)])
def test_its_shares_are_those_of_the_cpu(model_file, device, options, precision, tolerance):
    pictures = images(3, 64, 96)
    expected = engine(model_file, "cpu").shares(pictures, **options)
    mine = engine(model_file, device, precision)
    for given in (pictures, torch.from_numpy(pictures).to(device)):
        found = mine.shares(given, **options)
        assert found.shape == (2, 3, 64 // options.get("factor", 1), 96 // options.get("factor", 1))
        np.testing.assert_allclose(found, expected, atol=tolerance)
    assert np.ptp(expected) > 0.1


@pytest.mark.parametrize("precision", [FP32, BF16])
def test_the_same_images_twice_give_the_same_bits(model_file, device, precision):
    first, second = (engine(model_file, device, precision).shares(images(3, 64, 96), flips=True) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_the_table_is_that_of_the_cpu(device):
    pictures = images(2, 61, 47)
    found = TableOnGpu(TABLE, str(device))(pictures)
    assert found.device.type == device.type
    np.testing.assert_array_equal(found.cpu().numpy(), apply_table(TABLE, pictures), strict=True)


def test_the_map_of_a_slide_is_that_of_the_cpu(tmp_path, model_file, device):
    """Read, normalised, passed and stitched; also beside tiles that cannot be read."""
    y, x = np.mgrid[:703, :1117]
    red = 128 + 100 * np.sin(x / 90) * np.cos(y / 140 + x / 400)
    path = write_tiff(tmp_path / "s.tif", np.stack([red, red / 2, red / 3 + 90], axis=2).astype(np.uint8), mpp=2.5)
    info = info_of(path)
    damage(path, (70, 200))
    tifffile.imwrite(tmp_path / "tissue.tif", np.full((88, 140), 255, dtype=np.uint8))
    asked = PassSettings(2.5, tile_px=32, overlap_px=8, flips=False, max_unreadable_fraction=0.5)
    whole, right = (
        sliding_window_maps(
            info,
            TissueMask(tmp_path / "tissue.tif", info),
            TABLE,
            [engine(model_file, place, batch=7)],
            asked,
            folder=tmp_path,
            threads=3,
        )[0]
        for place in (device, "cpu")
    )
    assert whole.n_read == right.n_read > 500
    assert whole.unreadable == right.unreadable
    assert len(right.unreadable) > 0
    assert np.ptp(right.scores[right.scores > 0]) > 500
    np.testing.assert_allclose(whole.scores.astype(int), right.scores.astype(int), atol=4)


@pytest.mark.parametrize("precision", [FP32, BF16])
def test_the_fitting_batch_fits(tmp_path, gpu, precision):
    kind = ModelSettings("resnet50", "frozen")
    save_model(tmp_path / "m.safetensors", LesionFPN(kind), replace(kind), {})
    free = torch.cuda.mem_get_info(gpu)[0]
    filler = torch.empty(max(0, int(free - 3e9)), dtype=torch.uint8, device=gpu)
    mine = engine(str(tmp_path / "m.safetensors"), gpu, precision, batch=4096, tile_px=512)
    print(f"{mine.batch_size} tiles in {precision} fit 3 GB")
    assert 4 < mine.batch_size < 4096
    normalised = TableOnGpu(TABLE, "cuda")(np.repeat(images(1, 512, 512), mine.batch_size, axis=0))
    assert np.isfinite(mine.shares(normalised)).all()
    assert np.isfinite(mine.shares(normalised, flips=True)).all()
    del filler
