"""The train service's routes alone: `python -m services.train.main`. The supervisor is a process of its own."""

from fastapi import FastAPI

from audiofoundation.settings import Settings
from audiofoundation.telemetry import configure_logging
from audiofoundation.telemetry.tracing import tracing
from audiofoundation.transport.http import create_app as create_base_app
from audiofoundation.transport.server import serve
from services.train.routes import create_router
from services.train.wiring import create_container


def create_app(settings: Settings) -> FastAPI:
    """Return the application."""
    app = create_base_app("audiofoundation train", settings=settings)
    app.include_router(create_router(create_container(settings)))
    return app


def main() -> None:
    """Serve until SIGTERM, then drain."""
    settings = Settings()
    configure_logging(settings.telemetry)
    with tracing(settings.telemetry, service="train"):
        serve(create_app(settings), settings.serving)


if __name__ == "__main__":
    main()
