"""HTTP routes of the preprocess service."""

from typing import Annotated

from fastapi import APIRouter, Query

from audiofoundation.catalog.engine import read_session
from audiofoundation.ingestion.catalog_items import get_collection
from audiofoundation.preprocessing.datasets import DatasetEntry, dataset_page
from audiofoundation.preprocessing.options import DatasetOptions
from audiofoundation.preprocessing.plan import plan_dataset
from audiofoundation.preprocessing.status import (
    DatasetStatus,
    dataset_item_page,
    dataset_status,
    get_dataset,
)
from services.preprocess.events import add_event_route
from services.preprocess.export import add_export_routes
from services.preprocess.report import add_report_route
from services.preprocess.schemas import (
    DatasetChoices,
    DatasetEntryOut,
    DatasetIn,
    DatasetItemOut,
    DatasetItemPageOut,
    DatasetOut,
    DatasetPageOut,
)
from services.preprocess.wiring import Container


def create_router(container: Container) -> APIRouter:
    """Return the routes under /v1/datasets."""
    router = APIRouter(prefix="/v1/datasets", tags=["preprocess"])

    @router.post("", summary="Make a dataset of a collection, or bring the one there is up to date")
    def post_dataset(body: DatasetIn) -> DatasetOut:
        options = _to_options(body, container.custom_features)
        with container.queue.unit_of_work() as unit:
            collection = get_collection(unit.session, body.collection)
            dataset_id = plan_dataset(unit, collection, options, num_workers=container.num_workers)
            return _to_out(dataset_status(unit.session, get_dataset(unit.session, dataset_id)))

    @router.get("", summary="List datasets, the newest first, a page at a time")
    def get_all(
        collection: Annotated[str | None, Query(description="Only those of this collection, by id or name")] = None,
        cursor: str | None = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> DatasetPageOut:
        with read_session(container.queue.engine) as session:
            of = None if collection is None else get_collection(session, collection)
            page = dataset_page(session, collection=of, cursor=cursor, limit=limit)
            return DatasetPageOut(datasets=[_to_entry(entry) for entry in page.entries], next_cursor=page.next_cursor)

    @router.get("/{dataset}", summary="Count items, segments, hours and shards")
    def get_one(dataset: str) -> DatasetOut:
        with read_session(container.queue.engine) as session:
            return _to_out(dataset_status(session, get_dataset(session, dataset)))

    @router.get("/{dataset}/items", summary="List what became of each recording, a page at a time")
    def get_items(
        dataset: str,
        state: str | None = None,
        cursor: str | None = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> DatasetItemPageOut:
        with read_session(container.queue.engine) as session:
            found = get_dataset(session, dataset)
            page = dataset_item_page(session, found, state=state, cursor=cursor, limit=limit)
            items = [DatasetItemOut.model_validate(item, from_attributes=True) for item in page.items]
            return DatasetItemPageOut(items=items, next_cursor=page.next_cursor)

    add_event_route(router, container)
    add_report_route(router, container)
    add_export_routes(router, container)
    return router


def _to_options(body: DatasetIn, custom_features: tuple[str, ...]) -> DatasetOptions:
    return DatasetOptions(
        preset=body.preset,
        segment_s=body.segment_s,
        min_segment_s=body.min_segment_s,
        target_lufs=body.target_lufs,
        is_trimmed=body.trim_silence,
        include_waveform=body.include_waveform,
        has_rhythm=body.has_rhythm,
        channels=body.channels,
        thresholds=body.thresholds(),
        custom_features=custom_features,
    )


def _to_entry(entry: DatasetEntry) -> DatasetEntryOut:
    row, version = entry.dataset, entry.version
    options = DatasetOptions.from_config(row.config)
    return DatasetEntryOut(
        dataset=row.id,
        collection=row.collection_id,
        collection_name=entry.collection_name,
        state=row.state,
        options=_from_options(options),
        custom_features=list(options.custom_features),
        manifest_sha256=row.manifest_sha256,
        items=None if version is None else version.num_items,
        segments=None if version is None else version.num_samples,
        hours=None if version is None else version.duration_s / 3600,
        created_at=row.created_at,
    )


def _from_options(options: DatasetOptions) -> DatasetChoices:
    return DatasetChoices(
        preset=options.preset,
        segment_s=options.segment_s,
        min_segment_s=options.min_segment_s,
        target_lufs=options.target_lufs,
        trim_silence=options.is_trimmed,
        include_waveform=options.include_waveform,
        has_rhythm=options.has_rhythm,
        channels=options.channels,
        **options.thresholds.to_config(),
    )


def _to_out(status: DatasetStatus) -> DatasetOut:
    return DatasetOut(
        dataset=status.id,
        collection=status.collection_id,
        preset=status.preset,
        mel_fingerprint=status.mel_fingerprint,
        state=status.state,
        items=status.num_items,
        segments=status.num_segments,
        hours=status.duration_s / 3600,
        shards=status.num_shards,
        shards_planned=status.num_shards_planned,
        states=dict(status.states),
        error_classes=dict(status.error_classes),
        segments_left_out=dict(status.left_out),
        features_failed=dict(status.features_failed),
        wall_s=status.wall_s,
        cpu_s=status.cpu_s,
        manifest_key=status.manifest_key,
        manifest_sha256=status.manifest_sha256,
    )
