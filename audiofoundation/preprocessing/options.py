"""How a collection becomes a dataset. The same collection and options are always the same dataset."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from audiofoundation.errors import InvalidRequest
from audiofoundation.features.mel import MelConfig, get_preset
from audiofoundation.identifiers import CollectionId, DatasetId, derive_id
from audiofoundation.preprocessing.thresholds import QualityThresholds

DEFAULT_PRESET = "vocos24"
DEFAULT_SEGMENT_S = 3.0
DEFAULT_MIN_SEGMENT_S = 0.5
_MIN_SEGMENT_S, _MAX_SEGMENT_S = 0.1, 60.0
_MIN_LUFS, _MAX_LUFS = -60.0, -5.0
DEFAULT_LUFS = -23.0  # EBU R 128; prompts are brought to the same level before a model continues them


@dataclass(frozen=True, slots=True)
class DatasetOptions:
    """What a dataset's segments look like.

    Attributes:
        preset: the mel preset.
        segment_s: length of a segment, rounded to whole hops of the preset.
        min_segment_s: shortest last segment of a recording that is kept.
        target_lufs: loudness to which every recording is brought; None keeps its own (it is measured
            either way).
        is_trimmed: whether silence at both ends of a recording is left out.
        include_waveform: whether samples carry int16 audio beside the mel, as vocoder training needs.
        has_rhythm: whether tempo and harmonic ratio are among the descriptors; they take up to half a second of CPU
            time a recording.
        channels: of the waveform. Mel, descriptors and loudness are the mono mix's either way. With 2, a mono
            recording gives two equal channels, and one of more than two is mixed (`audio.waveform.mix_to_stereo`).
        thresholds: what a segment must be like to be kept.
        custom_features: names of the operator's own features that segments have (`PreprocessSettings`), sorted.

    Raises:
        InvalidRequest: a value is out of range.
        MelMismatch: there is no such preset.
    """

    preset: str = DEFAULT_PRESET
    segment_s: float = DEFAULT_SEGMENT_S
    min_segment_s: float = DEFAULT_MIN_SEGMENT_S
    target_lufs: float | None = DEFAULT_LUFS
    is_trimmed: bool = True
    include_waveform: bool = False
    has_rhythm: bool = False
    channels: Literal[1, 2] = 1
    thresholds: QualityThresholds = field(default_factory=QualityThresholds)
    custom_features: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        get_preset(self.preset)
        if not _MIN_SEGMENT_S <= self.segment_s <= _MAX_SEGMENT_S:
            raise InvalidRequest(
                f"segment_s is {self.segment_s:g}, it must lie between {_MIN_SEGMENT_S:g} and {_MAX_SEGMENT_S:g}",
                param="segment_s",
            )
        if not 0 < self.min_segment_s <= self.segment_s:
            raise InvalidRequest("min_segment_s must be positive and not above segment_s", param="min_segment_s")
        if self.target_lufs is not None and not _MIN_LUFS <= self.target_lufs <= _MAX_LUFS:
            raise InvalidRequest(f"target_lufs must lie between {_MIN_LUFS:g} and {_MAX_LUFS:g}", param="target_lufs")
        if self.channels not in (1, 2):
            raise InvalidRequest(f"channels is {self.channels}, it must be 1 or 2", param="channels")
        if self.channels == 2 and not self.include_waveform:
            raise InvalidRequest(
                "the mel is always that of the mono mix, and channels=2 is about the waveform beside it: ask for the "
                "waveform too (include_waveform, --with-waveform)",
                param="channels",
            )
        self.thresholds.require_audible(self.mel.sample_rate_hz)

    @property
    def mel(self) -> MelConfig:
        return get_preset(self.preset)

    @property
    def segment_frames(self) -> int:
        """Frames of a full segment; its samples are this many hops, so that segments tile a recording."""
        return max(1, round(self.segment_s * self.mel.frame_rate_hz))

    @property
    def min_frames(self) -> int:
        return max(1, round(self.min_segment_s * self.mel.frame_rate_hz))

    @property
    def bytes_per_s(self) -> float:
        """Bytes of a shard that one second of audio takes, headers aside."""
        mel_bytes = 2 * self.mel.num_bands * self.mel.frame_rate_hz
        return mel_bytes + (2 * self.channels * self.mel.sample_rate_hz if self.include_waveform else 0)

    def to_config(self) -> dict[str, Any]:
        """Return the JSON object that the catalog keeps. What came later is left out where it is as before."""
        config = asdict(self)
        if not self.has_rhythm:
            del config["has_rhythm"]  # datasets keep the ids that they had
        if self.channels == 1:
            del config["channels"]
        del config["thresholds"], config["custom_features"]
        if thresholds := self.thresholds.to_config():
            config["thresholds"] = thresholds
        if self.custom_features:
            config["custom_features"] = list(self.custom_features)
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "DatasetOptions":
        """Return the options that `to_config` described."""
        thresholds = QualityThresholds(**config.get("thresholds", {}))
        features = tuple(config.get("custom_features", ()))
        return cls(**{**config, "thresholds": thresholds, "custom_features": features})


def dataset_id_of(collection_id: CollectionId, options: DatasetOptions) -> DatasetId:
    """Return the id that this collection always has under these options."""
    described = json.dumps({**options.to_config(), "mel": options.mel.fingerprint}, sort_keys=True)
    return DatasetId(derive_id("ds", collection_id, described))
