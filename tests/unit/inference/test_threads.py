"""Bounded threads: a few at a time, some waiting, the others told at once."""

import asyncio
import threading
from collections.abc import Awaitable

import pytest

from audiofoundation.errors import Overloaded
from audiofoundation.inference.threads import BoundedThreads

WAIT_S = 10.0


def test_what_comes_when_too_much_waits_is_refused_and_the_rest_is_done() -> None:
    threads = BoundedThreads("testing", num_threads=1, max_waiting=1)
    gate = threading.Event()

    async def scenario() -> list[bool]:
        inside: list[Awaitable[bool]] = [asyncio.create_task(threads.run(lambda: gate.wait(WAIT_S))) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="testing") as caught:
            await threads.run(lambda: True)
        assert caught.value.retry_after_s
        gate.set()
        done = await asyncio.gather(*inside)
        return [*done, await threads.run(lambda: True)]

    assert asyncio.run(scenario()) == [True, True, True]


def test_an_error_is_that_of_the_work_and_frees_the_place() -> None:
    threads = BoundedThreads("testing", num_threads=1, max_waiting=0)

    async def scenario() -> None:
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                await threads.run(lambda: 1 // 0)

    asyncio.run(scenario())


def test_work_that_hangs_leaves_the_other_kinds_and_the_loop_alone() -> None:
    slow, quick = (BoundedThreads(name, num_threads=1, max_waiting=64) for name in ("slow", "quick"))
    gate = threading.Event()

    async def scenario() -> tuple[int, int]:
        hanging = [asyncio.create_task(slow.run(lambda: gate.wait(WAIT_S))) for _ in range(65)]
        try:
            async with asyncio.timeout(WAIT_S / 2):
                return await quick.run(lambda: 1), await asyncio.to_thread(lambda: 2)
        finally:
            gate.set()
            await asyncio.gather(*hanging)

    assert asyncio.run(scenario()) == (1, 2)
