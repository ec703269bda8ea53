"""The gRPC methods: convert, call the engine, convert."""

from collections.abc import AsyncIterator
from typing import Any

import grpc

from audiofoundation.api.v1 import audio_pb2, inference_pb2, inference_pb2_grpc, models_pb2, models_pb2_grpc
from audiofoundation.audio.encode import AudioFormat
from audiofoundation.errors import InvalidRequest, PayloadTooLarge
from audiofoundation.inference.delivery import Delivery
from audiofoundation.inference.reading import PcmLayout, Recording
from audiofoundation.inference.request import DEFAULT_DURATION_S, ContinuationRequest
from audiofoundation.inference.sessions import HeldBytes
from services.infer.wiring import InferContainer

_FORMATS = {
    audio_pb2.AUDIO_FORMAT_UNSPECIFIED: AudioFormat.PCM,
    audio_pb2.AUDIO_FORMAT_PCM16: AudioFormat.PCM,
    audio_pb2.AUDIO_FORMAT_WAV: AudioFormat.WAV,
    audio_pb2.AUDIO_FORMAT_FLAC: AudioFormat.FLAC,
    audio_pb2.AUDIO_FORMAT_MP3: AudioFormat.MP3,
    audio_pb2.AUDIO_FORMAT_OPUS: AudioFormat.OPUS,
}
_SMALL_REQUEST = "the first message must be the config, all others audio_chunk"


class InferenceServicer(inference_pb2_grpc.InferenceServiceServicer):  # type: ignore[misc]  # generated, untyped
    """`audiofoundation.v1.InferenceService`."""

    def __init__(self, container: InferContainer) -> None:
        self._container = container

    async def Continue(  # noqa: N802
        self, requests: AsyncIterator[inference_pb2.ContinueRequest], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[inference_pb2.ContinueResponse]:
        """Read the config and the recording, then stream the continuation."""
        self._container.runner.admission.check()
        with self._container.sessions.place() as held:
            config, data = await self._receive(requests, held)
            async for response in self._continue(config, data, context):
                yield response

    async def _continue(
        self, config: inference_pb2.ContinueConfig, data: bytes, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[inference_pb2.ContinueResponse]:
        if config.response_format not in _FORMATS:
            raise InvalidRequest(f"there is no format {config.response_format}", param="response_format")
        layout = config.prompt_layout if config.HasField("prompt_layout") else None
        recording = await self._read(data, layout)
        running = self._container.runner.start(_to_request(config, recording), timeout_s=context.time_remaining())
        delivery = Delivery(running, _FORMATS[config.response_format])
        try:
            await delivery.begin()
            started = inference_pb2.ContinueStarted(
                model_version=running.model_version,
                sample_rate_hz=delivery.sample_rate_hz,
                format=config.response_format or audio_pb2.AUDIO_FORMAT_PCM16,
                seam_score=running.seam_score,
                input_damage=recording.damage or "",
            )
            yield inference_pb2.ContinueResponse(started=started)
            async for chunk in delivery.chunks():
                yield inference_pb2.ContinueResponse(audio_chunk=chunk)
        finally:
            running.cancel()
        finished = inference_pb2.ContinueFinished(
            total_bytes=delivery.num_bytes, duration_seconds=delivery.duration_s, sha256=delivery.sha256
        )
        yield inference_pb2.ContinueResponse(finished=finished)

    async def Classify(  # noqa: N802
        self,
        requests: AsyncIterator[inference_pb2.ClassifyRequest],
        context: grpc.aio.ServicerContext,  # noqa: ARG002
    ) -> inference_pb2.ClassifyResponse:
        """Read the config and the recording, then say what it holds."""
        with self._container.sessions.place() as held:
            config, data = await self._receive(requests, held)
            layout = config.audio_layout if config.HasField("audio_layout") else None
            recording = await self._read(data, layout)
        result = await self._container.classifier.classify(
            recording.waveform, model=config.model or None, top_k=config.top_k or None, threshold=config.threshold
        )
        return inference_pb2.ClassifyResponse(
            model_version=result.model_version,
            detections=[
                inference_pb2.Detection(index=found.index, label=found.label, score=found.score)
                for found in result.detections
            ],
            input_damage=recording.damage or "",
        )

    async def _receive(
        self, requests: AsyncIterator[Any], held: HeldBytes
    ) -> tuple[Any, bytes]:  # messages of two generated types
        """Return the config and all audio of a call."""
        config, data = None, bytearray()
        async for request in requests:
            kind = request.WhichOneof("payload")
            if (config is None) != (kind == "config"):
                raise InvalidRequest(_SMALL_REQUEST)
            if kind == "config":
                config = request.config
                continue
            held.add(len(request.audio_chunk))
            data += request.audio_chunk
            if len(data) > self._container.max_prompt_bytes:
                limit = self._container.max_prompt_bytes / (1 << 20)
                raise PayloadTooLarge(f"the recording is larger than the {limit:g} MiB that this server takes")
        if config is None:
            raise InvalidRequest(_SMALL_REQUEST)
        return config, bytes(data)

    async def _read(self, data: bytes, layout: audio_pb2.PcmLayout | None) -> Recording:
        reader = self._container.reader
        if layout is not None:
            return await reader.read_pcm16(data, PcmLayout(layout.sample_rate_hz, layout.num_channels or 1))
        return await reader.read(data, rate_hz=self._container.rate_hz)


class ModelServicer(models_pb2_grpc.ModelServiceServicer):  # type: ignore[misc]  # generated, untyped
    """`audiofoundation.v1.ModelService`."""

    def __init__(self, container: InferContainer) -> None:
        self._container = container

    async def ListModels(  # noqa: N802
        self,
        request: models_pb2.ListModelsRequest,
        context: grpc.aio.ServicerContext,  # noqa: ARG002
    ) -> models_pb2.ListModelsResponse:
        """List what requests may name."""
        models = await self._container.list_models(request.task or None)
        return models_pb2.ListModelsResponse(
            models=[
                models_pb2.Model(
                    name=model.name,
                    task=model.task,
                    version=model.version,
                    mel_preset=model.mel_preset,
                    is_default=is_default,
                )
                for model, is_default in models
            ]
        )


def _to_request(config: inference_pb2.ContinueConfig, recording: Recording) -> ContinuationRequest:
    return ContinuationRequest(
        prompt=recording.waveform,
        duration_s=config.duration_seconds if config.HasField("duration_seconds") else DEFAULT_DURATION_S,
        prompt_start_s=config.prompt_start_seconds,
        prompt_end_s=config.prompt_end_seconds if config.HasField("prompt_end_seconds") else None,
        temperature=config.temperature if config.HasField("temperature") else None,
        cfg_coef=config.cfg_coef if config.HasField("cfg_coef") else 1.0,
        seed=config.seed,
        include_prompt=config.include_prompt,
        model=config.model or None,
    )
