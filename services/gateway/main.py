"""One process and one address for every service's routes: `python -m services.gateway.main`."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from fastapi import FastAPI

from audiofoundation.catalog.engine import create_catalog_engine
from audiofoundation.jobs.celery_app import CeleryPublisher
from audiofoundation.jobs.queue import JobQueue
from audiofoundation.jobs.sweeper import SweeperThread
from audiofoundation.settings import Settings
from audiofoundation.telemetry import configure_logging
from audiofoundation.telemetry.tracing import tracing
from audiofoundation.transport.catalog_metrics import CatalogMetrics
from audiofoundation.transport.dependencies import check_catalog, check_queue, check_storage
from audiofoundation.transport.health import Check, Health
from audiofoundation.transport.http import create_app as create_base_app
from audiofoundation.transport.server import serve
from services.infer import main as infer
from services.infer import routes as infer_routes
from services.infer.wiring import InferContainer
from services.ingest import routes as ingest_routes
from services.ingest import wiring as ingest_wiring
from services.preprocess import routes as preprocess_routes
from services.preprocess import wiring as preprocess_wiring
from services.train import routes as train_routes
from services.train import wiring as train_wiring


def create_app(settings: Settings) -> FastAPI:
    """Return the application with the routes of all four services and, in its lifespan, the gRPC server."""
    models = InferContainer.create(settings)
    health = Health(readiness=_readiness(models), dependencies=_dependencies(settings, models))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        queue = JobQueue(create_catalog_engine(settings.catalog), CeleryPublisher(settings.queue))
        sweeper = SweeperThread(queue, settings.jobs)
        sweeper.start()
        try:
            async with infer.serving(models, settings) as grpc_server:
                app.state.grpc_port = grpc_server.port
                yield
        finally:
            sweeper.stop()

    app = create_base_app("audiofoundation", settings=settings, lifespan=lifespan, health=health)
    app.state.infer = models
    app.state.catalog_metrics = CatalogMetrics(create_catalog_engine(settings.catalog))
    app.include_router(ingest_routes.create_router(ingest_wiring.create_container(settings)))
    app.include_router(preprocess_routes.create_router(preprocess_wiring.create_container(settings)))
    app.include_router(train_routes.create_router(train_wiring.create_container(settings)))
    app.include_router(infer_routes.create_router(models))
    return app


def _readiness(models: InferContainer) -> Mapping[str, Check]:
    """Wait while models load; if they cannot be loaded, the other services' routes are ready all the same."""
    return {"models": lambda: models.not_ready if models.is_loading else None}


def _dependencies(settings: Settings, models: InferContainer) -> Mapping[str, Check]:
    return {
        "models": lambda: models.not_ready,
        "catalog": lambda: check_catalog(settings.catalog),
        "queue": lambda: check_queue(settings.queue),
        "storage": lambda: check_storage(settings.storage),
    }


def main() -> None:
    """Serve until SIGTERM, then drain."""
    settings = Settings()
    configure_logging(settings.telemetry)
    with tracing(settings.telemetry, service="gateway"):
        serve(create_app(settings), settings.serving)


if __name__ == "__main__":
    main()
