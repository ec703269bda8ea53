"""HTTP routes of the ingest service."""

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool

from audiofoundation.catalog.engine import read_session
from audiofoundation.catalog.orphan_marks import forget_mark
from audiofoundation.errors import Conflict
from audiofoundation.identifiers import ItemId, Sha256
from audiofoundation.ingestion.catalog_items import (
    AddedItems,
    add_items,
    add_upload,
    ensure_collection,
    get_collection,
)
from audiofoundation.ingestion.collections import CollectionEntry, collection_page
from audiofoundation.ingestion.discoveries import discovery_page
from audiofoundation.ingestion.parsed_lines import parse_lines
from audiofoundation.ingestion.progress import CollectionProgress, collection_progress, item_page
from audiofoundation.ingestion.source import SourceLine, parse_source
from audiofoundation.ingestion.states import ItemRefused
from audiofoundation.ingestion.takedown import discard_if_taken_down, require_welcome
from audiofoundation.storage.keys import raw_key
from audiofoundation.telemetry.failpoints import Failpoint, failpoint
from services.ingest import collector_routes, item_routes, lineage_routes
from services.ingest.events import add_event_route
from services.ingest.probe_routes import add_probe_routes
from services.ingest.schemas import (
    CollectionEntryOut,
    CollectionIn,
    CollectionOut,
    CollectionPageOut,
    DiscoveryOut,
    DiscoveryPageOut,
    ItemOut,
    ItemPageOut,
    ItemsAdded,
    ItemsIn,
    LineRejected,
    SourceIn,
    Text,
    UploadStored,
)
from services.ingest.upload import receive
from services.ingest.wiring import Container


def create_router(container: Container) -> APIRouter:
    """Return the routes under /v1/collections, and those of one item, lineage and takedown."""
    collections = APIRouter(prefix="/v1/collections", tags=["ingest"])
    _add_collection_routes(collections, container)
    _add_discovery_routes(collections, container)
    _add_item_routes(collections, container)
    add_probe_routes(collections, container)
    router = APIRouter()
    router.include_router(collections)
    router.include_router(item_routes.create_router(container))
    router.include_router(lineage_routes.create_router(container))
    router.include_router(collector_routes.create_router(container))
    return router


