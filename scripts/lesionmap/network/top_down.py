"""Top-down pathway and head (METHOD.md §2), computed as the linear map that they are.

P5 = C5, P_i = C_i + conv3×3(up(conv1×1(P_{i+1}))), logit = head(P2): nothing in this is non-linear. So the head's
weights are multiplied into the convolutions before it, from the finest step to the coarsest. Of each P_i, only what the
head reads of it is computed: 1 channel of P2, 9 of P3 (the taps of a 3×3 convolution), 81 of P4, 729 of P5. It is the
same function of the same weights, with the same gradients, for less than half of ResNet-50's operations in all.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional


class TopDownStep(nn.Module):
    """The weights of one step of the pathway, from P_{i+1} to P_i (claim 4).

    Parameters
    ----------
    channels_above, channels : int
        Channels of P_{i+1} and of C_i.
    """

    def __init__(self, channels_above: int, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels_above, channels, kernel_size=1)
        self.smooth = nn.Conv2d(channels, channels, kernel_size=3, padding=1)

    def taps(self, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """How `weight`, (m, channels), reads the step's convolutions.

        Returns
        -------
        (9m, channels_above), (9m,) Tensor
            Weights and biases that read P_{i+1}, for the 3×3 taps of each row of `weight`.
        (m,) Tensor
            What the step's last bias adds.
        """
        flipped = self.smooth.weight.flip(2, 3)  # a tap's value moves against the tap
        taps = torch.einsum("mc,cdyx->myxd", weight, flipped).flatten(0, 2)
        return taps @ self.reduce.weight[:, :, 0, 0], taps @ bias_of(self.reduce), weight @ bias_of(self.smooth)


def bias_of(conv: nn.Conv2d) -> Tensor:
    """The bias of a convolution that has one."""
    return cast(Tensor, conv.bias)


def merged(weight: Tensor, bias: Tensor, steps: Sequence[TopDownStep]) -> list[tuple[Tensor, Tensor]]:
    """The weights and biases by which a 1×1 convolution of P_i reads C_i to C5.

    Parameters
    ----------
    weight, bias : (m, channels), (m,) Tensor
        Of the convolution.
    steps : sequence of TopDownStep
        The steps to P_i, …, P4.

    Returns
    -------
    list of (9^j m, channels of C_{i+j}), (9^j m,) Tensor
    """
    if not steps:
        return [(weight, bias)]
    with torch.autocast(weight.device.type, enabled=False):
        behind, bias_behind, own = steps[0].taps(weight)
        return [(weight, bias + own), *merged(behind, bias_behind, steps[1:])]


def read_out(skips: Sequence[Tensor], readers: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """The 1×1 convolution of P_i that was :func:`merged` into `readers`.

    Parameters
    ----------
    skips : sequence of (N, channels, h, w) Tensor
        C_i to C5; each has half the size of the one before.

    Returns
    -------
    (N, m, h, w) Tensor
        In the precision of the weights.
    """
    (skip, *above), (weight, bias) = skips, readers[0]
    if not above:
        return functional.conv2d(skip, weight[..., None, None], bias).to(weight.dtype)
    # the 1×1 convolution runs before the upsampling: the result is the same, at a quarter of the cost
    taps = read_out(above, readers[1:])
    raised = functional.interpolate(taps, scale_factor=2, mode="bilinear")
    moved = functional.fold(raised.flatten(2), raised.shape[-2:], kernel_size=3, padding=1)  # outside it is zero
    return moved + functional.conv2d(skip, weight[..., None, None], bias)
