"""Every step of a job is interrupted, by SIGKILL and by an error: nothing is lost, doubled or left lying about."""

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import Engine, func, select
from typer.testing import CliRunner

from audiofoundation.catalog.engine import create_catalog_engine, read_session
from audiofoundation.catalog.tables import Asset, Collection, Dataset, DatasetItem, Job, Shard
from audiofoundation.cli import create_cli
from audiofoundation.identifiers import Sha256, sha256_of
from audiofoundation.ingestion.collector import Collector, CollectorRules
from audiofoundation.jobs.celery_app import CeleryPublisher
from audiofoundation.jobs.kinds import TERMINAL_STATES
from audiofoundation.jobs.queue import JobQueue
from audiofoundation.preprocessing.options import DatasetOptions
from audiofoundation.preprocessing.plan import plan_dataset
from audiofoundation.settings import CatalogSettings, QueueSettings, Settings
from audiofoundation.shards.manifest import load_manifest
from audiofoundation.shards.reader import read_dataset
from audiofoundation.storage.object_store import ObjectStore
from audiofoundation.telemetry.failpoints import Failpoint
from tests.architecture.source import ROOT, python_files
from tests.data_plane import tone
from tests.servers import ValkeyServer, wait_until

from .platform import KEY, Processes, arm, running

PITCHES_HZ = (300, 400, 500, 600)
DEADLINE_S = 120.0


def num_unfinished(engine: Engine) -> int:
    with read_session(engine) as session:
        return session.scalar(select(func.count()).where(Job.state.not_in(TERMINAL_STATES))) or 0


def wait_for_jobs(processes: Processes, engine: Engine) -> None:
    def is_idle() -> bool:
        processes.keep_alive()
        return num_unfinished(engine) == 0

    wait_until(is_idle, timeout_s=DEADLINE_S, what="all jobs are over")


