"""Between what goes over the wire and what the library speaks."""

import json

from audiofoundation.audio.encode import AudioFormat
from audiofoundation.audio.waveform import Waveform
from audiofoundation.errors import InvalidRequest
from audiofoundation.inference.classification import Classification
from audiofoundation.inference.delivery import Delivery
from audiofoundation.inference.model_store import ServableModel
from audiofoundation.inference.reading import Recording
from audiofoundation.inference.request import ContinuationRequest
from audiofoundation.inference.streaming import RunningContinuation
from services.infer.schemas import (
    AudioDone,
    ClassificationBody,
    ContinuationForm,
    DetectionBody,
    ModelBody,
    SessionConfig,
    UsageBody,
)

_WEBSOCKET_FORMATS = {"pcm16": AudioFormat.PCM, "opus": AudioFormat.OPUS}


def to_request(fields: ContinuationForm | SessionConfig, prompt: Waveform, *, seed: int) -> ContinuationRequest:
    """Return the engine's request for a form or a session."""
    return ContinuationRequest(
        prompt=prompt,
        duration_s=fields.duration,
        prompt_start_s=fields.prompt_start_seconds,
        prompt_end_s=fields.prompt_end_seconds,
        temperature=fields.temperature,
        cfg_coef=fields.cfg_coef,
        seed=seed,
        include_prompt=fields.include_prompt,
        model=fields.model,
    )


def check_form(form: ContinuationForm) -> None:
    """Raise InvalidRequest for combinations that mean nothing."""
    if (form.file is None) == (form.url is None):
        given = "both came" if form.file else "neither came (fields of a form are read, `curl -F file=@…`; JSON is not)"
        raise InvalidRequest(f"give exactly one of file and url; {given}", param="file")
    if form.prompt:
        raise InvalidRequest("prompt must be empty: the models here continue sound and take no text", param="prompt")
    if form.n > 1 and form.stream_format != "sse":
        raise InvalidRequest(
            "one audio answer holds one continuation: for n > 1 set stream_format=sse, or ask again with another seed",
            param="n",
        )


def to_websocket_format(config: SessionConfig) -> AudioFormat:
    """Return the encoder that a session asks for."""
    return _WEBSOCKET_FORMATS[config.response_format]


def to_headers(running: RunningContinuation, recording: Recording, *, sample_rate_hz: int) -> dict[str, str]:
    """Return the headers of an audio answer."""
    headers = {"X-Model-Version": running.model_version, "X-Sample-Rate": str(sample_rate_hz)}
    if running.seam_score is not None:
        headers["X-Seam-Score"] = f"{running.seam_score:.4f}"
    if recording.damage:
        headers["X-Input-Damage"] = to_header_text(recording.damage)
    return headers


def to_header_text(text: str) -> str:
    """Return a sentence as a header can carry it: Latin letters on one line."""
    return " ".join(text.encode("ascii", "replace").decode().split())


def to_done_event(
    running: RunningContinuation, delivery: Delivery, recording: Recording, *, index: int, seed: int
) -> AudioDone:
    """Return the last server-sent event of a continuation."""
    return AudioDone(
        index=index,
        seed=seed,
        model_version=running.model_version,
        seam_score=running.seam_score,
        sample_rate=delivery.sample_rate_hz,
        input_damage=recording.damage,
        usage=UsageBody(
            prompt_seconds=round(recording.waveform.duration_s, 3),
            generated_seconds=round(delivery.duration_s, 3),
        ),
    )


def to_start_message(
    running: RunningContinuation, delivery: Delivery, recording: Recording, response_format: str
) -> dict[str, object]:
    """Return the WebSocket message before the first audio."""
    return {
        "type": "audio.start",
        "sample_rate": delivery.sample_rate_hz,
        "format": response_format,
        "model_version": running.model_version,
        "input_damage": recording.damage,
    }


def to_done_message(running: RunningContinuation, delivery: Delivery, *, is_cancelled: bool) -> dict[str, object]:
    """Return the WebSocket message after the last audio."""
    return {
        "type": "audio.done",
        "total_bytes": delivery.num_bytes,
        "duration": delivery.duration_s,
        "sha256": delivery.sha256,
        "seam_score": running.seam_score,
        "cancelled": is_cancelled,
    }


def to_event(kind: str, data: str) -> bytes:
    """Return one server-sent event."""
    return f"event: {kind}\ndata: {data}\n\n".encode()


def to_error_event(message: str, code: str) -> bytes:
    """Return the server-sent event of an error."""
    return to_event("audio.error", json.dumps({"type": "audio.error", "code": code, "message": message}))


def to_classification_body(result: Classification, recording: Recording) -> ClassificationBody:
    """Return the answer of a classification."""
    return ClassificationBody(
        model=result.model_version,
        detections=[
            DetectionBody(index=found.index, label=found.label, score=found.score) for found in result.detections
        ],
        input_damage=recording.damage,
    )


def to_model_body(model: ServableModel, *, is_default: bool) -> ModelBody:
    """Return a model as the list shows it."""
    return ModelBody(
        id=model.name,
        created=model.created,
        task=model.task,
        version=model.version,
        mel_preset=model.mel_preset,
        is_default=is_default,
    )
