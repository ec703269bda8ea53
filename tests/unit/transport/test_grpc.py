import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from pydantic import SecretStr
from structlog.testing import capture_logs

from audiofoundation.errors import DecodeFailed, Overloaded
from audiofoundation.settings import ServingSettings
from audiofoundation.transport.auth import Authenticator
from audiofoundation.transport.grpc import GuardInterceptor, to_status

AUTHORIZED = (("authorization", "Bearer test-key"),)
METHODS = ("UnaryUnary", "UnaryStream", "StreamUnary", "StreamStream")


async def say(word: bytes) -> bytes:
    if word == b"undecodable":
        raise DecodeFailed("This is text, not audio.", param="file")
    if word == b"defect":
        raise ZeroDivisionError("a secret detail")
    return word.upper()


class Servicer:
    """One method of each kind; each answers what it was told, in capitals."""

    async def unary_unary(self, request: bytes, _context: grpc.aio.ServicerContext) -> bytes:
        return await say(request)

    async def unary_stream(self, request: bytes, _context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
        yield await say(request)

    async def stream_unary(self, requests: AsyncIterator[bytes], _context: grpc.aio.ServicerContext) -> bytes:
        return b"".join([await say(request) async for request in requests])

    async def stream_stream(
        self, requests: AsyncIterator[bytes], _context: grpc.aio.ServicerContext
    ) -> AsyncIterator[bytes]:
        async for request in requests:
            yield await say(request)


async def call(channel: grpc.aio.Channel, method: str, word: bytes, metadata: tuple[tuple[str, str], ...]) -> bytes:
    path = f"/sample.Sample/{method}"

    async def words() -> AsyncIterator[bytes]:
        yield word

    if method == "UnaryUnary":
        answer: bytes = await channel.unary_unary(path)(word, metadata=metadata)
        return answer
    if method == "UnaryStream":
        return b"".join([part async for part in channel.unary_stream(path)(word, metadata=metadata)])
    if method == "StreamUnary":
        whole: bytes = await channel.stream_unary(path)(words(), metadata=metadata)
        return whole
    return b"".join([part async for part in channel.stream_stream(path)(words(), metadata=metadata)])


def served(use: Callable[[grpc.aio.Channel], Awaitable[bytes]]) -> bytes:
    async def main() -> bytes:
        guard = GuardInterceptor(Authenticator(ServingSettings(api_keys=(SecretStr("test-key"),))))
        server = grpc.aio.server(interceptors=[guard])
        servicer = Servicer()
        handlers = {
            "UnaryUnary": grpc.unary_unary_rpc_method_handler(servicer.unary_unary),
            "UnaryStream": grpc.unary_stream_rpc_method_handler(servicer.unary_stream),
            "StreamUnary": grpc.stream_unary_rpc_method_handler(servicer.stream_unary),
            "StreamStream": grpc.stream_stream_rpc_method_handler(servicer.stream_stream),
        }
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("sample.Sample", handlers)])
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            async with asyncio.timeout(20), grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                return await use(channel)
        finally:
            await server.stop(None)

    return asyncio.run(main())


def failure_of(method: str, word: bytes, metadata: tuple[tuple[str, str], ...]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        served(lambda channel: call(channel, method, word, metadata))
    return caught.value


@pytest.mark.parametrize("method", METHODS)
def test_a_call_with_the_key_passes(method: str) -> None:
    assert served(lambda channel: call(channel, method, b"hello", AUTHORIZED)) == b"HELLO"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("metadata", [(), (("authorization", "Bearer wrong"),)])
def test_a_call_without_the_key_does_not(method: str, metadata: tuple[tuple[str, str], ...]) -> None:
    assert failure_of(method, b"hello", metadata).code() == grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("method", METHODS)
def test_our_errors_become_a_status_with_details(method: str) -> None:
    error = failure_of(method, b"undecodable", AUTHORIZED)

    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert error.details() == "This is text, not audio."
    status = rpc_status.from_call(error)
    info, violations = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    assert any(detail.Unpack(info) for detail in status.details)
    assert any(detail.Unpack(violations) for detail in status.details)
    assert (info.reason, info.domain) == ("UNDECODABLE_AUDIO", "audiofoundation")
    assert violations.field_violations[0].field == "file"


@pytest.mark.parametrize("method", METHODS)
def test_the_log_has_a_defect_under_the_id_that_the_caller_gets(method: str) -> None:
    with capture_logs() as logs:
        error = failure_of(method, b"defect", AUTHORIZED)

    told = error_details_pb2.RequestInfo()
    assert any(detail.Unpack(told) for detail in rpc_status.from_call(error).details)
    (entry,) = [entry for entry in logs if entry["event"] == "call_failed"]
    assert entry["request_id"] == told.request_id
    assert isinstance(entry["exc_info"], ZeroDivisionError)


@pytest.mark.parametrize("method", METHODS)
def test_defects_tell_nothing_of_our_inside(method: str) -> None:
    error = failure_of(method, b"defect", AUTHORIZED)

    assert error.code() == grpc.StatusCode.INTERNAL
    assert "secret" not in str(error.details())


def test_when_to_come_back_is_part_of_the_status() -> None:
    status = to_status(Overloaded("busy", retry_after_s=1.5), "req_1")

    retry = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(retry) for detail in status.details)
    assert retry.retry_delay.ToMilliseconds() == 1500
