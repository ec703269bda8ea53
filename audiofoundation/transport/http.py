"""The FastAPI application that every service starts from."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from importlib.metadata import version
from typing import Annotated

from fastapi import Depends, FastAPI, Request
from fastapi.responses import RedirectResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from fastapi_offline import FastAPIOffline
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from audiofoundation.settings import Settings
from audiofoundation.transport.auth import Authenticator
from audiofoundation.transport.error_handlers import add_error_handlers
from audiofoundation.transport.events import Listeners
from audiofoundation.transport.gatekeeper import GatekeeperMiddleware
from audiofoundation.transport.health import Health, create_health_router
from audiofoundation.transport.metrics import MetricsMiddleware, create_metrics_router
from audiofoundation.transport.openapi import ERROR_RESPONSES, describe_security
from audiofoundation.transport.request_id import HEADER, RequestIdMiddleware
from audiofoundation.transport.tracing import TracingMiddleware

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]
_bearer = HTTPBearer(auto_error=False)
_EXPOSED_HEADERS = (HEADER, "Retry-After", "X-Model-Version", "X-Seam-Score", "X-Sample-Rate", "X-Input-Damage")


def create_app(
    title: str, *, settings: Settings, lifespan: Lifespan | None = None, health: Health | None = None
) -> FastAPI:
    """Return an application with request ids, metrics, key and body checks, health and one error shape.

    Everything under `/v1/` needs an API key, whatever router adds it. `/docs`, to which `/` leads, shows the routes
    and tries them; its scripts come from this machine.

    Args:
        title: the service's name in the OpenAPI document.
        settings: keys, limits and origins come from its `serving` block.
        lifespan: what to start and stop with the application.
        health: the checks behind `/health`; also found as `app.state.health`.
    """
    health = health or Health()
    authenticator = Authenticator(settings.serving)
    app = FastAPIOffline(
        redoc_url=None,
        title=title,
        version=version("audiofoundation"),
        lifespan=lifespan,
        responses=ERROR_RESPONSES,
        middleware=_middleware(settings, authenticator),
    )
    app.state.settings = settings
    app.state.authenticator = authenticator
    app.state.health = health
    app.state.listeners = Listeners()
    add_error_handlers(app)
    describe_security(app)
    app.add_api_route("/", _to_docs, include_in_schema=False)
    app.include_router(create_health_router(health))
    app.include_router(create_metrics_router())
    return app


async def _to_docs() -> RedirectResponse:
    return RedirectResponse("docs")


async def require_key(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> None:
    """A dependency for routes outside `/v1/` that need a key.

    Raises:
        Unauthenticated: no valid key came.
    """
    authenticator: Authenticator = request.app.state.authenticator
    authenticator.check(credentials.credentials if credentials else None)


def _middleware(settings: Settings, authenticator: Authenticator) -> list[Middleware]:
    """Outermost first."""
    serving = settings.serving
    found = [Middleware(RequestIdMiddleware), Middleware(MetricsMiddleware)]
    if settings.telemetry.otlp_endpoint:
        found.insert(0, Middleware(TracingMiddleware))
    if serving.allowed_origins:
        cors = Middleware(
            CORSMiddleware,
            allow_origins=list(serving.allowed_origins),
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=[
                HEADER,
                "Retry-After",
                "X-Model-Version",
                "X-Seam-Score",
                "X-Sample-Rate",
                "X-Input-Damage",
            ],
        )
        found.append(cors)
    found.append(
        Middleware(
            GatekeeperMiddleware,
            authenticator=authenticator,
            max_body_bytes=serving.max_body_bytes,
            max_upload_bytes=settings.fetch.max_bytes,
        )
    )
    return found
