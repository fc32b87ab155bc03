import numpy as np
import pytest
import torch
from lesionmap.training.loss import focal_sum
from training_parts import settings


def test_pixels_beyond_the_slide_do_not_count():
    mask = torch.tensor([[[[1, 255], [0, 255]]]], dtype=torch.uint8)
    logits = torch.tensor([[[[0.0, 9.0], [0.0, -9.0]]]])
    expected = (0.75 + 0.25) * 0.25 * np.log(2)
    assert focal_sum(logits, mask, settings()).item() == pytest.approx(expected)
