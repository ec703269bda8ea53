"""The platform as a whole: real processes, real servers, real signals."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from tests.e2e.platform_process import PlatformProcess, Ready, is_healthy, wait_until

pytestmark = pytest.mark.slow

# The promise is 15 s on two idle cores; a test machine is rarely idle.
START_LIMIT_S = 120.0
STOP_LIMIT_S = 25.0
RECORDINGS = Path(__file__).parents[1] / "data" / "recordings"
NUM_STEPS = 120
# A model of a few thousand weights, saved often: the run is long enough to be killed in its middle.
SMALL = {"width": 64, "num_layers": 1, "head_blocks": 1, "batch": 2, "window_patches": 32, "save_every_s": 0.5}
CHILDREN = (
    ("valkey-server",),
    ("rclone", "s3"),
    ("services.gateway.main",),
    ("services.ingest.worker",),
    ("services.preprocess.worker",),
    ("services.train.supervisor",),
    ("guardian.py",),
)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


def test_start_use_refuse_a_second_stop_and_start_again(data_dir: Path) -> None:
    started = time.monotonic()
    with PlatformProcess(data_dir) as platform:
        first = platform.wait_ready()
        assert time.monotonic() - started < START_LIMIT_S
        assert first["pid"] == platform.process.pid
        assert json.loads((data_dir / "ready.json").read_text()) == first
        for path in (platform.ready_file, data_dir / "ready.json", data_dir / "secrets.json"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert is_healthy(first["url"])
        assert httpx.get(f"{first['url']}/v1/models").status_code == 401
        authorized = {"Authorization": f"Bearer {first['api_key']}"}
        assert httpx.get(f"{first['url']}/v1/models", headers=authorized).status_code == 200
        health = httpx.get(f"{first['url']}/health").json()
        assert {name: health["checks"][name] for name in ("catalog", "queue", "storage")} == {
            "catalog": "ok",
            "queue": "ok",
            "storage": "ok",
        }
        with redis.Redis.from_url(first["redis"]) as client:
            client.set("kept", "over a restart")

        refuse_a_second(data_dir, first["pid"])

        stopping = time.monotonic()
        assert platform.stop() == 0
        assert time.monotonic() - stopping < STOP_LIMIT_S
        assert platform.descendants() == []
        assert not platform.ready_file.exists()
        assert not (data_dir / "ready.json").exists()

    with PlatformProcess(data_dir) as platform:
        second = platform.wait_ready()
        assert second["api_key"] == first["api_key"]
        with redis.Redis.from_url(second["redis"]) as client:
            assert client.get("kept") == b"over a restart"
        assert platform.stop(signal.SIGINT) == 0


def refuse_a_second(data_dir: Path, pid: int) -> None:
    argv = [sys.executable, "-m", "audiofoundation.cli", "up", "--data-dir", str(data_dir), "--port", "0"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert f"process {pid}" in done.stderr


def test_every_killed_child_comes_back_at_its_address(data_dir: Path) -> None:
    with PlatformProcess(data_dir) as platform:
        ready = platform.wait_ready()
        for words in CHILDREN:
            killed = platform.process_of(*words)
            os.kill(killed, signal.SIGKILL)
            wait_until(partial(has_another, platform, words, killed), what=f"{words} is back")
        wait_until(lambda: is_healthy(ready["url"]), what="the API answers at its old address", timeout_s=120)
        with redis.Redis.from_url(ready["redis"]) as client:
            wait_until(lambda: answers(client), what="the queue server answers at its old address")
        for name in ("valkey", "s3", "gateway", "ingest worker", "preprocess worker", "train supervisor"):
            assert f"{name} was killed by SIGKILL" in platform.log
        assert platform.stop() == 0
        assert platform.descendants() == []


def has_another(platform: PlatformProcess, words: tuple[str, ...], killed: int) -> bool:
    try:
        return platform.process_of(*words) != killed
    except (AssertionError, FileNotFoundError):
        return False


def answers(client: "redis.Redis") -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


def test_a_platform_killed_in_training_leaves_nothing_running_and_finishes_the_run(data_dir: Path) -> None:
    with PlatformProcess(data_dir) as platform:
        first = platform.wait_ready()
        assert len(platform.descendants()) > len(CHILDREN)  # pool workers and the like
        run_id = start_training(first)
        wait_until(lambda: committed_step(first, run_id) > 0, what="the run has a checkpoint", timeout_s=120)
        kept = committed_step(first, run_id)

        platform.process.kill()
        platform.process.wait()

        wait_until(lambda: platform.descendants() == [], what="no child is left", timeout_s=10)
        assert platform.ready_file.exists()  # nobody was there to remove it

    with PlatformProcess(data_dir) as platform:
        wait_until(lambda: not platform.ready_file.exists(), what="the stale ready file goes")
        second = platform.wait_ready()
        assert second["pid"] != first["pid"]
        assert second["api_key"] == first["api_key"]
        assert is_healthy(second["url"])
        wait_until(lambda: is_over(second, run_id), what="the run is over", timeout_s=180)
        run = ask(second, f"/v1/runs/{run_id}")
        assert (run["state"], run["step"], run["attempt"]) == ("done", NUM_STEPS, 2)
        later = [row["step"] for row in ask(second, f"/v1/runs/{run_id}/checkpoints")["data"] if row["attempt"] == 2]
        assert later
        assert min(later) > kept  # it went on, and did not begin anew
        names = [model["id"] for model in ask(second, "/v1/models")["data"]]
        assert names.count(run["model"]) == 1
        assert platform.stop() == 0


def start_training(ready: Ready) -> str:
    """Prepare a few recordings and start a run that takes some seconds; return its id."""
    command(ready, "ingest", *map(str, sorted(RECORDINGS.glob("speech-k*"))), "--collection", "few", "--wait")
    dataset = command(ready, "preprocess", "--collection", "few", "--wait")["dataset"]
    settings = [f"--set={name}={value}" for name, value in SMALL.items()]
    run_id: str = command(ready, "train", "tiny", "--dataset", dataset, "--steps", str(NUM_STEPS), *settings)["run"]
    return run_id


def command(ready: Ready, *words: str) -> Any:
    argv = [sys.executable, "-m", "audiofoundation.cli", *words, "--json"]
    env = {**os.environ, "AF_URL": ready["url"], "AF_API_KEY": ready["api_key"]}
    done = subprocess.run(argv, capture_output=True, text=True, timeout=180, check=False, env=env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def ask(ready: Ready, path: str) -> Any:
    headers = {"Authorization": f"Bearer {ready['api_key']}"}
    return httpx.get(f"{ready['url']}{path}", headers=headers, timeout=30).raise_for_status().json()


def committed_step(ready: Ready, run_id: str) -> int:
    return max((row["step"] for row in ask(ready, f"/v1/runs/{run_id}/checkpoints")["data"]), default=0)


def is_over(ready: Ready, run_id: str) -> bool:
    return ask(ready, f"/v1/runs/{run_id}")["state"] not in ("queued", "running")


def test_stopping_during_the_start_is_clean(data_dir: Path) -> None:
    with PlatformProcess(data_dir) as platform:
        wait_until((data_dir / "secrets.json").exists, what="the start has begun")
        wait_until(lambda: len(platform.descendants()) >= 2, what="the servers run")

        assert platform.stop(signal.SIGINT) == 0

        assert platform.descendants() == []
        assert not platform.ready_file.exists()
