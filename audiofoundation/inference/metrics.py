"""What operators watch: time to first audio, real-time factor, queue, rejections."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import Counter, Gauge, Histogram

from audiofoundation.errors import AudioFoundationError

_SECONDS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.2, 2, 5, 10, 30)

FIRST_AUDIO_SECONDS = Histogram("tts_ttfa_seconds", "Seconds from the request to the first audio", buckets=_SECONDS)
REAL_TIME_FACTOR = Histogram(
    "tts_rtf",
    "Seconds from the first block to the last per second of audio after the first block",
    buckets=(0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 3),
)
QUEUE_SECONDS = Histogram("queue_wait_seconds", "Seconds a stream waited for its place", buckets=_SECONDS)
RUNNING = Gauge("requests_running", "Streams that compute now")
WAITING = Gauge("queue_depth", "Streams that wait for a place")
REJECTED = Counter("requests_rejected_total", "Streams refused before any work", ("reason",))
CANCELLED = Counter("cancelled_total", "Streams that their callers left")


def observe_queue(num_running: int, num_waiting: int) -> None:
    """Note the length of the queue."""
    RUNNING.set(num_running)
    WAITING.set(num_waiting)


@contextmanager
def counted_rejections() -> Iterator[None]:
    """Count what the block raises as a rejection."""
    try:
        yield
    except AudioFoundationError as error:
        REJECTED.labels(error.code.value).inc()
        raise


class StreamTimer:
    """Times one stream, from when it was asked for."""

    def __init__(self, started: float) -> None:
        self._started = started
        self._first: float | None = None
        self._later_audio_s = 0.0

    def note(self, audio_s: float) -> None:
        """Note a block of that many seconds."""
        if self._first is None:
            self._first = time.perf_counter()
            FIRST_AUDIO_SECONDS.observe(self._first - self._started)
        else:
            self._later_audio_s += audio_s

    def finish(self) -> None:
        """Note that the last block was given."""
        if self._first is not None and self._later_audio_s > 0:
            REAL_TIME_FACTOR.observe((time.perf_counter() - self._first) / self._later_audio_s)
