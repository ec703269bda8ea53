"""Waveform → mel → waveform: what a vocoder keeps of a recording."""

import numpy as np

from audiofoundation.audio.resample import resample
from audiofoundation.audio.waveform import Waveform
from audiofoundation.features.mel import Float32, log_mel
from audiofoundation.features.vocoder_protocol import Vocoder

_BLOCK_FRAMES = 24


def copy_synthesis(waveform: Waveform, vocoder: Vocoder, *, seed: int = 0) -> Float32:
    """Return the vocoder's copy, float32 [N] at its rate: as long as the recording, aligned to the sample.

    Args:
        waveform: the recording, any rate and number of channels.
        vocoder: of any kind; a streaming one is fed 24 frames at a time, as in use.
        seed: of the vocoder's starting phases.
    """
    config = vocoder.mel_config
    samples = resample(waveform.to_mono(), config.sample_rate_hz).samples[0]
    mel = log_mel(samples, config)
    stream = vocoder.create_stream(seed=seed)
    parts = [stream.push(mel[start : start + _BLOCK_FRAMES]) for start in range(0, len(mel), _BLOCK_FRAMES)]
    made = np.concatenate([*parts, stream.finish()])
    offset = config.frame_offset  # frame 0 is centred here; before it the copy is silent
    out = np.zeros(samples.size, np.float32)
    usable = made[: max(0, samples.size - offset)]
    out[offset : offset + usable.size] = usable
    return np.clip(out, -1, 1)
