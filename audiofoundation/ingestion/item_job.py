"""The job `ingest.item`: one source becomes one verified, immutable object and a row that names it."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from sqlalchemy import Engine, select

from audiofoundation.catalog.bulk import insert_new
from audiofoundation.catalog.engine import read_session, write_session
from audiofoundation.catalog.item_states import ItemChange, change_items
from audiofoundation.catalog.orphan_marks import forget_mark
from audiofoundation.catalog.tables import Asset, Collection, Item
from audiofoundation.errors import AudioFoundationError, NotFound, ObjectNotFound, RateLimited
from audiofoundation.identifiers import Sha256, create_id
from audiofoundation.ingestion.catalog_items import set_state
from audiofoundation.ingestion.excerpts import Excerpts
from audiofoundation.ingestion.fetch import FetchBudget, RobotsRefused, fetch_to_file, read_range
from audiofoundation.ingestion.item_values import FetchedBytes, ItemToIngest, Provenance
from audiofoundation.ingestion.job_directory import job_directory
from audiofoundation.ingestion.planner import Planner
from audiofoundation.ingestion.policy import UNLIMITED, PolicyScope, policy_for
from audiofoundation.ingestion.probe import RangeReader, Stage, Verdict, judge, probe_ranges, write_verdict
from audiofoundation.ingestion.probe_labels import Labeller
from audiofoundation.ingestion.source import SourceKind
from audiofoundation.ingestion.states import OUR_CLASSES, PENDING_STATES, ItemRefused, ItemState, RefusalClass
from audiofoundation.ingestion.takedown import discard_if_taken_down, require_welcome
from audiofoundation.ingestion.verify import VerifiedAudio, check_complete, check_not_cut_short, verify_audio
from audiofoundation.jobs.lease import Claim, Effect
from audiofoundation.jobs.queue import UnitOfWork
from audiofoundation.settings import EgressIdentity, FetchSettings, JobSettings, ProbeSettings
from audiofoundation.storage.keys import raw_key
from audiofoundation.storage.object_store import ObjectStore
from audiofoundation.telemetry.failpoints import Failpoint, failpoint
from audiofoundation.telemetry.metrics import AUDIO_SECONDS, BYTES_FETCHED, count
from audiofoundation.telemetry.tracing import note, span

if TYPE_CHECKING:
    from audiofoundation.ingestion.youtube import YoutubeSource

_log = structlog.get_logger(__name__)
_FETCH_WALL_S = 700.0  # under the broker's hard limit of one job


@dataclass(frozen=True, slots=True)
class ItemIngest:
    """Handles `ingest.item`.

    Attributes:
        engine: the catalog.
        store: takes the original bytes.
        settings: what URL fetches may reach.
        work_dir: directories of running jobs; a dead attempt's is removed by the next one.
        jobs: how long a lease is extended while bytes arrive.
        probe: what recordings must be like.
        labeller: says what recordings sound like; nobody does when None.
        open_youtube: makes the way to YouTube by an identity; yt-dlp's own when None.
    """

    engine: Engine
    store: ObjectStore
    settings: FetchSettings
    work_dir: Path
    jobs: JobSettings
    probe: ProbeSettings = field(default_factory=ProbeSettings)
    labeller: Labeller | None = None
    open_youtube: "Callable[[EgressIdentity], YoutubeSource] | None" = None

    def __call__(self, claim: Claim) -> Effect:
        """Fetch, verify and store; return what to write. Raises what fetching and decoding raise."""
        item = self._load(claim.subject_id)
        if item is None:
            return _nothing
        try:
            with job_directory(self.work_dir, claim) as directory:
                fetched = self._fetch(item, directory, claim)
                count(BYTES_FETCHED, item.kind, amount=fetched.path.stat().st_size)
                failpoint(Failpoint.INGEST_FETCHED)
                self._require_welcome(fetched.sha256)
                with span("verify") as step:
                    audio = self._verify(item, fetched)
                    step.set({"duration_s": audio.info.duration_s})
                    count(AUDIO_SECONDS, claim.kind, amount=audio.info.duration_s)
                    item.policy.check_duration(audio.info.duration_s)
                    check_complete(audio, advertised_s=fetched.provenance.advertised_s)
                    if item.kind is not SourceKind.FILE:
                        check_not_cut_short(audio, listed_s=item.listed_s)
                failpoint(Failpoint.INGEST_VERIFIED)
                size_bytes = self._keep(item, fetched)
                failpoint(Failpoint.INGEST_STORED)
        except RobotsRefused as error:
            return _refused(item, claim, ItemRefused(RefusalClass.ROBOTS, error.message))
        except ItemRefused as refusal:
            return _refused(item, claim, refusal)
        return self._stored(item, claim, fetched, audio, size_bytes)

    def _keep(self, item: ItemToIngest, fetched: FetchedBytes) -> int:
        """Put the bytes into the store, where uploads are already; return how many they are."""
        size_bytes = fetched.path.stat().st_size
        if item.kind is not SourceKind.FILE:
            with span("store", {"num_bytes": size_bytes}):
                key = raw_key(fetched.sha256)
                forget_mark(self.engine, key)
                self.store.put_file(key, fetched.path)
        return size_bytes

    def on_failure(self, unit: UnitOfWork, claim: Claim, error: AudioFoundationError) -> None:
        """Mark the item failed when its job has ended without it."""
        if error.code in OUR_CLASSES:
            _log.error(
                "ingest_failed_on_our_side", item_id=claim.subject_id, error_class=error.code, error=error.message
            )
        set_state(unit.session, claim.subject_id, ItemState.FAILED, error_class=error.code.value, error=error.message)

    def _load(self, item_id: str) -> ItemToIngest | None:
        """Return the item; None when nothing is left to do for it."""
        with read_session(self.engine) as session:
            item = session.get(Item, item_id)
            if item is None or not (item.state in PENDING_STATES or _is_recheck(item)):
                return None
            collection = session.get_one(Collection, item.collection_id)
            kind = SourceKind(item.kind)
            policy = policy_for(
                kind,
                scope=PolicyScope(collection.policy),
                license_policy=self.settings.license_policy,
                owned_channels=self.settings.owned_channels,
            )
            digest = Sha256(item.canonical.partition(":")[2]) if kind is SourceKind.FILE else None
            return ItemToIngest(
                id=item.id,
                kind=kind,
                source=item.source,
                canonical=item.canonical,
                license=item.license,
                listed_s=item.duration_s,
                policy=policy,
                asset_sha256=digest,
                num_rechecks=item.num_rechecks,
            )

    def _fetch(self, item: ItemToIngest, directory: Path, claim: Claim) -> FetchedBytes:
        item.policy.check_listed_license(item.license)
        if item.asset_sha256 is not None:
            return self._uploaded(item.asset_sha256, directory)
        try:
            with Planner(self.engine, self.settings).place(item.kind, item.source, claim) as place:
                self._move(item, ItemState.QUEUED, ItemState.FETCHING)
                if item.kind is SourceKind.YOUTUBE:
                    return self._from_youtube(item, directory, claim, place.identity)
                if item.kind is SourceKind.YANDEX:
                    from audiofoundation.ingestion.yandex_item import fetch_track  # its library is an extra

                    return fetch_track(item, directory, settings=self.settings)
                return self._from_web(item, directory)
        except RateLimited:
            self._move(item, ItemState.FETCHING, ItemState.QUEUED)
            raise

    def _verify(self, item: ItemToIngest, fetched: FetchedBytes) -> VerifiedAudio:
        """Decode all of it, and judge it on the way unless its ranges were judged already."""
        if not self._is_probed(item) or fetched.is_probed:
            return verify_audio(fetched.path)
        excerpts = Excerpts()
        audio = verify_audio(fetched.path, excerpts=excerpts)
        size_bytes = fetched.path.stat().st_size
        verdict = judge(excerpts.waveforms, self.probe, stage=Stage.WHOLE, num_bytes=size_bytes, labeller=self.labeller)
        self._check(item, verdict)
        return audio

    def _is_probed(self, item: ItemToIngest) -> bool:
        return self.probe.is_enabled and item.policy is not UNLIMITED

    def _probe_ranges(self, item: ItemToIngest, read: RangeReader) -> bool:
        """Judge ranges of what is to be fetched; return whether they told. Raises ItemRefused."""
        if not self._is_probed(item):
            return False
        with span("probe") as step:
            verdict = probe_ranges(read, self.probe, self.labeller)
            if verdict is not None:
                step.set({"num_bytes": verdict.num_bytes})
                self._check(item, verdict)
        return verdict is not None

    def _check(self, item: ItemToIngest, verdict: Verdict) -> None:
        with write_session(self.engine) as session:
            write_verdict(session, item.id, verdict, self.probe)
        verdict.check()

    def _require_welcome(self, sha256: Sha256) -> None:
        with read_session(self.engine) as session:
            require_welcome(session, sha256)

    def _move(self, item: ItemToIngest, before: ItemState, after: ItemState) -> None:
        with write_session(self.engine) as session:
            change_items(session, (Item.id == item.id) & (Item.state == before), ItemChange(after))

    def _from_web(self, item: ItemToIngest, directory: Path) -> FetchedBytes:
        def read(first: int, num_bytes: int) -> tuple[bytes, int | None]:
            return read_range(item.source, first, num_bytes, settings=self.settings, is_crawl=True)

        is_probed = self._probe_ranges(item, read)
        path = directory / "body"
        budget = FetchBudget(wall_s=_FETCH_WALL_S, is_crawl=True)
        with span("fetch") as step:
            result = fetch_to_file(item.source, path, settings=self.settings, budget=budget)
            step.set({"num_bytes": result.size_bytes})
        return FetchedBytes(path, result.sha256, Provenance(tool_version="audiofoundation"), is_probed)

    def _uploaded(self, sha256: Sha256, directory: Path) -> FetchedBytes:
        path = directory / "body"
        try:
            with span("fetch") as step:
                self.store.get_to_file(raw_key(sha256), path, sha256=sha256)
                step.set({"num_bytes": path.stat().st_size})
        except ObjectNotFound as error:
            raise NotFound("the uploaded bytes are gone from the object store; upload the file again") from error
        return FetchedBytes(path, sha256, Provenance(tool_version="upload"))

    def _from_youtube(
        self, item: ItemToIngest, directory: Path, claim: Claim, identity: EgressIdentity
    ) -> FetchedBytes:
        # yt-dlp takes a second to import: only a worker that meets a video pays for it.
        from audiofoundation.ingestion.youtube import YoutubeSource, check_video
        from audiofoundation.ingestion.youtube_item import LeaseHeartbeat, to_fetched

        heartbeat = LeaseHeartbeat(self.engine, claim, self.jobs)
        source = self.open_youtube(identity) if self.open_youtube else YoutubeSource(self.settings, identity=identity)
        with ExitStack() as stack:
            with span("metadata"):
                opening = source.open(item.source, directory / "video", attempt=claim.attempt)
                video = stack.enter_context(opening)
                check_video(video.info, item.policy)
            is_probed = self._probe_ranges(item, video.read_range)
            with span("fetch") as step:
                path = video.download(heartbeat)
                step.set({"num_bytes": path.stat().st_size})
            return to_fetched(video, path, is_probed=is_probed)

    def _stored(
        self, item: ItemToIngest, claim: Claim, fetched: FetchedBytes, audio: VerifiedAudio, size_bytes: int
    ) -> Effect:
        def effect(unit: UnitOfWork) -> None:
            if discard_if_taken_down(unit, item.id, fetched.sha256):
                return
            if _is_judged_anew(unit, item, claim, is_taken=True):
                return
            asset = _ensure_asset(unit, fetched, audio, size_bytes)
            if asset.tombstoned_at is not None:  # taken down while this waited for its row
                discard_if_taken_down(unit, item.id, fetched.sha256)
                return
            columns: dict[str, object] = {
                "asset_id": asset.id,
                "duration_s": audio.info.duration_s,
                "policy": item.policy.name,
                "retrieved_at": time.time(),
                "recheck_at": None,
                **fetched.provenance.columns(),
            }
            change_items(unit.session, Item.id == item.id, ItemChange(ItemState.STORED, columns=columns))

        return effect


def _ensure_asset(unit: UnitOfWork, fetched: FetchedBytes, audio: VerifiedAudio, size_bytes: int) -> Asset:
    """Return the row that names these bytes, locked; it is made if nothing named them before."""
    row = {
        "id": create_id("asset"),
        "sha256": fetched.sha256,
        "key": raw_key(fetched.sha256),
        "size_bytes": size_bytes,
        "container": audio.info.container,
        "codec": audio.info.codec,
        "sample_rate_hz": audio.info.sample_rate_hz,
        "num_channels": audio.info.num_channels,
        "duration_s": audio.info.duration_s,
        "damage": audio.damage,
    }
    insert_new(unit.session, Asset, [row], unique=["sha256"])
    return unit.session.scalars(select(Asset).where(Asset.sha256 == fetched.sha256).with_for_update()).one()


def _nothing(unit: UnitOfWork) -> None:  # noqa: ARG001
    return


def _is_recheck(item: Item) -> bool:
    """Tell whether an item that was not taken is to be looked at again by now."""
    is_waiting = item.state in (ItemState.DEFERRED, ItemState.FAILED) and item.recheck_at is not None
    return is_waiting and (item.recheck_at or 0.0) <= time.time()


def _refused(item: ItemToIngest, claim: Claim, refusal: ItemRefused) -> Effect:
    note({"refusal": refusal.refusal.value})

    def effect(unit: UnitOfWork) -> None:
        if refusal.refusal is RefusalClass.LICENSE and _is_judged_anew(unit, item, claim, is_taken=False):
            return
        recheck_at = refusal.recheck_at(now=time.time(), num_rechecks=item.num_rechecks)
        columns: dict[str, object] = {"recheck_at": recheck_at, "policy": item.policy.name}
        if recheck_at is not None:
            columns["num_rechecks"] = item.num_rechecks + 1
            unit.enqueue_again(claim.job_id, not_before=recheck_at)
        change = ItemChange(refusal.state, refusal.refusal.value, refusal.message, columns)
        change_items(unit.session, Item.id == item.id, change)

    return effect


def _is_judged_anew(unit: UnitOfWork, item: ItemToIngest, claim: Claim, *, is_taken: bool) -> bool:
    """Queue the item again, and say so, where what was named for it while its job was under way changes the verdict."""
    named = unit.session.scalar(select(Item.license).where(Item.id == item.id).with_for_update())
    if named == item.license or (is_taken and item.policy.takes_listed(named)):
        return False
    change_items(unit.session, Item.id == item.id, ItemChange(ItemState.QUEUED))
    unit.enqueue_again(claim.job_id, not_before=time.time())
    return True
