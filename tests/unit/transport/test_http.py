import json
import re
import socket
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx
import pytest
from fastapi.testclient import TestClient

from audiofoundation.transport import health
from audiofoundation.transport.health import Health
from tests.unit.transport.serving import AUTHORIZED, LIMIT_BYTES, create_sample_app, served


def error_of(response: httpx.Response) -> dict[str, Any]:
    """Return the error of an answer, after checking that it has exactly the promised shape."""
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code", "request_id"}
    assert body["error"]["request_id"] == response.headers["X-Request-Id"]
    found: dict[str, Any] = body["error"]
    return found


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/v1/nowhere", 404, "not_found"),
        ("DELETE", "/v1/upload", 405, "invalid_request"),
        ("POST", "/v1/upload", 422, "invalid_request"),
        ("GET", "/v1/undecodable", 422, "undecodable_audio"),
        ("GET", "/v1/broken", 500, "internal"),
    ],
)
def test_every_failure_has_the_one_shape(address: str, method: str, path: str, status: int, code: str) -> None:
    response = httpx.request(method, address + path, headers=AUTHORIZED)

    assert response.status_code == status
    error = error_of(response)
    assert error["code"] == code
    assert len(error["message"]) > 10
    assert "secret detail" not in response.text


def test_the_page_of_the_routes_needs_nothing_from_elsewhere(address: str) -> None:
    page = httpx.get(address, follow_redirects=True)

    assert page.url.path == "/docs"
    links = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert any(link.endswith(".js") for link in links)
    for link in links:
        assert httpx.get(urljoin(str(page.url), link)).status_code == 200
        assert urljoin(address, link).startswith(address)


def test_a_field_that_is_wrong_is_named(address: str) -> None:
    response = httpx.post(f"{address}/v1/orders", headers=AUTHORIZED, json={"amount": 0})

    error = error_of(response)
    assert error["param"] == "amount"
    assert "greater than or equal to 1" in error["message"]


@pytest.mark.parametrize("header", [None, "Bearer wrong", "Basic dGVzdC1rZXk6", "Bearer"])
@pytest.mark.parametrize("path", ["/v1/upload", "/v1/broken", "/v1/nowhere"])
def test_everything_under_v1_needs_the_key(address: str, path: str, header: str | None) -> None:
    headers = {"Authorization": header} if header else {}
    response = httpx.post(address + path, headers=headers)

    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert error_of(response)["code"] == "unauthenticated"


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/health", "/metrics", "/openapi.json"])
def test_probes_metrics_and_documents_need_no_key(address: str, path: str) -> None:
    assert httpx.get(address + path).status_code == 200


def test_a_body_over_the_limit_is_refused_before_it_is_sent(address: str) -> None:
    """Only the head of the request is sent; the answer must come without the body."""
    split = urlsplit(address)
    head = (
        f"POST /v1/upload HTTP/1.1\r\nHost: {split.netloc}\r\nAuthorization: {AUTHORIZED['Authorization']}\r\n"
        f"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: {LIMIT_BYTES + 1}\r\n\r\n"
    )
    started = time.monotonic()
    with socket.create_connection((split.hostname or "", split.port or 0), timeout=10) as client:
        client.sendall(head.encode())
        answer = client.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert time.monotonic() - started < 1.5


def test_a_client_that_sends_a_whole_large_body_still_reads_the_answer(address: str) -> None:
    response = httpx.post(f"{address}/v1/upload", headers=AUTHORIZED, files={"file": b"x" * (8 * LIMIT_BYTES)})

    assert response.status_code == 413
    assert "1 MiB" in error_of(response)["message"]


