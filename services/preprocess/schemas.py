"""What clients send to the preprocess service and what they get."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from audiofoundation.features.descriptors import Descriptors
from audiofoundation.preprocessing.options import DEFAULT_LUFS, DEFAULT_MIN_SEGMENT_S, DEFAULT_PRESET, DEFAULT_SEGMENT_S
from audiofoundation.preprocessing.thresholds import QualityThresholds
from audiofoundation.transport.plain_text import PLAIN_TEXT

_Text = Annotated[str, Field(min_length=1, max_length=200, pattern=PLAIN_TEXT)]
_Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Threshold = Annotated[float, Field(allow_inf_nan=False)] | None


class DatasetChoices(BaseModel):
    """What a dataset's segments look like."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    preset: _Text = Field(default=DEFAULT_PRESET, description="Mel preset")
    segment_s: _Seconds = Field(default=DEFAULT_SEGMENT_S, description="Rounded to whole hops of the preset")
    min_segment_s: _Seconds = Field(default=DEFAULT_MIN_SEGMENT_S, description="Shortest last segment kept")
    target_lufs: Annotated[float, Field(allow_inf_nan=False)] | None = Field(
        default=DEFAULT_LUFS, description="Loudness of every recording; null keeps its own"
    )
    trim_silence: bool = Field(default=True, description="Leave out silence at both ends")
    include_waveform: bool = Field(default=False, description="Keep int16 audio beside the mel")
    has_rhythm: bool = Field(
        default=False,
        description="Measure tempo and harmonic ratio of each recording, from a minute of its middle: up to half a "
        "second more of CPU time a recording",
    )
    channels: Literal[1, 2] = Field(
        default=1,
        description="Of the audio beside the mel, which is always the mono mix's; 2 needs `include_waveform`",
    )
    max_silence_ratio: _Threshold = Field(
        default=None, description="Leave out segments with a greater share (0 to 1) of 20 ms frames under -60 dBFS"
    )
    max_clipped_ratio: _Threshold = Field(
        default=None,
        description="Leave out segments with a greater share (0 to 1) of clipped samples, as measured of the original "
        "sound: all channels, before rate and level are changed",
    )
    min_rms_dbfs: _Threshold = Field(
        default=None, description="Leave out segments of a lower level in dBFS, after `target_lufs`"
    )
    min_centroid_hz: _Threshold = Field(
        default=None, description="Leave out segments of a lower average frequency (spectral centroid) in Hz"
    )
    min_bandwidth_hz: _Threshold = Field(
        default=None,
        description="Leave out segments whose highest frequency within 60 dB of the spectrum's peak is lower, in Hz",
    )

    def thresholds(self) -> QualityThresholds:
        """Return what a segment must be like to be kept."""
        return QualityThresholds(
            max_silence_ratio=self.max_silence_ratio,
            max_clipped_ratio=self.max_clipped_ratio,
            min_rms_dbfs=self.min_rms_dbfs,
            min_centroid_hz=self.min_centroid_hz,
            min_bandwidth_hz=self.min_bandwidth_hz,
        )


class DatasetIn(DatasetChoices):
    """A dataset to make."""

    collection: _Text = Field(description="Id or name of a collection")


class DatasetEntryOut(BaseModel):
    dataset: str
    collection: str
    collection_name: str
    state: str = Field(description="`building` or `ready`")
    options: DatasetChoices = Field(description="As they were asked for")
    custom_features: list[str] = Field(description="The operator's own features that its segments have")
    manifest_sha256: str | None = Field(description="The newest version, which the counts are of; null: none yet")
    items: int | None
    segments: int | None
    hours: float | None
    created_at: float


class DatasetPageOut(BaseModel):
    datasets: list[DatasetEntryOut]
    next_cursor: str | None


class DatasetOut(BaseModel):
    dataset: str
    collection: str
    preset: str
    mel_fingerprint: str
    state: str = Field(description="`building` or `ready`")
    items: int = Field(description="Recordings that gave at least one segment")
    segments: int
    segments_left_out: dict[str, int] = Field(description="Cut and not kept, by the first threshold that each missed")
    features_failed: dict[str, int] = Field(description="Segments without a custom feature, by its name")
    hours: float
    shards: int = Field(description="Committed shards")
    shards_planned: int
    states: dict[str, int] = Field(description="Recordings by state")
    error_classes: dict[str, int]
    wall_s: float = Field(description="Time during which at least one shard was being made")
    cpu_s: float = Field(description="CPU seconds of the workers, decoding included")
    manifest_key: str | None
    manifest_sha256: str | None = Field(description="The version of the dataset")


class DatasetItemOut(BaseModel):
    item_id: str
    shard_id: str
    state: str
    error_class: str | None
    error: str | None
    num_segments: int
    duration_s: float
    descriptors: Descriptors | None


class DatasetItemPageOut(BaseModel):
    items: list[DatasetItemOut]
    next_cursor: str | None
