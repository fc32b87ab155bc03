"""Results of several threads, in order and few at a time."""

import ctypes
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
LARGE_BLOCK_BYTES = 2**23  # a row of tiles of 512 px is below it: such blocks come and go quickly
Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_order(function: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """Results in the order of `items`; at most `threads` + 1 are in work or waiting to be taken."""
    with ThreadPoolExecutor(threads) as pool:
        yield from in_order(pool, function, items, threads + 1)


def in_order(
    pool: ThreadPoolExecutor, function: Callable[[Item], Result], items: Iterable[Item], most: int
) -> Iterator[Result]:
    """Results in the order of `items`, of which no more than `most` are in work or waiting to be taken."""
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            if len(waiting) == most:
                yield waiting.popleft().result()
            waiting.append(pool.submit(function, item))
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def return_large_blocks() -> None:
    """Have this process give every large block of memory back to the system as soon as it is freed.

    glibc by itself keeps blocks of up to 32 MiB, a heap per thread: the memory of a job that cuts regions of several
    sizes then grows with the slide, to twice what it needs. Other C libraries are left as they are.
    """
    with suppress(AttributeError, OSError):
        for option in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
            ctypes.CDLL(None).mallopt(option, LARGE_BLOCK_BYTES)


def return_freed_memory() -> None:
    """Give back to the system what glibc keeps of freed memory; takes a few milliseconds.

    What a thread frees in small and middling blocks stays in its heap, between blocks in use: the memory of a region's
    training step then grows with the number of its micro-batches. Other C libraries are left as they are.
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
