"""The README's examples, taken from the README and run against a real platform.

Blocks marked `sh` and `python` run as they are, in order, in one shell session; `console` and `text` blocks are for
reading. They find the platform, which listens on free ports, by its ready file.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import soundfile

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
START_S, STOP_S, EXAMPLES_S = 180, 30, 600  # on two cores that others use as well

pytestmark = pytest.mark.slow


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the session left behind."""

    folder: Path
    output: str
    errors: str
    status: int


def examples() -> list[tuple[str, str]]:
    """Return (language, text) of every block that runs."""
    return [(language, text) for language, text in BLOCK.findall(README) if language in ("sh", "python")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory like a clone's root, with grpcurl on its PATH."""
    path = tmp_path_factory.mktemp("readme")
    (path / "tests").symlink_to(ROOT / "tests")
    (path / "bin").mkdir()
    if shutil.which("grpcurl") is None:
        stand_in = path / "bin" / "grpcurl"
        stand_in.write_text(f'#!/bin/sh\nexec {sys.executable} {ROOT}/tests/e2e/grpcurl.py "$@"\n')
        stand_in.chmod(0o755)
    return path


@pytest.fixture(scope="module")
def environment(folder: Path) -> dict[str, str]:
    outside = {key: value for key, value in os.environ.items() if not key.startswith("AF_")}
    search = os.pathsep.join([str(folder / "bin"), str(Path(sys.executable).parent), outside["PATH"]])
    return {**outside, "PATH": search, "AF_DATA_DIR": str(folder / "platform"), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def platform(folder: Path, environment: dict[str, str]) -> Iterator[dict[str, str]]:
    ready = folder / "ready.json"
    command = ["audiofoundation", "up", "--port", "0", "--grpc-port", "0", "--ready-file", str(ready)]
    with (folder / "up.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + START_S
            while not ready.exists():
                assert process.poll() is None, (folder / "up.log").read_text()
                assert time.monotonic() < deadline, (folder / "up.log").read_text()
                time.sleep(0.1)
            yield json.loads(ready.read_text())
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


@pytest.fixture(scope="module")
def outcome(folder: Path, environment: dict[str, str], platform: dict[str, str]) -> Outcome:
    """Run every example, one session."""
    assert json.loads((folder / "ready.json").read_text()) == platform
    lines = ["set -euo pipefail"]
    for number, (language, text) in enumerate(examples()):
        name = f"example_{number}.{language}"
        (folder / name).write_text(text)
        lines += [f"echo '== {name}'", f". ./{name}" if language == "sh" else f"python {name}"]
    done = subprocess.run(
        ["bash", "-c", "\n".join(lines)], cwd=folder, env=environment, capture_output=True, text=True,
        timeout=EXAMPLES_S, check=False,
    )  # fmt: skip
    return Outcome(folder, done.stdout, done.stderr, done.returncode)


def test_every_example_succeeds(outcome: Outcome) -> None:
    assert outcome.status == 0, f"{outcome.output[-3000:]}\n{outcome.errors[-3000:]}"


def test_every_example_ran(outcome: Outcome) -> None:
    assert outcome.output.count("== example_") == len(examples()) >= 8


@pytest.mark.parametrize(
    ("name", "seconds"), [("continuation.wav", 2.0), ("continuation.flac", 1.5), ("again.wav", 1.0)]
)
def test_continuations_last_as_long_as_asked(outcome: Outcome, name: str, seconds: float) -> None:
    info = soundfile.info(outcome.folder / name)

    assert abs(info.frames - seconds * info.samplerate) <= 256
    assert info.samplerate == 24_000


def test_the_copy_is_as_long_as_the_original(outcome: Outcome) -> None:
    original = soundfile.info(ROOT / "tests" / "data" / "recordings" / "music-boomboxhead-ripper.flac")
    copy = soundfile.info(outcome.folder / "copy.wav")

    assert copy.duration == pytest.approx(original.duration, abs=1 / copy.samplerate)


def test_every_recording_is_in_the_dataset(outcome: Outcome) -> None:
    dataset = json.loads((outcome.folder / "dataset.json").read_text())

    recordings = [it for it in (ROOT / "tests" / "data" / "recordings").iterdir() if it.suffix != ".jsonl"]
    assert dataset["items"] == len(recordings)
    assert dataset["states"].get("failed", 0) == 0


def test_every_make_target_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    assert set(re.findall(r"(?:`|\$ )make ([a-z-]+)", README)) <= targets


def test_every_link_into_the_repository_leads_somewhere() -> None:
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", README):
        if not link.startswith("http"):
            assert (ROOT / link).exists(), link
