"""What the OpenAPI document says besides the routes: error bodies and the API key."""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, Field

from audiofoundation.errors import ErrorCode


class ErrorInfo(BaseModel):
    """What was wrong and what to do."""

    message: str = Field(description="One sentence for people")
    type: str = Field(description="Coarse kind, as in the OpenAI API", examples=["invalid_request_error"])
    param: str | None = Field(default=None, description="The request field that was wrong, when one was")
    code: ErrorCode = Field(description="What happened, for programs")
    request_id: str = Field(description="Also in the header X-Request-Id and in the server's log")


class ErrorResponse(BaseModel):
    """The body of every answer that is not a success."""

    error: ErrorInfo


_DESCRIPTIONS = {
    400: "The request is malformed",
    401: "No valid API key came",
    404: "There is no such thing",
    405: "The path does not take this method",
    409: "The request contradicts the present state",
    413: "The body is too large; it was not read",
    422: "A field or the audio cannot be used; the message says why",
    424: "The other side of an address did not give the bytes",
    429: "The caller's quota is used up; see Retry-After",
    500: "A defect of ours; the log has the request id",
    503: "No capacity or not ready now; see Retry-After",
    504: "It took longer than is allowed",
}
ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorResponse, "description": description} for status, description in _DESCRIPTIONS.items()
}


def describe_security(app: FastAPI) -> None:
    """Make the document say that every path under /v1 needs the key as a Bearer token."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        is_new = app.openapi_schema is None
        document = generate()
        if is_new:
            _add_security(document)
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _add_security(document: dict[str, Any]) -> None:
    components = document.setdefault("components", {})
    components.setdefault("securitySchemes", {})["apiKey"] = {"type": "http", "scheme": "bearer"}
    for path, operations in document["paths"].items():
        if path.startswith("/v1/"):
            for operation in operations.values():
                operation["security"] = [{"apiKey": []}]
        else:
            for operation in operations.values():
                _keep_own_errors(operation)


def _keep_own_errors(operation: dict[str, Any]) -> None:
    """Probes and metrics answer 200 or what they declare themselves."""
    responses = operation["responses"]
    for status, description in _DESCRIPTIONS.items():
        if responses.get(str(status), {}).get("description") == description:
            del responses[str(status)]
