"""The HTTP route of a collection's probe report."""

from fastapi import APIRouter
from pydantic import BaseModel, Field

from audiofoundation.catalog.engine import read_session
from audiofoundation.ingestion.catalog_items import get_collection
from audiofoundation.ingestion.probe_report import probe_report
from services.ingest.wiring import Container


class MeasureOut(BaseModel):
    name: str
    unit: str
    edges: list[float] = Field(description="Edges of the bins, one more than counts")
    counts: list[int]
    threshold_name: str | None = Field(description="AF_PROBE__… that judges the measure")
    threshold: float | None
    num_kept: int = Field(description="Recordings that this threshold alone keeps")


class LabelsOut(BaseModel):
    counts: dict[str, int] = Field(description="Recordings per label: `speech`, `music`, `other`")
    unlabelled: int = Field(description="Silent, or probed where there was no classifier")
    allowed: list[str] = Field(description="AF_PROBE__ALLOWED_LABELS; every label passes when empty")
    num_kept: int = Field(description="Recordings that this alone keeps; those without a label pass")


class ProbeReportOut(BaseModel):
    collection: str
    probed: int
    decisions: dict[str, int] = Field(description="`kept` and `refused`, at the thresholds of their time")
    stages: dict[str, int] = Field(description="Judged by short `ranges` before the download, or as a `whole` after it")
    kept_now: int = Field(description="How many all thresholds and labels of today keep")
    range_bytes: int = Field(description="Bytes fetched for the probes by ranges")
    measures: list[MeasureOut]
    labels: LabelsOut


def add_probe_routes(router: APIRouter, container: Container) -> None:
    """Add the report under a collection."""

    @router.get("/{collection}/probe-report", summary="Histograms of what the probes measured")
    def get_probe_report(collection: str) -> ProbeReportOut:
        with read_session(container.queue.engine) as session:
            found = get_collection(session, collection)
            report = probe_report(session, found.id, container.settings.probe)
            return ProbeReportOut(
                collection=found.name,
                probed=report.num_probed,
                decisions=dict(report.decisions),
                stages=dict(report.stages),
                kept_now=report.num_kept_now,
                range_bytes=report.num_bytes,
                measures=[MeasureOut.model_validate(measure, from_attributes=True) for measure in report.measures],
                labels=LabelsOut(
                    counts=dict(report.labels.counts),
                    unlabelled=report.labels.num_unlabelled,
                    allowed=list(report.labels.allowed),
                    num_kept=report.labels.num_kept,
                ),
            )
