"""Use several CPU cores without letting their number touch the result."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import TypeVar

import torch

CPU = torch.device("cpu")

Item = TypeVar("Item")
Result = TypeVar("Result")


class Workers(AbstractContextManager["Workers"]):
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

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """Results in the order of `items`, of which no more than `threads` are in work or waiting at a time."""
        for first in range(0, len(items), self._threads):
            yield from self._pool.map(function, items[first : first + self._threads])
