import numpy as np
import pytest
import torch
from lesionmap.stain import apply_table, stain_table
from lesionmap.stain_torch import TableOnDevice, gather
from stained import CAMELYON, HE

SHAPES = [(3,), (0, 3), (5, 7, 3), (2, 5, 7, 3)]


@pytest.fixture(scope="module")
def table():
    return stain_table(CAMELYON, HE * 1.5)


def images(shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("shape", SHAPES)
def test_on_a_cpu_it_is_apply_table(table, shape):
    found = TableOnDevice(table, torch.device("cpu")).normalised(images(shape))
    assert found.dtype == torch.uint8
    np.testing.assert_array_equal(found.numpy(), apply_table(table, images(shape)), strict=True)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_gather_is_apply_table(table, shape):
    found = gather(torch.from_numpy(table), torch.from_numpy(images(shape)))
    np.testing.assert_array_equal(found.numpy(), apply_table(table, images(shape)), strict=True)


def test_the_gather_reads_views(table):
    whole = torch.from_numpy(images((2, 3, 8, 9)))
    view = whole.permute(0, 2, 3, 1)[:, ::2]
    found = gather(torch.from_numpy(table), view)
    np.testing.assert_array_equal(found.numpy(), apply_table(table, view.numpy()), strict=True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("shape", [*SHAPES, (1024, 1024, 16, 3)])
def test_on_a_gpu_it_is_apply_table(table, shape):
    found = TableOnDevice(table, torch.device("cuda")).normalised(images(shape))
    assert (found.dtype, found.device.type) == (torch.uint8, "cuda")
    np.testing.assert_array_equal(found.cpu().numpy(), apply_table(table, images(shape)), strict=True)