def _add_collection_routes(router: APIRouter, container: Container) -> None:
    @router.post("", summary="Make a collection, or find the one of that name")
    def post_collection(body: CollectionIn) -> CollectionOut:
        with container.queue.unit_of_work() as unit:
            collection = ensure_collection(unit.session, body.name, scope=body.policy)
            return _to_out(collection_progress(unit.session, collection, fetch=container.settings.fetch))

    @router.get("", summary="List collections, the newest first, a page at a time")
    def get_all(cursor: str | None = None, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> CollectionPageOut:
        with read_session(container.queue.engine) as session:
            page = collection_page(session, cursor=cursor, limit=limit)
            entries = [_to_entry(entry) for entry in page.entries]
            return CollectionPageOut(collections=entries, next_cursor=page.next_cursor)

    @router.get("/{collection}", summary="Count items by state and error class")
    def get_one(collection: str) -> CollectionOut:
        with read_session(container.queue.engine) as session:
            found = get_collection(session, collection)
            return _to_out(collection_progress(session, found, fetch=container.settings.fetch))

    add_event_route(router, get_one)

    @router.get("/{collection}/items", summary="List items, a page at a time")
    def get_items(
        collection: str,
        state: str | None = None,
        cursor: str | None = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> ItemPageOut:
        with read_session(container.queue.engine) as session:
            found = get_collection(session, collection)
            page = item_page(session, found, state=state, cursor=cursor, limit=limit)
            items = [ItemOut.model_validate(item, from_attributes=True) for item in page.items]
            for item in items:
                item.damage = page.damage.get(item.asset_id or "")
            return ItemPageOut(items=items, next_cursor=page.next_cursor)


def _add_discovery_routes(router: APIRouter, container: Container) -> None:
    @router.get("/{collection}/discoveries", summary="List searches, channels, feeds and lists, a page at a time")
    def get_discoveries(
        collection: str, cursor: str | None = None, limit: Annotated[int, Query(ge=1, le=1000)] = 100
    ) -> DiscoveryPageOut:
        with read_session(container.queue.engine) as session:
            found = get_collection(session, collection)
            page = discovery_page(session, found.id, cursor=cursor, limit=limit)
            rows = [DiscoveryOut.model_validate(row, from_attributes=True) for row in page.discoveries]
            return DiscoveryPageOut(discoveries=rows, next_cursor=page.next_cursor)


def _add_item_routes(router: APIRouter, container: Container) -> None:
    @router.post("/{collection}/items", summary="Add sources; what is there already is not added again")
    def post_items(collection: str, body: ItemsIn) -> ItemsAdded:
        parsed = parse_lines([_to_line(source) for source in body.sources])
        with container.queue.unit_of_work() as unit:
            found = get_collection(unit.session, collection)
            policy = container.settings.fetch.license_policy
            added = add_items(unit, found, parsed, license_policy=policy, is_plan=body.plan)
            return _to_added(found.id, added)

    @router.put("/{collection}/files/{sha256}", summary="Upload the bytes of one file, named by their hash")
    async def put_file(
        request: Request,
        collection: str,
        sha256: str,
        name: Annotated[Text, Query(min_length=1)],
        license_text: Annotated[Text | None, Query(alias="license", description="Of the recording")] = None,
    ) -> UploadStored:
        digest = Sha256(parse_source(f"sha256:{sha256}").text)
        await run_in_threadpool(_require_place, container, collection, digest)
        async with receive(request.stream(), container.spool_dir, sha256=digest) as path:
            await run_in_threadpool(_store, container, raw_key(digest), path)
            failpoint(Failpoint.UPLOAD_STORED)
        line = SourceLine(name, title=name, license=license_text)
        item_id, is_new = await run_in_threadpool(_add_upload, container, collection, digest, line)
        return UploadStored(item=item_id, sha256=digest, added=is_new)


def _add_upload(container: Container, collection: str, sha256: Sha256, line: SourceLine) -> tuple[ItemId, bool]:
    with container.queue.unit_of_work() as unit:
        found, policy = get_collection(unit.session, collection), container.settings.fetch.license_policy
        item_id, is_new = add_upload(unit, found, sha256, line, license_policy=policy)
        discard_if_taken_down(unit, item_id, sha256)
        return item_id, is_new


def _store(container: Container, key: str, path: Path) -> None:
    forget_mark(container.queue.engine, key)
    container.store.put_file(key, path)


def _require_place(container: Container, collection: str, sha256: Sha256) -> None:
    """Ask before the bytes come: what no collection takes is not stored."""
    try:
        with read_session(container.queue.engine) as session:
            get_collection(session, collection)
            require_welcome(session, sha256)
    except ItemRefused as refusal:
        raise Conflict(f"this recording was taken down and is not taken again: {refusal.message}") from refusal


def _to_line(source: str | SourceIn) -> SourceLine:
    if isinstance(source, str):
        return SourceLine(source)
    return SourceLine(source.source, source.title, source.channel, source.license, source.duration_s)


def _to_added(collection_id: str, added: AddedItems) -> ItemsAdded:
    return ItemsAdded(
        collection=collection_id,
        added=added.num_added,
        duplicates=added.num_duplicates,
        rejected=dict(added.rejected),
        examples=[LineRejected.model_validate(example, from_attributes=True) for example in added.examples],
        missing=list(added.missing),
        discoveries=list(added.discoveries),
    )


def _to_entry(entry: CollectionEntry) -> CollectionEntryOut:
    row = entry.collection
    return CollectionEntryOut(
        id=row.id, name=row.name, policy=row.policy, items=entry.num_items, created_at=row.created_at
    )


def _to_out(progress: CollectionProgress) -> CollectionOut:
    return CollectionOut(
        id=progress.id,
        name=progress.name,
        policy=progress.policy,
        items=progress.num_items,
        states=dict(progress.states),
        error_classes=dict(progress.error_classes),
        discoveries=dict(progress.discoveries),
        eta_s=progress.eta_s,
    )
