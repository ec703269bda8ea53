import os
import shutil

import pytest

from tests.architecture.source import ROOT, run

TARGETS = ("setup", "demo", "up", "test", "test-fast", "lint", "types", "proto", "bench", "fmt")

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def test_make_alone_lists_every_target() -> None:
    listed = run("make")

    assert listed.returncode == 0, listed.stderr
    assert {line.split()[0] for line in listed.stdout.splitlines()} == {"help", *TARGETS}


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_can_be_made(target: str) -> None:
    planned = run("make", "--dry-run", "--always-make", target)

    assert planned.returncode == 0, planned.stderr
    assert planned.stdout.strip()


def test_the_continuous_integration_entry_runs_make_test_and_downloads_nothing_itself() -> None:
    script = ROOT / ".ci" / "run"
    text = script.read_text()

    assert os.access(script, os.X_OK)
    assert text.startswith("#!/usr/bin/env bash")
    assert "set -euo pipefail" in text
    assert "make test" in text
    assert "://" not in text
