"""What a GPU does is run here on the CPU; ``make gpu-check`` runs it there."""

import numpy as np
import pytest
import torch
from engine_parts import openvino_engine, torch_engine
from lesionmap.inference.engines import BF16, FP32
from lesionmap.inference.torch_engine import TableOnGpu, on_device
from lesionmap.network.model import LesionFPN
from lesionmap.stain.table import apply_table, stain_table
from narrow_resnet import NARROW
from stains import CAMELYON, HE

SHAPES = [(3,), (0, 3), (5, 7, 3), (2, 5, 7, 3)]
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


@pytest.fixture(scope="module")
def table():
    return stain_table(CAMELYON, HE * 1.5)


def images(shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", [*SHAPES, (64, 1024, 16, 3)])
def test_the_table_gives_what_apply_table_gives(table, shape, device):
    found = TableOnGpu(table, device)(images(shape))
    assert (found.dtype, found.device.type) == (torch.uint8, device)
    np.testing.assert_array_equal(found.cpu().numpy(), apply_table(table, images(shape)), strict=True)


def test_the_table_reads_views(table):
    view = torch.from_numpy(images((2, 3, 8, 9))).permute(0, 2, 3, 1)[:, ::2]
    found = TableOnGpu(table, "cpu")(view)
    np.testing.assert_array_equal(found.numpy(), apply_table(table, view.numpy()), strict=True)


def test_what_is_on_the_gpu_is_not_copied_there():
    """A device may be named without its number, which tensors always have."""
    there = torch.empty(2, 3, device="meta")
    assert on_device(there, torch.device("meta", 0)).device.type == "meta"


@pytest.mark.parametrize("options", [{}, {"factor": 4}, {"flips": True}, {"factor": 8, "flips": True}])
def test_its_shares_are_those_of_other_engines(tmp_path, options):
    torch.manual_seed(0)
    model = LesionFPN(NARROW)
    torch.nn.init.normal_(model.head.weight, std=0.3)
    pictures = images((3, 64, 96, 3))
    mine, theirs = (make(model, tmp_path).shares(pictures, **options) for make in (torch_engine, openvino_engine))
    factor = options.get("factor", 1)
    assert mine.shape == (2, 3, 64 // factor, 96 // factor)
    np.testing.assert_allclose(mine, theirs, atol=2e-5)
    np.testing.assert_allclose(mine.sum(axis=0), 1, atol=1e-6)
    assert np.ptp(mine) > 0.1


def test_engines_side_by_side_keep_their_own_precision(tmp_path):
    """An ensemble on a GPU may have one model that bf16 does not suit; TF32 is a switch of the whole process."""
    engines = [torch_engine(LesionFPN(NARROW), tmp_path, precision) for precision in (FP32, BF16)]
    seen = []
    for engine in engines:
        engine._model.register_forward_hook(lambda *_: seen.append(torch.backends.cudnn.allow_tf32))
    for engine in (*engines, *engines):
        engine.shares(images((1, 32, 32, 3)))
    assert seen == [False, True, False, True]
