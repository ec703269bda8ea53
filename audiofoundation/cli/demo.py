"""`audiofoundation demo`: the whole path once, on real recordings, from nothing."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import wave
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from audiofoundation.cli.output import CommandError, note

_RECORDINGS = Path(__file__).resolve().parents[2] / "tests" / "data" / "recordings"
# One voice and no other recording of it go in, so the model is asked to continue a stranger.
_PROMPT = "speech-pmatthes-LJ003-0052.opus"
_PROMPT_S, _CONTINUATION_S = 4.0, 5.0
_READY_TIMEOUT_S = 120.0
_RATE_HZ = 24_000

_HELP = """Run the main job once: ingest, preprocess, train, continue.

Starts the platform (or uses the one that already runs on OUT/platform), takes in the recordings that the
repository carries, makes mel shards of them, fine-tunes the bundled model on them for a few steps through the
queue, and asks the new model over the WebSocket to continue a recording it has never heard. Leaves
OUT/continuation.wav (prompt and continuation) and OUT/continuation.png. The platform keeps running unless --stop is
given.
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came over the WebSocket."""

    samples: bytes
    first_audio_s: float
    whole_s: float
    done: dict[str, Any]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("demo", help=_HELP)(demo)


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the result and the platform's data.")] = Path("demo"),
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = 30,
    stop: Annotated[bool, typer.Option("--stop", help="Stop the platform at the end.")] = False,
) -> None:
    started = time.monotonic()
    recordings = sorted(p for p in _RECORDINGS.glob("*.*") if p.suffix != ".jsonl" and "pmatthes" not in p.name)
    if not recordings:
        raise CommandError(f"the demo needs the repository's recordings in {_RECORDINGS}; run it in a clone")
    out.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    was_running = _read_ready(out / "platform" / "ready.json") is not None
    info = _ensure_platform(out / "platform")
    try:
        _say(f"platform at {info['url']}")
        run = _build(info, recordings, steps)
        answer = _stream(info, run["model"])
        _save(out, answer, run["model"])
    except BaseException:
        if stop or not was_running:
            _stop(info)
        raise
    if stop:
        _stop(info)
    _say(f"{out / 'continuation.wav'} and .png after {time.monotonic() - started:.0f} s")
    if not stop:
        _say(f"the platform stays at {info['url']} (documentation: {info['url']}/docs)")
        _say(f"its key is in {out / 'platform' / 'ready.json'}")
        _say(f"stop it with: kill {info['pid']}")


def _say(text: str) -> None:
    note(f"demo: {text}")


def _ensure_platform(data_dir: Path) -> dict[str, Any]:
    """Return the ready file of the platform on `data_dir`, starting it when none runs."""
    ready = data_dir / "ready.json"
    if (info := _read_ready(ready)) is not None:
        return info
    data_dir.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "audiofoundation.cli", "up", "--data-dir", str(data_dir)]
    with (data_dir / "up.log").open("ab") as log:
        process = subprocess.Popen(
            [*command, "--port", "0", "--grpc-port", "0"], stdout=log, stderr=log, start_new_session=True
        )
    try:
        return _wait_ready(process, ready)
    except BaseException:
        process.terminate()  # nobody would know of it
        raise


def _wait_ready(process: "subprocess.Popen[bytes]", ready: Path) -> dict[str, Any]:
    log = ready.with_name("up.log")
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while time.monotonic() < deadline:
        if (info := _read_ready(ready)) is not None:
            return info
        if process.poll() is not None:
            raise CommandError(f"the platform ended while it started; see {log}")
        time.sleep(0.2)
    raise CommandError(f"the platform was not ready in {_READY_TIMEOUT_S:.0f} s; see {log}")


def _read_ready(path: Path) -> dict[str, Any] | None:
    try:
        info: dict[str, Any] = json.loads(path.read_text())
        os.kill(info["pid"], 0)
    except (FileNotFoundError, ProcessLookupError, json.JSONDecodeError):
        return None
    return info


def _build(info: dict[str, Any], recordings: list[Path], steps: int) -> dict[str, Any]:
    """Ingest, preprocess and train; return the run."""
    taken = _command(info, "ingest", *map(str, recordings), "--collection", "demo", "--wait")
    _say(f"ingested {taken['states'].get('stored', 0)} recordings")
    dataset = _command(info, "preprocess", "--collection", "demo", "--wait")
    _say(f"{dataset['segments']} segments, {dataset['hours'] * 60:.1f} minutes in {dataset['shards']} shards")
    run = _command(
        info, "train", "tiny", "--dataset", dataset["dataset"],
        "--set", "init=pretrained", "--set", "batch=4", "--steps", str(steps), "--wait",
    )  # fmt: skip
    losses = ", ".join(f"{name} {value:.3f}" for name, value in sorted(run["losses"].items()) if value is not None)
    _say(f"trained {run['step']} steps through the queue: {run['model']} ({losses})")
    return run


def _command(info: dict[str, Any], *arguments: str) -> dict[str, Any]:
    """Run one of our commands as a user would; its progress goes to this terminal."""
    environment = {**os.environ, "AF_URL": info["url"], "AF_API_KEY": info["api_key"]}
    command = [sys.executable, "-m", "audiofoundation.cli", *arguments, "--json"]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        raise CommandError(f"`audiofoundation {arguments[0]}` failed; its message is above")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _stream(info: dict[str, Any], model: str) -> Answer:
    """Send the prompt over the WebSocket and collect the continuation while it is made."""
    from websockets.sync.client import connect

    address = info["url"].replace("http", "ws", 1) + "/v1/audio/continuations/stream"
    settings = {
        "type": "session.config", "model": model, "duration": _CONTINUATION_S, "response_format": "pcm16",
        "seed": 7, "prompt_end_seconds": _PROMPT_S,
    }  # fmt: skip
    parts: list[bytes] = []
    first = 0.0
    with connect(address, additional_headers={"Authorization": f"Bearer {info['api_key']}"}, max_size=None) as socket:
        socket.send(json.dumps(settings))
        socket.send((_RECORDINGS / _PROMPT).read_bytes())
        started = time.monotonic()
        socket.send(json.dumps({"type": "input.done"}))
        for message in socket:
            if isinstance(message, bytes):
                first = first or time.monotonic() - started
                parts.append(message)
                continue
            event = json.loads(message)
            if event["type"] == "error":
                raise CommandError(f"the continuation failed: {event['message']}")
            if event["type"] == "audio.done":
                return Answer(b"".join(parts), first, time.monotonic() - started, event)
    raise CommandError("the platform closed the stream before its end")


def _save(out: Path, answer: Answer, model: str) -> None:
    import numpy as np

    from audiofoundation.audio.decode import DecodeLimits, decode_file
    from audiofoundation.inference.picture import draw_continuation

    limits = DecodeLimits(max_duration_s=60, max_bytes=1 << 24)
    decoded = decode_file(_RECORDINGS / _PROMPT, limits=limits, target_rate_hz=_RATE_HZ, is_mono=True)
    prompt = decoded.waveform.samples[0, : round(_PROMPT_S * _RATE_HZ)]
    made = np.frombuffer(answer.samples, "<i2")
    with wave.open(str(out / "continuation.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(_RATE_HZ)
        file.writeframes(np.round(np.clip(prompt, -1, 1) * 32767).astype("<i2").tobytes() + answer.samples)
    title = f"{_PROMPT} continued by {model}"
    draw_continuation(prompt, (made / 32768).astype(np.float32), out / "continuation.png", title=title)
    seam = answer.done.get("seam_score")
    _say(
        f"first audio after {answer.first_audio_s:.2f} s of {answer.whole_s:.2f} s, "
        f"{len(made) / _RATE_HZ:.2f} s of sound" + (f", seam score {seam:.2f}" if seam is not None else "")
    )


def _stop(info: dict[str, Any]) -> None:
    os.kill(info["pid"], signal.SIGTERM)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and _is_running(info["pid"]):
        time.sleep(0.2)


def _is_running(pid: int) -> bool:
    with contextlib.suppress(ChildProcessError):  # a platform that we started is our child and must be reaped
        if os.waitpid(pid, os.WNOHANG)[0] == pid:
            return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
