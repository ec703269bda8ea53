"""One recording and its text become one sample: prepared audio, descriptors, and what each target model wants."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

import pyarrow as pa

from audiofoundation.audio.waveform import Waveform
from audiofoundation.features.custom import FeatureFunction, measure_custom
from audiofoundation.features.descriptors import Descriptors, describe
from audiofoundation.features.mel import Float32
from audiofoundation.interchange.conditioning import Conditioning, condition_file
from audiofoundation.interchange.targets import Column, Target

_SCALARS = (
    "duration",
    "tempo",
    "harmonic_ratio",
    "spectral_centroid",
    "spectral_bandwidth",
    "spectral_rolloff",
    "zero_crossing_rate",
    "rms_energy",
)
_VECTORS = ("mfcc_mean", "mfcc_std")
STANDARD_FEATURES = frozenset((*_SCALARS, *_VECTORS))


@dataclass(frozen=True, slots=True)
class ProcessedSample:
    """A sample without its metadata.

    Attributes:
        samples: float32 [N], mono, peak 1.
        sample_rate_hz: of the samples.
        scalars: descriptors that are one number, custom ones among them, in interfaces' names.
        mfcc_mean, mfcc_std: 13 numbers each.
        vectors: custom descriptors that are several numbers.
        columns: value by column of each target.
        damage: a sentence when the file did not decode to its end.
    """

    samples: Float32
    sample_rate_hz: int
    scalars: Mapping[str, float]
    mfcc_mean: Sequence[float]
    mfcc_std: Sequence[float]
    vectors: Mapping[str, list[float]]
    columns: Mapping[str, Column]
    damage: str | None

    def to_row(self) -> dict[str, object]:
        """Return the sample's part of a dataset's row."""
        standard = {"mfcc_mean": self.mfcc_mean, "mfcc_std": self.mfcc_std}
        return {
            "audio_features": {**self.scalars, **standard, **self.vectors},
            **self.columns,
            "processed_audio": self.samples,
            "sample_rate": self.sample_rate_hz,
        }


@dataclass(slots=True)
class SampleProcessor:
    """Makes samples, also in several threads at once; custom features are called one at a time.

    Attributes:
        conditioning: how audio is prepared.
        targets: whose columns a sample has.
        functions: custom features by name, called with samples [N] and their rate.
    """

    conditioning: Conditioning
    targets: Sequence[Target]
    functions: dict[str, FeatureFunction] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock, init=False, repr=False)

    def process(self, path: Path, text: str) -> ProcessedSample:
        """Make one sample.

        Raises:
            InvalidRequest: the recording is silent, too short, or holds numbers that are none.
            DecodeFailed, AudioTooLong, PayloadTooLarge, DeadlineExceeded, Overloaded: as `audio.decode`.
            FeatureFailed: a custom feature's function raised, or gave no finite numbers.
        """
        found = condition_file(path, self.conditioning)
        rate_hz = self.conditioning.sample_rate_hz
        descriptors = describe(found.samples, rate_hz)
        with self._lock:
            custom = measure_custom(found.samples, rate_hz, self.functions)
        scalars = {name: value for name, value in custom.items() if isinstance(value, float)}
        waveform = Waveform(found.samples[None, :], rate_hz)
        return ProcessedSample(
            samples=found.samples,
            sample_rate_hz=rate_hz,
            scalars={**_scalars(descriptors), **scalars},
            mfcc_mean=descriptors.mfcc_mean,
            mfcc_std=descriptors.mfcc_std,
            vectors={name: value for name, value in custom.items() if isinstance(value, list)},
            columns={target.column: target.encode(waveform, text) for target in self.targets},
            damage=found.damage,
        )

    def arrow_types(self, sample: ProcessedSample) -> dict[str, pa.DataType]:
        """Return the types of `ProcessedSample.to_row`'s columns; custom ones are numbers or lists as here."""
        numbers = [(name, pa.float64()) for name in sample.scalars]
        vectors = [(name, pa.list_(pa.float64())) for name in (*_VECTORS, *sample.vectors)]
        return {
            "audio_features": pa.struct([*numbers, *vectors]),
            **{target.column: target.arrow_type for target in self.targets},
            "processed_audio": pa.list_(pa.float32()),
            "sample_rate": pa.int64(),
        }


def _scalars(found: Descriptors) -> dict[str, float]:
    assert found.tempo_bpm is not None
    assert found.harmonic_ratio is not None
    values = (
        found.duration_s,
        found.tempo_bpm,
        found.harmonic_ratio,
        found.spectral_centroid_hz,
        found.spectral_bandwidth_hz,
        found.spectral_rolloff_hz,
        found.zero_crossing_rate,
        found.rms,
    )
    return dict(zip(_SCALARS, values, strict=True))
