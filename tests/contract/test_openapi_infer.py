"""The OpenAPI document of the infer service says everything a client needs."""

from pathlib import Path
from typing import Any

import pytest

from services.infer.main import create_app
from tests.infer_server import create_settings


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder: Path = tmp_path_factory.mktemp("openapi")
    return create_app(create_settings(folder, folder)).openapi()


def form_of(document: dict[str, Any], path: str) -> dict[str, Any]:
    content = document["paths"][path]["post"]["requestBody"]["content"]
    reference = content["multipart/form-data"]["schema"]["$ref"]
    schema: dict[str, Any] = document["components"]["schemas"][reference.rsplit("/", 1)[1]]
    return schema


def test_the_continuation_form_has_every_field(document: dict[str, Any]) -> None:
    fields = form_of(document, "/v1/audio/continuations")["properties"]

    assert set(fields) == {
        "file", "url", "model", "prompt", "duration", "prompt_start_seconds", "prompt_end_seconds", "temperature",
        "cfg_coef", "seed", "n", "include_prompt", "response_format", "stream_format",
    }  # fmt: skip
    assert fields["response_format"]["enum"] == ["wav", "flac", "mp3", "opus", "pcm"]
    assert fields["stream_format"]["enum"] == ["audio", "sse"]
    assert all("description" in schema or "enum" in schema for schema in fields.values())


def test_the_answer_names_its_types_and_headers(document: dict[str, Any]) -> None:
    answer = document["paths"]["/v1/audio/continuations"]["post"]["responses"]["200"]

    assert {"audio/wav", "audio/flac", "audio/mpeg", "text/event-stream"} <= set(answer["content"])
    assert set(answer["headers"]) == {"X-Model-Version", "X-Seam-Score", "X-Sample-Rate", "X-Input-Damage"}


@pytest.mark.parametrize(
    ("path", "method"),
    [("/v1/audio/continuations", "post"), ("/v1/audio/classification", "post"), ("/v1/models", "get")],
)
def test_errors_and_the_key_are_declared(document: dict[str, Any], path: str, method: str) -> None:
    operation = document["paths"][path][method]

    assert operation["security"] == [{"apiKey": []}]
    for status in ("400", "401", "413", "422", "503"):
        schema = operation["responses"][status]["content"]["application/json"]["schema"]
        assert schema["$ref"].endswith("/ErrorResponse")
    assert operation["summary"]
