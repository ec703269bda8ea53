"""From settings to children: what runs, where it listens and what it is told."""

import os
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from audiofoundation.embedded import guardian
from audiofoundation.embedded.child import ChildSpec
from audiofoundation.embedded.credentials import Credentials
from audiofoundation.embedded.data_directory import DataDirectory
from audiofoundation.embedded.ports import pick_port
from audiofoundation.embedded.process_table import STACK_ID, STACK_ROOT
from audiofoundation.embedded.readiness import Probe, ReadyListener, http_probe
from audiofoundation.embedded.servers import LOOPBACK, s3_spec, valkey_spec
from audiofoundation.settings import CatalogSettings, QueueSettings, Settings, StorageSettings
from audiofoundation.telemetry.notify import NOTIFY_SOCKET

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_SMALL_MACHINE_CPUS = 4
_WORKER_NICENESS = 5
_TRAINER_NICENESS = 10
_LAST_WORK_S = 5.0
_TRAINER_GRACE_S = 20.0  # a run in training saves before it stops


@dataclass(frozen=True, slots=True)
class UpOptions:
    """What `audiofoundation up` was asked for."""

    host: str = LOOPBACK
    port: int = 8000
    grpc_port: int = 50051
    num_workers: int | None = None  # shards made at once; None leaves it to the settings
    ready_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the platform can be reached, and with what key. Holds secrets: write it to private files only."""

    url: str
    grpc: str
    s3: str
    redis: str
    api_key: str
    pid: int


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a start needs to know."""

    addresses: Addresses
    storage: StorageSettings
    catalog: CatalogSettings
    servers: tuple[ChildSpec, ...]
    services: tuple[ChildSpec, ...]
    listeners: tuple[ReadyListener, ...]


def create_plan(settings: Settings, options: UpOptions, *, directory: DataDirectory, credentials: Credentials) -> Plan:
    """Decide ports, environments and command lines. Servers named in the settings replace embedded ones.

    Raises:
        Conflict: a wanted port is in use.
    """
    taken: set[int] = set()

    def port(host: str, wanted: int = 0, option: str = "") -> int:
        picked = pick_port(host, wanted=wanted, taken=taken, option=option)
        taken.add(picked)
        return picked

    http_port = port(options.host, options.port, "--port")
    grpc_port = port(options.host, options.grpc_port, "--grpc-port")
    base = _base_environment(directory)
    servers: list[ChildSpec] = []
    queue, storage = settings.queue, settings.storage
    if "url" not in queue.model_fields_set:
        password, queue_port = credentials.queue_password.get_secret_value(), port(LOOPBACK)
        url = f"redis://:{password}@{LOOPBACK}:{queue_port}/0"
        queue = queue.model_copy(update={"url": SecretStr(url)})
        servers.append(valkey_spec(directory, port=queue_port, password=password, env=base))
    if "endpoint" not in storage.model_fields_set:
        s3_port = port(LOOPBACK)
        storage = _embedded_storage(storage, credentials, port=s3_port)
        access, secret = storage.access_key.get_secret_value(), storage.secret_key.get_secret_value()
        servers.append(s3_spec(directory, port=s3_port, access_key=access, secret_key=secret, env=base))
    catalog = settings.catalog
    if "url" not in catalog.model_fields_set:
        catalog = CatalogSettings(url=SecretStr(directory.catalog_url))
    keys = [key.get_secret_value() for key in settings.serving.api_keys or (credentials.api_key,)]
    env = {
        **base,
        **_service_environment(storage, queue, catalog),
        "AF_SERVING__HOST": options.host,
        "AF_SERVING__PORT": str(http_port),
        "AF_SERVING__GRPC_PORT": str(grpc_port),
        "AF_SERVING__API_KEYS": ",".join(keys),
    }
    local = reachable_host(options.host)
    if options.num_workers is not None:
        env["AF_JOBS__PREPROCESS_CONCURRENCY"] = str(options.num_workers)
    # Requests end within the drain time, gRPC calls and what they compute within another.
    grace_s = 2 * settings.serving.drain_s + _LAST_WORK_S
    services, listeners = _services(env, probe=http_probe(local, http_port, "/health/ready"), gateway_grace_s=grace_s)
    scheme = "https" if storage.is_secure else "http"
    addresses = Addresses(
        url=f"http://{_in_url(local)}:{http_port}",
        grpc=f"{_in_url(local)}:{grpc_port}",
        s3=f"{scheme}://{storage.endpoint}",
        redis=queue.url.get_secret_value(),
        api_key=keys[0],
        pid=os.getpid(),
    )
    return Plan(addresses, storage, catalog, tuple(servers), services, listeners)


