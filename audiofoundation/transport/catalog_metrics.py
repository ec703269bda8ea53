"""Gauges of what the catalog holds: jobs, items, shards. They are read at a scrape, at most every ten seconds.

The reads are bounded whatever the catalog holds: jobs are counted through an index and only up to a limit, items
come from stored counts, and the labels are few (ids, since `/metrics` needs no key and names may be private).
Every process with this collector tells the same; dashboards take the maximum over instances.
"""

import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import structlog
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import ColumnElement, Engine, func, select
from sqlalchemy.orm import Session

from audiofoundation.catalog.engine import read_session
from audiofoundation.catalog.tables import ItemCount, Job, Shard
from audiofoundation.errors import StorageUnavailable
from audiofoundation.jobs.kinds import JobKind, JobState

KEEP_S = 10.0
MAX_COUNTED = 100_000
MAX_COLLECTIONS = 50
OTHER = "other"
_COUNTED_STATES = (JobState.QUEUED, JobState.RUNNING, JobState.FAILED, JobState.DEAD)

_log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class CatalogMetrics(Collector):
    """Collects the gauges; while the catalog is away it repeats the last ones and says so.

    Attributes:
        engine: the catalog.
        keep_s: scrapes within this time get the same answer.
    """

    engine: Engine
    keep_s: float = KEEP_S
    _read_at: float = field(default=float("-inf"), init=False)
    _kept: list[Metric] = field(default_factory=list, init=False)
    _is_up: bool = field(default=False, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def exposition(self) -> bytes:
        """Return the gauges as Prometheus text."""
        registry = CollectorRegistry()
        registry.register(self)
        return generate_latest(registry)

    def describe(self) -> Iterable[Metric]:
        return []  # registering must not read the catalog

    def collect(self) -> Iterable[Metric]:
        with self._lock:
            if time.monotonic() - self._read_at >= self.keep_s:
                self._read()
                self._read_at = time.monotonic()
            up = GaugeMetricFamily("catalog_up", "Whether the catalog answered the last time.", float(self._is_up))
            return [up, *self._kept]

    def _read(self) -> None:
        try:
            with read_session(self.engine) as session:
                self._kept = [*_jobs(session), *_items(session), *_shards(session)]
            self._is_up = True
        except StorageUnavailable as error:
            _log.warning("catalog_metrics_not_read", error=error.message)
            self._is_up = False


def _jobs(session: Session) -> list[Metric]:
    counts = GaugeMetricFamily("jobs", "Jobs that are not done; counting stops at 100 000.", labels=("kind", "state"))
    dead = GaugeMetricFamily("dead_total", "Jobs that used up their attempts.", labels=("kind",))
    oldest = GaugeMetricFamily(
        "oldest_queued_seconds", "How long the next job has been due, since it was made.", labels=("kind",)
    )
    for kind in JobKind:
        for state in _COUNTED_STATES:
            number = _count(session, Job.state == state, Job.kind == kind)
            counts.add_metric((kind, state), number)
            if state is JobState.DEAD:
                dead.add_metric((kind,), number)
        oldest.add_metric((kind,), _oldest_s(session, kind))
    return [counts, dead, oldest]


def _count(session: Session, *conditions: ColumnElement[bool]) -> int:
    some = select(Job.id).where(*conditions).limit(MAX_COUNTED).subquery()
    return session.scalar(select(func.count()).select_from(some)) or 0


def _oldest_s(session: Session, kind: JobKind) -> float:
    """Workers take the job with the least `not_before`, then the least id: the first of the index."""
    waiting = select(Job.created_at, Job.not_before).where(Job.state == JobState.QUEUED, Job.kind == kind)
    first = session.execute(waiting.order_by(Job.not_before, Job.id).limit(1)).one_or_none()
    return 0.0 if first is None else max(0.0, time.time() - max(first.created_at, first.not_before))


def _items(session: Session) -> list[Metric]:
    """Items by state and error class of the largest collections, and of the rest together."""
    rows = session.execute(
        select(ItemCount.collection_id, ItemCount.state, ItemCount.error_class, func.sum(ItemCount.num_items))
        .where(ItemCount.num_items > 0)
        .group_by(ItemCount.collection_id, ItemCount.state, ItemCount.error_class)
    ).all()
    totals: dict[str, int] = {}
    for collection, _, _, number in rows:
        totals[collection] = totals.get(collection, 0) + int(number)
    named = set(sorted(totals, key=lambda one: totals[one], reverse=True)[:MAX_COLLECTIONS])
    states: dict[tuple[str, str], int] = {}
    classes: dict[tuple[str, str], int] = {}
    for collection, state, error_class, number in rows:
        label = collection if collection in named else OTHER
        states[label, state] = states.get((label, state), 0) + int(number)
        if error_class:
            classes[label, error_class] = classes.get((label, error_class), 0) + int(number)
    return [
        _family("items", "Items of a collection (by id) and state.", ("collection", "state"), states),
        _family("items_not_taken", "Items by why they are not taken.", ("collection", "error_class"), classes),
    ]


def _family(name: str, help_: str, labels: Sequence[str], values: dict[tuple[str, str], int]) -> Metric:
    family = GaugeMetricFamily(name, help_, labels=labels)
    for key, number in values.items():
        family.add_metric(key, number)
    return family


def _shards(session: Session) -> list[Metric]:
    rows = session.execute(
        select(
            Shard.state,
            func.count(),
            func.sum(Shard.size_bytes),
            func.sum(Shard.duration_s),
            func.sum(Shard.cpu_s),
        ).group_by(Shard.state)
    ).all()
    names = (
        ("shards", "Shards by state."),
        ("shard_bytes", "Bytes of shards by state."),
        ("shard_audio_seconds", "Seconds of audio in shards by state."),
        ("shard_cpu_seconds", "CPU seconds that making shards took, by state."),
    )
    families = [GaugeMetricFamily(name, help_, labels=("state",)) for name, help_ in names]
    for state, *numbers in rows:
        for family, number in zip(families, numbers, strict=True):
            family.add_metric((state,), float(number or 0))
    return list(families)
