"""The lists of hints in the Redis-protocol server, and the one file that knows its client's errors."""

from collections.abc import Iterator
from contextlib import contextmanager

import redis

from audiofoundation.errors import StorageUnavailable
from audiofoundation.jobs.kinds import QUEUE_OF, JobKind
from audiofoundation.settings import QueueSettings

_TIMEOUT_S = 5.0


class HintLists:
    """Looks at the queues that Celery fills; safe across threads and forks."""

    def __init__(self, settings: QueueSettings) -> None:
        self._prefix = settings.key_prefix
        self._client = redis.Redis.from_url(
            settings.url.get_secret_value(),
            socket_connect_timeout=_TIMEOUT_S,
            health_check_interval=25,
        )

    def num_waiting(self, kind: JobKind) -> int:
        """Return how many hints wait in the queue of this kind. Raises StorageUnavailable."""
        with _translated_errors():
            return int(self._client.llen(self._list_of(kind)))

    def wait(self, kind: JobKind, *, timeout_s: float) -> bool:
        """Wait for a hint and take it off; return whether one came.

        For a process that claims with `claim_next` and is no Celery worker: the hint only shortens its wait.

        Raises:
            StorageUnavailable: the server did not answer; sleep and look in the catalog all the same.
        """
        with _translated_errors():
            return self._client.brpop([self._list_of(kind)], timeout=timeout_s) is not None

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _list_of(self, kind: JobKind) -> str:
        return f"{self._prefix}{QUEUE_OF[kind]}"


@contextmanager
def _translated_errors() -> Iterator[None]:
    try:
        yield
    except redis.exceptions.RedisError as error:
        raise StorageUnavailable(f"The queue server did not answer: {error}. Try again.") from error
