"""The infer service alone: `python -m services.infer.main`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from audiofoundation.settings import Settings
from audiofoundation.telemetry import configure_logging
from audiofoundation.telemetry.tracing import tracing
from audiofoundation.transport.health import Health
from audiofoundation.transport.http import create_app as create_base_app
from audiofoundation.transport.server import serve
from services.infer.grpc_server import GrpcServer, start_grpc_server
from services.infer.routes import create_router
from services.infer.wiring import InferContainer


def create_app(settings: Settings) -> FastAPI:
    """Return the application; its lifespan loads the models and serves gRPC beside HTTP."""
    container = InferContainer.create(settings)
    health = Health(readiness={"models": lambda: container.not_ready})

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with serving(container, settings) as grpc_server:
            app.state.grpc_port = grpc_server.port
            yield

    app = create_base_app("Audio Foundation: infer", settings=settings, lifespan=lifespan, health=health)
    app.state.infer = container
    app.include_router(create_router(container))
    return app


@asynccontextmanager
async def serving(container: InferContainer, settings: Settings) -> AsyncIterator[GrpcServer]:
    """Load models and serve gRPC while the block runs, then drain."""
    server = await start_grpc_server(container, settings)
    warming = asyncio.ensure_future(container.warm_up())
    try:
        yield server
    finally:
        await asyncio.gather(server.stop(settings.serving.drain_s), container.close())
        await warming


def main() -> None:
    """Serve until SIGTERM, then drain."""
    settings = Settings()
    configure_logging(settings.telemetry)
    with tracing(settings.telemetry, service="infer"):
        serve(create_app(settings), settings.serving)


if __name__ == "__main__":
    main()