def armed(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.slow
def test_every_interruption_of_every_step_is_recovered_from(
    sqlite_catalog: CatalogSettings,
    queue_settings: QueueSettings,
    valkey_server: ValkeyServer,
    store: ObjectStore,
    tmp_path: Path,
) -> None:
    settings = Settings(
        data_dir=tmp_path / "data", storage=store.settings, catalog=sqlite_catalog, queue=queue_settings
    )
    engine = create_catalog_engine(sqlite_catalog)
    queue = JobQueue(engine, CeleryPublisher(queue_settings))
    folder = tmp_path / "failpoints"
    folder.mkdir()
    clips = [tone(tmp_path / f"{hz}.wav", 2.2, hz=hz).read_bytes() for hz in PITCHES_HZ]
    with running(settings, folder) as processes:
        processes.request("POST", "/v1/collections", json={"name": "clips"})
        arm(folder)
        items = [processes.upload("clips", clip) for clip in clips]
        valkey_server.flush()  # hints are all that it holds
        wait_for_jobs(processes, engine)
        with queue.unit_of_work() as unit:
            collection = unit.session.scalars(select(Collection)).one()
            dataset_id = plan_dataset(unit, collection, DatasetOptions(segment_s=0.5), num_workers=2)
        wait_for_jobs(processes, engine)
        processes.request("POST", "/v1/takedowns", json={"target": items[0]})
        wait_for_jobs(processes, engine)
        check_commands(processes, items[0])

    assert armed(folder) == set(), "these points were never passed"
    assert [key for key in store.list("") if items[0].encode() in store.get_bytes(key)] == []
    check_catalog(engine)
    check_dataset(engine, store, dataset_id, items[1:])
    check_store(engine, store, {sha256_of(clip) for clip in clips[1:]})
    left = [path for path in (tmp_path / "data" / "work").rglob("*") if path.is_file()]
    assert [path for path in left if path.parent.name != "uploads"] == []
    engine.dispose()


def check_commands(processes: Processes, taken_down: str) -> None:
    """What the commands say once all is done."""
    runner = CliRunner(env={"AF_URL": f"http://127.0.0.1:{processes.port}", "AF_API_KEY": KEY})
    report = runner.invoke(create_cli(), ["takedown", taken_down, "--wait", "--json"])
    assert json.loads(report.stdout)["pending"] == 0, report.output
    lineage = runner.invoke(create_cli(), ["lineage", taken_down, "--json"])
    states = {node["kind"]: node["state"] for node in json.loads(lineage.stdout)["nodes"]}
    assert (states["item"], states["asset"], states["version"]) == ("tombstoned", "tombstoned", "deleted")
    tree = runner.invoke(create_cli(), ["lineage", taken_down])
    assert f"item {taken_down}" in tree.stdout
    left = runner.invoke(create_cli(), ["gc", "--json"])
    assert json.loads(left.stdout)["orphans"] == 0, "nothing is two days old"
    nothing = runner.invoke(create_cli(), ["lineage", "item_0"])
    assert nothing.exit_code != 0


def check_catalog(engine: Engine) -> None:
    with read_session(engine) as session:
        states = Counter(session.scalars(select(Job.state)))
        assert set(states) == {"done"}, states
        assert session.scalar(select(func.count()).select_from(Asset)) == len(PITCHES_HZ)
        found = Counter(session.scalars(select(DatasetItem.state)))
        assert found == {"done": len(PITCHES_HZ) - 1, "tombstoned": 1}


def check_dataset(engine: Engine, store: ObjectStore, dataset_id: str, items: list[str]) -> None:
    with read_session(engine) as session:
        dataset = session.get_one(Dataset, dataset_id)
    assert dataset.state == "ready"
    manifest = load_manifest(store, str(dataset.manifest_key), Sha256(str(dataset.manifest_sha256)))
    samples = list(read_dataset(store, manifest))
    keys = [sample.key for sample in samples]
    assert len(set(keys)) == len(keys)
    assert Counter(sample.meta.item_id for sample in samples) == dict.fromkeys(items, 4)


def check_store(engine: Engine, store: ObjectStore, hashes: set[Sha256]) -> None:
    """After the collector's two passes there is what the catalog names and nothing else."""
    rules = CollectorRules(min_age_s=0.0, min_marked_s=0.0, max_share=1.0)
    collector = Collector(engine, store, rules, sleep=lambda _: None)
    for _ in range(2):
        collector.collect(is_applied=True)
    with read_session(engine) as session:
        shards = [key for key in session.scalars(select(Shard.key)) if key is not None]
        manifest = session.scalars(select(Dataset.manifest_key)).one()
    named = {f"raw/{sha[:2]}/{sha}" for sha in hashes} | {*shards, *(f"{key}.index.json" for key in shards), manifest}
    kept = set(store.list(""))
    assert named <= kept
    assert {key for key in kept - named if "manifest-" not in key} == set()


def test_every_point_stands_somewhere_and_only_once() -> None:
    used = Counter(
        name
        for path in python_files()
        if path.relative_to(ROOT).parts[0] in ("audiofoundation", "services")
        for name in re.findall(r"failpoint\(Failpoint\.(\w+)\)", path.read_text())
    )
    assert used == {point.name: 1 for point in Failpoint}


@pytest.mark.parametrize(("mode", "code"), [("kill", -9), ("raise", 1)])
def test_a_point_fires_once_and_only_where_a_test_asks(mode: str, code: int, tmp_path: Path) -> None:
    program = "from audiofoundation.telemetry.failpoints import *; failpoint(Failpoint.JOB_CLAIMED)"

    def run(**env: str) -> int:
        return subprocess.run([sys.executable, "-c", program], env=env, cwd=ROOT, capture_output=True).returncode

    (tmp_path / f"job.claimed.{mode}").touch()
    assert run() == 0
    assert run(AF_FAILPOINTS=str(tmp_path)) == code
    assert run(AF_FAILPOINTS=str(tmp_path)) == 0
