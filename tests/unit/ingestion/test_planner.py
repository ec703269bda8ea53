"""Places over a real catalog: two workers never share one, and what must wait costs no worker."""

import random
import time
from dataclasses import dataclass

import pytest
from sqlalchemy import Engine, func, select, update

from audiofoundation.catalog.engine import read_session, write_session
from audiofoundation.catalog.tables import EgressLane, Item, Job
from audiofoundation.errors import AudioFoundationError, FetchFailed, RateLimited
from audiofoundation.ingestion.catalog_items import add_items, ensure_collection
from audiofoundation.ingestion.lanes import count_waiting, postpone_due, site_of, youtube_site
from audiofoundation.ingestion.parsed_lines import parse_lines
from audiofoundation.ingestion.planner import Place, Planner
from audiofoundation.ingestion.source import SourceKind, SourceLine
from audiofoundation.ingestion.states import ItemRefused, RefusalClass
from audiofoundation.ingestion.time_left import time_left_s
from audiofoundation.jobs.kinds import JobKind
from audiofoundation.jobs.lease import Claim, claim_next, release
from audiofoundation.jobs.queue import JobQueue
from audiofoundation.settings import EgressIdentity, FetchSettings, JobSettings
from tests.unit.jobs.handlers import Recorder

VIDEOS = FetchSettings(video_min_gap_s=10.0, video_max_gap_s=10.0)
JOBS = JobSettings(lease_s=100.0)
YOUTUBE = SourceKind.YOUTUBE


@dataclass(slots=True)
class Clock:
    """A time that tests move; it starts at the present, since leases are the catalog's own matter."""

    now: float

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock(time.time())


def add_videos(engine: Engine, count: int, *, prefix: str = "") -> None:
    lines = [SourceLine(f"youtube:{prefix}{number:0{11 - len(prefix)}d}") for number in range(count)]
    with JobQueue(engine, Recorder()).unit_of_work() as unit:
        add_items(unit, ensure_collection(unit.session, "c"), parse_lines(lines), license_policy="cc-only")


def claim(engine: Engine) -> Claim:
    found = claim_next(engine, JobKind.INGEST_ITEM, owner="a:b:1:1", settings=JOBS)
    assert found is not None
    return found


def planner(engine: Engine, clock: Clock, settings: FetchSettings = VIDEOS) -> Planner:
    return Planner(engine, settings, clock, random.Random(1))


def refused_for_s(plan: Planner, job: Claim) -> float:
    with pytest.raises(RateLimited) as refused, plan.place(YOUTUBE, "", job):
        pass
    assert refused.value.retry_after_s is not None
    return refused.value.retry_after_s


def test_one_video_at_a_time_for_each_identity(engine: Engine, clock: Clock) -> None:
    add_videos(engine, 4)
    two = VIDEOS.model_copy(update={"identities": (EgressIdentity(name="a"), EgressIdentity(name="b"))})
    plan = planner(engine, clock, two)
    jobs = [claim(engine) for _ in range(3)]
    with plan.place(YOUTUBE, "", jobs[0]) as first, plan.place(YOUTUBE, "", jobs[1]) as second:
        assert {first.identity.name, second.identity.name} == {"a", "b"}
        assert refused_for_s(plan, jobs[2]) > 0


def test_a_rest_follows_each_video(engine: Engine, clock: Clock) -> None:
    add_videos(engine, 2)
    plan = planner(engine, clock)
    first, second = claim(engine), claim(engine)
    with plan.place(YOUTUBE, "", first):
        clock.now += 30.0
    assert refused_for_s(plan, second) >= 10.0
    clock.now += 10.0
    with plan.place(YOUTUBE, "", second) as place:
        assert isinstance(place, Place)


def test_a_dead_workers_place_is_free_again(engine: Engine, clock: Clock) -> None:
    add_videos(engine, 2)
    plan = planner(engine, clock)
    first, second = claim(engine), claim(engine)
    assert plan.take(youtube_site(VIDEOS), first) is not None  # a worker that is killed never gives it back
    clock.now += 60.0
    assert refused_for_s(plan, second) > 0
    with write_session(engine) as session:
        session.execute(update(Job).where(Job.id == first.job_id).values(lease_until=time.time() - 1))
    with plan.place(YOUTUBE, "", second):
        pass


@pytest.mark.parametrize(
    ("error", "is_shut"),
    [
        (RateLimited("429"), True),
        (FetchFailed("the line broke"), False),
        (ItemRefused(RefusalClass.PERMANENT, "gone"), False),
    ],
)
def test_only_a_refusal_of_the_identity_shuts_it(
    engine: Engine, clock: Clock, error: AudioFoundationError, is_shut: bool
) -> None:
    add_videos(engine, 2)
    plan = planner(engine, clock)
    first, second = claim(engine), claim(engine)
    with pytest.raises(type(error)) as raised, plan.place(YOUTUBE, "", first):
        raise error
    if is_shut:
        assert raised.value.retry_after_s is not None
        assert raised.value.retry_after_s >= 3600
    clock.now += 60.0
    if not is_shut:
        with plan.place(YOUTUBE, "", second):
            return
    assert refused_for_s(plan, second) >= 3540
    clock.now += 3540.0
    with plan.place(YOUTUBE, "", second):
        pass
    with read_session(engine) as session:
        assert session.scalars(select(EgressLane.is_tripped)).all() == [False]


