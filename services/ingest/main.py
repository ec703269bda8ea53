"""The ingest service alone: its routes, without the other services'."""

from fastapi import FastAPI

from audiofoundation.settings import Settings
from audiofoundation.telemetry import configure_logging
from audiofoundation.telemetry.tracing import tracing
from audiofoundation.transport.catalog_metrics import CatalogMetrics
from audiofoundation.transport.http import create_app as create_base_app
from audiofoundation.transport.server import serve
from services.ingest.routes import create_router
from services.ingest.wiring import create_container


def create_app(settings: Settings) -> FastAPI:
    """Return the application."""
    app = create_base_app("audiofoundation ingest", settings=settings)
    container = create_container(settings)
    app.state.catalog_metrics = CatalogMetrics(container.queue.engine)
    app.include_router(create_router(container))
    return app


def main() -> None:
    """Serve until SIGTERM, then drain."""
    settings = Settings()
    configure_logging(settings.telemetry)
    with tracing(settings.telemetry, service="ingest"):
        serve(create_app(settings), settings.serving)


if __name__ == "__main__":
    main()
