"""REST on real recordings through a real server: lengths, formats, headers, refusals in words."""

import base64
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile

from tests.infer_server import KEY, ORIGINALS, RECORDINGS, SPEECH, InferServer, create_settings, infer_server
from tests.tiny_models import save_pretrained

PATH = "/v1/audio/continuations"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InferServer]:
    folder = tmp_path_factory.mktemp("infer")
    settings = create_settings(save_pretrained(folder / "pretrained"), folder, max_running=1, max_waiting=1)
    with infer_server(settings) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: InferServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, headers=server.headers, timeout=60) as client:
        yield client


def post(client: httpx.Client, path: Path = SPEECH, **fields: str | int | float) -> httpx.Response:
    return client.post(PATH, files={"file": (path.name, path.read_bytes())}, data=fields)


def message_of(answer: httpx.Response) -> str:
    message: str = answer.json()["error"]["message"]
    assert len(message) > 10
    return message


@pytest.mark.parametrize(
    "name",
    [
        "librivox_p001.mp3", "librivox_p001.webm", "big_buck_bunny_small.mp4", "no_extension", "silent_3s.wav",
        "speech_mulaw_8k.wav", "speech_bigendian.aiff", "clipped.wav", "very_short_10ms.wav",
        "ünïcode näme 音声.ogg",
    ],
)  # fmt: skip
def test_any_recording_gives_exactly_what_was_asked(client: httpx.Client, name: str) -> None:
    answer = post(client, ORIGINALS / name, duration=0.7, seed=1)

    assert answer.status_code == 200, answer.text
    samples, rate = soundfile.read(io.BytesIO(answer.content))
    assert (len(samples), rate) == (16800, 24000)
    assert np.isfinite(samples).all()


@pytest.mark.parametrize("name", ["text_renamed.wav", "zero_bytes.wav", "truncated_header.wav"])
def test_what_is_no_audio_is_refused_in_words(client: httpx.Client, name: str) -> None:
    answer = post(client, ORIGINALS / name)

    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "undecodable_audio"
    message_of(answer)


def test_a_damaged_recording_is_used_as_far_as_it_decodes_and_the_answer_says_so(client: httpx.Client) -> None:
    answer = post(client, ORIGINALS / "truncated.flac", duration=0.5)

    assert answer.status_code == 200
    assert len(answer.headers["X-Input-Damage"]) > 10


@pytest.mark.parametrize(
    ("response_format", "content_type", "tolerance"),
    [("wav", "audio/wav", 0), ("flac", "audio/flac", 0), ("mp3", "audio/mpeg", 2400), ("opus", "audio/ogg", 480)],
)
def test_formats_hold_the_same_length(
    client: httpx.Client, response_format: str, content_type: str, tolerance: int
) -> None:
    answer = post(client, duration=1.0, response_format=response_format)

    assert answer.headers["content-type"].startswith(content_type)
    samples, rate = soundfile.read(io.BytesIO(answer.content))
    assert abs(len(samples) - rate) <= tolerance * rate / 24000


def test_pcm_is_the_samples_of_the_wav(client: httpx.Client) -> None:
    pcm, wav = (post(client, duration=0.6, seed=4, response_format=fmt).content for fmt in ("pcm", "wav"))

    assert len(pcm) == 2 * 14400
    assert np.array_equal(np.frombuffer(pcm, "<i2"), soundfile.read(io.BytesIO(wav), dtype="int16")[0])


def test_headers_say_what_answered(client: httpx.Client) -> None:
    headers = post(client, duration=0.5).headers

    assert headers["X-Model-Version"].startswith("tiny@")
    assert headers["X-Sample-Rate"] == "24000"
    assert 0 <= float(headers["X-Seam-Score"]) <= 1
    assert "X-Input-Damage" not in headers


def test_include_prompt_and_selection(client: httpx.Client) -> None:
    answer = post(
        client, duration=0.5, include_prompt="true", prompt_start_seconds=1, prompt_end_seconds=3, response_format="pcm"
    )

    assert len(answer.content) == 2 * (48000 + 12000)


def test_events_carry_the_same_audio(client: httpx.Client) -> None:
    plain = post(client, duration=0.6, seed=8, response_format="pcm").content
    events = _events(post(client, duration=0.6, seed=8, response_format="pcm", stream_format="sse").text)

    audio = b"".join(base64.b64decode(event["audio"]) for kind, event in events if kind == "audio.delta")
    assert audio == plain
    kind, done = events[-1]
    assert kind == "audio.done"
    assert done["model_version"].startswith("tiny@")
    assert done["usage"]["generated_seconds"] == 0.6


def test_events_hold_several_continuations(client: httpx.Client) -> None:
    events = _events(post(client, duration=0.3, n=3, response_format="pcm", stream_format="sse").text)

    sizes = [
        sum(len(base64.b64decode(e["audio"])) for kind, e in events if kind == "audio.delta" and e["index"] == index)
        for index in range(3)
    ]
    assert sizes == [14400] * 3
    assert [event["seed"] for kind, event in events if kind == "audio.done"] == [0, 1, 2]


