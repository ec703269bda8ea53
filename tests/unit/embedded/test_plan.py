import os
import socket
from pathlib import Path

import pytest

from audiofoundation.embedded.credentials import load_credentials
from audiofoundation.embedded.data_directory import DataDirectory
from audiofoundation.embedded.plan import Plan, UpOptions, create_plan
from audiofoundation.embedded.ports import is_port_free, pick_port
from audiofoundation.errors import Conflict
from audiofoundation.settings import Settings


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AF_STORAGE__ENDPOINT", "AF_QUEUE__URL", "AF_CATALOG__URL", "AF_SERVING__API_KEYS"):
        monkeypatch.delenv(name, raising=False)


def plan(folder: Path, *, num_workers: int | None = None) -> Plan:
    directory = DataDirectory.open(folder)
    created = create_plan(
        Settings(),
        UpOptions(port=0, grpc_port=0, num_workers=num_workers),
        directory=directory,
        credentials=load_credentials(directory.secrets),
    )
    for listener in created.listeners:
        listener.close()
    return created


def test_by_default_both_servers_and_all_services_run(tmp_path: Path) -> None:
    created = plan(tmp_path)

    assert [spec.name for spec in created.servers] == ["valkey", "s3"]
    assert [spec.name for spec in created.services] == [
        "guardian",
        "gateway",
        "ingest worker",
        "preprocess worker",
        "train supervisor",
    ]
    ports = {created.addresses.url.rsplit(":", 1)[1], created.addresses.grpc.rsplit(":", 1)[1]}
    assert len(ports) == 2


def test_the_number_of_workers_is_that_of_shards_made_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AF_JOBS__PREPROCESS_CONCURRENCY", raising=False)
    chosen, by_default = plan(tmp_path, num_workers=3), plan(tmp_path)

    assert preprocess_settings(chosen, monkeypatch).jobs.preprocess_concurrency == 3
    expected = max(1, (os.cpu_count() or 1) - 1)
    assert preprocess_settings(by_default, monkeypatch).jobs.preprocess_concurrency == expected


def preprocess_settings(created: Plan, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """What the worker reads from the environment that it is given."""
    (worker,) = [spec for spec in created.services if spec.name.startswith("preprocess worker")]
    with monkeypatch.context() as environment:
        for name, value in worker.env.items():
            environment.setenv(name, value)
        return Settings()


def test_the_gateway_may_drain_before_it_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AF_SERVING__DRAIN_S", "30")

    (gateway,) = [spec for spec in plan(tmp_path).services if spec.name == "gateway"]

    assert gateway.stop_grace_s > 60


def test_where_traces_go_reaches_every_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AF_TELEMETRY__OTLP_ENDPOINT", "http://127.0.0.1:4318")

    created = plan(tmp_path)

    told = {spec.env.get("AF_TELEMETRY__OTLP_ENDPOINT") for spec in created.services}
    assert told == {"http://127.0.0.1:4318"}


def test_no_secret_stands_on_a_command_line(tmp_path: Path) -> None:
    created = plan(tmp_path)
    secrets = load_credentials(tmp_path / "secrets.json")
    words = " ".join(word for spec in (*created.servers, *created.services) for word in spec.argv)

    for secret in (secrets.api_key, secrets.queue_password, secrets.storage_secret_key):
        assert secret.get_secret_value() not in words


def test_servers_named_in_the_environment_replace_embedded_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AF_STORAGE__ENDPOINT", "objects.example:9000")
    monkeypatch.setenv("AF_QUEUE__URL", "redis://queue.example:6379/1")
    monkeypatch.setenv("AF_CATALOG__URL", "postgresql+psycopg://catalog.example/af")

    created = plan(tmp_path)

    assert created.servers == ()
    gateway = next(spec for spec in created.services if spec.name == "gateway")
    assert gateway.env["AF_STORAGE__ENDPOINT"] == "objects.example:9000"
    assert gateway.env["AF_QUEUE__URL"] == "redis://queue.example:6379/1"
    assert gateway.env["AF_CATALOG__URL"] == "postgresql+psycopg://catalog.example/af"


def test_keys_named_in_the_environment_replace_the_generated_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AF_SERVING__API_KEYS", "first-key,second-key")

    created = plan(tmp_path)

    assert created.addresses.api_key == "first-key"
    assert created.services[1].env["AF_SERVING__API_KEYS"] == "first-key,second-key"


def test_a_wanted_port_in_use_is_refused_with_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not is_port_free("127.0.0.1", port)
        with pytest.raises(Conflict, match=f"port {port} .* in use; choose another one with --grpc-port"):
            pick_port("127.0.0.1", wanted=port, option="--grpc-port")


def test_picked_ports_are_free_distinct_and_outside_the_ephemeral_range() -> None:
    taken: set[int] = set()
    for _ in range(50):
        port = pick_port("127.0.0.1", taken=taken)
        assert port not in taken
        assert 1024 < port < 32768
        taken.add(port)
