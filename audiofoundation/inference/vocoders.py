"""Vocoders that need no weights, by name. Torch is not imported here: copying through them starts at once."""

import numpy as np

from audiofoundation.features.griffin_lim import GriffinLimVocoder, griffin_lim
from audiofoundation.features.mel import Float32, MelConfig, get_preset
from audiofoundation.features.vocoder_protocol import Vocoder

# Streaming Griffin-Lim stays the default until a trained vocoder beats it on recordings not trained on.
DEFAULT_VOCODER = "griffinlim-streaming"
_PRESET = "vocos24"
_OFFLINE_ITERATIONS = 60


class OfflineGriffinLim:
    """Griffin-Lim over the whole clip: the yardstick; it gives nothing before the last frame came."""

    name = "griffinlim"

    def __init__(self, config: MelConfig) -> None:
        self.mel_config = config

    def create_stream(self, *, seed: int = 0) -> "OfflineGriffinLimStream":
        return OfflineGriffinLimStream(self.mel_config, seed)


class OfflineGriffinLimStream:
    """Keeps all frames until `finish`."""

    def __init__(self, config: MelConfig, seed: int) -> None:
        self._config, self._seed = config, seed
        self._frames = [np.zeros((0, config.num_bands), np.float32)]

    def push(self, mel: Float32) -> Float32:
        self._frames.append(mel)
        return np.zeros(0, np.float32)

    def finish(self) -> Float32:
        mel = np.concatenate(self._frames)
        return griffin_lim(mel, self._config, num_iterations=_OFFLINE_ITERATIONS, seed=self._seed)


WEIGHTLESS = (GriffinLimVocoder.name, OfflineGriffinLim.name)


def create_weightless(name: str, preset: str = _PRESET) -> Vocoder | None:
    """Return the vocoder of that name, None when the name is of one with weights."""
    config = get_preset(preset)
    if name == GriffinLimVocoder.name:
        return GriffinLimVocoder(config)
    if name == OfflineGriffinLim.name:
        return OfflineGriffinLim(config)
    return None
