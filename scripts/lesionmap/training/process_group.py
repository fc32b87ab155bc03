"""The processes that train one network together, a region each per update."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch.distributed
from torch import Tensor, nn

from lesionmap.network.thread_pool import CPU

NO_LIMIT = timedelta(days=365)  # of waiting for the others: who starts them notices when one ends, and ends all
SECONDS_TO_BE_ENDED = 60


@dataclass(frozen=True)
class ProcessGroup:
    """One of `count` processes with the same weights; what they tell each other.

    torch's DistributedDataParallel is of no use here: it averages in hooks of one backward pass per update, and a
    region's gradient is added up from many (:func:`lesionmap.training.updates.fused_backward`), or there is no region.

    Parameters
    ----------
    count : int
        One alone tells nobody anything, and needs no process group.
    rank : int
        Of this process, from 0; the first leads: it alone writes results, and says how far training is.
    device : torch.device
        Of its weights.
    """

    count: int = 1
    rank: int = 0
    device: torch.device = CPU

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes results."""
        return self.rank == 0

    def gathered(self, figures: Sequence[float]) -> list[list[float]]:
        """The same number of figures from every process, by rank."""
        if self.count == 1:
            return [list(figures)]
        table = torch.zeros(self.count, len(figures), dtype=torch.float64, device=self.device)
        table[self.rank] = torch.tensor(figures, dtype=torch.float64)
        _add_up(table)
        rows: list[list[float]] = table.tolist()
        return rows

    def summed(self, figures: Sequence[float]) -> list[float]:
        """The sums of such figures over all processes."""
        return [sum(column) for column in zip(*self.gathered(figures), strict=True)]

    def mean_gradients(self, weights: Sequence[nn.Parameter], has_region: bool) -> bool:
        """Give each weight the mean of its gradients over the processes that have a region; False if none has.

        A weight that no region has a gradient of keeps none, as it does in one process.
        """
        if self.count == 1:
            return has_region
        n_regions, *found = self.summed([has_region, *(weight.grad is not None for weight in weights)])
        if not n_regions:
            return False
        shared = [weight for weight, count in zip(weights, found, strict=True) if count]
        flat = torch.cat([_gradient(weight).flatten() for weight in shared])
        _add_up(flat)
        flat /= n_regions
        parts = flat.split([weight.numel() for weight in shared])  # type: ignore[no-untyped-call]  # torch does not type it
        for weight, part in zip(shared, parts, strict=True):
            weight.grad = torch.empty_like(weight).copy_(part.view(weight.shape))
        return True


ALONE = ProcessGroup()


@contextmanager
def joined(meeting: Path, rank: int, count: int, device: torch.device) -> Iterator[ProcessGroup]:
    """Meet the other processes of this machine in the file `meeting`, which must not exist before."""
    backend = "gloo"
    if device.type == "cuda":
        backend = "nccl"
        torch.cuda.set_device(device)
    torch.distributed.init_process_group(backend, meeting.as_uri(), NO_LIMIT, count, rank)
    yield ProcessGroup(count, rank, device)
    torch.distributed.destroy_process_group()  # not after an error: the others would not answer


def _gradient(weight: nn.Parameter) -> Tensor:
    return torch.zeros_like(weight) if weight.grad is None else weight.grad


def _add_up(figures: Tensor) -> None:
    """Replace the figures by their sum over all processes, the same bits in each."""
    try:
        torch.distributed.all_reduce(figures)
    except RuntimeError:
        time.sleep(SECONDS_TO_BE_ENDED)  # another has ended: that is the error to report, not this
        raise
