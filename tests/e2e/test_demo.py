"""The demo does what the README promises, twice, and leaves nothing running when told to."""

import json
import subprocess
import sys
import wave
from pathlib import Path

import pytest

from tests.e2e.platform_process import is_healthy, wait_until


@pytest.mark.slow
def test_the_demo_leaves_a_continuation_and_its_picture_and_works_again(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "audiofoundation.cli", "demo", "--out", str(tmp_path), "--steps", "2", "--stop"]
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
        assert done.returncode == 0, done.stderr
        assert "ingested 20 recordings" in done.stderr
        assert not (tmp_path / "platform" / "ready.json").exists()
    with wave.open(str(tmp_path / "continuation.wav"), "rb") as file:
        assert file.getframerate() == 24_000
        assert file.getnframes() == 9 * 24_000
        loudest = max(abs(int.from_bytes(file.readframes(1), "little", signed=True)) for _ in range(24_000))
    assert loudest > 300
    assert (tmp_path / "continuation.png").stat().st_size > 20_000


@pytest.mark.slow
def test_a_demo_that_is_ended_takes_its_platform_with_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "audiofoundation.cli", "demo", "--out", str(tmp_path)]
    ready = tmp_path / "platform" / "ready.json"
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        wait_until(ready.exists, what="the demo's platform is ready", timeout_s=240)
        url = json.loads(ready.read_text())["url"]
        process.terminate()
        assert process.wait(60) == 143
    finally:
        process.kill()
    assert not ready.exists()
    assert not is_healthy(url)
