"""Who has no port takes nothing away from who has it."""

import socket
from pathlib import Path

import pytest
from prometheus_client import values

from audiofoundation.errors import Conflict
from audiofoundation.telemetry.worker_metrics import serve_worker_metrics


def test_a_port_that_is_taken_is_named_and_the_counts_of_its_holder_stay(tmp_path: Path) -> None:
    held, before = tmp_path / "counter_0.db", values.ValueClass
    held.write_bytes(b"counts")
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        with pytest.raises(Conflict, match=f"127.0.0.1:{port} .*AF_METRICS__"):
            serve_worker_metrics(tmp_path, host="127.0.0.1", port=port, place=lambda: "0")
    assert held.read_bytes() == b"counts"
    assert values.ValueClass is before
