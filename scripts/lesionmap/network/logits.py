"""Averages of probabilities, computed in logits: exact also where a probability is as good as 0 or 1."""

from torch import Tensor
from torch.nn.functional import logsigmoid


def mean_logit(logits: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """Logit of the mean probability over some axes.

    A float32 probability has no digits left between 1 − 6e-8 and 1, and its logit no gradient. The logarithms of the
    sums of p and of 1 − p keep both.
    """
    return logsigmoid(logits).logsumexp(dim) - logsigmoid(-logits).logsumexp(dim)


def mixed_logit(first: Tensor, second: Tensor, weight_logit: Tensor) -> Tensor:
    """Logit of the weighted mean of two maps' probabilities; the first has the weight sigmoid(`weight_logit`)."""
    of_first, of_second = logsigmoid(weight_logit), logsigmoid(-weight_logit)
    lesion = (logsigmoid(first) + of_first).logaddexp(logsigmoid(second) + of_second)
    other = (logsigmoid(-first) + of_first).logaddexp(logsigmoid(-second) + of_second)
    return lesion - other
