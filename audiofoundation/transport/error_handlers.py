"""Every way a request can fail, turned into the one error body."""

from http import HTTPStatus

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from audiofoundation.errors import AudioFoundationError, ErrorCode, InternalError, InvalidRequest, NotFound
from audiofoundation.transport.errors import HTTP_STATUS, error_body, error_headers
from audiofoundation.transport.request_id import HEADER, request_id_of
from audiofoundation.transport.websocket import refuse

_log = structlog.get_logger(__name__)
_MAX_NAME = 64
_NO_FORM = "the body is no form: send the recording as multipart/form-data, with curl -F file=@PATH"
_CODES = {status: code for code, status in reversed(list(HTTP_STATUS.items()))}


def add_error_handlers(app: FastAPI) -> None:
    """Register the handlers."""
    app.add_exception_handler(AudioFoundationError, _on_ours)  # type: ignore[arg-type]  # HTTP and WebSocket
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(Exception, _on_defect)
    app.router.default = _nothing_there


async def _nothing_there(scope: Scope, receive: Receive, send: Send) -> None:
    """What no route takes; Starlette would answer a WebSocket with 403 and no word."""
    if scope["type"] != "websocket":
        raise HTTPException(HTTPStatus.NOT_FOUND)
    error = NotFound(f"no WebSocket is taken at {scope['path']}; the README names those that are")
    await refuse(WebSocket(scope, receive, send), error)


async def _on_ours(connection: Request | WebSocket, error: Exception) -> JSONResponse | None:
    assert isinstance(error, AudioFoundationError)
    if isinstance(connection, WebSocket):
        await refuse(connection, error)
        return None
    status = HTTP_STATUS[error.code]
    _log.info("request_refused", code=error.code, status=status, message=error.message)
    return _respond(connection, error, status)


async def _on_http(connection: Request, error: Exception) -> JSONResponse:
    """Starlette's own errors: no such path, wrong method; and ours, where FastAPI wrapped them in its own."""
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, AudioFoundationError):
        return _respond(connection, error.__cause__, HTTP_STATUS[error.__cause__.code])
    path, method = connection.url.path, connection.method
    if error.status_code == HTTPStatus.NOT_FOUND and error.detail == HTTPStatus.NOT_FOUND.phrase:
        ours: AudioFoundationError = NotFound(f"there is nothing at {path}; see /docs for what there is")
    elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        ours = InvalidRequest(f"{path} does not take {method}; see /docs for what it takes")
    elif "Too many fields" in str(error.detail):
        ours = InvalidRequest(_NO_FORM)
    else:
        ours = _with_code(error)
    return _respond(connection, ours, error.status_code, headers=dict(error.headers or {}))


async def _on_validation(connection: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    param = ".".join(str(part) for part in first["loc"][1:]) or None
    where = f"{param}: " if param else ""
    words = first["msg"]
    if first["type"] == "extra_forbidden" and param and not _is_name(param):
        param, where, words = None, "", _NO_FORM
    elif first["type"] == "extra_forbidden":
        words = "there is no such field; /docs says which there are"
    elif first["type"] == "json_invalid":
        why = str(first.get("ctx", {}).get("error", "")).lower()
        param, where, words = None, "", f"the body is not JSON: {why}, at character {first['loc'][-1]}"
    elif "UploadFile" in words:
        words = "text came where a file is wanted; with curl an @ makes it one: -F file=@PATH"
    ours = InvalidRequest(f"{where}{words}", param=param)
    return _respond(connection, ours, HTTPStatus.UNPROCESSABLE_ENTITY)


def _is_name(param: str) -> bool:
    """Whether it may be a field's name: other bodies give anything when they are read as a form."""
    return len(param) <= _MAX_NAME and param.isascii() and param.isprintable()


async def _on_defect(connection: Request, error: Exception) -> JSONResponse:
    request_id = request_id_of(connection.scope)
    _log.error("request_failed", request_id=request_id, path=connection.url.path, exc_info=error)
    ours = InternalError("this failed on our side; the server's log has details under the request id")
    return _respond(connection, ours, HTTPStatus.INTERNAL_SERVER_ERROR)


def _with_code(error: HTTPException) -> AudioFoundationError:
    fallback = ErrorCode.INVALID_REQUEST if error.status_code < 500 else ErrorCode.INTERNAL
    ours = AudioFoundationError(str(error.detail))
    ours.code = _CODES.get(error.status_code, fallback)
    return ours


def _respond(
    connection: HTTPConnection,
    error: AudioFoundationError,
    status: int,
    *,
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    request_id = request_id_of(connection.scope)
    all_headers = {**error_headers(error), **(headers or {}), HEADER: request_id}
    return JSONResponse(error_body(error, request_id), status_code=status, headers=all_headers)
