"""Prometheus metrics of the jobs. Names and labels are a contract with dashboards; labels are bounded.

Every metric has labels: a worker's counts then begin with its first job, after `serve_worker_metrics`. A thread of
a process that forks counts under the fork gate, or a child may inherit the lock that all counts share.
"""

import structlog
from prometheus_client import Counter, Histogram

JOBS_ATTEMPTED = Counter("jobs_attempted_total", "Attempts at jobs by how they ended.", ("kind", "outcome"))
JOB_SECONDS = Histogram(
    "job_seconds", "Wall time of one attempt.", ("kind",), buckets=(0.01, 0.05, 0.25, 1, 5, 15, 60, 300, 900)
)
BYTES_FETCHED = Counter(
    "fetched_bytes_total", "Bytes of recordings that came in by kind of source; file: uploads.", ("source",)
)
AUDIO_SECONDS = Counter(
    "audio_seconds_total", "Seconds of audio that attempts decoded (ingest.item) or put in shards.", ("kind",)
)
LEASES_EXPIRED = Counter("lease_expired_total", "Jobs taken from dead or stalled workers.", ("kind",))
HINTS_REPUBLISHED = Counter("hints_republished_total", "Job ids published again by the sweeper.", ("queue",))

_log = structlog.get_logger(__name__)


def count(counter: Counter, *labels: str, amount: float = 1) -> None:
    """Add to a counter. A worker's counts lie in files: that they cannot be written must not cost a job."""
    try:
        counter.labels(*labels).inc(amount)
    except (OSError, ValueError) as error:
        _log.warning("not_counted", error=str(error))


def observe(histogram: Histogram, *labels: str, value: float) -> None:
    """Add a value to a histogram, or say why not, as `count` does."""
    try:
        histogram.labels(*labels).observe(value)
    except (OSError, ValueError) as error:
        _log.warning("not_counted", error=str(error))
