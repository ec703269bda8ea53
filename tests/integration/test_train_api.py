"""The train service's HTTP routes and the commands on top of them."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi.testclient import TestClient
from pydantic import SecretStr
from sqlalchemy import update

from audiofoundation.catalog.engine import create_catalog_engine, write_session
from audiofoundation.catalog.tables import Run
from audiofoundation.identifiers import RunId, Sha256
from audiofoundation.jobs.hints import HintLists
from audiofoundation.jobs.kinds import JobKind
from audiofoundation.models.checkpoint import ModelHeader
from audiofoundation.models.registry import ModelKind
from audiofoundation.settings import CatalogSettings, ModelSettings, QueueSettings, ServingSettings, Settings
from audiofoundation.training.ledger import RunLedger, StoredObject
from services.train.main import create_app
from tests.servers import free_port
from tests.unit.training.rows import DATASET, add_dataset

KEY = "k" * 32


@pytest.fixture
def settings(tmp_path: Path, queue_settings: QueueSettings, sqlite_catalog: CatalogSettings) -> Settings:
    return Settings(
        data_dir=tmp_path,
        queue=queue_settings,
        catalog=sqlite_catalog,
        serving=ServingSettings(api_keys=(SecretStr(KEY),)),
        models=ModelSettings(pretrained_dir=tmp_path / "none"),
    )


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    add_dataset(create_catalog_engine(settings.catalog))
    with TestClient(create_app(settings), headers={"Authorization": f"Bearer {KEY}"}) as client:
        yield client


def start(client: TestClient, **body: object) -> dict[str, Any]:
    answer = client.post("/v1/runs", json={"recipe": "tiny", "dataset": DATASET, "steps": 10, **body})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def finish(settings: Settings, run: str) -> None:
    """What a trainer writes at the end."""
    engine = create_catalog_engine(settings.catalog)
    with write_session(engine) as session:
        session.execute(update(Run).where(Run.id == run).values(state="running", attempt=1))
    ledger = RunLedger(engine, RunId(run), 1)
    stored = StoredObject("key", 1, Sha256("0" * 64))
    ledger.register_checkpoint(10, stored, {"model/total": 0.5})
    name, kind = f"tiny-{run[-8:]}", ModelKind.MEL_TRANSFORMER
    header = ModelHeader(
        name=name, kind=kind, task="continuation", preset="vocos24", mel_fingerprint="f", config={}, step=10
    )
    ledger.complete(header, stored, {"model/total": 0.5})
    engine.dispose()


def test_a_body_that_is_no_json_is_refused_with_the_place_where_it_breaks(client: TestClient) -> None:
    answer = client.post("/v1/runs", content=b'{"recipe": tiny}', headers={"Content-Type": "application/json"})

    assert answer.status_code == 422
    assert answer.json()["error"]["message"] == "the body is not JSON: expecting value, at character 11"


def test_a_run_is_started_and_its_hint_reaches_the_queue(client: TestClient, settings: Settings) -> None:
    run = start(client, overrides={"batch": 4, "learning_rate": "5e-4"})
    assert (run["state"], run["step"], run["num_steps"], run["model"]) == ("queued", 0, 10, None)
    assert run["overrides"] == {"batch": 4, "learning_rate": "5e-4"}
    hints = HintLists(settings.queue)
    assert hints.wait(JobKind.TRAIN_RUN, timeout_s=5)
    hints.close()
    assert client.get(f"/v1/runs/{run['run']}").json() == run
    assert client.get("/v1/runs").json()["data"] == [run]
    assert client.get("/v1/runs", params={"state": "done"}).json()["data"] == []


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"recipe": "huge"}, 400, "tiny"),
        ({"dataset": "ds_none"}, 404, "ds_none"),
        ({"overrides": {"batchsize": 2}}, 400, " batch, betas"),
        ({"resume": "run_none", "steps": None}, 404, "run_none"),
        ({"resume": "run_none"}, 400, "keeps its settings"),
        ({"recipe": None}, 400, "recipe is missing"),
    ],
)
def test_a_wrong_request_is_refused_in_words(
    client: TestClient, body: dict[str, object], status: int, said: str
) -> None:
    answer = client.post("/v1/runs", json={"recipe": "tiny", "dataset": DATASET, "steps": 10, **body})
    assert answer.status_code == status
    assert said in answer.json()["error"]["message"]


def test_events_tell_every_change_until_the_end(client: TestClient, settings: Settings) -> None:
    run = start(client)["run"]
    ender = threading.Timer(1.0, finish, (settings, run))
    ender.start()
    with client.stream("GET", f"/v1/runs/{run}/events") as stream:
        lines = [line for line in stream.iter_lines() if line]
    ender.join()
    names = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    last = json.loads(lines[-1].removeprefix("data: "))
    assert names[0] == "run.progress"
    assert names[-1] == "run.done"
    assert (last["state"], last["losses"], last["model"]) == ("done", {"model/total": 0.5}, f"tiny-{run[-8:]}")
    assert client.get("/v1/runs/run_none/events").status_code == 404


def test_a_done_run_has_checkpoints_and_can_be_promoted_once_it_is_done(client: TestClient, settings: Settings) -> None:
    run = start(client)["run"]
    refused = client.post(f"/v1/runs/{run}/promote")
    assert refused.status_code == 409
    assert "queued" in refused.json()["error"]["message"]
    finish(settings, run)
    (checkpoint,) = client.get(f"/v1/runs/{run}/checkpoints").json()["data"]
    assert (checkpoint["step"], checkpoint["attempt"]) == (10, 1)
    assert client.post(f"/v1/runs/{run}/promote").json()["model"] == f"tiny-{run[-8:]}"
    assert client.post(f"/v1/runs/{run}/demote").json()["state"] == "candidate"
    assert client.post(f"/v1/runs/{run}/demote").status_code == 409
    assert client.post(f"/v1/runs/{run}/cancel").status_code == 409


def test_a_waiting_run_is_cancelled_and_resumed(client: TestClient) -> None:
    run = start(client)["run"]
    assert client.post(f"/v1/runs/{run}/cancel").json()["state"] == "cancelled"
    assert client.post("/v1/runs", json={"resume": run}).json()["state"] == "queued"


@contextmanager
def served(settings: Settings) -> Iterator[str]:
    """Serve the routes on a port of this machine."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(create_app(settings), host="127.0.0.1", port=port, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


