"""A catalog of many URLs: how fast they come in, and how fast it answers when they are all there.

    python -m benchmarks.catalog [--items 1000000] [--json]

On SQLite and, where it is installed, PostgreSQL (its own server, without fsync). Items come with their jobs, in
requests of 10 000 lines, as the command line sends them; then a few hundred questions of each kind are timed.
"""

import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import SecretStr
from sqlalchemy import Engine

from audiofoundation.catalog.engine import create_catalog_engine, migrate, read_session
from audiofoundation.identifiers import JobId
from audiofoundation.ingestion.catalog_items import add_items, ensure_collection, get_collection
from audiofoundation.ingestion.parsed_lines import parse_lines
from audiofoundation.ingestion.progress import collection_progress, item_page
from audiofoundation.ingestion.source import SourceLine
from audiofoundation.jobs.kinds import JobKind
from audiofoundation.jobs.lease import claim_next
from audiofoundation.jobs.queue import JobQueue
from audiofoundation.jobs.sweeper import sweep
from audiofoundation.settings import CatalogSettings, FetchSettings, JobSettings
from benchmarks.report import Report, Row
from tests.servers import PostgresServer, missing_postgres

BATCH = 10_000
QUESTIONS = 300
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"


class NoQueue:
    """Takes hints and forgets them."""

    def publish(self, _kind: JobKind, _job_id: JobId) -> None: ...

    def num_waiting(self, _kind: JobKind) -> int:
        return 0


def batches(num_items: int) -> Iterator[list[SourceLine]]:
    chance = random.Random(7)
    for start in range(0, num_items, BATCH):
        size = min(BATCH, num_items - start)
        yield [SourceLine("https://youtu.be/" + "".join(chance.choices(LETTERS, k=11))) for _ in range(size)]


def fill(queue: JobQueue, num_items: int) -> tuple[int, float]:
    """Return how many items were added, and in how many seconds."""
    num_added, started = 0, time.monotonic()
    for lines in batches(num_items):
        parsed = parse_lines(lines)
        with queue.unit_of_work() as unit:
            found = get_collection(unit.session, "bench")
            num_added += add_items(unit, found, parsed, license_policy="cc-only").num_added
    return num_added, time.monotonic() - started


def p95_ms(ask: Callable[[int], object]) -> float:
    times = []
    for index in range(QUESTIONS):
        started = time.monotonic()
        ask(index)
        times.append(time.monotonic() - started)
    return sorted(times)[int(QUESTIONS * 0.95)] * 1000


def measure(engine: Engine, system: str, num_items: int) -> Iterator[Row]:
    queue = JobQueue(engine, NoQueue())
    with queue.unit_of_work() as unit:
        ensure_collection(unit.session, "bench")
    num_added, took_s = fill(queue, num_items)
    yield Row("items added with jobs", system, num_added / took_s, "items/s")
    jobs = JobSettings()
    questions: dict[str, Callable[[int], object]] = {
        "claim p95": lambda _: claim_next(engine, JobKind.INGEST_ITEM, owner="b", settings=jobs),
        "counts p95": lambda _: counts(engine),
        "page p95": lambda index: page(engine, None, index),
        "page by state p95": lambda index: page(engine, "queued", index),
    }
    for case, ask in questions.items():
        yield Row(case, system, p95_ms(ask), "ms")
    started = time.monotonic()
    sweep(engine, NoQueue(), jobs)
    yield Row("sweep", system, (time.monotonic() - started) * 1000, "ms")
    num_again, took_s = fill(queue, num_items)
    yield Row("repeat", system, num_items / took_s, "lines/s")
    yield Row("added by the repeat", system, num_again, "items")


def counts(engine: Engine) -> None:
    with read_session(engine) as session:
        collection_progress(session, get_collection(session, "bench"), fetch=FetchSettings())


def page(engine: Engine, state: str | None, index: int) -> None:
    with read_session(engine) as session:
        cursor = f"item_{random.Random(index).getrandbits(128):032x}"
        item_page(session, get_collection(session, "bench"), state=state, cursor=cursor, limit=100)


@contextmanager
def catalog(url: str) -> Iterator[Engine]:
    engine = create_catalog_engine(CatalogSettings(url=SecretStr(url)))
    migrate(engine)
    yield engine
    engine.dispose()


def main() -> None:
    num_items = int(sys.argv[sys.argv.index("--items") + 1]) if "--items" in sys.argv else 1_000_000
    report = Report("catalog", {"items": str(num_items), "request": f"{BATCH} lines"})
    with tempfile.TemporaryDirectory() as folder, catalog(f"sqlite:///{Path(folder) / 'catalog.db'}") as engine:
        report.rows += measure(engine, "sqlite", num_items)
    if missing_postgres() is None:
        server = PostgresServer()
        server.start()
        try:
            server.execute("CREATE DATABASE bench")
            with catalog(server.url("bench")) as engine:
                report.rows += measure(engine, "postgresql", num_items)
        finally:
            server.stop()
    report.show(is_json="--json" in sys.argv)


if __name__ == "__main__":
    main()
