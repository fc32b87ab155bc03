"""The group of processes that train one network together: each brings one region per update."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch.distributed
from torch import Tensor, nn

from lesionmap.jobs.parallel import no_pause
from lesionmap.network.thread_pool import CPU

NO_LIMIT = timedelta(days=365)  # for waiting: the parent process notices when one ends, and then ends all
SECONDS_TO_BE_ENDED = 60
POLL_SECONDS = 0.01


@dataclass(frozen=True)
class ProcessGroup:
    """One of `count` processes with the same weights, and its communication with the others.

    torch's DistributedDataParallel does not fit: it averages gradients in the hooks of a single backward pass. Here a
    region's gradient is the sum of many passes (:func:`lesionmap.training.updates.fused_backward`), and a process may
    have no region.

    Parameters
    ----------
    count : int
        Number of processes; with 1, nothing is exchanged.
    rank : int
        Number of this process, from 0. Only process 0, the main one, writes results and shows progress.
    device : torch.device
        Device of this process's weights.
    """

    count: int = 1
    rank: int = 0
    device: torch.device = CPU

    @property
    def is_main(self) -> bool:
        """Whether this is the main process, which writes the results."""
        return self.rank == 0

    def gathered(self, values: Sequence[float], pause_point: Callable[[], None] = no_pause) -> list[list[float]]:
        """The `values` of every process, by rank; each process must give equally many.

        `pause_point` is called again and again until all have given theirs. It may raise to end this process.
        """
        if self.count == 1:
            return [list(values)]
        table = torch.zeros(self.count, len(values), dtype=torch.float64, device=self.device)
        table[self.rank] = torch.tensor(values, dtype=torch.float64)
        _add_up(table, pause_point)
        rows: list[list[float]] = table.tolist()
        return rows

    def summed(self, values: Sequence[float], pause_point: Callable[[], None] = no_pause) -> list[float]:
        """Element-wise sums of `values` over all processes; `pause_point` as in :meth:`gathered`."""
        return [sum(column) for column in zip(*self.gathered(values, pause_point), strict=True)]

    def mean_gradients(
        self, weights: Sequence[nn.Parameter], has_region: bool, pause_point: Callable[[], None] = no_pause
    ) -> bool:
        """Replace each weight's gradient by the mean over the processes that have a region.

        `pause_point` as in :meth:`gathered`.

        Returns False if no process has a region. A weight without a gradient in every process stays without one, as in
        training with a single process.
        """
        if self.count == 1:
            return has_region
        n_regions, *found = self.summed([has_region, *(weight.grad is not None for weight in weights)], pause_point)
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
    """Join the other processes of this machine through the file `meeting`, which must not exist before."""
    backend = "gloo"
    if device.type == "cuda":
        backend = "nccl"
        torch.cuda.set_device(device)
    torch.distributed.init_process_group(backend, meeting.as_uri(), NO_LIMIT, count, rank)
    yield ProcessGroup(count, rank, device)
    torch.distributed.destroy_process_group()  # not after an error: it would wait for the others


def _gradient(weight: nn.Parameter) -> Tensor:
    return torch.zeros_like(weight) if weight.grad is None else weight.grad


def _add_up(values: Tensor, pause_point: Callable[[], None] = no_pause) -> None:
    """Replace `values` by their sum over all processes; every process gets identical values."""
    try:
        work = torch.distributed.all_reduce(values, async_op=True)
        while not work.is_completed():
            pause_point()
            time.sleep(POLL_SECONDS)
        work.wait()
    except RuntimeError:
        time.sleep(SECONDS_TO_BE_ENDED)  # another process has ended: its error is the one to report, not this
        raise
