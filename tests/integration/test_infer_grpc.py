"""gRPC: the same bytes as REST, the same errors, health and reflection."""

from collections.abc import Iterator

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from audiofoundation.api.v1 import audio_pb2, inference_pb2, inference_pb2_grpc, models_pb2, models_pb2_grpc
from tests.infer_server import KEY, ORIGINALS, SPEECH, InferServer, create_settings, infer_server
from tests.tiny_models import save_pretrained

METADATA = (("authorization", f"Bearer {KEY}"),)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InferServer]:
    folder = tmp_path_factory.mktemp("infer")
    with infer_server(create_settings(save_pretrained(folder / "pretrained"), folder)) as server:
        yield server


@pytest.fixture(scope="module")
def channel(server: InferServer) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.grpc) as channel:
        yield channel


def continue_requests(data: bytes, **config: object) -> Iterator[inference_pb2.ContinueRequest]:
    yield inference_pb2.ContinueRequest(config=inference_pb2.ContinueConfig(**config))
    for start in range(0, len(data), 30_000):
        yield inference_pb2.ContinueRequest(audio_chunk=data[start : start + 30_000])


def test_the_same_bytes_as_rest(server: InferServer, channel: grpc.Channel) -> None:
    rest = httpx.post(
        f"{server.url}/v1/audio/continuations",
        headers=server.headers,
        files={"file": SPEECH.read_bytes()},
        data={"duration": 0.8, "seed": 21, "response_format": "pcm"},
        timeout=30,
    )
    stub = inference_pb2_grpc.InferenceServiceStub(channel)
    requests = continue_requests(SPEECH.read_bytes(), duration_seconds=0.8, seed=21)

    answers = list(stub.Continue(requests, metadata=METADATA))

    assert answers[0].started.model_version == rest.headers["X-Model-Version"]
    assert f"{answers[0].started.seam_score:.4f}" == rest.headers["X-Seam-Score"]
    assert answers[0].started.sample_rate_hz == 24000
    assert b"".join(answer.audio_chunk for answer in answers[1:-1]) == rest.content
    assert answers[-1].finished.total_bytes == len(rest.content) == 2 * 19200
    assert len(answers) > 3  # streamed


def test_a_wav_is_the_same_too(server: InferServer, channel: grpc.Channel) -> None:
    rest = httpx.post(
        f"{server.url}/v1/audio/continuations",
        headers=server.headers,
        files={"file": SPEECH.read_bytes()},
        data={"duration": 0.5},
        timeout=30,
    )
    stub = inference_pb2_grpc.InferenceServiceStub(channel)
    requests = continue_requests(SPEECH.read_bytes(), duration_seconds=0.5, response_format=audio_pb2.AUDIO_FORMAT_WAV)

    answers = stub.Continue(requests, metadata=METADATA)

    assert b"".join(answer.audio_chunk for answer in answers) == rest.content


@pytest.mark.parametrize(
    ("data", "config", "code", "reason"),
    [
        (b"no audio here, only words", {"duration_seconds": 1}, grpc.StatusCode.INVALID_ARGUMENT, "audio"),
        (SPEECH.read_bytes(), {"duration_seconds": -1}, grpc.StatusCode.INVALID_ARGUMENT, "duration"),
        (SPEECH.read_bytes(), {"model": "nobody", "duration_seconds": 1}, grpc.StatusCode.NOT_FOUND, "nobody"),
    ],
)
def test_errors_have_the_codes_of_http(
    channel: grpc.Channel, data: bytes, config: dict[str, object], code: grpc.StatusCode, reason: str
) -> None:
    stub = inference_pb2_grpc.InferenceServiceStub(channel)

    with pytest.raises(grpc.RpcError) as caught:
        list(stub.Continue(continue_requests(data, **config), metadata=METADATA))
    assert caught.value.code() == code
    assert reason in caught.value.details()


def test_a_key_is_needed(channel: grpc.Channel) -> None:
    stub = inference_pb2_grpc.InferenceServiceStub(channel)

    with pytest.raises(grpc.RpcError) as caught:
        list(stub.Continue(continue_requests(b"")))
    assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED


def test_audio_before_the_config_is_refused(channel: grpc.Channel) -> None:
    stub = inference_pb2_grpc.InferenceServiceStub(channel)

    with pytest.raises(grpc.RpcError) as caught:
        list(stub.Continue(iter([inference_pb2.ContinueRequest(audio_chunk=b"x")]), metadata=METADATA))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_cancelling_the_call_frees_the_place(server: InferServer, channel: grpc.Channel) -> None:
    stub = inference_pb2_grpc.InferenceServiceStub(channel)
    call = stub.Continue(continue_requests(SPEECH.read_bytes()), metadata=METADATA)
    next(call)

    call.cancel()

    assert server.container.runner.admission.wait_until_idle(timeout_s=2)


def test_classify_says_what_rest_says(server: InferServer, channel: grpc.Channel) -> None:
    data = (ORIGINALS / "speech_8k.flac").read_bytes()
    rest = httpx.post(
        f"{server.url}/v1/audio/classification",
        headers=server.headers,
        files={"file": data},
        data={"top_k": 2},
        timeout=30,
    ).json()
    stub = inference_pb2_grpc.InferenceServiceStub(channel)
    requests = [
        inference_pb2.ClassifyRequest(config=inference_pb2.ClassifyConfig(top_k=2)),
        inference_pb2.ClassifyRequest(audio_chunk=data),
    ]

    answer = stub.Classify(iter(requests), metadata=METADATA)

    assert [found.label for found in answer.detections] == [found["label"] for found in rest["detections"]]
    assert answer.model_version == rest["model"]


def test_models_are_listed(channel: grpc.Channel) -> None:
    stub = models_pb2_grpc.ModelServiceStub(channel)

    models = stub.ListModels(models_pb2.ListModelsRequest(task="continuation"), metadata=METADATA).models

    assert [(model.name, model.is_default, model.mel_preset) for model in models] == [("tiny", True, "vocos24")]


def test_health_and_reflection_need_no_key(channel: grpc.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    reflection = reflection_pb2_grpc.ServerReflectionStub(channel)

    request = health_pb2.HealthCheckRequest(service="audiofoundation.v1.InferenceService")
    listing = reflection.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))

    assert health.Check(request).status == health_pb2.HealthCheckResponse.SERVING
    names = {service.name for service in next(listing).list_services_response.service}
    assert {"audiofoundation.v1.InferenceService", "audiofoundation.v1.ModelService"} <= names
