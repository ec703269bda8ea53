"""The data plane's real processes with short leases, which a test may kill through failpoints."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from audiofoundation.identifiers import sha256_of
from audiofoundation.settings import Settings
from audiofoundation.telemetry.failpoints import Failpoint
from tests.servers import free_port, wait_until

KEY = "faults-key"
MODES = ("kill", "raise")


@dataclass(slots=True)
class Processes:
    """The ingest service, its worker and the preprocess worker; what dies is started again by `keep_alive`."""

    env: Mapping[str, str]
    port: int
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def keep_alive(self) -> None:
        for module in ("services.ingest.main", "services.ingest.worker", "services.preprocess.worker"):
            found = self.running.get(module)
            if found is None or found.poll() is not None:
                self.running[module] = subprocess.Popen(
                    [sys.executable, "-P", "-m", module], env=dict(self.env), stderr=subprocess.DEVNULL
                )

    def stop(self) -> None:
        for process in self.running.values():
            process.kill()
            process.wait()

    def request(self, method: str, path: str, **options: object) -> httpx.Response:
        """Ask until there is an answer that is no failure of the server's, as the command line does."""
        answers: list[httpx.Response] = []

        def is_answered() -> bool:
            self.keep_alive()
            try:
                headers = {"Authorization": f"Bearer {KEY}"}
                url = f"http://127.0.0.1:{self.port}{path}"
                answer = httpx.request(method, url, headers=headers, timeout=20.0, **options)  # type: ignore[arg-type]
            except httpx.HTTPError:
                return False
            if answer.status_code >= 500:
                return False
            answers.append(answer)
            return True

        wait_until(is_answered, timeout_s=60.0, what=f"{method} {path} is answered")
        assert answers[0].status_code == 200, answers[0].text
        return answers[0]

    def upload(self, collection: str, data: bytes) -> str:
        path = f"/v1/collections/{collection}/files/{sha256_of(data)}"
        return str(self.request("PUT", path, params={"name": "clip.wav"}, content=data).json()["item"])


def arm(folder: Path) -> None:
    """Let every point fire once in each mode."""
    for point in Failpoint:
        for mode in MODES:
            (folder / f"{point.value}.{mode}").touch()


@contextmanager
def running(settings: Settings, failpoints: Path) -> Iterator[Processes]:
    port = free_port()
    processes = Processes(_environment(settings, failpoints, port), port)
    try:
        yield processes
    finally:
        processes.stop()


def _environment(settings: Settings, failpoints: Path, port: int) -> dict[str, str]:
    storage = settings.storage
    env = {
        "AF_FAILPOINTS": str(failpoints),
        "AF_DATA_DIR": str(settings.data_dir),
        "AF_STORAGE__ENDPOINT": storage.endpoint,
        "AF_STORAGE__ACCESS_KEY": storage.access_key.get_secret_value(),
        "AF_STORAGE__SECRET_KEY": storage.secret_key.get_secret_value(),
        "AF_STORAGE__BUCKET": storage.bucket,
        "AF_QUEUE__URL": settings.queue.url.get_secret_value(),
        "AF_QUEUE__KEY_PREFIX": settings.queue.key_prefix,
        "AF_CATALOG__URL": settings.catalog.url.get_secret_value(),
        "AF_SERVING__PORT": str(port),
        "AF_SERVING__API_KEYS": KEY,
        "AF_TELEMETRY__LOG_LEVEL": "CRITICAL",
        "AF_JOBS__LEASE_S": "5",
        "AF_JOBS__HEARTBEAT_S": "1",
        "AF_JOBS__SWEEP_INTERVAL_S": "0.2",
        "AF_JOBS__REPUBLISH_AFTER_S": "1",
        "AF_JOBS__MAX_ATTEMPTS": "100",
        "AF_JOBS__MAX_BACKOFF_S": "0.1",
        "AF_JOBS__PREPROCESS_CONCURRENCY": "2",
        "OMP_NUM_THREADS": "1",
    }
    return {**os.environ, **env}
