"""Blocking work beside the event loop: in threads of its own, and never more of it than can be waited for."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from audiofoundation.errors import Overloaded

_RETRY_AFTER_S = 2.0
_T = TypeVar("_T")


class BoundedThreads:
    """Runs one kind of work, so that slow work of one kind leaves the others' threads alone.

    Args:
        name: of the threads, and of the work in the refusal.
        num_threads: how much runs at the same time.
        max_waiting: how much more may wait; what comes then is refused at once.
    """

    def __init__(self, name: str, *, num_threads: int, max_waiting: int) -> None:
        self._name, self._max_inside = name, num_threads + max_waiting
        self._num_inside = 0
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix=name)

    async def run(self, work: Callable[[], _T]) -> _T:
        """Return what the work returns.

        Raises:
            Overloaded: too much waits already.
        """
        if self._num_inside >= self._max_inside:
            raise Overloaded(
                f"{self._num_inside} requests are in {self._name} or wait for it; try again in a moment",
                retry_after_s=_RETRY_AFTER_S,
            )
        self._num_inside += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._num_inside -= 1
