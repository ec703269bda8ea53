"""gRPC: keys and errors around every method. Only images that serve gRPC import this module."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import grpc
import structlog
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from audiofoundation.errors import AudioFoundationError, InternalError
from audiofoundation.identifiers import create_id
from audiofoundation.transport.auth import Authenticator
from audiofoundation.transport.errors import GRPC_STATUS

_DOMAIN = "audiofoundation"
_OPEN_PREFIXES = ("/grpc.health.v1.", "/grpc.reflection.")
Request = TypeVar("Request")
Response = TypeVar("Response")
_log = structlog.get_logger(__name__)

Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler | None]]


class GuardInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpc has no types
    """Checks the key in the metadata `authorization` and turns our errors into google.rpc.Status.

    Health and reflection need no key. Methods must be `async def`: unary ones return, streaming ones yield.
    """

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator

    async def intercept_service(
        self, continuation: Continuation, details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler | None:
        handler = await continuation(details)
        if handler is None or details.method.startswith(_OPEN_PREFIXES):
            return handler
        metadata = dict(details.invocation_metadata or ())
        return self._guarded(handler, metadata.get("authorization"))

    def _guarded(self, handler: grpc.RpcMethodHandler, authorization: str | None) -> grpc.RpcMethodHandler:
        check = _Check(self._authenticator, authorization)
        if handler.response_streaming:
            name = "stream_stream" if handler.request_streaming else "unary_stream"
            behavior: Any = _guard_stream(getattr(handler, name), check)
        else:
            name = "stream_unary" if handler.request_streaming else "unary_unary"
            behavior = _guard_unary(getattr(handler, name), check)
        create = getattr(grpc, f"{name}_rpc_method_handler")
        return create(behavior, handler.request_deserializer, handler.response_serializer)


class _Check:
    """The key of one call."""

    def __init__(self, authenticator: Authenticator, authorization: str | None) -> None:
        self._authenticator = authenticator
        self._authorization = authorization

    def __call__(self) -> None:
        self._authenticator.check_header(self._authorization)


def _guard_unary(
    method: Callable[[Request, grpc.aio.ServicerContext], Awaitable[Response]], check: _Check
) -> Callable[[Request, grpc.aio.ServicerContext], Awaitable[Response]]:
    async def guarded(request: Request, context: grpc.aio.ServicerContext) -> Response:
        try:
            check()
            return await method(request, context)
        except AudioFoundationError as error:
            await _abort(context, error)
            raise
        except grpc.aio.AbortError:
            raise
        except Exception as error:
            await _abort_defect(context, error)
            raise

    return guarded


def _guard_stream(
    method: Callable[[Request, grpc.aio.ServicerContext], AsyncIterator[Response]], check: _Check
) -> Callable[[Request, grpc.aio.ServicerContext], AsyncIterator[Response]]:
    async def guarded(request: Request, context: grpc.aio.ServicerContext) -> AsyncIterator[Response]:
        try:
            check()
            async for response in method(request, context):
                yield response
        except AudioFoundationError as error:
            await _abort(context, error)
        except grpc.aio.AbortError:
            raise
        except Exception as error:
            await _abort_defect(context, error)

    return guarded


async def _abort_defect(context: grpc.aio.ServicerContext, error: Exception) -> None:
    """End the call without telling of our inside; the log does, under the request id that the caller gets."""
    request_id = create_id("req")
    _log.error("call_failed", request_id=request_id, exc_info=error)
    ours = InternalError("this failed on our side; the server's log has details under the request id")
    await context.abort_with_status(rpc_status.to_status(to_status(ours, request_id)))


async def _abort(context: grpc.aio.ServicerContext, error: AudioFoundationError) -> None:
    """End the call; the details carry our code (ErrorInfo), the field (BadRequest) and a request id."""
    request_id = create_id("req")
    _log.info("call_refused", code=error.code, request_id=request_id, message=error.message)
    await context.abort_with_status(rpc_status.to_status(to_status(error, request_id)))


def to_status(error: AudioFoundationError, request_id: str) -> status_pb2.Status:
    """Return the google.rpc.Status that says the same as the HTTP error body."""
    info = error_details_pb2.ErrorInfo(reason=error.code.value.upper(), domain=_DOMAIN)
    details = [info, error_details_pb2.RequestInfo(request_id=request_id)]
    if error.param is not None:
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.param, description=error.message)
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if error.retry_after_s is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(round(error.retry_after_s * 1000))
        details.append(retry)
    return status_pb2.Status(
        code=GRPC_STATUS[error.code], message=error.message, details=[_packed(detail) for detail in details]
    )


def _packed(message: Any) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
