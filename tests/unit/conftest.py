from pathlib import Path

import numpy as np
import pytest
from lesionmap.slides.slide import SlideInfo
from pyramids import info_of, write_tiff


@pytest.fixture
def full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """No bf16 on CPUs that have matrix units for it: it rounds at the third digit."""
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: False)


@pytest.fixture
def noise() -> np.ndarray:
    """An asymmetric image of odd size, (333, 517, 3)."""
    return np.random.default_rng(0).integers(0, 255, (333, 517, 3), dtype=np.uint8)


@pytest.fixture
def noise_info(tmp_path: Path, noise: np.ndarray) -> SlideInfo:
    """The same as a slide with three levels."""
    return info_of(write_tiff(tmp_path / "noise.tif", noise, factors=(1, 2, 4)))
