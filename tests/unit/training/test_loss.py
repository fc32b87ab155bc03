"""The focal loss, also where a network is so sure that a probability has no digits left."""

from decimal import Decimal, localcontext

import numpy as np
import pytest
import torch
from lesionmap.errors import TrainingError
from lesionmap.network.model import LearnedFusion, MaxFusion, MeanFusion
from lesionmap.network.region_pass import downsampled
from lesionmap.training.loss import check_not_exploded, focal_sum
from training_parts import settings

DIGITS, STEP = 120, Decimal("1e-30")


def test_pixels_beyond_the_slide_do_not_count():
    mask = torch.tensor([[[[1, 255], [0, 255]]]], dtype=torch.uint8)
    logits = torch.tensor([[[[0.0, 9.0], [0.0, -9.0]]]])
    expected = (0.75 + 0.25) * 0.25 * np.log(2)
    assert focal_sum(logits, mask, settings()).item() == pytest.approx(expected)


def loss_of(logits, weight, lesion):
    """Of one fused pixel (METHOD.md §3–4), from probabilities of 120 digits; its low view is the last of `logits`."""
    *tiles, low = [1 / (1 + (-value).exp()) for value in logits]
    t1 = sum(tiles) / len(tiles)
    p = max(t1, low) if weight is None else weight * t1 + (1 - weight) * low
    return -Decimal("0.75") * (1 - p) ** 2 * p.ln() if lesion else -Decimal("0.25") * p**2 * (1 - p).ln()


def gradient_of(logits, weight, lesion):
    """By central differences."""
    exact = [Decimal(value) for value in logits]
    for index, value in enumerate(exact):
        ends = [loss_of([*exact[:index], value + step, *exact[index + 1 :]], weight, lesion) for step in (STEP, -STEP)]
        yield float((ends[0] - ends[1]) / (2 * STEP))


@pytest.mark.parametrize("fusion", ["mean", "learned", "max"])
@pytest.mark.parametrize("lesion", [True, False])
@pytest.mark.parametrize(
    "logits",
    [[-14.0, -14, -14, -14, -15], [-60.0, -61, -59, -60, -70], [41.0, 40, 42, 43, 30], [-20.0, 3, 18, -0.5, -25]],
)
def test_the_fused_loss_of_a_saturated_pixel_and_its_gradient_are_exact(logits, lesion, fusion):
    """Clamped probabilities gave no gradient beyond 1e-6: a lesion pixel at logit −14 should move with −0.75."""
    model = {"mean": MeanFusion, "learned": LearnedFusion, "max": MaxFusion}[fusion]()
    if fusion == "learned":
        model.eval().a.fill_(1.5)
    with localcontext() as context:
        context.prec = DIGITS
        weight = {"mean": Decimal("0.5"), "learned": 1 / (1 + Decimal("-1.5").exp()), "max": None}[fusion]
        expected = float(loss_of([Decimal(value) for value in logits], weight, lesion))
        slopes = list(gradient_of(logits, weight, lesion))
    mask = torch.full((1, 1, 1, 1), int(lesion), dtype=torch.uint8)
    for dtype, rel, least in ((torch.float64, 1e-9, 1e-18), (torch.float32, 1e-4, 1e-12)):  # of pixels that are right
        tiles, low = (torch.tensor(part, dtype=dtype, requires_grad=True) for part in (logits[:4], logits[4:]))
        fused = model.to(dtype)(downsampled(tiles.reshape(1, 1, 2, 2), 2), low.reshape(1, 1, 1, 1))
        loss = focal_sum(fused, mask, settings())
        loss.backward()
        assert loss.item() == pytest.approx(expected, rel=rel, abs=least)
        assert [*tiles.grad.tolist(), *low.grad.tolist()] == pytest.approx(slopes, rel=rel, abs=least)


@pytest.mark.parametrize(("alpha", "gamma"), [(0.75, 2.0), (0.25, 2.0), (0.75, 0.0)])
def test_a_loss_has_exploded_if_it_is_ten_times_that_of_a_network_that_cannot_decide(alpha, gamma):
    """Of its whole output, be it lesion or not, whichever counts more."""
    asked = settings(focal_alpha=alpha, focal_gamma=gamma)
    logits, zeros = torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2, dtype=torch.uint8)
    bar = 10 * max(focal_sum(logits, mask, asked).item() / 4 for mask in (zeros, zeros + 1))
    check_not_exploded([{"low": 0.99 * bar, "fused": 0.99 * bar}] * 48, asked)
    with pytest.raises(TrainingError, match="the loss has exploded"):
        check_not_exploded([{"low": 1.01 * bar, "fused": 1.01 * bar}] * 48, asked)


def test_a_loss_that_has_come_down_is_told_and_goes_on(caplog):
    calm, hard = {"low": 0.1}, {"low": 36.0}
    check_not_exploded([calm] * 48, settings())
    check_not_exploded([hard] * 48 + [calm] * 48, settings())  # the last 48 alone count
    check_not_exploded([], settings())
    assert caplog.text == ""
    check_not_exploded([hard] * 10 + [calm] * 38, settings())
    assert "a region's loss was 36, and has come down" in caplog.text
    assert "raise train.warmup_updates" in caplog.text