def _events(text: str) -> list[tuple[str, dict[str, Any]]]:
    blocks = [block.split("\n", 1) for block in text.strip().split("\n\n")]
    return [(kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for kind, data in blocks]


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"duration": 0}, 400, "duration"),
        ({"duration": 1e9}, 400, "duration"),
        ({"duration": "long"}, 422, "duration"),
        ({"durations": 3}, 422, "durations"),
        ({"n": 2}, 400, "n"),
        ({"cfg_coef": 3}, 400, "cfg_coef"),
        ({"prompt": "a choir"}, 400, "prompt"),
        ({"model": "nobody"}, 404, "model"),
        ({"response_format": "aac"}, 422, "response_format"),
        ({"prompt_start_seconds": 99}, 400, "prompt_start_seconds"),
    ],
)
def test_a_field_out_of_range_is_named(
    client: httpx.Client, fields: dict[str, str | int | float], status: int, param: str
) -> None:
    answer = post(client, SPEECH, **fields)

    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["param"] == param


def test_a_misspelt_field_is_named(client: httpx.Client) -> None:
    answer = post(client, SPEECH, durration=1)

    assert answer.status_code == 422
    assert message_of(answer).startswith("durration: there is no such field")


@pytest.mark.parametrize(
    "body", [SPEECH.read_bytes(), SPEECH.read_bytes()[:400].replace(b"&", b"")], ids=["all", "head"]
)
def test_a_recording_as_the_whole_body_is_told_how_to_send_it(client: httpx.Client, body: bytes) -> None:
    answer = client.post(PATH, content=body, headers={"Content-Type": "application/x-www-form-urlencoded"})

    assert answer.status_code in (400, 422), answer.text
    assert (
        message_of(answer) == "the body is no form: send the recording as multipart/form-data, with curl -F file=@PATH"
    )
    assert answer.json()["error"]["param"] is None


def test_text_in_place_of_a_file_is_explained(client: httpx.Client) -> None:
    answer = client.post(PATH, files={"file": (None, "speech.wav")})

    assert answer.status_code == 422
    assert "-F file=@PATH" in message_of(answer)


def test_exactly_one_source_is_needed(client: httpx.Client) -> None:
    both = post(client, url="https://example.com/a.wav")
    neither = client.post(PATH, data={"duration": 1})

    assert (both.status_code, neither.status_code) == (400, 400)
    assert "file" in message_of(both)
    assert "url" in message_of(neither)
    assert "curl -F" in message_of(client.post(PATH, json={"duration": 1}))


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/a.wav", "file:///etc/passwd", "http://[::1]/", ""])
def test_addresses_of_ours_are_refused_before_anything_is_sent(client: httpx.Client, url: str) -> None:
    answer = client.post(PATH, data={"url": url}, files={"none": b""})

    assert 400 <= answer.status_code < 500
    message_of(answer)


def test_nobody_comes_in_without_a_key(server: InferServer) -> None:
    files = {"file": SPEECH.read_bytes()}
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": KEY}):
        assert httpx.post(server.url + PATH, files=files, headers=headers).status_code == 401


def test_a_full_queue_is_told_at_once(server: InferServer, client: httpx.Client) -> None:
    tickets = [server.container.runner.admission.enter() for _ in range(2)]
    try:
        started = time.monotonic()
        answer = post(client, duration=1)
        took_s = time.monotonic() - started
    finally:
        for ticket in tickets:
            ticket.leave()

    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) >= 1
    assert took_s < 1  # nothing was decoded
    assert post(client, duration=0.1).status_code == 200


def test_a_client_that_leaves_frees_its_place(server: InferServer, client: httpx.Client) -> None:
    with client.stream("POST", PATH, files={"file": SPEECH.read_bytes()}, data={"duration": 100}) as answer:
        next(answer.iter_raw())
        assert server.container.runner.admission.num_running == 1

    assert server.container.runner.admission.wait_until_idle(timeout_s=2)


def test_a_client_of_events_that_leaves_the_queue_frees_its_place(server: InferServer, client: httpx.Client) -> None:
    admission = server.container.runner.admission
    fields = {"duration": 5, "stream_format": "sse"}
    with admission.enter():
        with pytest.raises(httpx.ReadTimeout):
            client.post(PATH, files={"file": SPEECH.read_bytes()}, data=fields, timeout=2)
        deadline = time.monotonic() + 5
        while admission.num_waiting and time.monotonic() < deadline:
            time.sleep(0.02)
        assert admission.num_waiting == 0
    assert admission.wait_until_idle(timeout_s=1)


def test_classification_is_sorted_and_limited(client: httpx.Client) -> None:
    files = {"file": (RECORDINGS / "music-lofi-florist.mp3").read_bytes()}
    whole = client.post("/v1/audio/classification", files=files).json()
    first = client.post("/v1/audio/classification", files=files, data={"top_k": 1}).json()

    scores = [detection["score"] for detection in whole["detections"]]
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) == pytest.approx(1, abs=1e-3)
    assert {detection["label"] for detection in whole["detections"]} == {"speech", "music", "other"}
    assert first["detections"] == whole["detections"][:1]
    assert whole["model"].startswith("classifier-tiny@")


def test_models_are_listed_by_task(client: httpx.Client) -> None:
    listed = client.get("/v1/models").json()
    continuing = client.get("/v1/models", params={"task": "continuation"}).json()["data"]

    assert listed["object"] == "list"
    assert {model["id"] for model in listed["data"]} == {"tiny", "classifier-tiny"}
    assert [model["id"] for model in continuing] == ["tiny"]
    assert continuing[0]["is_default"]


def test_readiness_and_metrics(server: InferServer) -> None:
    assert httpx.get(server.url + "/health/ready").status_code == 200
    assert "tts_ttfa_seconds_count" in httpx.get(server.url + "/metrics").text
