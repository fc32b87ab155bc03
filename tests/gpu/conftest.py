"""``make gpu-check`` runs these tests on a GPU; with DEVICE=cpu they run on a CPU, to see that they are right."""

import os

import pytest
import torch


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The first GPU, or what DEVICE says."""
    name = os.environ.get("DEVICE", "cuda")
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA GPU")
    return torch.device(name)


@pytest.fixture
def gpu(device: torch.device) -> torch.device:
    """The GPU, for what is only there; its memory is free again afterwards."""
    if device.type != "cuda":
        pytest.skip("of a GPU's memory")
    torch.cuda.empty_cache()
    yield device
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()
