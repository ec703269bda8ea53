"""A session whose client takes nothing: sent away with 1013, without an error in the log."""

import asyncio
import json
from pathlib import Path

import pytest
from starlette.types import Message
from starlette.websockets import WebSocket

from services.infer import websocket
from services.infer.wiring import InferContainer
from tests.infer_server import create_settings
from tests.tiny_models import save_pretrained


class Client:
    """The server's side of a socket, as ASGI has it, whose text frames are never taken."""

    def __init__(self, *frames: str) -> None:
        self._frames = list(frames)
        self.sent: list[Message] = []
        self._is_closed = asyncio.Event()

    async def receive(self) -> Message:
        if self.sent == []:
            return {"type": "websocket.connect"}
        if self._frames:
            return {"type": "websocket.receive", "text": self._frames.pop(0)}
        await self._is_closed.wait()
        return {"type": "websocket.disconnect", "code": 1006}

    async def send(self, message: Message) -> None:
        self.sent.append(message)
        if message["type"] == "websocket.send":
            await asyncio.Event().wait()
        if message["type"] == "websocket.close":
            self._is_closed.set()


@pytest.mark.parametrize("frame", ["no json", json.dumps({"type": "input.done"})])
def test_a_client_that_does_not_read_is_sent_away(frame: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first frame fails while it is read, the second in the task that answers."""
    monkeypatch.setattr(websocket, "_SEND_TIMEOUT_S", 0.05)
    container = InferContainer.create(create_settings(save_pretrained(tmp_path / "pretrained"), tmp_path))

    async def scenario() -> list[Message]:
        client = Client(frame)
        socket = WebSocket({"type": "websocket", "headers": []}, client.receive, client.send)
        await socket.accept()
        async with asyncio.timeout(20):
            with container.sessions.place() as held:
                await websocket.Session(socket, container, held).run()
        return client.sent

    sent = asyncio.run(scenario())

    assert [message["type"] for message in sent] == ["websocket.accept", "websocket.send", "websocket.close"]
    assert sent[-1]["code"] == 1013