def test_a_large_body_of_undeclared_length_is_refused_while_it_arrives(address: str) -> None:
    def multipart() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(64):
            yield b"x" * (LIMIT_BYTES // 32)
        yield b"\r\n--x--\r\n"

    headers = {**AUTHORIZED, "Content-Type": "multipart/form-data; boundary=x"}
    response = httpx.post(f"{address}/v1/upload", headers=headers, content=multipart())

    assert response.status_code == 413
    assert error_of(response)["code"] == "payload_too_large"


def test_a_body_within_the_limit_arrives_whole(address: str) -> None:
    response = httpx.post(f"{address}/v1/upload", headers=AUTHORIZED, files={"file": b"x" * (LIMIT_BYTES - 1000)})

    assert response.json() == {"size": LIMIT_BYTES - 1000}


def test_a_callers_request_id_is_kept_when_harmless(address: str) -> None:
    kept = httpx.get(f"{address}/health/live", headers={"X-Request-Id": "caller-12345"})
    replaced = httpx.get(f"{address}/health/live", headers={"X-Request-Id": "<script>alert(1)</script>"})

    assert kept.headers["X-Request-Id"] == "caller-12345"
    assert replaced.headers["X-Request-Id"].startswith("req_")


def test_requests_are_counted_by_route_not_by_path(address: str) -> None:
    httpx.get(f"{address}/v1/undecodable", headers=AUTHORIZED)
    httpx.get(f"{address}/some/random/path")

    text = httpx.get(f"{address}/metrics").text

    assert 'http_requests_total{method="GET",route="/v1/undecodable",status="422"}' in text
    assert 'route="unmatched"' in text
    assert "random" not in text


def test_readiness_follows_its_checks_and_draining_while_liveness_does_not() -> None:
    trouble: dict[str, str | None] = {"model": "the model is not loaded yet"}
    state = Health(readiness={"model": lambda: trouble["model"]}, dependencies={"queue": lambda: "gone"})
    with served(create_sample_app(state)) as address:
        assert httpx.get(f"{address}/health/ready").status_code == 503
        trouble["model"] = None
        assert httpx.get(f"{address}/health/ready").json() == {"status": "ok", "checks": {"model": "ok"}}
        assert httpx.get(f"{address}/health").json() == {
            "status": "degraded",
            "checks": {"model": "ok", "queue": "gone"},
        }
        state.is_draining = True
        assert httpx.get(f"{address}/health/ready").json()["status"] == "draining"
        assert httpx.get(f"{address}/health/live").status_code == 200


def test_the_whole_report_is_looked_up_once_in_a_while_whoever_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    app = create_sample_app(Health(dependencies={"queue": lambda: looks.append(1)}))
    client = TestClient(app)
    for _ in range(5):
        assert client.get("/health").json() == {"status": "ok", "checks": {"queue": "ok"}}
    assert len(looks) == 1
    app.state.health.is_draining = True
    assert client.get("/health").json()["status"] == "draining"
    monkeypatch.setattr(health, "KEEP_S", 0.0)
    client.get("/health")
    assert len(looks) == 2


def test_pages_of_allowed_origins_may_read_answers(address: str) -> None:
    ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    allowed = httpx.options(f"{address}/v1/upload", headers={"Origin": "https://page.example", **ask})
    foreign = httpx.options(f"{address}/v1/upload", headers={"Origin": "https://evil.example", **ask})

    assert allowed.headers["Access-Control-Allow-Origin"] == "https://page.example"
    assert "Access-Control-Allow-Origin" not in foreign.headers


def test_the_openapi_document_has_error_bodies_and_the_key_on_every_v1_path(address: str) -> None:
    document = json.loads(httpx.get(f"{address}/openapi.json").text)

    for path, operations in document["paths"].items():
        for operation in operations.values():
            if path.startswith("/v1/"):
                assert operation["security"] == [{"apiKey": []}]
                for status in ("401", "413", "422", "500", "503"):
                    schema = operation["responses"][status]["content"]["application/json"]["schema"]
                    assert schema == {"$ref": "#/components/schemas/ErrorResponse"}
            else:
                assert "401" not in operation["responses"]
    assert document["components"]["securitySchemes"]["apiKey"]["scheme"] == "bearer"
