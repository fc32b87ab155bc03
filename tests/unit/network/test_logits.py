"""Means of probabilities, as logits, where probabilities themselves have no digits left."""

import pytest
import torch
from lesionmap.network.logits import mean_logit, mixed_logit

SURE = torch.tensor([[-14.0, -20.5, -9.25, -40.0], [14.0, 20.5, 40.0, 9.25], [-3.0, 0.5, 17.0, 25.0]])


def log_odds(lesion, other):
    return torch.log(lesion) - torch.log(other)


@pytest.mark.parametrize("dim", [0, 1, (0, 1)])
def test_a_mean_is_exact_where_float32_probabilities_are_0_or_1(dim):
    exact = SURE.double()
    expected = log_odds(torch.sigmoid(exact).mean(dim), torch.sigmoid(-exact).mean(dim))
    torch.testing.assert_close(mean_logit(SURE, dim), expected.float(), rtol=0, atol=5e-6)
    torch.testing.assert_close(mean_logit(exact, dim), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("weight_logit", [0.0, 0.7, -12.0])
def test_a_weighted_mean_is_exact_where_float32_probabilities_are_0_or_1(weight_logit):
    first, second, a = SURE, SURE.flip(0), torch.tensor(weight_logit)
    share = torch.sigmoid(a.double())
    lesion, other = (
        share * torch.sigmoid(sign * first.double()) + (1 - share) * torch.sigmoid(sign * second.double())
        for sign in (1, -1)
    )
    torch.testing.assert_close(mixed_logit(first, second, a), log_odds(lesion, other).float(), rtol=0, atol=5e-6)


def test_the_mean_of_equal_logits_is_that_logit_however_large_it_is():
    logits = torch.tensor([-1e4, -100.0, -20.0, 0.0, 20.0, 100.0, 1e4])
    torch.testing.assert_close(mean_logit(logits.repeat(16, 1), 0), logits, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(mixed_logit(logits, logits, torch.tensor(0.3)), logits, rtol=1e-6, atol=1e-6)


def test_the_gradient_does_not_vanish_where_a_lesion_is_missed_surely():
    """Through float32 probabilities, it would be 0 at a logit of 20 or more, and lost its digits long before."""
    ours, exact = (torch.tensor([-14.0, -15.0, 30.0, 29.0], dtype=dtype) for dtype in (torch.float32, torch.float64))
    for logits in (ours, exact):
        logits.requires_grad_()
    mean_logit(ours.reshape(2, 2), 1).sum().backward()
    pairs = exact.reshape(2, 2)
    log_odds(torch.sigmoid(pairs).mean(1), torch.sigmoid(-pairs).mean(1)).sum().backward()
    torch.testing.assert_close(ours.grad, exact.grad.float(), rtol=1e-5, atol=0)
    assert exact.grad.min() > 0.2
