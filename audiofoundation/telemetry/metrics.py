"""Prometheus metrics of the jobs. Names and labels are a contract with dashboards; labels are bounded."""

from prometheus_client import Counter, Histogram

JOBS_ATTEMPTED = Counter("jobs_attempted_total", "Attempts at jobs by how they ended.", ("kind", "outcome"))
JOB_SECONDS = Histogram(
    "job_seconds", "Wall time of one attempt.", ("kind",), buckets=(0.01, 0.05, 0.25, 1, 5, 15, 60, 300, 900)
)
LEASES_EXPIRED = Counter("lease_expired_total", "Jobs taken from dead or stalled workers.", ("kind",))
HINTS_REPUBLISHED = Counter("hints_republished_total", "Job ids published again by the sweeper.", ("queue",))
