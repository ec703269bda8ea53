"""uvicorn with the limits that every service shares."""

from types import FrameType

import uvicorn
from fastapi import FastAPI

from audiofoundation.settings import ServingSettings
from audiofoundation.transport.health import Health

# A prompt may come as one frame; longer ones come in several, up to the body limit.
_MAX_WEBSOCKET_FRAME_BYTES = 32 << 20
_MAX_WEBSOCKET_QUEUE = 8
_PING_S = 20.0


def serve(app: FastAPI, serving: ServingSettings) -> None:
    """Serve until SIGTERM or SIGINT; then stop being ready, let requests end for `drain_s`, and return."""
    _DrainingServer(create_config(app, serving), app.state.health).run()


def create_config(app: FastAPI, serving: ServingSettings) -> uvicorn.Config:
    """Return uvicorn's settings, with the reason beside each odd one."""
    return uvicorn.Config(
        app,
        host=serving.host,
        port=serving.port,
        log_config=None,  # ours, set in main
        access_log=False,  # metrics count requests; paths with queries do not belong in logs
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=max(1, round(serving.drain_s)),  # None, the default, waits for ever
        ws_max_size=min(serving.max_body_bytes, _MAX_WEBSOCKET_FRAME_BYTES),
        ws_max_queue=_MAX_WEBSOCKET_QUEUE,
        ws_per_message_deflate=False,  # audio does not deflate, and each socket would hold two windows
        ws_ping_interval=_PING_S,
        ws_ping_timeout=_PING_S,
    )


class _DrainingServer(uvicorn.Server):
    """Says that it is not ready from the moment it is told to stop."""

    def __init__(self, config: uvicorn.Config, health: Health) -> None:
        super().__init__(config)
        self._health = health

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._health.is_draining = True
        super().handle_exit(sig, frame)
