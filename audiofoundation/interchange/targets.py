"""What other models want to see of a recording, as columns of a dataset."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import pyarrow as pa

from audiofoundation.audio.resample import resample
from audiofoundation.audio.waveform import Waveform

WHISPER_RATE_HZ = 16_000
WHISPER_BANDS = (80, 128)
Column = Mapping[str, object]


class Target(Protocol):
    """Computes one column. Adapters: `WhisperTarget` here, `MusicgenTarget` in `musicgen`."""

    @property
    def column(self) -> str:
        """The column's name."""

    @property
    def arrow_type(self) -> pa.DataType:
        """The column's type, a struct."""

    @property
    def settings(self) -> Mapping[str, str | int]:
        """What the column depends on, for the record."""

    def encode(self, waveform: Waveform, text: str) -> Column:
        """Return the value of the column for one sample.

        Args:
            waveform: mono, at any rate.
            text: what describes it.
        """


class WhisperTarget:
    """Log-mel features by transformers' own extractor: float32 [bands, 3000], padded with silence to 30 s.

    Args:
        num_bands: 80, or 128 for large-v3 and turbo.
    """

    column = "whisper_features"

    def __init__(self, num_bands: int = 80) -> None:
        if num_bands not in WHISPER_BANDS:
            raise ValueError(f"Whisper has 80 or 128 mel bands, not {num_bands}")
        from transformers import WhisperFeatureExtractor

        self._num_bands = num_bands
        self._extractor = WhisperFeatureExtractor(feature_size=num_bands)

    @property
    def arrow_type(self) -> pa.DataType:
        return pa.struct([("input_features", pa.list_(pa.list_(pa.float32())))])

    @property
    def settings(self) -> Mapping[str, str | int]:
        return {"name": "whisper", "sample_rate_hz": WHISPER_RATE_HZ, "num_bands": self._num_bands}

    def encode(self, waveform: Waveform, text: str) -> Column:
        del text
        samples = resample(waveform, WHISPER_RATE_HZ).samples[0]
        found = self._extractor(samples, sampling_rate=WHISPER_RATE_HZ, return_tensors="np")
        return {"input_features": list(np.asarray(found.input_features[0], dtype=np.float32))}
