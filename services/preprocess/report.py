"""A dataset's report over HTTP: made once per version, one at a time."""

import threading
from collections import OrderedDict

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from audiofoundation.errors import Overloaded
from audiofoundation.identifiers import Sha256
from audiofoundation.preprocessing.report.page import render
from audiofoundation.preprocessing.report.survey import survey, version_of
from services.preprocess.wiring import Container

_NUM_KEPT = 4
_PATIENCE_S = 60.0
# The page runs nothing and loads nothing.
_HEADERS = {"Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'"}


class ReportDesk:
    """Makes reports and keeps the last few."""

    def __init__(self, container: Container) -> None:
        self._container = container
        self._lock = threading.Lock()
        self._kept: OrderedDict[Sha256, str] = OrderedDict()

    def report(self, dataset: str) -> str:
        """Return the page about the dataset's present version.

        Raises:
            NotFound, Conflict: there is no such dataset, or no version of it yet.
            Overloaded: others' reports are being made for too long.
        """
        container = self._container
        version = version_of(container.queue.engine, dataset)
        if not self._lock.acquire(timeout=_PATIENCE_S):
            raise Overloaded("other reports are being made; try again in a minute", retry_after_s=_PATIENCE_S)
        try:
            if version not in self._kept:
                found = survey(container.queue.engine, container.store, dataset)
                self._kept[version] = render(found, min_centroid_hz=container.min_centroid_hz)
                if len(self._kept) > _NUM_KEPT:
                    self._kept.popitem(last=False)
            return self._kept[version]
        finally:
            self._lock.release()


def add_report_route(router: APIRouter, container: Container) -> None:
    """Add the route."""
    desk = ReportDesk(container)

    @router.get(
        "/{dataset}/report", summary="A page about a dataset: measures and pictures", response_class=HTMLResponse
    )
    def get_report(dataset: str) -> HTMLResponse:
        return HTMLResponse(desk.report(dataset), headers=_HEADERS)
