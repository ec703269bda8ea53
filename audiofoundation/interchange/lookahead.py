"""Work on several items at once, results in order, a bounded number of them waiting."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def run_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], *, num_threads: int | None = None
) -> Generator[tuple[Item, "Future[Result]"], None, None]:
    """Call the function with every item in threads.

    Args:
        function: decoding and NumPy leave the interpreter free for each other.
        items: taken as threads get free.
        num_threads: as many as there are cores by default; so many results wait at most.

    Yields:
        Each item, in order, with its finished or running call. Close the generator to drop what waits.
    """
    num_threads = num_threads or len(os.sched_getaffinity(0))
    pool = ThreadPoolExecutor(num_threads, thread_name_prefix="run-ahead")
    pending: deque[tuple[Item, Future[Result]]] = deque()
    try:
        for item in items:
            pending.append((item, pool.submit(function, item)))
            if len(pending) > num_threads:
                yield pending.popleft()
        while pending:
            yield pending.popleft()
    finally:
        pool.shutdown(cancel_futures=True)
