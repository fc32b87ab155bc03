"""Work in threads: its results in order, its errors, and its early end."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from lesionmap.jobs.parallel import in_order, map_in_order


def test_results_come_in_order_and_few_at_a_time():
    begun = []

    def work(item):
        begun.append(item)
        return item * 2

    results = map_in_order(work, iter(range(100)), 3)
    assert [next(results) for _ in range(5)] == [0, 2, 4, 6, 8]
    assert max(begun) <= 8
    assert list(results) == [2 * item for item in range(5, 100)]


def test_an_error_of_one_thread_reaches_the_caller():
    with pytest.raises(ZeroDivisionError):
        list(map_in_order(lambda item: 1 // (item - 5), range(100), 2))


def test_work_can_be_ended_while_a_result_is_awaited():
    begun, go_on = [], threading.Event()

    def work(item):
        begun.append(item)
        return item if item < 2 else go_on.wait(60) and item

    def pause_point():
        if len(begun) > 3:
            raise InterruptedError

    with ThreadPoolExecutor(2) as pool:
        results = in_order(pool, work, range(100), 2, pause_point)
        assert [next(results), next(results)] == [0, 1]
        with pytest.raises(InterruptedError):
            next(results)
        assert not go_on.is_set(), "nothing has waited for it"
        go_on.set()
    assert begun == [0, 1, 2, 3], "no other has begun"
