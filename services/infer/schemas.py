"""What goes over HTTP and WebSocket, in the field names of interfaces that clients know."""

from typing import Annotated, Literal

from fastapi import UploadFile
from pydantic import BaseModel, ConfigDict, Field

from audiofoundation.inference.request import DEFAULT_DURATION_S, MAX_CONTINUATIONS, MAX_SEED, MAX_TEMPERATURE

_Seed = Annotated[int, Field(ge=0, le=MAX_SEED, description="The same seed and recording give the same samples")]
_Temperature = Annotated[
    float | None,
    Field(ge=0, le=MAX_TEMPERATURE, description="Spread of the sampling; without it the model's own choice"),
]
_Model = Annotated[str | None, Field(description="A name of GET /v1/models; without it the best at hand")]


class ContinuationForm(BaseModel):
    """The multipart form of POST /v1/audio/continuations. Give exactly one of `file` and `url`."""

    model_config = ConfigDict(extra="forbid")

    file: UploadFile | None = Field(default=None, description="The recording to continue, any format")
    url: str | None = Field(default=None, max_length=4096, description="Where to fetch the recording from")
    model: _Model = None
    prompt: str = Field(default="", description="Text to guide by; must be empty: no model here takes text yet")
    duration: float = Field(default=DEFAULT_DURATION_S, description="Seconds to generate")
    prompt_start_seconds: float = Field(default=0.0, description="Where the part to continue begins")
    prompt_end_seconds: float | None = Field(default=None, description="Where it ends; default: at the end")
    temperature: _Temperature = None
    cfg_coef: float = Field(default=1.0, description="Classifier-free guidance; only 1, models here take no text")
    seed: _Seed = 0
    n: int = Field(
        default=1,
        ge=1,
        le=MAX_CONTINUATIONS,
        description="How many continuations, seeds counted up from `seed`; more than 1 needs stream_format=sse",
    )
    include_prompt: bool = Field(default=False, description="Whether the answer begins with the prompt")
    response_format: Literal["wav", "flac", "mp3", "opus", "pcm"] = "wav"
    stream_format: Literal["audio", "sse"] = Field(
        default="audio", description="Plain bytes, chunked as they are made, or server-sent events"
    )


class ClassificationForm(BaseModel):
    """The multipart form of POST /v1/audio/classification."""

    model_config = ConfigDict(extra="forbid")

    file: UploadFile = Field(description="The recording to classify, any format")
    model: _Model = None
    top_k: int | None = Field(default=None, ge=1, description="How many labels; default: all")
    threshold: float = Field(default=0.0, ge=0, le=1, description="Labels with a lower score are left out")


class DetectionBody(BaseModel):
    """One label."""

    index: int = Field(description="Position in the model's list of labels")
    label: str
    score: float = Field(ge=0, le=1)


class ClassificationBody(BaseModel):
    """What a recording holds, the likeliest first."""

    model: str = Field(description="Name and version of the weights")
    detections: list[DetectionBody]
    input_damage: str | None = Field(default=None, description="A sentence, when only a part of it decoded")


class ModelBody(BaseModel):
    """A model that requests may name."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="Seconds since the epoch; 0 for what came with the software")
    owned_by: str = "audiofoundation"
    task: str
    version: str
    mel_preset: str
    is_default: bool = Field(description="Whether a request that names no model gets this one")


class ModelListBody(BaseModel):
    """The list shape of the OpenAI API."""

    object: Literal["list"] = "list"
    data: list[ModelBody]


class UsageBody(BaseModel):
    """What a continuation cost."""

    prompt_seconds: float
    generated_seconds: float


class AudioDelta(BaseModel):
    """A server-sent event with the next bytes, in Base64."""

    type: Literal["audio.delta"] = "audio.delta"
    index: int = Field(description="Which of the n continuations")
    audio: str


class AudioDone(BaseModel):
    """The last server-sent event of a continuation."""

    type: Literal["audio.done"] = "audio.done"
    index: int
    seed: int
    model_version: str
    seam_score: float | None
    sample_rate: int
    input_damage: str | None
    usage: UsageBody


class SessionConfig(BaseModel):
    """The text frame that opens a WebSocket session or changes it; fields left out stay as they are."""

    model_config = ConfigDict(extra="ignore")

    type: Literal["session.config"] = "session.config"
    model: _Model = None
    duration: float | None = Field(
        default=DEFAULT_DURATION_S, description="Seconds; null is until cancelled or the server's limit"
    )
    response_format: Literal["pcm16", "opus"] = "pcm16"
    sample_rate: int | None = Field(default=None, ge=8000, le=48000, description="Of the answer; default: the model's")
    prompt_format: Literal["pcm16"] | None = Field(default=None, description="Set when the prompt has no header")
    prompt_sample_rate: int = Field(default=24000, ge=4000, le=192000)
    prompt_channels: int = Field(default=1, ge=1, le=8)
    prompt_start_seconds: float = 0.0
    prompt_end_seconds: float | None = None
    temperature: _Temperature = None
    cfg_coef: float = 1.0
    seed: _Seed = 0
    include_prompt: bool = False
