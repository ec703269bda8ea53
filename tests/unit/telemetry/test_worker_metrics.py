"""Who has no port takes nothing away from who has it."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import values

from audiofoundation.errors import Conflict
from audiofoundation.telemetry.worker_metrics import serve_worker_metrics
from tests.architecture.source import ROOT

_COUNTING = """
from audiofoundation.telemetry.metrics import JOB_SECONDS, JOBS_ATTEMPTED, count, observe
count(JOBS_ATTEMPTED, "ingest.item", "done")
observe(JOB_SECONDS, "ingest.item", value=1.0)
print("went on")
"""


def test_a_port_that_is_taken_is_named_and_the_counts_of_its_holder_stay(tmp_path: Path) -> None:
    held, before = tmp_path / "counter_0.db", values.ValueClass
    held.write_bytes(b"counts")
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        with pytest.raises(Conflict, match=f"127.0.0.1:{port} .*AF_METRICS__"):
            serve_worker_metrics(tmp_path, host="127.0.0.1", port=port, place=lambda: "0")
    assert held.read_bytes() == b"counts"
    assert values.ValueClass is before


def test_counts_that_cannot_be_written_cost_nothing_but_a_line_of_the_log(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _COUNTING],
        env={"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "gone")},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.count("not_counted") == 2
    assert "went on" in done.stdout
