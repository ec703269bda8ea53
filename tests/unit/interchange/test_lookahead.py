import threading
from contextlib import closing

import pytest

from audiofoundation.interchange.lookahead import run_ahead


def test_results_keep_their_order_and_errors_their_place() -> None:
    def halve(number: int) -> int:
        if number % 2:
            raise ValueError(f"{number} is odd")
        return number // 2

    found = list(run_ahead(halve, range(6), num_threads=3))

    assert [item for item, _ in found] == list(range(6))
    assert [future.result() for item, future in found if item % 2 == 0] == [0, 1, 2]
    with pytest.raises(ValueError, match="3 is odd"):
        found[3][1].result()


def test_items_run_beside_each_other() -> None:
    both = threading.Barrier(2)

    found = list(run_ahead(lambda _: both.wait(timeout=30), range(2), num_threads=2))

    assert {future.result() for _, future in found} == {0, 1}


def test_no_more_is_begun_than_may_wait() -> None:
    begun: list[int] = []
    with closing(run_ahead(begun.append, range(1000), num_threads=2)) as results:
        for _ in range(3):
            next(results)[1].result()

    assert len(begun) <= 3 + 2
