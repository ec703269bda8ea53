"""Admission: first come, first served, a bounded queue, and no place lost."""

import threading
import time

import pytest

from audiofoundation.errors import Cancelled, DeadlineExceeded, Overloaded
from audiofoundation.inference.admission import Admission


def test_refuses_at_once_when_the_queue_is_full_and_says_when_to_come_back() -> None:
    admission = Admission(max_running=1, max_waiting=1)
    admission.enter()
    admission.enter()

    with pytest.raises(Overloaded) as caught:
        admission.enter()

    assert caught.value.retry_after_s is not None
    assert caught.value.retry_after_s >= 1
    assert (admission.num_running, admission.num_waiting) == (1, 1)


def test_waiting_tickets_run_in_the_order_they_came() -> None:
    admission = Admission(max_running=1, max_waiting=3)
    tickets = [admission.enter() for _ in range(4)]
    order: list[int] = []

    def work(index: int) -> None:
        with tickets[index]:
            tickets[index].wait()
            order.append(index)

    threads = [threading.Thread(target=work, args=(index,)) for index in (3, 2, 1, 0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)

    assert order == [0, 1, 2, 3]
    assert admission.num_running == 0


def test_a_cancelled_ticket_stops_waiting_at_once() -> None:
    admission = Admission(max_running=1, max_waiting=1)
    admission.enter()
    waiting = admission.enter()
    threading.Timer(0.05, waiting.cancel).start()
    started = time.monotonic()

    with pytest.raises(Cancelled), waiting:
        waiting.wait()

    assert time.monotonic() - started < 2
    assert admission.num_waiting == 0


def test_a_deadline_counts_in_the_queue_too() -> None:
    admission = Admission(max_running=1, max_waiting=1)
    admission.enter()
    waiting = admission.enter(timeout_s=0.05)

    with pytest.raises(DeadlineExceeded), waiting:
        waiting.wait()


def test_leaving_twice_frees_one_place_only() -> None:
    admission = Admission(max_running=1, max_waiting=2)
    first, second, third = (admission.enter() for _ in range(3))

    first.leave()
    first.leave()
    second.wait()

    assert (admission.num_running, admission.num_waiting) == (1, 1)
    third.cancel()
    with pytest.raises(Cancelled):
        third.check()


def test_a_draining_queue_admits_nobody_and_tells_when_it_is_empty() -> None:
    admission = Admission(max_running=1, max_waiting=1)
    ticket = admission.enter()
    admission.drain()

    with pytest.raises(Overloaded):
        admission.enter()
    assert not admission.wait_until_idle(timeout_s=0.01)
    ticket.leave()
    assert admission.wait_until_idle(timeout_s=1)
