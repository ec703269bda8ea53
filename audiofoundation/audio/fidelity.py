"""What was done to a recording before we got it: cut-off, mains hum, noise; from a few excerpts of it.

All of it is spectra of the mono mix. Levels are powers in dB below a full-scale square wave, as in
`audiofoundation.audio.quality`: a full-scale sine has -3.0 dBFS.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import rfft

from audiofoundation.audio.quality import measure_quality
from audiofoundation.audio.waveform import Waveform

_FLOOR = 1e-14  # power; -140 dBFS
_FFT_SIZE = 4096
_BAND_HZ = 100.0
_MIN_CUTOFF_HZ = 1500.0
_CLIFF_DB = 20.0
_CLIFF_BANDS = 7
_EDGE_DB = 12.0
_RANGE = 1e-9
_HUM_WINDOW_S = 1.0
_HUM_HARMONICS = 6
_HUM_WIDTH_HZ = 2.5  # the main lobe of a window of 1 s, and the drift of mains
_HUM_PROMINENCE = 10.0  # power of a line over what lies beside it
_MAINS_HZ = (50.0, 60.0)
_Power = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Fidelity:
    """Measures of a recording's excerpts; every value is finite.

    Attributes:
        measured_s: length of all excerpts.
        sample_rate_hz: of the recording.
        rms_dbfs: level.
        centroid_hz: centre of gravity of the mean power spectrum, its "average frequency".
        cutoff_hz: where the spectrum ends in a cliff, as after a low bit rate or upsampling; half the sample
            rate when it does not.
        hum_hz: 50, 60, or 0 when there is no steady mains hum.
        hum_dbfs: level of the hum and its harmonics; -140 when there is none.
        hum_to_signal_db: the hum's level over the whole signal's; -140 when there is none.
        clipped_ratio: share of samples that were cut off at a ceiling.
        silence_ratio: share of 20 ms frames under -60 dBFS.
        noise_floor_dbfs: level of the broad-band noise under the quietest tenth of the sound.
    """

    measured_s: float
    sample_rate_hz: int
    rms_dbfs: float
    centroid_hz: float
    cutoff_hz: float
    hum_hz: float
    hum_dbfs: float
    hum_to_signal_db: float
    clipped_ratio: float
    silence_ratio: float
    noise_floor_dbfs: float


def measure_fidelity(excerpts: Sequence[Waveform]) -> Fidelity:
    """Measure a recording by excerpts of equal rate and channels.

    Raises:
        ValueError: there is no sample, or the excerpts differ in form.
    """
    if not any(excerpt.num_samples for excerpt in excerpts):
        raise ValueError("there is nothing to measure")
    if len({(excerpt.sample_rate_hz, excerpt.num_channels) for excerpt in excerpts}) > 1:
        raise ValueError("the excerpts differ in rate or channels")
    rate_hz = excerpts[0].sample_rate_hz
    quality = measure_quality(Waveform(np.concatenate([excerpt.samples for excerpt in excerpts], axis=1), rate_hz))
    mono = [excerpt.to_mono().samples[0] for excerpt in excerpts]
    frames = np.concatenate([_spectra(samples, _FFT_SIZE) for samples in mono])
    # The mean shows what is rare, as sibilants; the median ignores clicks. A cliff is one in both.
    cutoff_hz = max(_cutoff_hz(frames.mean(axis=0), rate_hz), _cutoff_hz(_typical(frames), rate_hz))
    hum_hz, hum_power = _hum(mono, rate_hz)
    hum_dbfs = _db(hum_power)
    return Fidelity(
        measured_s=quality.duration_s,
        sample_rate_hz=rate_hz,
        rms_dbfs=quality.rms_db,
        centroid_hz=quality.centroid_hz,
        cutoff_hz=cutoff_hz,
        hum_hz=hum_hz,
        hum_dbfs=hum_dbfs,
        hum_to_signal_db=hum_dbfs - quality.rms_db if hum_hz else _db(0.0),
        clipped_ratio=quality.clipped_ratio,
        silence_ratio=quality.silence_ratio,
        noise_floor_dbfs=_noise_floor_dbfs(frames, cutoff_hz, rate_hz),
    )


def _db(power: float) -> float:
    return 10.0 * float(np.log10(max(power, _FLOOR)))


def _spectra(mono: NDArray[np.float32], size: int) -> _Power:
    """One-sided power spectra [frames, size / 2 + 1] of Hann-windowed frames; each sums to the frame's power.

    What does not fill a frame is left out, unless there is nothing else.
    """
    num_frames = max(1, len(mono) // size)
    frames = np.resize(np.pad(mono, (0, max(0, size - len(mono)))), num_frames * size).reshape(num_frames, size)
    window = np.hanning(size)
    power: _Power = np.abs(rfft((frames - frames.mean(axis=1, keepdims=True)) * window, axis=1)) ** 2
    power *= 2.0 / (size * np.square(window).sum())
    return power


def _typical(frames: _Power) -> _Power:
    """The median spectrum [bins] of the louder half of what is not digital silence: clicks and pauses do not count."""
    powers = frames.sum(axis=1)
    audible = frames[powers > _FLOOR]
    if not len(audible):
        return np.zeros(frames.shape[1])
    powers = audible.sum(axis=1)
    typical: _Power = np.median(audible[powers >= np.median(powers)], axis=0)
    return typical


def _cutoff_hz(spectrum: _Power, rate_hz: int) -> float:
    """Return where a spectrum falls by 20 dB within 300 Hz and never recovers."""
    nyquist_hz = rate_hz / 2
    hz = np.arange(len(spectrum)) * (nyquist_hz / (len(spectrum) - 1))
    bands = (hz / _BAND_HZ).astype(int)
    sums = np.bincount(bands, weights=spectrum)
    means = sums / np.maximum(np.bincount(bands), 1)
    # Further down lies what leaks from a strong tone through the window.
    levels = 10 * np.log10(np.maximum(means, max(float(means.max()) * _RANGE, _FLOOR / len(spectrum))))
    edges = np.arange(int(_MIN_CUTOFF_HZ / _BAND_HZ), len(levels) - 3)
    below = np.array([np.median(levels[edge - _CLIFF_BANDS : edge]) for edge in edges])
    drops = below - np.array([np.percentile(levels[edge + 2 :], 90) for edge in edges])
    cliffs = np.flatnonzero(drops > _CLIFF_DB)
    if not len(cliffs):
        return nyquist_hz
    # The last one, where it is steepest: further up its own foot looks like another.
    first = max(0, cliffs[-1] - 2 * _CLIFF_BANDS)
    reference = below[first + int(drops[first : cliffs[-1] + 1].argmax())]
    return min(nyquist_hz, float(np.flatnonzero(levels >= reference - _EDGE_DB)[-1] + 0.5) * _BAND_HZ)


def _hum(mono: Sequence[NDArray[np.float32]], rate_hz: int) -> tuple[float, float]:
    """Return the mains frequency whose lines are steady in all excerpts, and their power; zeros without one."""
    size = round(_HUM_WINDOW_S * rate_hz)
    windows = [samples for samples in mono if len(samples) >= size]
    if not windows:
        return 0.0, 0.0
    spectra = np.concatenate([_spectra(samples, size) for samples in windows])
    found = [(sum(_lines(spectra, mains_hz, rate_hz / size)), mains_hz) for mains_hz in _MAINS_HZ]
    power, mains_hz = max(found)
    return (mains_hz, power) if power > 0 else (0.0, 0.0)


def _lines(spectra: _Power, mains_hz: float, bin_hz: float) -> Iterator[float]:
    """Yield the power of each harmonic that is there all the time; none unless the first or second is.

    Hum is steady and notes are not: what counts is the level that a line exceeds in four windows of five.
    """
    for harmonic in range(1, _HUM_HARMONICS + 1):
        centre, width = harmonic * mains_hz / bin_hz, _HUM_WIDTH_HZ / bin_hz
        line = spectra[:, round(centre - width) : round(centre + width) + 1]
        beside = np.concatenate(
            [
                spectra[:, round(centre - 4 * width) : round(centre - width)],
                spectra[:, round(centre + width) + 1 : round(centre + 4 * width)],
            ],
            axis=1,
        )
        noise = beside.mean(axis=1) * line.shape[1]
        is_steady = np.percentile(line.sum(axis=1) / np.maximum(noise, _FLOOR), 20) > _HUM_PROMINENCE
        if is_steady:
            yield max(0.0, float(np.percentile(line.sum(axis=1) - noise, 20)))
        elif harmonic == 2:
            return


def _noise_floor_dbfs(frames: _Power, cutoff_hz: float, rate_hz: int) -> float:
    """Level of the noise in the quietest tenth of the frames that are not digital silence.

    In noise the power of bins is exponential, so its median is ln 2 of the mean; lines of tones do not move it.
    """
    size = frames.shape[1]
    stop = max(8, int(0.9 * size * cutoff_hz / (rate_hz / 2)))
    medians = np.median(frames[:, 4:stop], axis=1) / np.log(2)
    audible = medians[medians > _FLOOR / size]
    return _db(float(np.percentile(audible, 10)) * stop) if len(audible) else _db(0.0)
