"""Health: alive (the event loop turns), ready (send me work), and the state of what we depend on."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import BaseModel

KEEP_S = 3.0
Check = Callable[[], str | None]
"""Returns None when all is well, else one sentence on what is not."""


class LiveReport(BaseModel):
    status: str


class HealthReport(BaseModel):
    """`status` is ok, degraded or draining; `checks` has a sentence for everything that is not well."""

    status: str
    checks: dict[str, str]


@dataclass(slots=True)
class Health:
    """What a process says of itself.

    Attributes:
        readiness: what must hold before work is sent here (a model is loaded). No network in these.
        dependencies: what we use (catalog, queue, object store): reported, never a reason to be restarted.
        is_draining: set once at shutdown; readiness fails from then on.
    """

    readiness: Mapping[str, Check] = field(default_factory=dict)
    dependencies: Mapping[str, Check] = field(default_factory=dict)
    is_draining: bool = False


def create_health_router(health: Health) -> APIRouter:
    """Return the routes that probes call; they need no key."""
    router = APIRouter(tags=["health"])
    kept = _KeptReport(health)

    @router.get("/health/live", summary="Is the process alive?")
    async def live() -> LiveReport:
        return LiveReport(status="ok")

    @router.get(
        "/health/ready",
        summary="May work be sent here?",
        responses={503: {"model": HealthReport, "description": "Not now"}},
        response_model=HealthReport,
    )
    async def ready() -> JSONResponse:
        return _answer(health, health.readiness)

    @router.get("/health", summary="How are this process and what it depends on?")
    def detail() -> HealthReport:
        return kept.report()

    return router


class _KeptReport:
    """The whole report, looked up at most every few seconds: anybody may ask, and each look costs connections."""

    def __init__(self, health: Health) -> None:
        self._health, self._lock = health, threading.Lock()
        self._report: HealthReport | None = None
        self._made_at = float("-inf")

    def report(self) -> HealthReport:
        with self._lock:
            if self._report is None or time.monotonic() - self._made_at >= KEEP_S:
                self._report = _report(self._health, {**self._health.readiness, **self._health.dependencies})
                self._made_at = time.monotonic()
            if self._health.is_draining:
                return self._report.model_copy(update={"status": "draining"})
            return self._report


def _answer(health: Health, checks: Mapping[str, Check]) -> JSONResponse:
    report = _report(health, checks)
    return JSONResponse(report.model_dump(), status_code=200 if report.status == "ok" else 503)


def _report(health: Health, checks: Mapping[str, Check]) -> HealthReport:
    results = {name: check() for name, check in checks.items()}
    is_well = not any(results.values())
    status = "draining" if health.is_draining else "ok" if is_well else "degraded"
    return HealthReport(status=status, checks={name: result or "ok" for name, result in results.items()})