def command(url: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    env = {**os.environ, "AF_URL": url, "AF_API_KEY": KEY}
    argv = [sys.executable, "-m", "audiofoundation.cli", *arguments]
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=120, check=False)


def test_the_commands_start_follow_and_promote_a_run(settings: Settings) -> None:
    add_dataset(create_catalog_engine(settings.catalog))
    with served(settings) as url:
        asked = command(url, "train", "tiny", "--dataset", DATASET, "--steps", "10", "--set", "batch=2", "--json")
        assert asked.returncode == 0, asked.stderr
        run = json.loads(asked.stdout)
        assert {"run", "state", "step", "losses", "checkpoint", "model"} <= run.keys()
        finish(settings, run["run"])
        followed = command(url, "train", "--resume", run["run"], "--wait", "--json")
        assert followed.returncode == 0, followed.stderr
        done = json.loads(followed.stdout)
        assert (done["state"], done["step"], done["model"]) == ("done", 10, f"tiny-{run['run'][-8:]}")
        listed = json.loads(command(url, "runs", "list", "--json").stdout)
        assert [row["run"] for row in listed["runs"]] == [run["run"]]
        promoted = command(url, "runs", "promote", run["run"])
        assert "default of its task" in promoted.stdout
        demoted = command(url, "runs", "demote", run["run"])
        assert "default again" in demoted.stdout
        assert "not the default" in command(url, "runs", "demote", run["run"]).stderr.replace("\n", " ")
        refused = command(url, "train", "tiny", "--dataset", DATASET, "--set", "bach=2")
        assert (refused.returncode, refused.stdout) == (1, "")
        assert " batch, betas" in refused.stderr.replace("\n", " ")
        assert command(url, "train", "tiny").returncode == 2


def test_the_commands_do_not_load_torch() -> None:
    code = "import sys; from audiofoundation.cli import create_cli; create_cli(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