def test_a_refused_identity_leaves_the_others_working(engine: Engine, clock: Clock) -> None:
    add_videos(engine, 3)
    two = VIDEOS.model_copy(update={"identities": (EgressIdentity(name="a"), EgressIdentity(name="b"))})
    plan = planner(engine, clock, two)
    with pytest.raises(RateLimited) as refused, plan.place(YOUTUBE, "", claim(engine)) as first:
        raise RateLimited("are you a robot?")
    assert refused.value.retry_after_s is not None
    assert refused.value.retry_after_s < 60, "the other identity may take the job"
    with plan.place(YOUTUBE, "", claim(engine)) as second:
        assert second.identity != first.identity


def test_a_long_queue_is_sent_away_in_batches_and_knocks_rarely(engine: Engine, clock: Clock) -> None:
    add_videos(engine, 1200)
    plan = planner(engine, clock)
    with plan.place(YOUTUBE, "", claim(engine)):
        num_refused = 0
        while job := claim_next(engine, JobKind.INGEST_ITEM, owner="a:b:1:1", settings=JOBS):
            release(engine, job, delay_s=refused_for_s(plan, job))
            num_refused += 1
    assert num_refused < 10, "a worker looks at few of them"
    with read_session(engine) as session:
        until = time.time() + 600.0
        soon = session.scalar(select(func.count()).select_from(Job).where(Job.not_before < until)) or 0
        assert session.scalar(select(func.max(Job.attempt))) == 1
    assert 40 < soon < 400, "about four for each of the 34 starts in ten minutes"


def test_the_next_jobs_are_called_when_a_place_becomes_free(engine: Engine, clock: Clock) -> None:
    add_videos(engine, 5)
    with write_session(engine) as session:
        session.execute(update(Job).values(not_before=clock.now + 1e6))
        session.execute(update(Job).where(Job.id == session.scalar(select(func.min(Job.id)))).values(not_before=0))
    plan = planner(engine, clock)
    with plan.place(YOUTUBE, "", claim(engine)):
        clock.now += 5.0
    with read_session(engine) as session:
        times = sorted(session.scalars(select(Job.not_before).where(Job.state == "queued")))
    assert times[:2] == [pytest.approx(clock.now + 10.0)] * 2
    assert times[2] == pytest.approx(clock.now + 1e6, abs=10)


def test_tracks_of_yandex_music_are_the_queue_of_their_site(engine: Engine, clock: Clock) -> None:
    lines = parse_lines([SourceLine("yandex:1"), SourceLine("yandex:2"), SourceLine("https://x.org/a")])
    with JobQueue(engine, Recorder()).unit_of_work() as unit:
        add_items(unit, ensure_collection(unit.session, "c"), lines, license_policy="all")
        for item in unit.session.scalars(select(Item)):
            site = site_of(SourceKind(item.kind), item.source, VIDEOS)
            expected = 2 if item.kind == SourceKind.YANDEX else 1
            assert count_waiting(unit.session, site) == expected
            assert postpone_due(unit.session, site, now=clock.now, limit=9, next_time=lambda: clock.now) == expected


def test_the_time_left_knows_the_bucket_the_queue_and_the_breaker(engine: Engine, clock: Clock) -> None:
    two = FetchSettings(identities=(EgressIdentity(name="a"), EgressIdentity(name="b")))

    def left_s(settings: FetchSettings, num_videos: int) -> float:
        with read_session(engine) as session:
            return time_left_s(session, {YOUTUBE: num_videos}, settings=settings, now=clock.now)

    assert left_s(FetchSettings(), 0) == 0
    alone = left_s(FetchSettings(), 1_000_000)
    assert alone >= 1_000_000 / 250 * 3600, "never faster than the bucket"
    assert left_s(two, 1_000_000) == pytest.approx(alone / 2)
    add_videos(engine, 1)
    with pytest.raises(RateLimited), planner(engine, clock, two).place(YOUTUBE, "", claim(engine)):
        raise RateLimited("429")
    assert left_s(two, 1000) == pytest.approx((1000 * alone / 1_000_000 + 3600) / 2), "one of two waits an hour"


def test_the_time_left_is_told_when_two_identities_wait_equally_long(engine: Engine, clock: Clock) -> None:
    two = FetchSettings(identities=(EgressIdentity(name="a"), EgressIdentity(name="b")))
    with write_session(engine) as session:
        for name, cost_s in (("a", 1.0), ("b", 2.0)):
            session.add(EgressLane(name=f"youtube|{name}", holders={}, resume_at=clock.now + 9.0, mean_cost_s=cost_s))
    with read_session(engine) as session:
        assert time_left_s(session, {YOUTUBE: 10}, settings=two, now=clock.now) > 9.0


def test_a_host_has_a_limit_of_its_own(engine: Engine, clock: Clock) -> None:
    add_videos(engine, 4)
    plan = planner(engine, clock, FetchSettings(host_per_hour=2, host_burst=2))
    jobs = [claim(engine) for _ in range(4)]
    for job in jobs[:2]:
        with plan.place(SourceKind.URL, "https://example.com/a", job):
            pass
    with pytest.raises(RateLimited), plan.place(SourceKind.URL, "https://example.com/b", jobs[2]):
        pass
    with plan.place(SourceKind.URL, "https://example.org/b", jobs[3]):
        pass
