"""How the two probability maps of a region become one (METHOD.md §4): T1 of its tiles, T2 of its low view."""

import torch
from torch import Tensor, nn


class MeanFusion(nn.Module):
    """The mean of both."""

    def forward(self, t1: Tensor, t2: Tensor) -> Tensor:
        """Maps of one shape, probabilities → the same."""
        return (t1 + t2) / 2


class MaxFusion(nn.Module):
    """The larger of both."""

    def forward(self, t1: Tensor, t2: Tensor) -> Tensor:
        """Maps of one shape, probabilities → the same."""
        return torch.maximum(t1, t2)


class LearnedFusion(nn.Module):
    """A convex combination whose weight, sigmoid(a), is trained with the network; it starts at the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.zeros(()))

    def forward(self, t1: Tensor, t2: Tensor) -> Tensor:
        """Maps of one shape, probabilities → the same."""
        weight = torch.sigmoid(self.a)
        return weight * t1 + (1 - weight) * t2


FUSIONS: dict[str, type[nn.Module]] = {"mean": MeanFusion, "max": MaxFusion, "learned": LearnedFusion}
