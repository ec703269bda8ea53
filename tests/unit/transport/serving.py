"""A real server on a real port, for tests of what happens before a body is read."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI, UploadFile, WebSocket
from pydantic import BaseModel, Field, SecretStr

from audiofoundation.errors import DecodeFailed
from audiofoundation.settings import ServingSettings, Settings, TelemetrySettings
from audiofoundation.transport.health import Health
from audiofoundation.transport.http import create_app
from audiofoundation.transport.websocket import authenticate

KEY = "test-key"
AUTHORIZED = {"Authorization": f"Bearer {KEY}"}
LIMIT_BYTES = 1 << 20
START_DEADLINE_S = 20.0


class Order(BaseModel):
    amount: int = Field(ge=1)


def create_sample_app(health: Health | None = None, telemetry: TelemetrySettings | None = None) -> FastAPI:
    """An application with one route of each kind that matters here."""
    serving = ServingSettings(
        api_keys=(SecretStr(KEY),), max_body_bytes=LIMIT_BYTES, allowed_origins=("https://page.example",)
    )
    settings = Settings(serving=serving, telemetry=telemetry or TelemetrySettings())
    app = create_app("sample", settings=settings, health=health)

    @app.post("/v1/upload")
    async def upload(file: UploadFile) -> dict[str, int]:
        return {"size": len(await file.read())}

    @app.post("/v1/orders")
    async def order(order: Order) -> Order:
        return order

    @app.get("/v1/broken")
    async def broken() -> None:
        raise ZeroDivisionError("a secret detail")

    @app.get("/v1/undecodable")
    async def undecodable() -> None:
        raise DecodeFailed("This is text, not audio.", param="file")

    @app.websocket("/v1/echo")
    async def echo(websocket: WebSocket) -> None:
        await websocket.accept(subprotocol=await authenticate(websocket))
        text = await websocket.receive_text()
        if text == "fail":
            raise DecodeFailed("This is text, not audio.")
        await websocket.send_text(text)
        await websocket.close()

    return app


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """Yield the address of the application, served by uvicorn in a thread."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + START_DEADLINE_S
    while not server.started:
        assert time.monotonic() < deadline, "the server did not start"
        assert thread.is_alive(), "the server ended"
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(START_DEADLINE_S)
