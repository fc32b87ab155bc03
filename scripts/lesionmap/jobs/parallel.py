"""Run a function in several threads; give its results in order and bound the memory."""

import ctypes
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import TypeVar

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # from glibc's malloc.h
LARGE_BLOCK_BYTES = 2**23  # above a row of 512 px tiles: blocks of that size are allocated and freed often
POLL_SECONDS = 0.1
Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_order(function: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """Results in the order of `items`; at most `threads` + 1 of them are being computed or waiting to be used."""
    with ThreadPoolExecutor(threads) as pool:
        yield from in_order(pool, function, items, threads + 1)


def no_pause() -> None:
    """Do nothing: the pause point of work that nothing ends early."""


def in_order(
    pool: ThreadPoolExecutor,
    function: Callable[[Item], Result],
    items: Iterable[Item],
    most: int,
    pause_point: Callable[[], None] = no_pause,
) -> Iterator[Result]:
    """Results in the order of `items`; at most `most` of them are being computed or waiting to be used.

    `pause_point` is called again and again while a result is not there. It may raise to end the work; what runs in the
    pool by then goes on to its own end.
    """
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            if len(waiting) == most:
                yield _result(waiting.popleft(), pause_point)
            waiting.append(pool.submit(function, item))
        while waiting:
            yield _result(waiting.popleft(), pause_point)
    finally:
        for future in waiting:
            future.cancel()


def _result(future: Future[Result], pause_point: Callable[[], None]) -> Result:
    while not wait([future], POLL_SECONDS).done:
        pause_point()
    return future.result()


def return_large_blocks() -> None:
    """Make this process return large blocks of memory to the system as soon as they are freed.

    By default, glibc keeps freed blocks of up to 32 MiB in a heap per thread. The memory of a job that cuts regions of
    several sizes then grows with the slide, to twice what it needs. Other C libraries are not changed.
    """
    with suppress(AttributeError, OSError):
        for option in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
            ctypes.CDLL(None).mallopt(option, LARGE_BLOCK_BYTES)
