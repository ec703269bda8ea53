"""All routes of the service."""

from fastapi import APIRouter

from services.infer.rest import create_rest_router
from services.infer.websocket import create_websocket_router
from services.infer.wiring import InferContainer


def create_router(container: InferContainer) -> APIRouter:
    """Return the HTTP and WebSocket routes over this container."""
    router = APIRouter()
    router.include_router(create_rest_router(container))
    router.include_router(create_websocket_router(container))
    return router
