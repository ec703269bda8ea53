"""HTTP route of the collector."""

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from audiofoundation.ingestion.collector import Collector, resume_purges
from services.ingest.wiring import Container

_MAX_NAMED = 1000


class CollectIn(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    apply: bool = Field(default=False, description="Mark orphans, and delete those marked a day ago; else only look")


class CollectOut(BaseModel):
    objects: int
    bytes: int
    orphans: int = Field(description="Objects two days old that nothing names")
    orphan_bytes: int
    deleted: int
    more: bool = Field(description="It stopped for lack of time; asking again deletes more")
    purges_resumed: int = Field(description="Takedowns whose deletions were given up and are tried again")
    orphan_keys: list[str] = Field(description="The first 1000 orphans")


def create_router(container: Container) -> APIRouter:
    """Return the route of the collector."""
    router = APIRouter(prefix="/v1/maintenance", tags=["maintenance"])

    @router.post("/gc", summary="Look for objects that nothing names, and remove them on the second pass")
    def post_gc(body: CollectIn) -> CollectOut:
        num_resumed = 0
        if body.apply:
            with container.queue.unit_of_work() as unit:
                num_resumed = resume_purges(unit)
        found = Collector(container.queue.engine, container.store).collect(is_applied=body.apply)
        return CollectOut(
            objects=found.num_objects,
            bytes=found.num_bytes,
            orphans=len(found.orphans),
            orphan_bytes=found.num_orphan_bytes,
            deleted=len(found.deleted),
            more=found.is_more,
            purges_resumed=num_resumed,
            orphan_keys=found.orphans[:_MAX_NAMED],
        )

    return router