def reachable_host(host: str) -> str:
    """Return the address under which this machine itself reaches a server that listens on `host`."""
    return {"0.0.0.0": LOOPBACK, "": LOOPBACK, "::": "::1"}.get(host, host)


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _base_environment(directory: DataDirectory) -> dict[str, str]:
    """The user's environment, our marks, and one thread per numeric library on small machines."""
    env = {name: value for name, value in os.environ.items() if name != NOTIFY_SOCKET}
    if (os.cpu_count() or 1) <= _SMALL_MACHINE_CPUS:
        for name in _THREAD_VARIABLES:
            env.setdefault(name, "1")
    env[STACK_ID] = secrets.token_hex(16)
    env[STACK_ROOT] = str(directory.root)
    env["AF_DATA_DIR"] = str(directory.root)
    env["PYTHONUNBUFFERED"] = "1"
    return env


def _embedded_storage(storage: StorageSettings, credentials: Credentials, *, port: int) -> StorageSettings:
    return storage.model_copy(
        update={
            "endpoint": f"{LOOPBACK}:{port}",
            "access_key": credentials.storage_access_key,
            "secret_key": credentials.storage_secret_key,
            "is_secure": False,
        }
    )


def _service_environment(storage: StorageSettings, queue: QueueSettings, catalog: CatalogSettings) -> dict[str, str]:
    return {
        "AF_STORAGE__ENDPOINT": storage.endpoint,
        "AF_STORAGE__ACCESS_KEY": storage.access_key.get_secret_value(),
        "AF_STORAGE__SECRET_KEY": storage.secret_key.get_secret_value(),
        "AF_STORAGE__BUCKET": storage.bucket,
        "AF_STORAGE__REGION": storage.region,
        "AF_STORAGE__IS_SECURE": str(storage.is_secure).lower(),
        "AF_QUEUE__URL": queue.url.get_secret_value(),
        "AF_QUEUE__KEY_PREFIX": queue.key_prefix,
        "AF_CATALOG__URL": catalog.url.get_secret_value(),
    }


def _services(
    env: dict[str, str], *, probe: Probe, gateway_grace_s: float
) -> tuple[tuple[ChildSpec, ...], tuple[ReadyListener, ...]]:
    """Our own processes; the workers say themselves when they are ready."""
    listeners: list[ReadyListener] = []

    def worker(name: str, module: str, *, niceness: int, stop_grace_s: float = 10.0) -> ChildSpec:
        listener = ReadyListener(f"audiofoundation-{env[STACK_ID]}-{len(listeners)}")
        listeners.append(listener)
        return ChildSpec(
            name=name,
            argv=(sys.executable, "-P", "-m", module),
            env={**env, NOTIFY_SOCKET: listener.address},
            probe=listener.is_ready,
            on_start=listener.forget,
            niceness=niceness,
            stop_grace_s=stop_grace_s,
        )

    specs = (
        ChildSpec(
            name="guardian",
            argv=(sys.executable, "-S", "-E", str(Path(guardian.__file__))),
            env=env,
            probe=_is_always_ready,
            can_outlive_us=True,
        ),
        ChildSpec(
            name="gateway",
            argv=(sys.executable, "-P", "-m", "services.gateway.main"),
            env=env,
            probe=probe,
            stop_grace_s=gateway_grace_s,
        ),
        worker("ingest worker", "services.ingest.worker", niceness=_WORKER_NICENESS),
        worker("preprocess worker", "services.preprocess.worker", niceness=_WORKER_NICENESS),
        worker(
            "train supervisor", "services.train.supervisor", niceness=_TRAINER_NICENESS, stop_grace_s=_TRAINER_GRACE_S
        ),
    )
    return specs, tuple(listeners)


async def _is_always_ready() -> bool:
    return True
