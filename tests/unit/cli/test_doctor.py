import json
import re
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from audiofoundation.audio.sandbox.launcher import confinement, stop_zygote
from audiofoundation.cli import create_cli
from audiofoundation.native import OFF, is_compiled, kernels
from audiofoundation.settings import find_misspelt


@pytest.fixture(autouse=True)
def _nothing_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AF_STORAGE__ENDPOINT", "AF_QUEUE__URL", "AF_CATALOG__URL", "AF_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)


def doctor(*args: str) -> tuple[int, dict[str, Any]]:
    done = CliRunner().invoke(create_cli(), ["doctor", "--json", *args])
    return done.exit_code, json.loads(done.stdout)


def test_this_machine_is_described(tmp_path: Path) -> None:
    status, report = doctor("--data-dir", str(tmp_path), "--port", "0", "--grpc-port", "0")

    states = {check["name"]: check["state"] for check in report["checks"]}
    assert status == (0 if report["ok"] else 1)
    assert states["python"] == "ok"
    assert states["decoding"] == "ok"
    assert {"torch", "sandbox", "disk", "HTTP port", "gRPC port", "S3", "Redis", "catalog"} <= set(states)


def test_the_sandbox_is_reported_as_it_stands(tmp_path: Path) -> None:
    walls = confinement()

    _, report = doctor("--data-dir", str(tmp_path))

    (found,) = [check for check in report["checks"] if check["name"] == "sandbox"]
    assert found["state"] == (
        "ok" if walls.has_network_namespace and walls.has_seccomp and walls.is_unprivileged else "warning"
    )
    standing, _, missing = found["detail"].partition(";")
    for name, stands in (
        ("network namespace", walls.has_network_namespace),
        ("system call filter", walls.has_seccomp),
        ("unprivileged user", walls.is_unprivileged),
    ):
        assert name in (standing if stands else missing)


@pytest.mark.parametrize(("value", "words"), [("1", "compiled, "), ("0", "NumPy and torch, because AF_NATIVE=0")])
def test_the_kernels_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, words: str) -> None:
    if not is_compiled():
        words = "NumPy and torch, which take longer"
    monkeypatch.setenv(OFF, value)
    kernels.cache_clear()
    try:
        _, report = doctor("--data-dir", str(tmp_path))
    finally:
        kernels.cache_clear()

    (found,) = [check for check in report["checks"] if check["name"] == "kernels"]
    assert found["detail"].startswith(words)
    assert found["state"] == ("ok" if is_compiled() else "warning")


def test_a_decoder_that_cannot_start_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_zygote()
    monkeypatch.setattr(sys, "executable", "/bin/false")

    status, report = doctor("--data-dir", str(tmp_path))

    (found,) = [check for check in report["checks"] if check["name"] == "sandbox"]
    assert (status, found["state"]) == (1, "failed")


def test_a_misspelt_setting_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AF_DATADIR", "/elsewhere")
    monkeypatch.setenv("AF_LICENSE_POLICY", "owned")
    monkeypatch.setenv("af_fecth__timeout_s", "3")
    monkeypatch.setenv("AF_DATA_DIR__X", "1")
    monkeypatch.setenv("AF_SERVING__API_KEYS", "k")
    monkeypatch.setenv("AF_TRAIN__STALL_S", "60")

    _, report = doctor("--data-dir", str(tmp_path))

    (found,) = [check for check in report["checks"] if check["name"] == "settings"]
    assert found["state"] == "warning"
    assert "AF_DATADIR is no setting (AF_DATA_DIR is one) and is ignored" in found["detail"]
    assert "AF_LICENSE_POLICY is no setting (AF_FETCH__LICENSE_POLICY is one) and is ignored" in found["detail"]
    assert "af_fecth__timeout_s" in found["detail"]
    assert "AF_DATA_DIR__X is no setting" in found["detail"]
    assert "AF_SERVING" not in found["detail"]
    assert "AF_TRAIN" not in found["detail"]


def test_every_variable_that_we_name_is_known() -> None:
    root = Path(__file__).parents[3]
    files = [*root.glob("*.md"), root / "docker-compose.yml", *root.glob("docs/**/*.md"), *root.glob("k8s/**/*.yaml")]
    named = {name for file in files for name in re.findall(r"\bAF_[A-Z0-9_]*[A-Z0-9]\b", file.read_text())}

    assert len(named) > 20
    assert list(find_misspelt(dict.fromkeys(named, ""))) == []


def test_a_port_in_use_is_a_warning(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        _, report = doctor("--data-dir", str(tmp_path), "--port", port)

    (found,) = [check for check in report["checks"] if check["name"] == "HTTP port"]
    assert found["state"] == "warning"
    assert port in found["detail"]


def test_without_json_people_get_a_table(tmp_path: Path) -> None:
    done = CliRunner().invoke(create_cli(), ["doctor", "--data-dir", str(tmp_path)])

    assert "python" in done.stdout
    assert "detail" in done.stdout


@pytest.mark.parametrize(
    ("name", "variable", "value"),
    [
        ("S3", "AF_STORAGE__ENDPOINT", "127.0.0.1:1"),
        ("Redis", "AF_QUEUE__URL", "redis://:hidden-password@127.0.0.1:1/0"),
        ("catalog", "AF_CATALOG__URL", "postgresql+psycopg://user@127.0.0.1:1/db"),
    ],
)
def test_a_configured_server_that_is_away_is_a_failure(
    name: str, variable: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)

    status, report = doctor("--data-dir", str(tmp_path))

    (found,) = [check for check in report["checks"] if check["name"] == name]
    assert status == 1
    assert report["ok"] is False
    assert found["state"] == "failed"
    assert "hidden-password" not in json.dumps(report)
