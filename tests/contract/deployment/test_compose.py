"""docker-compose.yml, resolved by a compose implementation and checked against the specification's schema."""

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from audiofoundation.settings import MetricsSettings, TelemetrySettings

from .paths import ROOT, SERVICES

COMPOSE = ROOT / "docker-compose.yml"
SCHEMA = jsonschema.Draft201909Validator(
    json.loads((Path(__file__).parent / "schemas" / "compose-spec.json").read_text())
)
REQUIRED = {"S3_ACCESS_KEY", "S3_SECRET_KEY", "VALKEY_PASSWORD", "POSTGRES_PASSWORD", "AF_API_KEY"}
ONE_SHOT = {"migrate"}
Compose = dict[str, Any]


def write_env(folder: Path, *options: str) -> Path:
    path = folder / ".env"
    subprocess.run([ROOT / "scripts" / "compose-env.sh", *options, path], check=True, capture_output=True, timeout=30)
    return path


def read_env(path: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in path.read_text().splitlines())


def resolve(environment: dict[str, str], *, file: Path = COMPOSE) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "podman_compose", "--dry-run", "--file", str(file), "config"]
    return subprocess.run(
        command, cwd=file.parent, env={"PATH": os.environ["PATH"], **environment}, capture_output=True,
        text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module", params=["cpu", "gpu"])
def profile(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def environment(profile: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    options = ["--gpu"] if profile == "gpu" else []
    return read_env(write_env(tmp_path_factory.mktemp("env"), *options))


@pytest.fixture(scope="module")
def compose(environment: dict[str, str]) -> Compose:
    done = resolve(environment)
    assert done.returncode == 0, done.stderr
    document = yaml.safe_load(done.stdout)
    active = {environment["COMPOSE_PROFILES"]}
    services = document["services"]
    document["services"] = {
        name: service for name, service in services.items() if active & set(service.get("profiles", active))
    }
    return Compose(document)


def test_follows_the_compose_specification(compose: Compose) -> None:
    younger_than_the_schema = {"name"}

    SCHEMA.validate({key: value for key, value in compose.items() if key not in younger_than_the_schema})


def test_the_schema_refuses_a_misspelt_key(compose: Compose) -> None:
    broken = json.loads(json.dumps({"services": compose["services"]}))
    SCHEMA.validate(broken)
    broken["services"]["valkey"]["read_olny"] = True

    with pytest.raises(jsonschema.ValidationError, match="read_olny"):
        SCHEMA.validate(broken)


def test_has_the_four_services_their_workers_and_their_stores(compose: Compose, profile: str) -> None:
    suffix = "" if profile == "cpu" else "-gpu"

    assert set(compose["services"]) == {
        "valkey", "s3", "postgres", "migrate", "gateway", "ingest", "ingest-worker", "preprocess",
        "preprocess-worker", "train", f"train-supervisor{suffix}", "infer",
    }  # fmt: skip


@pytest.mark.parametrize("missing", sorted(REQUIRED))
def test_refuses_to_start_without_a_secret(environment: dict[str, str], missing: str) -> None:
    done = resolve({key: value for key, value in environment.items() if key != missing})

    assert done.returncode != 0
    assert missing in done.stderr


def test_has_no_default_for_any_secret() -> None:
    defaults = re.findall(r"\$\{(\w+):?-([^}]*)\}", COMPOSE.read_text())

    assert not {name for name, _ in defaults} & REQUIRED
    assert not re.search(r"(?i)changeme|minioadmin|password:\s*\w+$", COMPOSE.read_text())


def test_publishes_ports_on_loopback_only(compose: Compose) -> None:
    ports = {name: service["ports"] for name, service in compose["services"].items() if "ports" in service}

    assert len(ports) == 2
    assert all(port.startswith("127.0.0.1:") for published in ports.values() for port in published)


def test_every_container_is_confined(compose: Compose) -> None:
    for name, service in compose["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service.get("cap_add", []) in ([], ["NET_BIND_SERVICE"]), name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", service["user"]), name
        assert {"cpus", "memory"} <= set(service["deploy"]["resources"]["limits"]), name
        assert not service.get("privileged", False), name


def test_data_and_tmp_are_writable_though_the_root_is_not(compose: Compose) -> None:
    for name, service in compose["services"].items():
        if service["image"].startswith("audiofoundation/"):
            assert any(volume.endswith("/var/lib/audiofoundation") for volume in service["volumes"]), name
        assert any(tmpfs.startswith("/tmp:") for tmpfs in service["tmpfs"]), name


def test_every_container_has_time_to_stop(compose: Compose) -> None:
    for name, service in compose["services"].items():
        if name not in ONE_SHOT:
            assert int(service["stop_grace_period"].removesuffix("s")) >= 20, name
        if name.endswith("-worker"):
            assert int(service["stop_grace_period"].removesuffix("s")) >= 90, name


def test_whatever_is_awaited_can_be_awaited(compose: Compose) -> None:
    services = compose["services"]
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            assert other in services, f"{name} waits for {other}, which this profile does not start"
            if how["condition"] == "service_healthy":
                assert "healthcheck" in services[other], f"{name} waits for the health of {other}"
            else:
                assert other in ONE_SHOT, f"{name} waits for {other} to end"


def test_services_start_after_the_schema_is_there(compose: Compose) -> None:
    for name, service in compose["services"].items():
        if service["image"].startswith("audiofoundation/") and name not in ONE_SHOT:
            assert service["depends_on"]["migrate"]["condition"] == "service_completed_successfully", name


def test_only_what_fetches_urls_or_is_published_reaches_out(compose: Compose) -> None:
    assert compose["networks"]["back"]["internal"] is True
    outward = {name for name, service in compose["services"].items() if set(service["networks"]) - {"back"}}

    assert outward == {"gateway", "ingest-worker", "infer"}
    for store in ("valkey", "s3", "postgres"):
        assert set(compose["services"][store]["networks"]) == {"back"}


def test_images_are_versioned_and_built_from_files_that_exist(compose: Compose) -> None:
    for name, service in compose["services"].items():
        assert re.search(r":\d", service["image"]), name
        if service["image"].startswith("audiofoundation/"):
            assert (ROOT / service["build"]["dockerfile"]).is_file(), name


def test_only_the_gpu_profile_asks_for_a_gpu(compose: Compose, profile: str) -> None:
    asking = {
        name
        for name, service in compose["services"].items()
        if "devices" in service["deploy"]["resources"].get("reservations", {})
    }

    assert asking == ({"train-supervisor-gpu"} if profile == "gpu" else set())


def test_prometheus_scrapes_every_service_and_every_port_of_metrics_that_is_set(compose: Compose) -> None:
    jobs = yaml.safe_load((ROOT / "deploy" / "prometheus.yml").read_text())["scrape_configs"]
    scraped = {(name, it["port"]) for job in jobs for it in job["dns_sd_configs"] for name in it["names"]}
    workers = {
        (name, int(service["environment"][setting]))
        for name, service in compose["services"].items()
        for setting in [f"AF_METRICS__{name.replace('-', '_').upper()}_PORT"]
        if setting in service.get("environment", {})
    }

    assert len(workers) == sum(name.endswith("_port") for name in MetricsSettings.model_fields)
    assert scraped == workers | {(name, 8000) for name in SERVICES}
    assert all("back" in compose["services"][name]["networks"] for name, _ in scraped)


@pytest.mark.parametrize("endpoint", ["", "http://collector:4318"])
def test_every_service_and_worker_traces_where_env_names_a_collector_and_only_then(
    environment: dict[str, str], endpoint: str
) -> None:
    done = resolve(environment | ({"AF_TELEMETRY__OTLP_ENDPOINT": endpoint} if endpoint else {}))

    for name, service in yaml.safe_load(done.stdout)["services"].items():
        if service["image"].startswith("audiofoundation/"):
            given = service["environment"]
            settings = TelemetrySettings(
                otlp_endpoint=given["AF_TELEMETRY__OTLP_ENDPOINT"] or "",
                trace_ratio=given["AF_TELEMETRY__TRACE_RATIO"],
            )
            assert (settings.otlp_endpoint, settings.trace_ratio) == (endpoint, 1.0), name


def test_secrets_file_is_private_fresh_and_never_overwritten(tmp_path: Path) -> None:
    first = write_env(tmp_path)
    secrets = read_env(first)

    assert stat.S_IMODE(first.stat().st_mode) == 0o600
    assert set(secrets) == REQUIRED | {"COMPOSE_PROFILES"}
    assert len({secrets[name] for name in REQUIRED}) == len(REQUIRED)
    assert min(len(secrets[name]) for name in REQUIRED) >= 20
    with pytest.raises(subprocess.CalledProcessError):
        write_env(tmp_path)
    (tmp_path / "other").mkdir()
    assert read_env(write_env(tmp_path / "other"))["AF_API_KEY"] != secrets["AF_API_KEY"]
