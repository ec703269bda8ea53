"""What one sample of a shard holds: a mel, where it came from, and the waveform when it was asked for."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from audiofoundation.audio.quality import QualityMeasures
from audiofoundation.features.custom import FeatureValue
from audiofoundation.features.descriptors import Descriptors
from audiofoundation.identifiers import AssetId, ItemId, Sha256

Float16 = NDArray[np.float16]
Int16 = NDArray[np.int16]


def _is_empty(values: dict[str, FeatureValue]) -> bool:
    return not values


class SampleMeta(BaseModel):
    """`KEY.json`: the lineage and measures of a segment.

    Attributes:
        item_id: the item of the collection.
        asset_id: the recording.
        asset_sha256: hash of the recording's original bytes.
        segment_index: number of the segment within the item, from 0.
        offset_s: where the segment begins in the recording, silence that was trimmed counted.
        duration_s: length of the segment.
        num_samples: the same in samples at `sample_rate_hz`.
        sample_rate_hz: the preset's rate.
        num_channels: of the waveform, where there is one; mel and measures are the mono mix's.
        gain_db: what the loudness normalisation added.
        loudness_lufs: integrated loudness of the whole recording before that; None for silence.
        mel_preset: the preset's name.
        mel_fingerprint: the preset's fingerprint.
        quality: measures of the segment as it is stored.
        descriptors: its timbre, from one frame of 2048 in 4096 samples; tempo and harmonic ratio, where they were asked
            for, are the whole recording's.
        custom_features: what the operator's own functions say of the segment, by name; without those that failed.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    item_id: ItemId
    asset_id: AssetId
    asset_sha256: Sha256
    segment_index: int
    offset_s: float
    duration_s: float
    num_samples: int
    sample_rate_hz: int
    num_channels: int = 1
    gain_db: float
    loudness_lufs: float | None
    mel_preset: str
    mel_fingerprint: str
    quality: QualityMeasures | None = None
    descriptors: Descriptors | None = None
    custom_features: dict[str, FeatureValue] = Field(default_factory=dict, exclude_if=_is_empty)


@dataclass(frozen=True, slots=True)
class Sample:
    """One segment.

    Attributes:
        key: unique in the dataset, the same in every build of it.
        mel_TF: float16 [T, F], the preset's log-mel.
        meta: lineage and measures.
        waveform: int16 [N] mono or [2, N] stereo, as `meta.num_channels` says; None when the dataset was made without.
    """

    key: str
    mel_TF: Float16
    meta: SampleMeta
    waveform: Int16 | None = None

    def mono(self) -> Int16 | None:
        """Return the waveform's mono mix [N], whose mel `mel_TF` is; None when there is no waveform."""
        if self.waveform is None or self.waveform.ndim == 1:
            return self.waveform
        mixed: Int16 = np.rint(self.waveform.mean(axis=0, dtype=np.float32)).astype(np.int16)
        return mixed


def sample_key(item_id: ItemId, segment_index: int) -> str:
    """Return the key of a segment: no dots, since WebDataset splits names at the first one."""
    return f"{item_id}-{segment_index:06d}"
