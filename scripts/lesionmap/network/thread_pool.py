"""Run the network on several CPU cores, with results that do not depend on their number."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

import torch

from lesionmap.jobs.parallel import Item, Result, in_order, no_pause

CPU = torch.device("cpu")


class ThreadPool(AbstractContextManager["ThreadPool"]):
    """Threads that each run whole network passes on one core; a context manager.

    When several threads share one convolution, oneDNN sums in an order that varies from run to run. So each pass runs
    in one thread, and results are used in the order of their items: the result is the same to the bit for any number
    of threads. The threads stay alive between calls, and so do their compiled kernels.

    Parameters
    ----------
    threads : int
        Passes at a time on a CPU.
    device : torch.device
        On a GPU, passes run one after another, whatever `threads` is.
    """

    def __init__(self, threads: int, device: torch.device = CPU) -> None:
        torch.set_num_threads(1)
        self._threads = 1 if device.type == "cuda" else threads
        self._pool = ThreadPoolExecutor(self._threads)

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def map(
        self, function: Callable[[Item], Result], items: Iterable[Item], pause_point: Callable[[], None] = no_pause
    ) -> Iterator[Result]:
        """Results in the order of `items`; at most `threads` of them are being computed or waiting to be used.

        `pause_point` is that of :func:`lesionmap.jobs.parallel.in_order`.
        """
        return in_order(self._pool, function, items, self._threads, pause_point)
