"""Run a function in several threads; give its results in order and bound the memory."""

import ctypes
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # from glibc's malloc.h
LARGE_BLOCK_BYTES = 2**23  # above a row of 512 px tiles: blocks of that size are allocated and freed often
Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_order(function: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """Results in the order of `items`; at most `threads` + 1 of them are being computed or waiting to be used."""
    with ThreadPoolExecutor(threads) as pool:
        yield from in_order(pool, function, items, threads + 1)


def in_order(
    pool: ThreadPoolExecutor, function: Callable[[Item], Result], items: Iterable[Item], most: int
) -> Iterator[Result]:
    """Results in the order of `items`; at most `most` of them are being computed or waiting to be used."""
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
    """Make this process return large blocks of memory to the system as soon as they are freed.

    By default, glibc keeps freed blocks of up to 32 MiB in a heap per thread. The memory of a job that cuts regions of
    several sizes then grows with the slide, to twice what it needs. Other C libraries are not changed.
    """
    with suppress(AttributeError, OSError):
        for option in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
            ctypes.CDLL(None).mallopt(option, LARGE_BLOCK_BYTES)


def return_freed_memory() -> None:
    """Return the freed memory that glibc keeps to the system; takes a few milliseconds.

    Small and medium blocks that a thread frees stay in its heap, between blocks in use. The memory of a region's
    training step then grows with its number of micro-batches. Other C libraries are not changed.
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
