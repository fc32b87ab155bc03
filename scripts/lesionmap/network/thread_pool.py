"""Use several CPU cores without letting their number touch the result."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

import torch

from lesionmap.jobs.parallel import Item, Result, in_order

CPU = torch.device("cpu")


class ThreadPool(AbstractContextManager["ThreadPool"]):
    """Threads that each run whole network passes on one core; a context manager.

    oneDNN's convolutions add up in an order that varies from run to run once several threads share one of them, so
    each pass gets one thread, and results are taken in the order of their items: the same bytes for any number of
    threads. The threads live on between calls, as their compiled kernels do.

    Parameters
    ----------
    threads : int
    device : torch.device
        A GPU takes one pass after another, whatever `threads` says.
    """

    def __init__(self, threads: int, device: torch.device = CPU) -> None:
        torch.set_num_threads(1)
        self._threads = 1 if device.type == "cuda" else threads
        self._pool = ThreadPoolExecutor(self._threads)

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Results in the order of `items`, of which no more than `threads` are in work or waiting at a time."""
        return in_order(self._pool, function, items, self._threads)
