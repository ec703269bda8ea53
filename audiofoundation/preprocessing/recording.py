"""One recording to samples of a shard, in one pass over the sound and with bounded memory."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from audiofoundation.audio.clipping import Clipping
from audiofoundation.audio.decode import DecodeLimits, decode_blocks
from audiofoundation.audio.quality import QualityMeasures, measure_quality
from audiofoundation.audio.sandbox.client import ChildKilled
from audiofoundation.audio.waveform import Waveform, mix_to_mono
from audiofoundation.errors import Overloaded
from audiofoundation.features.custom import FeatureFunction
from audiofoundation.features.descriptors import Descriptors, describe, describe_briefly
from audiofoundation.features.mel import Float32
from audiofoundation.identifiers import AssetId, ItemId, Sha256
from audiofoundation.preprocessing.custom import RecordingFeatures
from audiofoundation.preprocessing.levels import LevelMeter, Levels
from audiofoundation.preprocessing.options import DatasetOptions
from audiofoundation.preprocessing.segments import Segment, SegmentPlan, cut_segments
from audiofoundation.preprocessing.spool import SampleSpool
from audiofoundation.shards.sample import Int16, Sample, SampleMeta, sample_key

LIMITS = DecodeLimits(max_duration_s=4 * 3600.0, max_bytes=4 << 30, wall_s=700, cpu_s=600)
_NUM_TRIES = 3
_INT16_SCALE = 32767.0
_RHYTHM_S = 60
_BINS_OF_OFFSET = 2  # where a constant offset shows under the window


@dataclass(frozen=True, slots=True)
class RecordingToCut:
    """A recording by its lineage, and where its bytes lie."""

    item_id: ItemId
    asset_id: AssetId
    asset_sha256: Sha256
    key: str


def cut_recording(
    path: Path,
    recording: RecordingToCut,
    options: DatasetOptions,
    *,
    work_dir: Path,
    functions: Mapping[str, FeatureFunction] = MappingProxyType({}),
) -> Iterator[Sample]:
    """Yield the samples of one recording: decoded, at the preset's rate, levelled, trimmed, cut.

    Args:
        path: the original bytes.
        recording: what the samples say they come from.
        options: what segments look like.
        work_dir: where the sound of a long recording lies meanwhile.
        functions: custom features by name, measured on each segment as it is stored.

    Raises:
        DecodeFailed, AudioTooLong, PayloadTooLarge: nothing has been yielded then.
    """
    config = options.mel
    with SampleSpool(work_dir) as spool:
        levels = decode_to_spool(path, options, spool)
        gain = levels.gain_to(options.target_lufs)
        start, stop = (levels.first_sound, levels.last_sound) if options.is_trimmed else (0, spool.num_samples)
        plan = SegmentPlan(config, options.segment_frames, options.min_frames, start, stop, gain)
        rhythm = _rhythm(spool, plan) if options.has_rhythm and stop > start else None
        custom = RecordingFeatures(recording.item_id, functions)
        for segment in cut_segments(spool, plan):
            sample = _to_sample(segment, recording, options, levels, gain, rhythm)
            if functions:
                values = custom.measure(segment.samples, config.sample_rate_hz)
                sample = replace(sample, meta=sample.meta.model_copy(update={"custom_features": values}))
            yield sample
        custom.log_failures()


def _rhythm(spool: SampleSpool, plan: SegmentPlan) -> Descriptors:
    """Describe up to a minute from the middle of the recording, tempo and harmonic ratio with it."""
    rate_hz = plan.config.sample_rate_hz
    spare = max(0, plan.stop - plan.start - _RHYTHM_S * rate_hz) // 2
    return describe(mix_to_mono(spool.read(plan.start + spare, plan.stop - spare))[0], rate_hz)


def decode_to_spool(path: Path, options: DatasetOptions, spool: SampleSpool) -> Levels:
    """Fill the spool with at most the dataset's number of channels.

    A decoder that somebody killed is started again. Errors as `cut_recording`.
    """
    rate_hz = options.mel.sample_rate_hz
    for _ in range(_NUM_TRIES):
        spool.clear()
        meter = LevelMeter(rate_hz)
        try:
            with decode_blocks(
                path,
                limits=LIMITS,
                target_rate_hz=rate_hz,
                max_channels=options.channels,
                block_s=None,
                is_measured=True,
            ) as blocks:
                for block in blocks:
                    spool.append(block.samples)
                    meter.push(block.samples)
        except ChildKilled:
            continue
        return replace(meter.finish(), clipping=blocks.clipping)
    raise Overloaded("the decoder was stopped from outside several times")


def _to_sample(
    segment: Segment,
    recording: RecordingToCut,
    options: DatasetOptions,
    levels: Levels,
    gain: float,
    rhythm: Descriptors | None,
) -> Sample:
    config = options.mel
    num_samples = segment.samples.size
    quality, descriptors = measure_segment(segment.samples, segment.start, config.sample_rate_hz, levels.clipping)
    if rhythm is not None:
        descriptors = replace(descriptors, tempo_bpm=rhythm.tempo_bpm, harmonic_ratio=rhythm.harmonic_ratio)
    meta = SampleMeta(
        item_id=recording.item_id,
        asset_id=recording.asset_id,
        asset_sha256=recording.asset_sha256,
        segment_index=segment.index,
        offset_s=segment.start / config.sample_rate_hz,
        duration_s=num_samples / config.sample_rate_hz,
        num_samples=num_samples,
        sample_rate_hz=config.sample_rate_hz,
        num_channels=options.channels,
        gain_db=float(20 * np.log10(gain)),
        loudness_lufs=levels.loudness_lufs if np.isfinite(levels.loudness_lufs) else None,
        mel_preset=config.name,
        mel_fingerprint=config.fingerprint,
        quality=quality,
        descriptors=descriptors.rounded(),
    )
    stored = _to_stored(segment, options) if options.include_waveform else None
    return Sample(sample_key(recording.item_id, segment.index), segment.mel_TF, meta, stored)


def measure_segment(
    samples: Float32, start: int, sample_rate_hz: int, clipping: Clipping
) -> tuple[QualityMeasures, Descriptors]:
    """Measure a mono segment [N] as it is stored, its clipping as the recording was; both share one spectrum.

    Args:
        samples: the segment.
        start: its first sample, counted from the recording's.
        sample_rate_hz: of both.
        clipping: the recording's.
    """
    descriptors, power_spectrum = describe_briefly(samples, sample_rate_hz)
    power_spectrum[:_BINS_OF_OFFSET] = 0.0
    clipped_ratio = clipping.ratio(start / sample_rate_hz, (start + samples.size) / sample_rate_hz)
    waveform = Waveform(samples[None], sample_rate_hz)
    return measure_quality(waveform, power_spectrum=power_spectrum, clipped_ratio=clipped_ratio), descriptors


def _to_stored(segment: Segment, options: DatasetOptions) -> Int16:
    """Return the waveform as shards keep it: [N], or [2, N], of a mono recording twice the same."""
    if options.channels == 1:
        return to_int16(segment.samples)
    return to_int16(np.broadcast_to(segment.channels, (options.channels, segment.samples.size)))


def to_int16(samples: NDArray[np.float32]) -> NDArray[np.int16]:
    """Return 16-bit samples: rounded to the nearest, limited at full scale."""
    scaled: NDArray[np.float32] = np.rint(samples * np.float32(_INT16_SCALE))
    np.clip(scaled, -_INT16_SCALE - 1, _INT16_SCALE, out=scaled)
    return scaled.astype(np.int16)
