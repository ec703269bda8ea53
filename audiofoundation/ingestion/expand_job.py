"""The job `ingest.expand`: a search, channel, feed or list becomes items, a page at a time.

Each page is committed with how far the reading got, so an expansion that is killed goes on where it stopped,
and one that is read twice adds nothing twice.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select

from audiofoundation.catalog.engine import read_session
from audiofoundation.catalog.tables import Collection, Discovery
from audiofoundation.errors import AudioFoundationError, RateLimited
from audiofoundation.ingestion.catalog_items import add_items, retry_found
from audiofoundation.ingestion.discoveries import DiscoveryState, enqueue_expansion
from audiofoundation.ingestion.discovery_counts import count_page, note_of
from audiofoundation.ingestion.job_directory import job_directory
from audiofoundation.ingestion.lanes import youtube_site
from audiofoundation.ingestion.pacing import Ending
from audiofoundation.ingestion.parsed_lines import parse_lines
from audiofoundation.ingestion.planner import Planner
from audiofoundation.ingestion.sources.create import create_source
from audiofoundation.ingestion.sources.protocol import (
    YOUTUBE_KINDS,
    DiscoveryAddress,
    DiscoveryKind,
    Page,
    Reading,
)
from audiofoundation.ingestion.states import ItemRefused
from audiofoundation.jobs import lease
from audiofoundation.jobs.lease import Claim, Effect
from audiofoundation.jobs.queue import JobQueue, UnitOfWork
from audiofoundation.settings import EgressIdentity, FetchSettings, JobSettings
from audiofoundation.telemetry.tracing import span

_WALL_S = 500.0  # then the rest is left to the next run of the job: the broker ends one after 900 s
_KNOCK_S = 15.0


@dataclass(frozen=True, slots=True)
class _Started:
    """A discovery as it was when its job began."""

    address: DiscoveryAddress
    reading: Reading
    is_plan: bool
    license: str | None


@dataclass(frozen=True, slots=True)
class _Ended:
    """A reading that came to its end; `is_unchanged`: the other side had nothing new since the last one."""

    num_seen: int
    validators: Mapping[str, str]
    tool_version: str
    is_unchanged: bool


@dataclass(frozen=True, slots=True)
class DiscoveryExpand:
    """Handles `ingest.expand`.

    Attributes:
        queue: the catalog and the way to workers.
        settings: what may be reached and how often.
        jobs: leases.
        work_dir: directories of running jobs.
    """

    queue: JobQueue
    settings: FetchSettings
    jobs: JobSettings
    work_dir: Path

    def __call__(self, claim: Claim) -> Effect:
        """Read the source to its end, or for some minutes. Raises what the source raises."""
        deadline = time.monotonic() + _WALL_S
        with job_directory(self.work_dir, claim) as directory:
            found = self._load(claim.subject_id, directory)
            num_seen, validators, is_unchanged = found.reading.start, dict[str, str](), bool(found.reading.validators)
            with self._way_out(found.address.kind, claim) as identity:
                source = create_source(found.address.kind, self.settings, identity=identity, attempt=claim.attempt)
                for page in _read(source.pages(found.address.address, found.reading)):
                    with span("add", {"num_entries": page.num_entries}):
                        self._add(claim, page, num_seen, found.address.kind, source.tool_version)
                    num_seen += page.num_entries
                    validators, is_unchanged = dict(page.validators), False
                    if page.num_entries and time.monotonic() > deadline:
                        return lambda unit: enqueue_expansion(unit, claim.subject_id)
        ended = _Ended(num_seen, validators, source.tool_version, is_unchanged)
        return _finished(claim.subject_id, found, ended)

    def on_failure(self, unit: UnitOfWork, claim: Claim, error: AudioFoundationError) -> None:
        """Write why the job has ended without a result; what it had found stays."""
        row = unit.session.get_one(Discovery, claim.subject_id, with_for_update=True)
        row.state = DiscoveryState.FAILED
        row.error_class = error.refusal.value if isinstance(error, ItemRefused) else error.code.value
        row.error = error.message

    def _load(self, discovery_id: str, directory: Path) -> _Started:
        with read_session(self.queue.engine) as session:
            row = session.get_one(Discovery, discovery_id)
            address = DiscoveryAddress(DiscoveryKind(row.kind), row.address)
            reading = Reading(directory, row.num_seen, row.validators)
            return _Started(address, reading, row.is_plan, row.license)

    @contextmanager
    def _way_out(self, kind: DiscoveryKind, claim: Claim) -> Iterator[EgressIdentity | None]:
        """Listing counts as one start of a YouTube identity, which is never asked for two things at once."""
        if kind not in YOUTUBE_KINDS:
            yield None
            return
        planner = Planner(self.queue.engine, self.settings)
        place = planner.take(youtube_site(self.settings), claim)
        if place is None:
            raise RateLimited("YouTube is asked as often as it may be", retry_after_s=_KNOCK_S)
        ending = Ending.UNKNOWN
        try:
            yield place.identity
            ending = Ending.ANSWERED
        except RateLimited:
            ending = Ending.REFUSED
            raise
        finally:
            planner.give_back(place, claim, ending)

    def _add(self, claim: Claim, page: Page, num_seen: int, kind: DiscoveryKind, tool_version: str) -> None:
        # Only a list may name further searches, channels and feeds, and no list may name another list.
        allowed = frozenset(DiscoveryKind) - {DiscoveryKind.LIST} if kind is DiscoveryKind.LIST else frozenset()
        lines = parse_lines(page.lines, discoverable=allowed, may_name_uploads=False)

        def effect(unit: UnitOfWork) -> None:
            row = unit.session.get_one(Discovery, claim.subject_id, with_for_update=True)
            collection = unit.session.get_one(Collection, row.collection_id)
            policy = self.settings.license_policy
            added = add_items(
                unit,
                collection,
                lines.licensed(row.license),
                license_policy=policy,
                is_plan=row.is_plan,
                discovery_id=claim.subject_id,
            )
            if row.num_seen == num_seen:  # else it was asked for again meanwhile, from the start
                count_page(row, page, added)
            row.tool_version = tool_version

        lease.record(self.queue, claim, effect, settings=self.jobs)


def _read(pages: Iterator[Page]) -> Iterator[Page]:
    """Yield the pages; each is read in a span."""
    while True:
        with span("read") as step:
            page = next(pages, None)
            step.set({"num_entries": page.num_entries if page else 0})
        if page is None:
            return
        yield page


def _finished(discovery_id: str, started: _Started, ended: _Ended) -> Effect:
    def effect(unit: UnitOfWork) -> None:
        row = unit.session.scalars(select(Discovery).where(Discovery.id == discovery_id).with_for_update()).one()
        # "Not changed" says nothing of what was asked for meanwhile.
        is_asked_anew = ended.is_unchanged and (row.is_plan, row.license) != (started.is_plan, started.license)
        if row.num_seen != ended.num_seen or is_asked_anew:
            enqueue_expansion(unit, discovery_id)
            return
        # Nothing has changed there; what failed here is tried again all the same.
        if not ended.num_seen and not row.is_plan:
            retry_found(unit, row.collection_id, discovery_id)
        row.state = DiscoveryState.DONE
        row.tool_version = ended.tool_version
        row.error_class = row.error = None
        row.note = note_of(row, is_unchanged=ended.is_unchanged)
        if ended.validators:
            row.validators = dict(ended.validators)

    return effect
