"""The HTTP route of one item."""

from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field

from audiofoundation.catalog.engine import read_session
from audiofoundation.catalog.tables import Probe
from audiofoundation.ingestion.item_facts import ItemFacts, get_item
from services.ingest.schemas import ItemOut
from services.ingest.wiring import Container


class ProbeOut(BaseModel):
    decision: str = Field(description="`kept` or `refused`, at the thresholds below")
    reason: str = Field(description="Every threshold that it fails, in words; empty when it is kept")
    stage: str = Field(description="Judged by short `ranges` before the download, or as a `whole` after it")
    num_bytes: int = Field(description="Bytes that the probe looked at")
    measurements: dict[str, Any] = Field(description="By name, with their units in it")
    thresholds: dict[str, Any] = Field(description="AF_PROBE__… of that time, by name")
    label: str | None = Field(description="`speech`, `music` or `other`; null when nobody listened, or it is silent")
    probed_at: float


class ItemFactsOut(ItemOut):
    collection: str
    collection_name: str
    probe: ProbeOut | None = Field(description="Null when it was not probed, or was taken down")


def create_router(container: Container) -> APIRouter:
    """Return the route under /v1/items."""
    router = APIRouter(prefix="/v1/items", tags=["ingest"])

    @router.get("/{item}", summary="An item, and what its probe measured and decided")
    def get_one(item: Annotated[str, Path(max_length=64)]) -> ItemFactsOut:
        with read_session(container.queue.engine) as session:
            return _to_out(get_item(session, item))

    return router


def _to_out(facts: ItemFacts) -> ItemFactsOut:
    known = ItemOut.model_validate(facts.item, from_attributes=True).model_dump()
    return ItemFactsOut(
        **{**known, "damage": facts.damage},
        collection=facts.item.collection_id,
        collection_name=facts.collection_name,
        probe=None if facts.probe is None else _to_probe(facts.probe),
    )


def _to_probe(probe: Probe) -> ProbeOut:
    return ProbeOut(
        decision=probe.decision,
        reason=probe.reason,
        stage=probe.stage,
        num_bytes=probe.num_bytes,
        measurements=probe.measurements,
        thresholds=probe.thresholds,
        label=probe.measurements.get("label"),
        probed_at=probe.probed_at,
    )
