"""What callers may hold: sessions, memory, and the engine while they do not read."""

import asyncio
import json
import socket
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import grpc
import httpx
import pytest
import websockets
from prometheus_client import REGISTRY
from websockets.asyncio.client import connect

from audiofoundation.api.v1 import inference_pb2, inference_pb2_grpc
from audiofoundation.inference import streaming
from services.infer import slow_clients
from tests.infer_server import KEY, SPEECH, InferServer, create_settings, infer_server
from tests.tiny_models import save_pretrained

METADATA = (("authorization", f"Bearer {KEY}"),)
HELD = 200_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InferServer]:
    folder = tmp_path_factory.mktemp("infer")
    limits = {"max_sessions": 1, "max_held_bytes": HELD, "max_running": 1, "max_waiting": 0}
    with infer_server(create_settings(save_pretrained(folder / "pretrained"), folder, **limits)) as server:
        yield server


def continue_by_grpc(server: InferServer, **config: object) -> list[inference_pb2.ContinueResponse]:
    def requests() -> Iterator[inference_pb2.ContinueRequest]:
        yield inference_pb2.ContinueRequest(config=inference_pb2.ContinueConfig(**config))
        yield inference_pb2.ContinueRequest(audio_chunk=SPEECH.read_bytes()[:100_000])

    with grpc.insecure_channel(server.grpc) as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        return list(stub.Continue(requests(), metadata=METADATA))


def test_a_session_too_many_is_refused_at_every_door(server: InferServer) -> None:
    async def scenario() -> int:
        async with connect(server.websocket_url, additional_headers=server.headers):
            with pytest.raises(websockets.InvalidStatus) as refused:
                await connect(server.websocket_url, additional_headers=server.headers)
            with pytest.raises(grpc.RpcError) as exhausted:
                await asyncio.to_thread(continue_by_grpc, server)
            assert exhausted.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            return int(refused.value.response.status_code)

    assert asyncio.run(scenario()) == 503
    wait_until(lambda: server.container.sessions.num_open == 0)


def test_recordings_in_memory_are_bounded(server: InferServer) -> None:
    async def scenario() -> int:
        async with connect(server.websocket_url, additional_headers=server.headers) as one:
            await one.send(bytes(HELD - 1))
            await one.send(b"ab")
            assert json.loads(await one.recv())["code"] == "overloaded"
            await one.wait_closed()
            assert one.close_code is not None
            return one.close_code

    assert asyncio.run(scenario()) == 1013
    wait_until(lambda: server.container.sessions.num_held_bytes == 0)


def test_the_default_length_is_that_of_rest(server: InferServer) -> None:
    answers = continue_by_grpc(server)
    assert answers[-1].finished.duration_seconds == 5.0
    assert server.container.sessions.num_held_bytes == 0


def test_a_client_that_does_not_read_loses_its_place_and_its_answer(
    server: InferServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "_STALL_S", 0.2)
    monkeypatch.setattr(streaming, "_BUFFERED_SAMPLES", 24_000)
    monkeypatch.setattr(slow_clients, "SEND_TIMEOUT_S", 0.2)
    fields = {"duration": 120, "stream_format": "sse", "n": 4}
    request = httpx.Request(
        "POST",
        f"{server.url}/v1/audio/continuations",
        headers=server.headers,
        files={"file": SPEECH.read_bytes()},
        data=fields,
    )
    body = request.read()
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect((urlsplit(server.url).hostname, urlsplit(server.url).port))
        client.sendall(f"POST /v1/audio/continuations HTTP/1.1\r\n{head}\r\n".encode() + body)
        admission = server.container.runner.admission
        wait_until(lambda: admission.num_running == 1)
        wait_until(lambda: admission.num_running == 0)
        # The client is still connected: it is the server that ends the answer.
        wait_until(lambda: REGISTRY.get_sample_value("http_requests_running") == 0)


def wait_until(is_true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.01)
